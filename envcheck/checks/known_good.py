"""Known-good combinations: the one that covers this environment, or the nearest with its difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.matrix.conditions import package_holds
from envcheck.matrix.rule import ABSENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.context import Context
    from envcheck.matrix.rule import Rule

#: A combination is compared only if it speaks of at least this many packages: pairs are not an environment.
SMALLEST = 3

#: The packages whose versions decide how training behaves; a nearest set must share most of these.
WATCHED = frozenset({"torch", "deepspeed", "transformers", "accelerate"})


def notes(context: Context) -> list[str]:
    """Sentences about known-good combinations, for the report.

    One sentence for each that covers the environment; without any, one for the nearest, if most of it is there.
    """
    if not WATCHED & context.environment.packages.keys():
        return []
    matrix = context.matrix
    numbers = [
        number
        for alike in matrix.possible(context.environment, context.settings)
        if alike.sketch.status == "good" and not alike.open and alike.packages >= SMALLEST
        for number in alike.numbers
    ]
    covering = [matrix.rule(number) for number in sorted(numbers)]
    if covering:
        return [f"known to work: {rule.title} ({rule.id}; {_evidence(rule)})" for rule in covering]
    nearest = min(_nearest(context), default=None)
    return [_difference(matrix.rule(nearest[-1]), context)] if nearest else []


def _nearest(context: Context) -> Iterator[tuple[int, int, int]]:
    """For each set of which every package is here and most fit: how many do not, minus its size, its number."""
    for number, size, fit in context.matrix.index.good_present(context.environment):
        missing = len(fit) - sum(map(bool, fit))
        if size >= SMALLEST and missing < len(fit) / 2:
            yield missing, -size, number


def _difference(rule: Rule, context: Context) -> str:
    packages = context.environment.packages
    parts = ", ".join(
        f"`{name}` is {packages[name].version}, there `{spec}`"
        for name, spec in rule.packages.items()
        if spec != ABSENT and not package_holds(context.environment, name, spec)
    )
    return f"nearest known-good set: {rule.title} ({rule.id}); differs: {parts or 'settings only'}"


def _evidence(rule: Rule) -> str:
    return ", ".join(item.shown for item in rule.evidence[:2])
