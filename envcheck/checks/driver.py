"""The NVIDIA driver against the CUDA version of torch and against the GPUs. Tables: `cuda_driver`, `torch`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from envcheck.checks.gpu import devices
from envcheck.checks.torch_build import cuda_of_tag, evidence, release, rows, torch_build
from envcheck.facts.model import Absent
from envcheck.findings import Finding, Fix, Severity, Skip
from envcheck.matrix.versions import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packaging.version import Version

    from envcheck.checks.context import Context, Outcome
    from envcheck.checks.torch_build import TorchBuild


def check_driver(context: Context) -> Iterator[Outcome]:
    """A driver below the floor of torch's CUDA major, and a driver branch that no longer serves a GPU.

    Between the floor of a major and the toolkit's own driver, minor-version compatibility holds: nothing is said.
    """
    environment = context.environment
    if isinstance(environment.fact("driver"), Absent):
        return
    driver = environment.text("driver")
    known = plain(driver) if driver else None
    if driver and known:
        yield from _branch(context, driver, known.version)
    build = torch_build(context)
    if build is None or build.cuda_major is None:
        return
    if driver and known:
        yield from _floor(context, build, driver, known.version)
    elif environment.text("driver_cuda"):
        yield from _reported(context, build, environment.text("driver_cuda") or "")
    else:
        yield Skip("driver", f"driver `{driver}` is not a version" if driver else "driver unknown")


def _majors(context: Context) -> dict[int, str]:
    return {row["major"]: row["driver_min"] for row in rows(context, "cuda_driver", "majors")}


def _floor(context: Context, build: TorchBuild, driver: str, version: Version) -> Iterator[Finding]:
    floors = _majors(context)
    floor = floors.get(build.cuda_major or 0)
    if floor is None or version >= release(floor) or context.environment.text("cuda_compat") == "yes":
        return
    usable = frozenset(major for major, least in floors.items() if release(least) <= version)
    yield _too_old(context, build, {"driver": driver}, floor, usable, f"driver {driver} is older than {floor}")


def _reported(context: Context, build: TorchBuild, driver_cuda: str) -> Iterator[Finding]:
    """Judge by the CUDA version that the driver reports, where its own version is not known."""
    reported = plain(driver_cuda)
    floors = _majors(context)
    if reported is None or build.cuda_major not in floors or context.environment.text("cuda_compat") == "yes":
        return
    major = reported.version.major
    if major < build.cuda_major:
        usable = frozenset(known for known in floors if known <= major)
        reason = f"the driver reports CUDA {driver_cuda}"
        yield _too_old(context, build, {"driver_cuda": driver_cuda}, floors[build.cuda_major], usable, reason)


def _too_old(
    context: Context, build: TorchBuild, seen: dict[str, str], floor: str, usable: frozenset[int], reason: str,
) -> Finding:  # fmt: skip
    compat = context.environment.text("cuda_compat")
    unless = () if compat else ("the cuda-compat package would lift this on a data-center GPU; nothing says whether it is used",)
    return Finding(
        id="driver-too-old-for-torch-cuda",
        severity=Severity.ERROR if build.exact else Severity.WARNING,
        title=f"The driver is too old for CUDA {build.cuda_major}, which torch is built for",
        subjects=("driver", "torch"),
        observed={**seen, "torch": build.text, "torch_cuda": build.cuda or ""},
        because=(build.why, f"CUDA {build.cuda_major} runs on drivers from {floor} on", reason, *unless),
        certain=build.exact and build.told and compat is not None,
        fixes=(Fix("fact", f"driver>={floor}"), *_other_build(context, build, usable)),
        evidence=evidence(context, "cuda_driver"),
        symptom="`torch.cuda.is_available()` is False, or the first CUDA call says that the NVIDIA driver is too old.",
    )


def _other_build(context: Context, build: TorchBuild, usable: frozenset[int]) -> Iterator[Fix]:
    """The same torch, else the newest older one, with a build that the driver can run."""
    for row in reversed(rows(context, "torch")):
        if release(row["version"]) > build.version:
            continue
        fitting = [tag for tag in row["builds"] if _major(tag) in usable]
        if fitting:
            yield Fix("package", f"torch=={row['version']}+{fitting[-1]}")
            return


def _major(tag: str) -> int:
    return int((cuda_of_tag(tag) or "0").partition(".")[0])


def _branch(context: Context, driver: str, version: Version) -> Iterator[Finding]:
    """GPUs whose generation the driver's branch has dropped."""
    for device in devices(context):
        row = _dropped(context, device.capability, version)
        if row is not None:
            yield _not_served(context, device.shown, driver, row)
            return


def _dropped(context: Context, capability: Version, driver: Version) -> dict[str, Any] | None:
    """The row of the oldest generation rule that this GPU and driver fall under."""
    fitting = [
        row
        for row in rows(context, "cuda_driver", "gpus")
        if capability < release(row["below"]) and driver >= release(row["refused_from"])
    ]
    return min(fitting, key=lambda row: release(row["below"]), default=None)


def _not_served(context: Context, shown: str, driver: str, row: dict[str, Any]) -> Finding:
    return Finding(
        id="driver-branch-without-gpu",
        severity=Severity.ERROR,
        title=f"Driver {driver} no longer serves {row['generation']} GPUs",
        subjects=("driver", "gpu"),
        observed={"driver": driver, "gpu": shown},
        because=(f"R{row['last_branch']} is the last driver branch for compute capability below {row['below']}",),
        certain=False,
        fixes=(Fix("fact", f"driver<{int(row['last_branch']) + 1}"),),
        evidence=evidence(context, "cuda_driver"),
        symptom="The GPU does not appear in nvidia-smi, and torch finds no device.",
    )
