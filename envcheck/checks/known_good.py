"""Known-good combinations: the one that covers this environment, or the nearest with its difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.matrix.conditions import package_holds
from envcheck.matrix.match import match
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
    good = [rule for rule in context.matrix.good() if len(rule.packages) >= SMALLEST]
    covering = [rule for rule in good if _covers(rule, context)]
    if covering:
        return [f"known to work: {rule.title} ({rule.id}; {_evidence(rule)})" for rule in covering]
    nearest = sorted(_nearest(good, context), key=lambda item: (len(item[1]), -len(item[0].packages), item[0].id))
    return [_difference(rule, missing, context) for rule, missing in nearest[:1]]


def _covers(rule: Rule, context: Context) -> bool:
    found = match(rule, context.environment, context.settings, context.matrix.kinds)
    return found is not None and found.decided


def _nearest(good: list[Rule], context: Context) -> Iterator[tuple[Rule, list[str]]]:
    for rule in good:
        packages = {name: spec for name, spec in rule.packages.items() if spec != ABSENT}
        if not all(name in context.environment.packages for name in packages):
            continue
        missing = [name for name, spec in packages.items() if not package_holds(context.environment, name, spec)]
        if len(missing) < len(packages) / 2:
            yield rule, missing


def _difference(rule: Rule, missing: list[str], context: Context) -> str:
    parts = ", ".join(
        f"`{name}` is {context.environment.packages[name].version}, there `{rule.packages[name]}`" for name in missing
    )
    return f"nearest known-good set: {rule.title} ({rule.id}); differs: {parts or 'settings only'}"


def _evidence(rule: Rule) -> str:
    return ", ".join(item.ref for item in rule.evidence[:2])
