"""bitsandbytes against torch's CUDA version: the wheel must bundle a library for it. Table: `bitsandbytes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from envcheck.checks.torch_build import capped, evidence, row_for, rows, torch_build
from envcheck.facts.model import Known
from envcheck.findings import Finding, Fix, Severity
from envcheck.matrix.versions import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.context import Context, Outcome
    from envcheck.checks.torch_build import TorchBuild


def check_bitsandbytes(context: Context) -> Iterator[Outcome]:
    """A bitsandbytes wheel without a library for torch's CUDA version."""
    package = context.environment.packages.get("bitsandbytes")
    version = plain(package.version) if package else None
    build = torch_build(context)
    if package is None or version is None or build is None or not build.cuda:
        return
    row = row_for(rows(context, "bitsandbytes"), package.version)
    if row is None or bundled(row, build.cuda) or _overridden(context):
        return
    yield Finding(
        id="bitsandbytes-without-cuda-library",
        severity=capped(Severity.ERROR, build.exact, version.exact),
        title=f"bitsandbytes {package.version} has no library for CUDA {build.cuda}",
        subjects=("bitsandbytes", "torch"),
        observed={"bitsandbytes": package.version, "torch": build.text, "torch_cuda": build.cuda},
        because=(build.why, f"this release bundles libraries for CUDA {', '.join(row['cuda'])}"),
        certain=build.exact and version.exact and build.told,
        fixes=tuple(_fixes(context, build, row)),
        evidence=evidence(context, "bitsandbytes"),
        symptom="`Configured CUDA binary not found` or `Could not find the bitsandbytes CUDA binary`: its layers raise.",
    )


def bundled(row: dict[str, Any], cuda: str) -> bool:
    """Whether a release serves a CUDA version.

    By its own library, or, where it falls back, by that of a lower minor of the same major.
    """
    if cuda in row["cuda"]:
        return True
    major, minor = _split(cuda)
    near = any(_split(text)[0] == major and _split(text)[1] <= minor for text in row["cuda"])
    return near and bool(row.get("falls_back"))


def _split(cuda: str) -> tuple[int, int]:
    major, _, minor = cuda.partition(".")
    return int(major), int(minor)


def _overridden(context: Context) -> bool:
    name = context.matrix.table("bitsandbytes").get("override", "")
    return isinstance(context.environment.fact(f"env.{name}"), Known)


def _fixes(context: Context, build: TorchBuild, row: dict[str, Any]) -> Iterator[Fix]:
    """The newest releases with such a library, and another bundled library of the same major."""
    for entry in reversed(rows(context, "bitsandbytes")):
        if bundled(entry, build.cuda or ""):
            yield Fix("package", f"bitsandbytes{entry['versions']}")
            break
    same = [text for text in row["cuda"] if text.startswith(f"{build.cuda_major}.")]
    if same:
        name = context.matrix.table("bitsandbytes")["override"]
        yield Fix("do", f"set `{name}={same[-1].replace('.', '')}`, a bundled library of the same CUDA major")
