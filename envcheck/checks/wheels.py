"""Compiled add-ons (flash-attn, causal-conv1d, mamba-ssm and others) against torch, CUDA, the C++ ABI and Python.

The name of the installed wheel, where it is known, says for what it was compiled.
Tables: `flash_attn`, `causal_conv1d`, `mamba_ssm`, `torch`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from envcheck.checks.torch_build import evidence, release, row_for, rows, torch_build, torch_row
from envcheck.findings import Evidence, Finding, Fix, Severity
from envcheck.matrix.versions import part, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.context import Context, Outcome
    from envcheck.checks.torch_build import TorchBuild
    from envcheck.facts.model import Distribution

#: Package -> table of its published wheels.
TABLES = {"flash-attn": "flash_attn", "causal-conv1d": "causal_conv1d", "mamba-ssm": "mamba_ssm"}

#: What the names of wheels say; few environments have one, so these are compiled when one is seen.
BUILT_FOR = r"(?i)cu(?P<cuda>\d{2,3})\.?torch(?P<torch>\d+\.\d+)[\d.]*?(?:cxx11abi(?P<abi>true|false))?(?![\w.])"
WHEEL = r"(?i)-(?P<python>(?:cp|py)\d+)-(?P<abi>[a-z0-9]+)-(?P<platform>[\w.]+)\.whl"
MANYLINUX = r"manylinux_(\d+)_(\d+)_"

EVIDENCE = (
    Evidence("docs", "PyPA specifications: Binary distribution format, file name"),
    Evidence("issue", "Dao-AILab/flash-attention#821"),
)


class BuiltFor(NamedTuple):
    """What a wheel's name says it was compiled for; empty where it does not say.

    Attributes:
        label: The part of the name that says it, for messages.
        torch: `major.minor`.
        cuda_major: CUDA major.
        abi: C++11 ABI, `true` or `false`.
        python: `major.minor`, empty for a stable-ABI or pure wheel.
        glibc: Lowest glibc of a manylinux tag.
    """

    label: str
    torch: str = ""
    cuda_major: str = ""
    abi: str = ""
    python: str = ""
    glibc: str = ""


def built_for(package: Distribution) -> BuiltFor | None:
    """What an installed package was compiled for, by its wheel's name or its local version; None where neither says."""
    name = package.direct_url.replace("%2B", "+").replace("%2b", "+").partition("#")[0].partition("?")[0].rpartition("/")[2]
    name = name if name.endswith(".whl") else ""
    label = name or (part(package.version, "local") or "")
    found = re.search(BUILT_FOR, label)
    tags = re.search(WHEEL, name)
    if not found and not tags:
        return None
    return BuiltFor(
        label,
        torch=found["torch"] if found else "",
        cuda_major=found["cuda"][:2] if found else "",
        abi=(found["abi"] or "").lower() if found else "",
        python=_python(tags["python"], tags["abi"]) if tags else "",
        glibc=_glibc(tags["platform"]) if tags else "",
    )


def _python(python: str, abi: str) -> str:
    """`3.10` for cp310-cp310; empty for abi3 and py3-none wheels."""
    if not python.lower().startswith("cp") or abi.lower() in ("abi3", "none"):
        return ""
    digits = python[2:]
    return f"{digits[0]}.{digits[1:]}"


def _glibc(platform: str) -> str:
    """The lowest glibc among the manylinux tags of a wheel, or an empty string."""
    found = [(int(major), int(minor)) for major, minor in re.findall(MANYLINUX, platform)]
    return "{}.{}".format(*min(found)) if found else ""


def check_wheel_names(context: Context) -> Iterator[Outcome]:
    """Installed wheels whose name says another torch, CUDA major, C++ ABI, Python or glibc than there is."""
    build = torch_build(context)
    for package in context.environment.packages.values():
        if not package.direct_url and "torch" not in package.version:
            continue
        told = built_for(package)
        if told is not None:
            reasons = [*_machine_reasons(context, told), *(_torch_reasons(context, build, told) if build else ())]
            if reasons:
                yield _wrong_wheel(package, told, build, reasons)


def _torch_reasons(context: Context, build: TorchBuild, told: BuiltFor) -> Iterator[tuple[str, str]]:
    """Pairs of subject and sentence."""
    if told.torch and told.torch != build.minor:
        yield "torch", f"it was compiled for torch {told.torch}, and torch is {build.text}"
    if told.cuda_major and build.cuda_major and build.told and told.cuda_major != str(build.cuda_major):
        yield "torch", f"it was compiled for CUDA {told.cuda_major}, and torch is built for CUDA {build.cuda}"
    abi = torch_abi(context, build)
    if told.abi and abi and told.abi != abi and told.torch == build.minor:
        yield "torch", f"it was compiled with cxx11abi={told.abi.upper()}, and torch with {abi.upper()}"


def _machine_reasons(context: Context, told: BuiltFor) -> Iterator[tuple[str, str]]:
    python, glibc = context.environment.text("python"), context.environment.text("glibc")
    version = plain(python) if python else None
    if told.python and version and told.python != f"{version.version.major}.{version.version.minor}":
        yield "python", f"it is for Python {told.python}, and this is {python}"
    system = plain(glibc) if glibc else None
    if told.glibc and system and system.version < release(told.glibc):
        yield "glibc", f"it needs glibc {told.glibc}, and this system has {glibc}"


def torch_abi(context: Context, build: TorchBuild) -> str:
    """The C++11 ABI of torch, `true` or `false`: its fact, else the table for published wheels; empty where unknown."""
    fact = context.environment.text("torch_cxx11_abi")
    if fact:
        return fact.lower()
    row = torch_row(context, str(build.version))
    if row is None or not build.published or not build.tag or not build.told:
        return ""
    return "true" if "*" in row["cxx11_abi"] or build.tag in row["cxx11_abi"] else "false"


def _wrong_wheel(
    package: Distribution, told: BuiltFor, build: TorchBuild | None, reasons: list[tuple[str, str]],
) -> Finding:  # fmt: skip
    exact = build is None or build.exact
    subjects = dict.fromkeys([package.name, *(subject for subject, _ in reasons)])
    return Finding(
        id="wheel-for-another-environment",
        severity=Severity.ERROR if exact else Severity.WARNING,
        title=f"The installed wheel of `{package.name}` was compiled for another environment",
        subjects=tuple(subjects),
        observed={package.name: told.label, **({"torch": build.text} if build and "torch" in subjects else {})},
        because=tuple(sentence for _, sentence in reasons),
        certain=exact,
        fixes=(Fix("do", f"install the `{package.name}` wheel for this torch, CUDA, ABI and Python, without pip's cache"),),
        evidence=EVIDENCE,
        symptom="`undefined symbol` or a missing library when it is imported.",
    )


def check_addon_wheels(context: Context) -> Iterator[Outcome]:
    """Add-ons for which no wheel was published for this torch, CUDA or Python: information, for whoever reinstalls."""
    build = torch_build(context)
    if build is None:
        return
    for name, table in TABLES.items():
        package = context.environment.packages.get(name)
        row = row_for(rows(context, table), package.version) if package else None
        if package is None or row is None or ((told := built_for(package)) and told.torch):
            continue
        reasons = [*_no_windows(context, table), *outside(context, build, row)]
        if reasons:
            yield Finding(
                id=f"{name}-without-wheel",
                severity=Severity.INFO,
                title=f"No wheel of `{name}` {package.version} was published for this combination",
                subjects=(name, "torch"),
                observed={name: package.version, "torch": build.text},
                because=(*reasons, "whoever reinstalls it compiles it, which takes nvcc and much time"),
                certain=build.exact,
                fixes=tuple(_covering(context, build, name, table)),
                evidence=evidence(context, table),
            )


def outside(context: Context, build: TorchBuild, row: dict[str, object]) -> Iterator[str]:
    """Why a row of a wheel table does not cover this environment."""
    minor = release(build.minor)
    if minor > release(str(row["torch_max"])):
        yield f"its wheels end at torch {row['torch_max']}"
    if "torch_min" in row and minor < release(str(row["torch_min"])):
        yield f"its wheels begin at torch {row['torch_min']}"
    majors = row.get("cuda")
    if isinstance(majors, list) and build.cuda_major and build.told and build.cuda_major not in majors:
        yield f"it has no wheel for CUDA {build.cuda_major}"
    version = plain(context.environment.text("python") or "")
    python = release(f"{version.version.major}.{version.version.minor}") if version else None
    if "python_max" in row and python and python > release(str(row["python_max"])):
        yield f"its wheels end at Python {row['python_max']}"


def _no_windows(context: Context, table: str) -> tuple[str, ...]:
    missing = context.environment.text("system") == "Windows" and context.matrix.table(table).get("windows") is False
    return ("no wheels are published for Windows",) if missing else ()


def _covering(context: Context, build: TorchBuild, name: str, table: str) -> Iterator[Fix]:
    """The newest range of releases whose wheels cover this environment."""
    for row in reversed(rows(context, table)):
        if not list(outside(context, build, row)):
            yield Fix("package", f"{name}{row['versions']}")
            return
