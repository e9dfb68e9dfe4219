"""How large a change of an installed set is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from packaging.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Cost(NamedTuple):
    """How large a change is; compared field by field.

    Attributes:
        packages: Packages that change, are added, or go.
        removed: Packages that go.
        warnings: Combinations that hang on an unknown setting and that the set before did not hold.
        steps: Differences of the first three release numbers, summed over the packages.
        older: Packages that become older.
        names: The packages, so that the choice does not hang on chance.
    """

    packages: int
    removed: int
    warnings: int
    steps: tuple[int, int, int]
    older: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """An allowed set and what it costs to go there."""

    cost: Cost
    versions: dict[str, str]


def cheapest(found: Iterable[Found | None]) -> Found | None:
    """The set with the smallest cost; None where there is none."""
    return min((item for item in found if item), key=lambda item: item.cost, default=None)


def cost(before: Mapping[str, str], after: Mapping[str, str], warnings: int = 0) -> Cost:
    """The cost of going from one set of versions to another."""
    names = tuple(sorted(name for name in {*before, *after} if before.get(name) != after.get(name)))
    pairs = [(Version(before[name]), Version(after[name])) for name in names if name in before and name in after]
    distances = [distance(old, new) for old, new in pairs]
    major, minor, micro = (sum(column) for column in zip(*distances, strict=True)) if distances else (0, 0, 0)
    removed = len(before.keys() - after.keys())
    return Cost(len(names), removed, warnings, (major, minor, micro), sum(new < old for old, new in pairs), names)


def distance(old: Version, new: Version) -> tuple[int, int, int]:
    """How far apart two versions are: major releases; within one, minor ones; within one, micro ones."""
    if old.major != new.major or old.epoch != new.epoch:
        return abs(old.major - new.major) + abs(old.epoch - new.epoch), 0, 0
    if old.minor != new.minor:
        return 0, abs(old.minor - new.minor), 0
    return 0, 0, abs(old.micro - new.micro)
