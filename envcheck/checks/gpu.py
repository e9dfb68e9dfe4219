"""The visible GPUs against the architectures of the torch build. Tables: `torch_arch`, `gpu`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from envcheck.checks.torch_build import (
    capped,
    cuda_of_tag,
    evidence,
    release,
    row_for,
    rows,
    torch_build,
)
from envcheck.findings import Finding, Fix, Severity, Skip
from envcheck.matrix.versions import plain, satisfies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packaging.version import Version

    from envcheck.checks.context import Context, Outcome
    from envcheck.checks.torch_build import TorchBuild


class Device(NamedTuple):
    """One kind of visible GPU: name (may be empty) and compute capability as text and as a version."""

    name: str
    text: str
    capability: Version

    @property
    def shown(self) -> str:
        """`NVIDIA A100 (8.0)`, or the capability alone."""
        return f"{self.name} ({self.text})" if self.name else f"compute capability {self.text}"


def devices(context: Context) -> list[Device]:
    """The visible GPUs whose compute capability is known or follows from the name; each kind once."""
    environment = context.environment
    if environment.gpus is None:
        told = environment.text("gpu.compute_capability")
        found = [("", told)] if told else []
    else:
        gpus = context.matrix.completed(environment).gpus or ()
        found = [(gpu.name, gpu.compute_capability) for gpu in gpus]
    kinds = {}
    for name, text in found:
        version = plain(text) if text else None
        if version:
            kinds[name, text] = Device(name, text, version.version)
    return list(kinds.values())


def check_gpu_torch(context: Context) -> Iterator[Outcome]:
    """GPUs for which the torch build has neither machine code nor PTX: the first kernel fails."""
    build = torch_build(context)
    if build is None or build.cuda == "" or build.source in ("ngc", "source"):
        return
    if context.environment.gpus is None and not context.environment.text("gpu.compute_capability"):
        if build.cuda:
            yield Skip("gpu", "GPU unknown")
        return
    machine = context.environment.text("machine") or "x86_64"
    entries = [row for row in rows(context, "torch_arch") if row["machine"] == machine]
    for device in devices(context):
        yield from _judge(context, build, entries, device)


def _judge(context: Context, build: TorchBuild, entries: list[dict[str, Any]], device: Device) -> Iterator[Finding]:
    exceptions = rows(context, "torch_arch", "exceptions")
    fitting = [row for row in entries if satisfies(str(build.version), row["torch"])]
    row = next((row for row in fitting if row["build"] == build.tag), None)
    if row is not None:
        if not serves(row, device.capability, exceptions):
            listed = ", ".join(row["cc"]) + (f" and PTX for {row['ptx']}" if row.get("ptx") else "")
            reason = f"the {row['build']} build of torch {build.minor} has code for {listed}"
            yield _not_in_build(context, build, reason, entries, device)
        return
    floor = row_for(rows(context, "torch_arch", "floors"), build.cuda, "cuda") if build.cuda and build.published else None
    if floor is not None and device.capability < release(floor["min_cc"]):
        reason = f"its code begins at {floor['min_cc']} or later: {floor['why']}"
        yield _not_in_build(context, build, reason, entries, device)
        return
    complete = context.matrix.table("torch_arch").get("complete", "")
    whole = bool(fitting and complete and build.cuda is None and satisfies(str(build.version), complete))
    if whole and not any(serves(row, device.capability, exceptions) for row in fitting):
        reason = f"no published build of torch {build.text} has code for compute capability {device.text}"
        yield _not_in_build(context, build, reason, entries, device)


def serves(row: dict[str, Any], capability: Version, exceptions: list[dict[str, Any]]) -> bool:
    """Whether a build's machine code or PTX runs on a GPU.

    Machine code runs on its own major with the same or a later minor, but for the listed exceptions; PTX on the same
    or any later capability. Source: CUDA C++ Programming Guide, binary and PTX compatibility.
    """
    not_by: list[str] = next((item["not_by"] for item in exceptions if release(item["gpu"]) == capability), [])
    for text in row["cc"]:
        code = release(text)
        if text not in not_by and code.major == capability.major and code.minor <= capability.minor:
            return True
    return bool(row.get("ptx")) and release(row["ptx"]) <= capability


def _not_in_build(
    context: Context, build: TorchBuild, reason: str, entries: list[dict[str, Any]], device: Device,
) -> Finding:  # fmt: skip
    known_source = build.source != "conda" and build.exact
    return Finding(
        id="gpu-not-in-torch-build",
        severity=capped(Severity.ERROR, known_source),
        title=f"This torch build has no code for compute capability {device.text}",
        subjects=("gpu", "torch"),
        observed={"gpu": device.shown, "torch": build.text, **({"torch_cuda": build.cuda} if build.cuda else {})},
        because=(build.why, reason) if build.cuda else (reason,),
        certain=known_source and build.told,
        fixes=tuple(_fixes(context, build, entries, device)),
        evidence=evidence(context, "torch_arch"),
        symptom="`no kernel image is available for execution on the device`, and a warning at start.",
    )


def _fixes(context: Context, build: TorchBuild, entries: list[dict[str, Any]], device: Device) -> Iterator[Fix]:
    """The same torch with another build, then the newest torch that serves this GPU.

    Only builds that the driver can run, unless there is none: then the driver has to change as well.
    """
    exceptions = rows(context, "torch_arch", "exceptions")
    serving = [row for row in entries if serves(row, device.capability, exceptions)]
    able = [row for row in serving if driver_runs(context, row["build"])] or serving
    offers = [
        (row["version"], tag)
        for row in reversed(rows(context, "torch"))
        if (tag := next((tag for tag in reversed(row["builds"]) if _has(able, row["version"], tag)), None))
    ]
    chosen = [offer for offer in offers if offer[0] == str(build.version)] + offers[:1]
    for version, tag in dict.fromkeys(chosen):
        yield Fix("package", f"torch=={version}+{tag}")
    if not chosen:
        yield Fix("do", "build torch from source for this GPU, or use another GPU")


def _has(able: list[dict[str, Any]], version: str, tag: str) -> bool:
    return any(row["build"] == tag and satisfies(version, row["torch"]) for row in able)


def driver_runs(context: Context, tag: str) -> bool:
    """Whether the driver, where it is known, reaches the floor of a build's CUDA major."""
    driver = plain(context.environment.text("driver") or "")
    row = next(
        (row for row in rows(context, "cuda_driver", "majors") if (cuda_of_tag(tag) or "").startswith(f"{row['major']}.")),
        None,
    )
    return driver is None or row is None or driver.version >= release(row["driver_min"])
