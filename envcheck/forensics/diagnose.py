"""What was seen in a log, explained by the signatures and narrowed by environment, settings and releases. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from envcheck.findings import Finding, Fix, Severity
from envcheck.forensics.entries import Source
from envcheck.matrix.conditions import package_holds, setting_holds
from envcheck.matrix.match import match
from envcheck.matrix.rule import ABSENT, ANY
from envcheck.matrix.signature import Sighting
from envcheck.matrix.versions import satisfies, specifier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from envcheck.facts.model import Environment
    from envcheck.forensics.history import History, Side
    from envcheck.matrix.database import Matrix
    from envcheck.matrix.match import Match
    from envcheck.matrix.rule import Rule
    from envcheck.matrix.settings import Settings
    from envcheck.matrix.signature import Cause, Dating, Signature
    from envcheck.monitor.observation import Observation

#: A kind of our own: the gradient norms differ from those of a second log by a steady factor.
NORM_DIFFERS = "norm-differs"

#: Steps compared at least, and how far the norms' ratio may be from 1, and its quartiles from each other, relatively.
COMPARED, APART, STEADY = 4, 0.3, 0.35

#: Effects that a log does not show: its loss looks normal.
HIDDEN = frozenset({"wrong-gradient", "zero-gradient"})


@dataclass(frozen=True, slots=True)
class Where:
    """What narrows a diagnosis.

    Attributes:
        environment: The packages, as far as they are known.
        settings: The settings, likewise.
        matrix: The rules.
        ranges: What the log says of a package's release where the environment does not know it: name -> specifier set.
    """

    environment: Environment
    settings: Settings
    matrix: Matrix
    ranges: Mapping[str, str] = field(default_factory=dict)

    def apart(self, packages: Mapping[str, str]) -> bool:
        """Whether a condition on packages contradicts the releases that the log itself points at."""
        for name, spec in packages.items():
            seen = self.ranges.get(name)
            if seen and spec not in (ANY, ABSENT) and specifier(spec).to_range().is_disjoint(specifier(seen).to_range()):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Likely:
    """A cause that is possible here, and the rules under which it happens here."""

    cause: Cause
    rules: tuple[Match, ...] = ()
    firm: bool = False


def sightings(observations: Sequence[Observation], more: Sequence[Sighting] = ()) -> list[Sighting]:
    """The observations as signatures see them."""
    seen = [Sighting(one.kind.value, one.from_start, one.until_end, one.count, one.values) for one in observations]
    return [*seen, *more]


def ranges(dates: Sequence[Dating], environment: Environment, settings: Settings) -> dict[str, str]:
    """Package -> specifier set, from dates whose settings hold and whose package the environment does not know."""
    found: dict[str, str] = {}
    for one in dates:
        if one.package not in environment.packages and all(setting_holds(settings, item) for item in one.settings):
            found[one.package] = ",".join(filter(None, (found.get(one.package, ""), one.range)))
    return found


def mismatches(dates: Sequence[Dating], environment: Environment, settings: Settings) -> list[Finding]:
    """The log was written by another release than the environment has."""
    found = []
    for one in dates:
        installed = environment.packages.get(one.package)
        if installed is None or satisfies(installed.version, one.range) is not False:
            continue
        if not all(setting_holds(settings, item) for item in one.settings):
            continue
        found.append(
            Finding(
                "log-of-another-release",
                Severity.WARNING,
                f"The log was not written with {one.package} {installed.version}",
                (one.package,),
                {one.package: installed.version},
                (one.says,),
                evidence=one.evidence,
            )
        )
    return found


def rules_of(signatures: Sequence[Signature], where: Where) -> dict[str, Rule]:
    """The rules that their causes name and that the environment does not rule out, by id."""
    wanted = {name for one in signatures for cause in one.causes for name in cause.rules}
    return {rule.id: rule for rule in where.matrix.candidates(where.environment) if rule.id in wanted} if wanted else {}


def causes(signature: Signature, where: Where, rules: Mapping[str, Rule]) -> list[Likely]:
    """The causes that are possible here: those whose condition or rule certainly holds first, else in the table's order."""
    found = []
    for cause in signature.causes:
        possible = cause.possible(where.environment, where.settings)
        if possible is False or where.apart(cause.packages):
            continue
        matches = _matches([rules[name] for name in cause.rules if name in rules], where)
        firm = any(one.decided for one in matches) or possible is True
        found.append(Likely(cause, tuple(matches), firm))
    return sorted(found, key=lambda one: not one.firm)


def _matches(rules: Sequence[Rule], where: Where) -> list[Match]:
    """The rules of which nothing is false here; where the packages are known at all, only those about known ones."""
    found = []
    for rule in rules:
        seen = match(rule, where.environment, where.settings, where.matrix.kinds)
        if seen is None or where.apart(rule.packages):
            continue
        if where.environment.packages and seen.open_packages:
            continue
        found.append(seen)
    return sorted(found, key=lambda one: not one.decided)


def finding(signature: Signature, likely: Sequence[Likely], seen: Sequence[Observation], where: Where, name: str) -> Finding:
    """One signature as a finding: what was seen, what it means, the causes in order, and what decides between them."""
    shown = [one for one in seen if one.kind.value in signature.kinds]
    first = min((one.line for one in shown if one.line), default=0)
    because = [*(one.text for one in shown), signature.means]
    because += [f"{number}. {_words(one, where)}" for number, one in enumerate(likely, 1)]
    matches = [one for item in likely for one in item.rules]
    return Finding(
        id=signature.id,
        severity=signature.severity,
        title=signature.title,
        subjects=tuple(dict.fromkeys(subject for one in matches for subject in one.rule.subjects)) or ("loss",),
        observed={one.kind.value: f"{one.count} of {one.of} lines" for one in shown},
        because=tuple(because),
        fixes=tuple(Fix("do", f"{number}. {one.cause.decide}") for number, one in enumerate(likely, 1)),
        evidence=signature.evidence,
        place=f"{name}:{first}" if first else "",
    )


def _words(one: Likely, where: Where) -> str:
    if not one.rules:
        return one.cause.says
    known = bool(where.environment.packages)
    rules = [item for item in one.rules if item.decided] or list(one.rules)
    names = ", ".join(item.rule.id for item in rules[:3]) + (" ..." if len(rules) > 3 else "")  # noqa: PLR2004 - a few
    kind = "holds here" if rules[0].decided else "fits these releases" if known else "possible rules"
    return f"{one.cause.says} ({kind}: {names})"


def plain(signature: Signature, likely: Sequence[Likely]) -> dict[str, Any]:
    """A signature and its causes as plain data, for the JSON report."""
    return {
        "id": signature.id,
        "causes": [
            {"id": one.cause.id, "certain": one.firm, "rules": [item.rule.id for item in one.rules], "decide": one.cause.decide}
            for one in likely
        ],
    }


def hidden(where: Where) -> list[Match]:
    """Bad rules that certainly hold here and whose effect no log shows."""
    found: list[Match] = []
    if not where.environment.packages:
        return found
    for rule in where.matrix.candidates(where.environment):
        if rule.status == "bad" and rule.effect in HIDDEN:
            seen = match(rule, where.environment, where.settings, where.matrix.kinds)
            if (
                seen is not None
                and seen.decided
                and any(package_holds(where.environment, name, spec) for name, spec in rule.packages.items())
            ):
                found.append(seen)
    return found


def norm_ratio(one: Side, other: Side) -> tuple[float, int] | None:
    """The steady factor between the gradient norms of two logs of the same training, and how many steps it rests on.

    None where they are the same, too few, or scatter too much to say.
    """
    pairs = [
        mine[1] / theirs[1]
        for mine, theirs in zip(one.head, other.head, strict=False)
        if mine[1] and theirs[1] and mine[0] and theirs[0] and 0 < mine[1] < float("inf") and 0 < theirs[1] < float("inf")
    ]
    if len(pairs) < COMPARED:
        return None
    low, middle, high = statistics.quantiles(pairs, n=4)
    if abs(middle - 1) < APART or high - low > STEADY * middle:
        return None
    return middle, len(pairs)


def dated_notes(dates: Sequence[Dating], history: History) -> list[str]:
    """What the log's digits and words say about the releases behind it."""
    notes = [one.says for one in dates]
    side = history.side
    if side.quoted:
        notes.append("numbers written as texts with four digits: transformers 5 or later")
    elif side.first_lr_zero and side.lines > 1 and side.lr and side.lr[1] > 0 and not side.bad_norms:
        notes.append("a first learning rate of 0.0 that then rises: transformers 4.51 or later logs it before the step")
    if side.lines and not side.norm_seen and not side.quoted:
        trainer = side is history.sides[Source.TRAINER]
        notes.append(
            "no gradient norm: transformers before 4.38" if trainer else "no gradient norm: only loss and learning rate tell"
        )
    return notes
