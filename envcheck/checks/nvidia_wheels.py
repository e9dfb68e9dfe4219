"""The nvidia-* wheels: two that own the same files, and versions that torch does not pin.

Tables: `nvidia_wheel_collisions`, `torch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from envcheck.checks.torch_build import cuda_of_tag, evidence, rows, torch_build, torch_row
from envcheck.findings import Evidence, Finding, Fix, Severity
from envcheck.matrix.versions import satisfies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.context import Context, Outcome
    from envcheck.checks.torch_build import TorchBuild


def check_nvidia_collisions(context: Context) -> Iterator[Outcome]:
    """Installed wheels of different CUDA majors that own the same files."""
    packages = context.environment.packages
    for row in rows(context, "nvidia_wheel_collisions"):
        owners = [name for name in row["owners"] if name in packages]
        if len(owners) > 1:
            yield _collision(context, row, owners)


def _collision(context: Context, row: dict[str, Any], owners: list[str]) -> Finding:
    build = torch_build(context)
    wrong = [name for name in owners if build and build.cuda_major and not name.endswith(f"-cu{build.cuda_major}")]
    right = [name for name in owners if name not in wrong]
    repair = "keep one of them and reinstall it"
    if wrong and right:
        repair = f"uninstall {', '.join(wrong)}, then reinstall {', '.join(right)}"
    return Finding(
        id="nvidia-wheels-share-files",
        severity=Severity.ERROR,
        title=f"{' and '.join(f'`{name}`' for name in owners)} own the same files",
        subjects=tuple(owners),
        observed={name: context.environment.packages[name].version for name in owners},
        because=(f"all install `{row['path']}`: the last one wins, and removing one breaks the rest",),
        fixes=(Fix("do", repair),),
        evidence=evidence(context, "nvidia_wheel_collisions", row),
        symptom="`undefined symbol` or `cannot open shared object file` at `import torch`, by the order of installation.",
    )


def check_nvidia_pins(context: Context) -> Iterator[Outcome]:
    """nvidia-* versions that the PyPI wheel of this torch does not pin.

    Only where torch's own requirement lines are not known (a hand-written snapshot): else the requirements check says it.
    """
    build = torch_build(context)
    torch = context.environment.packages.get("torch")
    if build is None or torch is None or torch.requires or not build.published:
        return
    row = torch_row(context, str(build.version))
    if row is None or cuda_of_tag(row["pypi_build"]) != build.cuda:
        return
    for line in row["pins"]:
        yield from _pin(context, build, line)


def split_pin(line: str) -> tuple[str, str]:
    """Name and specifier set of a pin of the table `torch`: `("nvidia-cublas", "<=13.1.1.3,>=13.1.0.3")`."""
    cut = next((place for place, letter in enumerate(line) if letter in "<>=~!"), len(line))
    return line[:cut], line[cut:]


def _pin(context: Context, build: TorchBuild, line: str) -> Iterator[Finding]:
    name, spec = split_pin(line)
    package = context.environment.packages.get(name)
    if package is None or satisfies(package.version, spec) is not False:
        return
    yield Finding(
        id="nvidia-wheel-not-torchs-own",
        severity=Severity.WARNING,
        title=f"`{name}` is {package.version}, and torch {build.text} pins {spec}",
        subjects=(name, "torch"),
        observed={name: package.version, "torch": build.text},
        because=(f"the PyPI wheel of torch {build.version} requires {line}",),
        certain=build.told,
        fixes=(Fix("package", line),),
        evidence=(Evidence("code", f"PyPI torch {build.version} metadata"),),
        symptom="Other numerics, or missing symbols in the library, depending on the difference.",
    )
