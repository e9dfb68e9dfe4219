"""Known patches over installed packages: there, half there, on the wrong version, or missing where a project needs them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from envcheck.findings import Finding, Fix, Severity
from envcheck.matrix.versions import satisfies

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from envcheck.checks.deep.inventory import Inventory
    from envcheck.facts.model import Distribution, Environment
    from envcheck.matrix.patches import Patch

#: So many files touched, all of a patch's and with unknown contents, are that patch in another state and no accident.
A_SET = 3


@dataclass(frozen=True, slots=True)
class Sighting:
    """One patch beside its installed target.

    Attributes:
        patch: The patch.
        target: The installed distribution.
        hits: Files with a known content of the patch (the release's own may be the same).
        touched: Files of the patch that are not what the target's RECORD says; with the added ones.
    """

    patch: Patch
    target: Distribution
    hits: frozenset[str]
    touched: frozenset[str]

    @property
    def there(self) -> frozenset[str]:
        """Files that the patch, and not the release, put there."""
        return self.hits & self.touched

    @property
    def whole(self) -> bool:
        """Every file of the patch is there."""
        return len(self.hits) == len(self.patch.files)

    @property
    def by_set(self) -> bool:
        """Nothing is known by digest, but exactly the files of the patch were touched."""
        return not self.there and len(self.patch.files) >= A_SET and self.touched == frozenset(self.patch.files)

    @property
    def fits(self) -> bool:
        """The target is a release that the patch is made for."""
        return satisfies(self.target.version, self.patch.versions) is True

    def paths(self, names: Iterable[str]) -> frozenset[str]:
        """Full paths of some of the files."""
        return frozenset(f"{self.target.location}/{name}" for name in names)


def sightings(patches: Iterable[Patch], environment: Environment, found: Inventory) -> list[Sighting]:
    """Every patch whose target is installed, with what there is of it."""
    seen = []
    altered = {*found.wrong, *found.extra}
    for patch in patches:
        target = environment.packages.get(patch.target)
        if target is not None and target.location:
            hits = frozenset(name for name, known in patch.files.items() if _digest(target.location, name) in known)
            touched = frozenset(name for name in patch.files if f"{target.location}/{name}" in altered)
            seen.append(Sighting(patch, target, hits, touched))
    return seen


def _digest(root: str, name: str) -> str:
    try:
        return hashlib.sha256(Path(root, name).read_bytes()).hexdigest()
    except (OSError, ValueError):
        return ""


def explained(seen: Iterable[Sighting]) -> frozenset[str]:
    """The files that a patch accounts for: integrity has nothing to add about them."""
    return frozenset().union(*(item.paths(item.touched if item.by_set else item.there) for item in seen))


def judge(seen: list[Sighting], environment: Environment) -> Iterator[Finding]:
    """One finding for each target: the patch that accounts for most of its files, or the one that is missing."""
    for name in dict.fromkeys(item.patch.target for item in seen):
        candidates = [item for item in seen if item.patch.target == name]
        best = max(candidates, key=lambda item: (len(item.there), item.whole, item.by_set, item.fits))
        if best.there or best.by_set:
            yield _found(best)
        else:
            yield from _missing(candidates, environment)


def _found(seen: Sighting) -> Finding:
    patch, target = seen.patch, seen.target
    origin = f"it is made for `{patch.target}` {patch.versions}: {patch.note}"
    if not seen.fits:
        return _finding(
            seen, "patch-on-wrong-version", Severity.ERROR,
            f"{patch.title} lies over `{target.name}` {target.version}, which it is not made for",
            (origin, _files(seen)), f"{target.name}{patch.versions}",
        )  # fmt: skip
    if seen.by_set:
        return _finding(
            seen, "patch-of-unknown-content", Severity.WARNING,
            f"the files of {patch.title} are changed in `{target.name}`, with contents of no known state of it",
            (origin, _files(seen)), "", certain=False,
        )  # fmt: skip
    if not seen.whole:
        absent = sorted(patch.files.keys() - seen.hits)
        return _finding(
            seen, "patch-half-applied", Severity.ERROR, f"{patch.title} is only half applied to `{target.name}` {target.version}",
            (origin, f"not there: {', '.join(absent[:5])}" + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")), "",  # noqa: PLR2004 - as many as other findings name
        )  # fmt: skip
    return _finding(
        seen, "patch-applied", Severity.INFO, f"{patch.title} is applied to `{target.name}` {target.version}",
        (origin, _files(seen)), "",
    )  # fmt: skip


def _files(seen: Sighting) -> str:
    names = sorted(seen.there or seen.touched)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""  # noqa: PLR2004 - enough to recognise it
    return f"changed: {', '.join(names[:3])}{more}"


def _missing(candidates: list[Sighting], environment: Environment) -> Iterator[Finding]:
    """The patch that an installed project needs on this release, the newest first."""
    for seen in reversed(candidates):
        needing = [
            f"`{name}` {package.version}"
            for name, spec in seen.patch.expected_by.items()
            if (package := environment.packages.get(name)) and satisfies(package.version, spec) is True
        ]
        if needing and seen.fits:
            yield _finding(
                seen, "patch-missing", Severity.ERROR,
                f"`{seen.target.name}` {seen.target.version} is without {seen.patch.title}, which {needing[0]} needs",
                (f"{seen.patch.note}", f"it replaces or adds {len(seen.patch.files)} files; none is there"),
                "", certain=False,
            )  # fmt: skip
            return


def _finding(
    seen: Sighting, name: str, severity: Severity, title: str, because: tuple[str, ...], package: str, *, certain: bool = True,
) -> Finding:  # fmt: skip
    again = f"pip install --force-reinstall --no-deps {seen.target.name}=={seen.target.version}"
    repair = Fix("do", f"{again}, then copy the project's files again if they are wanted")
    fixes = (Fix("package", package), repair) if package else (repair,)
    return Finding(
        id=name, severity=severity, title=title, subjects=tuple(dict.fromkeys((seen.target.name, *seen.patch.expected_by))),
        observed={seen.target.name: seen.target.version, "patch": seen.patch.id}, because=because, certain=certain,
        fixes=() if name == "patch-applied" else fixes, evidence=seen.patch.evidence,
        symptom="" if name == "patch-applied" else "The right version number, and code of another one.",
    )  # fmt: skip
