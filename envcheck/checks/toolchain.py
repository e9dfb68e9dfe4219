"""nvcc and gcc: against torch as DeepSpeed's operator builder demands, against each other, and against the GPUs.

All of it matters only where something is compiled. Tables: `deepspeed_cuda_minor`, `host_compiler`, `compute_capability`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from envcheck.checks.gpu import devices
from envcheck.checks.torch_build import capped, evidence, minor_of, release, row_for, rows, torch_build
from envcheck.facts.model import Absent
from envcheck.findings import Finding, Fix, Severity, Skip
from envcheck.matrix.settings import UNSAID, UNSET
from envcheck.matrix.versions import plain, satisfies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.context import Context, Outcome
    from envcheck.checks.torch_build import TorchBuild
    from envcheck.findings import Evidence

#: Packages that compile CUDA code on the user's machine.
COMPILING = frozenset({"deepspeed", "flash-attn", "apex", "xformers", "causal-conv1d", "mamba-ssm", "transformer-engine-torch"})

#: Optimizer types of a DeepSpeed config for which DeepSpeed compiles no operator.
PLAIN_OPTIMIZERS = frozenset({"sgd", "adagrad"})

#: What a finding about compiling hangs on where the settings do not say.
OPERATOR_UNKNOWN = "only if your settings make it compile one (its own Adam, or optimizer offload), which is not known"


def check_deepspeed_nvcc(context: Context) -> Iterator[Outcome]:
    """Find nvcc and torch that differ in the CUDA version more than DeepSpeed's operator builder allows.

    An error where the settings make it compile one, an info where they do not say, nothing where they compile none.
    """
    deepspeed = context.environment.packages.get("deepspeed")
    build = torch_build(context)
    if deepspeed is None or build is None or not build.cuda or plain(deepspeed.version) is None:
        return
    toolkit = context.environment.text("cuda_toolkit")
    nvcc = minor_of(toolkit) if toolkit else None
    if nvcc is None:
        if not isinstance(context.environment.fact("cuda_toolkit"), Absent):
            yield Skip("DeepSpeed and nvcc", f"nvcc `{toolkit}` is not a version" if toolkit else "cuda_toolkit unknown")
        return
    row = row_for(rows(context, "deepspeed_cuda_minor"), deepspeed.version, "deepspeed")
    if row is None or allowed(row, nvcc, build.cuda) or _turned_off(context, deepspeed.version):
        return
    compiles = compiles_operator(context)
    if compiles is not False:
        yield _refused(build, row, deepspeed.version, nvcc, evidence(context, "deepspeed_cuda_minor"), sure=compiles is True)


def allowed(row: dict[str, Any], nvcc: str, cuda: str) -> bool:
    """Whether DeepSpeed compiles with this nvcc beside a torch for `cuda` (both `major.minor`)."""
    return nvcc == cuda or (nvcc in row["minors"] and cuda in row["minors"])


def _turned_off(context: Context, deepspeed: str) -> bool:
    since = context.matrix.table("deepspeed_cuda_minor").get("skip_from", "0")
    return context.environment.text("env.DS_SKIP_CUDA_CHECK") == "1" and satisfies(deepspeed, f">={since}") is True


def compiles_operator(context: Context) -> bool | None:
    """Whether the training settings make DeepSpeed compile an operator; None where the settings do not say."""
    settings = context.settings
    offload = settings.get("zero_optimization.offload_optimizer.device")
    kind = settings.get("optimizer.type")
    if offload in ("cpu", "nvme"):
        return True
    if isinstance(kind, str):
        return kind.lower() not in PLAIN_OPTIMIZERS and settings.get("optimizer.params.torch_adam") is not True
    if UNSAID in (offload, kind):
        return None
    return False if kind is UNSET else None


def _refused(
    build: TorchBuild, row: dict[str, Any], deepspeed: str, nvcc: str, sources: tuple[Evidence, ...], *, sure: bool,
) -> Finding:  # fmt: skip
    major = nvcc.partition(".")[0] != str(build.cuda_major)
    listed = ", ".join(row["minors"]) or "none"
    rule = "another CUDA major is never accepted" if major else f"minors that may differ in this release: {listed}"
    skip = () if major else (Fix("do", "set `DS_SKIP_CUDA_CHECK=1`; minors of one CUDA major are compatible"),)
    newer = () if major or nvcc.startswith("13") else (Fix("package", "deepspeed>=0.17.2"),)
    return Finding(
        id="deepspeed-nvcc-differs-from-torch",
        severity=capped(Severity.ERROR, build.exact, build.told) if sure else Severity.INFO,
        title=f"DeepSpeed {deepspeed} refuses nvcc {nvcc} beside a torch for CUDA {build.cuda}",
        subjects=("deepspeed", "cuda_toolkit", "torch"),
        observed={"deepspeed": deepspeed, "cuda_toolkit": nvcc, "torch": build.text, "torch_cuda": build.cuda or ""},
        because=(
            build.why, f"DeepSpeed compiles its operators with the nvcc found, and {rule}",
            *(() if sure else (OPERATOR_UNKNOWN,)),
        ),
        certain=build.exact and build.told and sure,
        fixes=(Fix("fact", f"cuda_toolkit=={build.cuda}"), *newer, *skip),
        evidence=sources,
        symptom="`does not match the version torch was compiled with` when an operator (FusedAdam, CPUAdam) is built.",
    )  # fmt: skip


def check_host_compiler(context: Context) -> Iterator[Outcome]:
    """A gcc newer than nvcc accepts.

    An error while something is built here, a warning where the settings make DeepSpeed compile an operator, else an info.
    """
    toolkit, gcc = context.environment.text("cuda_toolkit"), context.environment.text("gcc")
    nvcc, compiler = plain(toolkit or ""), plain(gcc or "")
    if nvcc is None or compiler is None:
        return
    row = _compiler_row(context, str(nvcc.version))
    if row is None or compiler.version.major <= row["gcc_max"]:
        return
    building = context.environment.text("building") == "yes"
    compiling = "deepspeed" in context.environment.packages and compiles_operator(context) is True
    most = row["gcc_max"]
    yield Finding(
        id="gcc-too-new-for-nvcc",
        severity=Severity.ERROR if building else Severity.WARNING if compiling else Severity.INFO,
        title=f"gcc {compiler.version.major} is too new for nvcc {row['toolkit']}",
        subjects=("gcc", "cuda_toolkit"),
        observed={"gcc": gcc or "", "cuda_toolkit": toolkit or ""},
        because=(
            f"nvcc {row['toolkit']} accepts gcc up to {most}",
            *_why_compiled(building=building, compiling=compiling),
        ),
        certain=building,
        fixes=(
            Fix("fact", f"gcc<{most + 1}"),
            Fix("do", f"set `CC=gcc-{most} CXX=g++-{most}`, or `NVCC_PREPEND_FLAGS='-ccbin g++-{most}'`"),
            *_newer_toolkit(context, compiler.version.major),
        ),
        evidence=evidence(context, "host_compiler"),
        symptom="`unsupported GNU version! gcc versions later than ... are not supported` while an extension is built.",
    )  # fmt: skip


def _why_compiled(*, building: bool, compiling: bool) -> tuple[str, ...]:
    if building:
        return ()
    return ("the settings make DeepSpeed compile an operator" if compiling else "matters only where CUDA code is compiled here",)


def _compiler_row(context: Context, nvcc: str) -> dict[str, Any] | None:
    """The row of an nvcc release: the last row whose toolkit is not above it and of the same minor."""
    version = release(nvcc)
    fitting = [
        row
        for row in rows(context, "host_compiler")
        if release(row["toolkit"]) <= version and minor_of(row["toolkit"]) == f"{version.major}.{version.minor}"
    ]
    return fitting[-1] if fitting else None


def _newer_toolkit(context: Context, gcc: int) -> Iterator[Fix]:
    able = next((row["toolkit"] for row in rows(context, "host_compiler") if row["gcc_max"] >= gcc), None)
    if able:
        yield Fix("fact", f"cuda_toolkit>={able}")


def check_toolkit_gpu(context: Context) -> Iterator[Outcome]:
    """An nvcc that knows no visible GPU's compute capability: operators compiled here fail to build."""
    toolkit = context.environment.text("cuda_toolkit")
    nvcc = minor_of(toolkit) if toolkit else None
    if nvcc is None or COMPILING.isdisjoint(context.environment.packages):
        return
    for device in devices(context):
        row = next((row for row in rows(context, "compute_capability") if row["cc"] == device.text), None)
        why = _unknown_to(row, nvcc) if row else ""
        if why and row is not None:
            fix = f"cuda_toolkit>={row['first_toolkit']}" if "begins" in why else f"cuda_toolkit<={row['last_toolkit']}"
            yield Finding(
                id="nvcc-does-not-know-gpu",
                severity=Severity.WARNING,
                title=f"nvcc {nvcc} cannot compile for compute capability {device.text}",
                subjects=("cuda_toolkit", "gpu"),
                observed={"cuda_toolkit": toolkit or "", "gpu": device.shown},
                because=(why, "matters only where CUDA code is compiled here, as DeepSpeed does for its operators"),
                certain=False,
                fixes=(Fix("fact", fix),),
                evidence=evidence(context, "compute_capability"),
                symptom="`Unsupported gpu architecture` from nvcc.",
            )


def _unknown_to(row: dict[str, Any], nvcc: str) -> str:
    """Why an nvcc does not know a capability, or an empty string."""
    if "first_toolkit" in row and release(nvcc) < release(row["first_toolkit"]):
        return f"support for it begins with CUDA {row['first_toolkit']}"
    if "last_toolkit" in row and release(nvcc) > release(row["last_toolkit"]):
        return f"support for it ends with CUDA {row['last_toolkit']}"
    return ""
