"""torchvision, torchaudio, xformers and vLLM against torch; whether their CUDA builds agree is said by rules.

Tables: `torch_pairing`, `xformers`, `vllm`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from envcheck.checks.torch_build import (
    capped,
    evidence,
    minor_of,
    row_for,
    rows,
    torch_build,
)
from envcheck.facts.model import Known
from envcheck.findings import Finding, Fix, Severity
from envcheck.matrix.versions import plain, satisfies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.context import Context, Outcome
    from envcheck.checks.torch_build import TorchBuild

SYMPTOMS = {
    "torchvision": "`operator torchvision::nms does not exist` at import, or operators missing later.",
    "torchaudio": "`Could not load this library` for libtorchaudio at import.",
    "xformers": "`xFormers can't load C++/CUDA extensions`: attention falls back or raises.",
    "vllm": "`undefined symbol` when vLLM imports its compiled core.",
}


def check_pairing(context: Context) -> Iterator[Outcome]:
    """Companions of torch that were compiled for another torch."""
    build = torch_build(context)
    if build is None:
        return
    for name in ("torchvision", "torchaudio"):
        yield from _companion(context, build, name)
    for name in ("xformers", "vllm"):
        yield from _pinned(context, build, name)


def _companion(context: Context, build: TorchBuild, name: str) -> Iterator[Finding]:
    """Torchvision or torchaudio of another torch minor."""
    package = context.environment.packages.get(name)
    version = plain(package.version) if package else None
    if package is None or version is None:
        return
    if not build.exact and not version.exact:
        return  # a vendor's container: it ships its own pairs
    loose = row_for([row for row in rows(context, "torch_pairing", "open") if row["package"] == name], package.version)
    if loose is not None and satisfies(str(build.version), loose["torch"]):
        return
    wanted = [row[name] for row in rows(context, "torch_pairing") if minor_of(row["torch"]) == build.minor]
    needed = [] if loose else _torch_of(context, name, str(version.version))
    if build.minor in map(minor_of, needed) or not (needed or loose or wanted):
        return
    yield _wrong_companion(context, build, name, package.version, version.exact, wanted, loose, needed)


def _torch_of(context: Context, name: str, version: str) -> list[str]:
    """The torch releases that a companion's version belongs to; for a version that is not listed, those of its minor."""
    entries = rows(context, "torch_pairing")
    exact = [row["torch"] for row in entries if row[name] == version]
    return exact or [row["torch"] for row in entries if minor_of(row[name]) == minor_of(version)]


def _wrong_companion(
    context: Context, build: TorchBuild, name: str, text: str, exact: bool, wanted: list[str],
    loose: dict[str, Any] | None, needed: list[str],
) -> Finding:  # fmt: skip
    belongs = loose["torch"] if loose else ", ".join(needed)
    tried = not (name == "torchaudio" and loose and build.minor == "2.10")
    reasons = [f"{name} {text} is compiled for torch {belongs}"] if belongs else []
    if wanted:
        reasons.append(f"torch {build.minor} goes with {name} {', '.join(dict.fromkeys(wanted))}")
    if not tried:
        reasons.append("this release carries no pin, and nobody is known to have tried it on torch 2.10")
    return Finding(
        id=f"{name}-for-another-torch",
        severity=capped(Severity.ERROR, build.exact, exact, tried),
        title=f"`{name}` {text} was compiled for another torch than {build.text}",
        subjects=(name, "torch"),
        observed={name: text, "torch": build.text},
        because=tuple(reasons),
        certain=build.exact and exact and tried,
        fixes=tuple(_companion_fixes(context, build, name, needed)),
        evidence=evidence(context, "torch_pairing"),
        symptom=SYMPTOMS[name],
    )


def _companion_fixes(context: Context, build: TorchBuild, name: str, needed: list[str]) -> Iterator[Fix]:
    """The companion of this torch (of its patch release, else of the newest of its minor), else the torch of the companion."""
    entries = [row for row in rows(context, "torch_pairing") if minor_of(row["torch"]) == build.minor]
    exact = [row for row in entries if row["torch"] == str(build.version)]
    for row in (exact or entries[-1:])[:1]:
        yield Fix("package", f"{name}=={row[name]}")
    for text in needed[-1:]:
        yield Fix("package", f"torch=={text}")


def _pinned(context: Context, build: TorchBuild, name: str) -> Iterator[Finding]:
    """Xformers or vLLM, whose releases are compiled for one torch each."""
    package = context.environment.packages.get(name)
    version = plain(package.version) if package else None
    if package is None or version is None or not version.exact:
        return
    row = next((row for row in rows(context, name) if row["version"] == str(version.version)), None)
    if row is None or satisfies(str(build.version), row.get("loads", row["torch"])) is not False:
        return
    same_minor = minor_of(row["torch"].removeprefix("==")) == build.minor
    yield Finding(
        id=f"{name}-for-another-torch",
        severity=capped(Severity.ERROR, build.exact, not same_minor, build.source != "conda"),
        title=f"`{name}` {package.version} was compiled for another torch than {build.text}",
        subjects=(name, "torch"),
        observed={name: package.version, "torch": build.text},
        because=(
            f"{name} {package.version} belongs to torch{row['torch']}",
            *(("only the patch release differs: it may load",) if same_minor else ()),
        ),
        certain=build.exact and not same_minor,
        fixes=(Fix("package", f"torch{row['torch']}"), *_release_for(context, build, name)),
        evidence=evidence(context, name),
        symptom=SYMPTOMS[name],
    )


def _release_for(context: Context, build: TorchBuild, name: str) -> Iterator[Fix]:
    """The newest listed release of a package that belongs to the installed torch."""
    fitting = [row["version"] for row in rows(context, name) if satisfies(str(build.version), row.get("loads", row["torch"]))]
    if fitting:
        yield Fix("package", f"{name}=={fitting[-1]}")


def check_installing_xformers(context: Context) -> Iterator[Outcome]:
    """Warn where installing xformers (fact `installing`) would replace torch, because the release pins another one."""
    installing = context.environment.fact("installing")
    build = torch_build(context)
    if build is None or not isinstance(installing, Known):
        return
    for line in (installing.value,) if isinstance(installing.value, str) else installing.value:
        name, _, version = line.partition("==")
        if name.strip().lower() != "xformers":
            continue
        entries = rows(context, "xformers")
        row = next((row for row in entries if row["version"] == version.strip()), None if version else entries[-1])
        if row is None or satisfies(str(build.version), row["torch"]) is not False:
            continue
        yield Finding(
            id="xformers-would-replace-torch",
            severity=Severity.WARNING,
            title="Installing xformers would replace torch",
            subjects=("xformers", "torch"),
            observed={"torch": build.text, "installing": line},
            because=(f"xformers {row['version']} requires torch{row['torch']}; pip swaps torch and leaves torchvision behind",),
            certain=build.exact,
            fixes=tuple(_release_for(context, build, "xformers")),
            evidence=evidence(context, "xformers"),
        )
