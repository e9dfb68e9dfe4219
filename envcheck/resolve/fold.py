"""Rules folded with known facts and settings: what remains of each is a conjunction over packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.findings import Severity
from envcheck.matrix.conditions import comparison_holds, fact_holds, setting_holds
from envcheck.matrix.index import kind_of
from envcheck.matrix.settings import UNSET, Settings
from envcheck.resolve.nogoods import Nogood, Term

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

    from envcheck.facts.model import Environment
    from envcheck.matrix.database import Matrix
    from envcheck.matrix.rule import Rule


def fold_rules(matrix: Matrix, machine: Environment, settings: Settings, waived: Container[str]) -> Iterator[Nogood]:
    """The nogoods of the matrix for one machine and one set of settings, in file order.

    A rule becomes one where `envcheck check` would report an error once its packages are installed: every fact, setting and use
    is known to hold. One that hangs on a setting nobody gave becomes a soft one where it says `unknown = "warn"`, and is left
    out otherwise. So is what hangs on an unknown fact, or on the build of a package: those are judged on the resolver's answer.
    """
    machine = matrix.completed(machine)
    for rule in matrix.rules():
        nogood = None if rule.id in waived else fold(rule, machine, settings, matrix.kinds)
        if nogood is not None:
            yield nogood


def fold(rule: Rule, machine: Environment, settings: Settings, kinds: Mapping[str, str]) -> Nogood | None:
    """The nogood of one rule; `kinds` is the matrix's vocabulary of facts."""
    if not rule.packages or rule.severity is not Severity.ERROR:
        return None
    openness = _open(rule, machine, settings, kinds)
    if openness is None or (openness and rule.unknown != "warn"):
        return None
    return nogood_of(rule, settings, soft=bool(openness))


def _open(rule: Rule, machine: Environment, settings: Settings, kinds: Mapping[str, str]) -> list[str] | None:
    """The settings that a rule still hangs on; None where it cannot apply or hangs on something else."""
    facts = [fact_holds(machine, kind_of(kinds, name), name, text) for name, text in rule.facts.items()]
    facts += [comparison_holds(machine, item) for item in rule.compare]
    if not all(facts) or not settings.uses.issuperset(rule.uses):
        return None
    held = [(item.key, setting_holds(settings, item)) for item in rule.settings]
    return None if any(holds is False for _, holds in held) else [key for key, holds in held if holds is None]


def nogood_of(rule: Rule, settings: Settings, *, soft: bool = False, more: tuple[Term, ...] = ()) -> Nogood:
    """The nogood of a rule, with the settings that were folded in; `more` terms for what its facts say of packages."""
    known = {item.key: settings.get(item.key) for item in rule.settings}
    told = [f"`{key}` is {'not set' if value is UNSET else value}" for key, value in known.items() if key in settings.values]
    return Nogood(
        id=rule.id,
        title=rule.title,
        terms=(*(Term(name, spec) for name, spec in rule.packages.items()), *more),
        soft=soft,
        because=(*told, *(f"{name} `{text}`" for name, text in rule.facts.items()), *map(str, rule.compare)),
        fixes=tuple(fix.as_fix() for fix in rule.fix),
        evidence=rule.evidence,
    )
