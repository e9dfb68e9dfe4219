"""GPUs that an installed compiled package cannot run on. Tables: `flash_attn`, `bitsandbytes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from envcheck.checks.gpu import devices
from envcheck.checks.torch_build import capped, evidence, release, row_for, rows, torch_build
from envcheck.findings import Finding, Fix, Severity
from envcheck.matrix.versions import plain, satisfies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.context import Context, Outcome
    from envcheck.checks.gpu import Device
    from envcheck.facts.model import Distribution


class Need(NamedTuple):
    """The lowest compute capability of a package's kernels, with the reason in words."""

    text: str
    why: str


def check_gpu_packages(context: Context) -> Iterator[Outcome]:
    """flash-attn and bitsandbytes without kernels for a visible GPU, and LLM.int8() below its lowest capability."""
    packages = context.environment.packages
    flash, bits = packages.get("flash-attn"), packages.get("bitsandbytes")
    if (flash or bits) and (found := devices(context)):
        if flash and plain(flash.version):
            yield from _judge(context, flash, "flash_attn", _flash_needs(context, flash), found)
        if bits and plain(bits.version):
            yield from _judge(context, bits, "bitsandbytes", _bitsandbytes_needs(context, bits), found)
            yield from _int8(context, bits, found)


def _flash_needs(context: Context, package: Distribution) -> Need | None:
    row = row_for(rows(context, "flash_attn", "gpus"), package.version)
    return Need(row["min_cc"], "FlashAttention-2 is written for Ampere and later") if row else None


def _bitsandbytes_needs(context: Context, package: Distribution) -> Need | None:
    row = row_for(rows(context, "bitsandbytes"), package.version)
    build = torch_build(context)
    if row is None or build is None or not build.cuda:
        return None
    found = [text for text in (row.get("min_cc"), _of_library(row, build.cuda)) if text]
    if not found:
        return None
    lowest = max(found, key=release)
    return Need(lowest, f"its library for CUDA {build.cuda} holds kernels from compute capability {lowest} on")


def _of_library(row: dict[str, Any], cuda: str) -> str | None:
    """The lowest capability of the library that serves a CUDA version."""
    if satisfies(cuda, ">=13.0"):
        return row.get("min_cc_cu130")
    return row.get("min_cc_cu128") if satisfies(cuda, ">=12.8") else None


def _judge(
    context: Context, package: Distribution, table: str, need: Need | None, found: list[Device],
) -> Iterator[Finding]:  # fmt: skip
    lacking = [device for device in found if need and device.capability < release(need.text)]
    if need is None or not lacking:
        return
    yield Finding(
        id=f"{package.name}-not-for-this-gpu",
        severity=capped(Severity.ERROR, len(lacking) == len(found)),
        title=f"`{package.name}` {package.version} has no kernels for compute capability {lacking[0].text}",
        subjects=(package.name, "gpu"),
        observed={package.name: package.version, "gpu": ", ".join(device.shown for device in lacking)},
        because=(need.why,),
        certain=True,
        fixes=(Fix("fact", f"gpu.compute_capability>={need.text}"), Fix("do", f"leave `{package.name}` unused")),
        evidence=evidence(context, table),
        symptom="It imports, and the first call raises or finds no kernel image.",
    )


def _int8(context: Context, package: Distribution, found: list[Device]) -> Iterator[Finding]:
    """LLM.int8() needs the int8 tensor cores of Turing: a feature is lost, the rest works."""
    least = context.matrix.table("bitsandbytes").get("int8_min_cc")
    lacking = [device for device in found if least and device.capability < release(least)]
    if not lacking or satisfies(package.version, ">=0.37") is not True:
        return
    told = context.settings.get("load_in_8bit") is True
    only = () if told else ("matters only if you load in 8 bits",)
    yield Finding(
        id="bitsandbytes-int8-not-for-this-gpu",
        severity=Severity.WARNING if told else Severity.INFO,
        title=f"LLM.int8() is slow or missing on compute capability {lacking[0].text}",
        subjects=("bitsandbytes", "gpu"),
        observed={"bitsandbytes": package.version, "gpu": ", ".join(device.shown for device in lacking)},
        because=(f"int8 tensor cores begin with compute capability {least}", *only),
        certain=told,
        fixes=(Fix("do", "quantise to 4 bits, or train in 16 bits"), Fix("fact", f"gpu.compute_capability>={least}")),
        evidence=evidence(context, "bitsandbytes"),
    )
