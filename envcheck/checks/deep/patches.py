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
        added: Those of them that no RECORD lists.
    """

    patch: Patch
    target: Distribution
    hits: frozenset[str]
    touched: frozenset[str]
    added: frozenset[str]

    @property
    def added_only(self) -> bool:
        """What is there are files that the patch adds and no package owns, which an installer leaves alone."""
        return self.there <= self.added

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
    extra = {*found.extra}
    altered = {*found.wrong} | extra
    for patch in patches:
        target = environment.packages.get(patch.target)
        if target is not None and target.location:
            hits = frozenset(name for name, known in patch.files.items() if _digest(target.location, name) in known)
            touched = frozenset(name for name in patch.files if f"{target.location}/{name}" in altered)
            added = frozenset(name for name in touched if f"{target.location}/{name}" in extra)
            seen.append(Sighting(patch, target, hits, touched, added))
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
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""  # noqa: PLR2004 - as many as other findings name
        stayed = ("only files that the patch adds: the release was installed again, and they stayed",) if seen.added_only else ()
        return _finding(
            seen, "patch-half-applied", Severity.ERROR, f"{patch.title} is only half applied to `{target.name}` {target.version}",
            (origin, f"not there: {', '.join(absent[:5])}{more}", *stayed), "",
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
    wanted = [(seen, by) for seen in reversed(candidates) if seen.fits and (by := _needing(seen.patch, environment))]
    for seen, by in wanted[:1]:
        others = tuple(f"or, in another state of that project, {other.patch.title}" for other, _ in wanted[1:])
        count = len(seen.patch.files)
        yield _finding(
            seen, "patch-missing", Severity.ERROR,
            f"`{seen.target.name}` {seen.target.version} is without {seen.patch.title}, which {by} needs",
            (seen.patch.note, f"it replaces or adds {count} file{'s' if count > 1 else ''}, and none is there", *others),
            "", certain=False,
        )  # fmt: skip


def _needing(patch: Patch, environment: Environment) -> str:
    """An installed project that needs the patch, or an empty string."""
    for name, spec in patch.expected_by.items():
        package = environment.packages.get(name)
        if package and satisfies(package.version, spec) is True:
            return f"`{name}` {package.version}"
    return ""


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
