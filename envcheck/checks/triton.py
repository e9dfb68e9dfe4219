"""triton against torch, whose Inductor is written against one release line of it. Tables: `triton`, `torch`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from envcheck.checks.torch_build import capped, evidence, minor_of, rows, torch_build, torch_row
from envcheck.findings import Evidence, Finding, Fix, Severity
from envcheck.matrix.versions import plain, satisfies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packaging.version import Version

    from envcheck.checks.context import Context, Outcome
    from envcheck.checks.torch_build import TorchBuild
    from envcheck.facts.model import Distribution


def check_triton(context: Context) -> Iterator[Outcome]:
    """Triton against torch: pairs known to break are errors, another release line than torch pins is a warning.

    On Windows triton is `triton-windows`, which has triton's versions; torch pins none there.
    """
    build = torch_build(context)
    packages, windows = context.environment.packages, context.environment.text("system") == "Windows"
    package = packages.get("triton-windows") or (None if windows else packages.get("triton"))
    version = plain(package.version) if package else None
    if build is None or package is None or version is None:
        return
    pin = (torch_row(context, str(build.version)) or {}).get("triton")
    broken = next((row for row in rows(context, "triton", "breaks") if _breaks(row, build, version.version)), None)
    if broken is not None:
        yield _triton_breaks(context, build, package, version.exact, broken, pin)
    elif pin and package.name == "triton" and build.published and minor_of(pin.lstrip("=~")) != minor_of(package.version):
        yield _triton_pin(build, package.version, pin)


def _breaks(row: dict[str, Any], build: TorchBuild, triton: Version) -> bool:
    return bool(satisfies(str(build.version), row["torch"]) and satisfies(str(triton), row["triton"]))


def _triton_breaks(
    context: Context, build: TorchBuild, package: Distribution, exact: bool, row: dict[str, Any], pin: str | None,
) -> Finding:  # fmt: skip
    text, own = package.version, package.name == "triton"
    wanted = (f"triton{pin}" if own else f"{package.name}=={minor_of(pin.lstrip('=~'))}.*") if pin else ""
    return Finding(
        id="triton-breaks-torch",
        severity=capped(Severity.ERROR, build.published, exact),
        title=f"torch {build.minor} cannot work with {package.name} {text}",
        subjects=(package.name, "torch"),
        observed={package.name: text, "torch": build.text},
        because=(f"torch`{row['torch']}` and triton`{row['triton']}` do not fit together",),
        certain=build.exact and exact,
        fixes=(Fix("package", wanted),) if wanted else (),
        evidence=evidence(context, "triton", row),
        symptom=f"`{row['message']}` when torch.compile or another user of Inductor starts.",
    )


def _triton_pin(build: TorchBuild, text: str, pin: str) -> Finding:
    return Finding(
        id="triton-not-torchs-own",
        severity=Severity.INFO,  # the requirements check says the conflict; projects ship such pairs
        title=f"torch {build.text} is written against triton{pin}, not {text}",
        subjects=("triton", "torch"),
        observed={"triton": text, "torch": build.text},
        because=(f"the wheel of torch {build.version} requires triton{pin}",),
        certain=build.told,
        fixes=(Fix("package", f"triton{pin}"),),
        evidence=(Evidence("code", f"PyPI torch {build.version} metadata"),),
        symptom="torch.compile may fail at import, while compiling, or for some kernels only.",
    )
