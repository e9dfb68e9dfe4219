"""Python against torch: wheels that exist, and torch.compile. Tables: `torch`, `torch_compile_python`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.checks.torch_build import evidence, release, row_for, rows, torch_build, torch_row
from envcheck.findings import Finding, Fix, Severity, Skip
from envcheck.matrix.versions import plain, satisfies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.context import Context, Outcome
    from envcheck.checks.torch_build import TorchBuild

#: Usage word: compiles the model with torch.compile.
COMPILE = "torch-compile"


def check_torch_python(context: Context) -> Iterator[Outcome]:
    """A torch release without a wheel for this Python, and a Python that torch.compile refuses."""
    build = torch_build(context)
    if build is None:
        return
    python = context.environment.text("python")
    version = plain(python) if python else None
    if python is None or version is None:
        yield Skip("torch and Python", f"python `{python}` is not a version" if python else "python unknown")
        return
    minor = f"{version.version.major}.{version.version.minor}"
    row = torch_row(context, str(build.version))
    if row and build.published and satisfies(minor, row["python"]) is False:
        yield _no_wheel(context, build, python, minor, row["python"])
    refusal = row_for(rows(context, "torch_compile_python"), str(build.version), "torch")
    if refusal and release(minor) >= release(refusal["refused_from"]):
        yield from _compile(context, build, python, refusal["refused_from"])


def _no_wheel(context: Context, build: TorchBuild, python: str, minor: str, supported: str) -> Finding:
    fitting = [row["version"] for row in rows(context, "torch") if satisfies(minor, row["python"])]
    return Finding(
        id="torch-without-wheel-for-python",
        severity=Severity.ERROR,
        title=f"torch {build.text} has no wheel for Python {minor}",
        subjects=("torch", "python"),
        observed={"torch": build.text, "python": python},
        because=(f"its wheels are for Python `{supported}`",),
        certain=bool(build.source),
        fixes=(Fix("fact", f"python{supported}"), *(Fix("package", f"torch=={text}") for text in fitting[-1:])),
        evidence=evidence(context, "torch"),
        symptom="pip finds no matching distribution.",
    )


def _compile(context: Context, build: TorchBuild, python: str, refused: str) -> Iterator[Outcome]:
    told = COMPILE in context.settings.uses or context.settings.get("torch_compile") is True
    if not told:
        yield Skip("torch.compile and Python", f"Python {refused} and later is refused; whether you use it is not known")
        return
    yield Finding(
        id="torch-compile-refuses-python",
        severity=Severity.ERROR if build.exact else Severity.WARNING,
        title=f"torch.compile of torch {build.text} refuses Python {python}",
        subjects=("torch", "python", "torch_compile"),
        observed={"torch": build.text, "python": python},
        because=(f"Dynamo of torch {build.minor} refuses Python {refused} and later; eager training works",),
        certain=build.exact,
        fixes=(*_newer_torch(context, build, refused), Fix("fact", f"python<{refused}"), Fix("setting", "torch_compile=false")),
        evidence=evidence(context, "torch_compile_python"),
        symptom=f"`Python {refused}+ not yet supported for torch.compile`.",
    )


def _newer_torch(context: Context, build: TorchBuild, refused: str) -> Iterator[Fix]:
    """The oldest later torch release line whose Dynamo accepts this Python."""
    for row in rows(context, "torch"):
        if release(row["version"]) > build.version:
            limit = row_for(rows(context, "torch_compile_python"), row["version"], "torch")
            if limit is None or release(limit["refused_from"]) > release(refused):
                yield Fix("package", f"torch>={row['version']}")
                return
