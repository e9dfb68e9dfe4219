"""A profile's own pins against the matrix: where upstream's list contradicts what is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from envcheck.checks import known_good
from envcheck.checks.context import Context
from envcheck.checks.registry import run_all
from envcheck.facts.metadata import normalised
from envcheck.facts.model import Distribution, Environment, Known
from envcheck.findings import Finding, Fix, Severity
from envcheck.matrix.profile import Recipe
from envcheck.matrix.profile_requirements import OVERRIDE, lock_python, pinned, pins
from envcheck.matrix.rule import ABSENT, ANY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from envcheck.checks.profile.subject import Subject
    from envcheck.matrix.database import Matrix
    from envcheck.matrix.profile import Profile
    from envcheck.matrix.profile_requirements import Wanted

#: A pin list this short is no environment: rules about it would be about what a resolver adds.
FEWEST = 2

#: A known-good set says something of a profile where they share so many of the packages that decide how it trains.
SHARED = 3

#: How ids of findings about wheels that were never published end: projects with such pins build from source.
NO_WHEEL = "-without-wheel"


def pinned_environment(profile: Profile, wanted: Iterable[Wanted]) -> Environment:
    """The environment that the profile's exact pins describe; everything else in it is unknown."""
    packages = {pin.name: Distribution(pin.name, pin.version) for pin in pins(wanted)}
    facts = {"python": Known(f"{lock_python(profile)}.0", "profile"), "system": Known("Linux", "profile")}
    return Environment(packages=packages, facts=dict(facts), source=f"the pins of {profile.name}")


def contradictions(profile: Profile, wanted: Iterable[Wanted], matrix: Matrix) -> list[Finding]:
    """What the matrix has against the pins, under the settings of the project's own scripts.

    What hangs on settings that the profile does not say is left out.
    """
    environment = pinned_environment(profile, wanted)
    if len(environment.packages) < FEWEST:
        return []
    found: dict[str, Finding] = {}
    for recipe in profile.settings or (Recipe(),):
        for finding in run_all(Context(environment, matrix, recipe.settings()))[0]:
            if not finding.id.endswith(NO_WHEEL) and not any(reason.startswith("only if ") for reason in finding.because):
                found.setdefault(finding.id, finding)
    return sorted(found.values(), key=lambda item: (-item.severity, item.id))


def check_pins(subject: Subject) -> Iterator[Finding]:
    """One finding that says where upstream's own list contradicts the matrix or itself, and what is known to work."""
    profile, wanted = subject.profile, subject.wanted
    against = contradictions(profile, wanted.values(), subject.context.matrix)
    replaced = [item for item in wanted.values() if item.replaced]
    if not against and not replaced:
        return
    works, ways = tuple(known_to_work(wanted, subject.context.matrix)), tuple(_ways_out(against, wanted))
    together = len(against) > 1
    yield Finding(
        id="profile-pins",
        severity=Severity.INFO,
        title=f"{profile.name}'s own pins contradict {_what(against, replaced)}",
        subjects=tuple(dict.fromkeys([*(name for item in against for name in item.subjects), *(item.name for item in replaced)])),
        because=(*contradiction_lines(against, wanted), *replaced_lines(wanted), *(works if together else ())),
        fixes=ways if together else (*(Fix("do", text) for text in works), *ways),
        evidence=tuple(dict.fromkeys([*(one for item in against for one in item.evidence[:1]), *subject.evidence])),
        together=together,
    )


def contradiction_lines(against: Iterable[Finding], wanted: Mapping[str, Wanted]) -> Iterator[str]:
    """What the matrix has against the pins, a line each, with the pins that it is about."""
    yield from (f"{_those(item, wanted)}{item.title} ({item.id}, {item.severity.label})" for item in against)


def replaced_lines(wanted: Mapping[str, Wanted]) -> Iterator[str]:
    """Where the list contradicts what takes its place."""
    replaced = [item for item in wanted.values() if item.replaced]
    yield from (f"its list says `{item.replaced}`, `{item.name}{item.spec}` takes its place" for item in replaced)


def _what(against: list[Finding], replaced: list[Wanted]) -> str:
    parts = [f"the matrix in {len(against)} place{'s' if len(against) > 1 else ''}"] if against else []
    return " and ".join([*parts, *(["themselves"] if replaced else [])])


def known_to_work(wanted: Mapping[str, Wanted], matrix: Matrix) -> Iterator[str]:
    """The known-good sets that the profile's list admits, one sentence each.

    A set counts where it speaks of enough packages that the profile pins and contradicts none of its requirements.
    """
    for rule in matrix.good():
        shared = {name: spec for name, spec in rule.packages.items() if name in wanted and spec not in (ABSENT, ANY)}
        pinned_there = [name for name in shared if name in known_good.WATCHED and pinned(wanted[name].spec)]
        if len(pinned_there) >= SHARED and all(_meet(wanted[name].spec, spec) for name, spec in shared.items()):
            needs = ", ".join(f"`{name}{spec}`" for name, spec in rule.packages.items() if spec not in (ABSENT, ANY))
            yield f"known to work: {rule.title} ({rule.id}): {needs}"


def _meet(one: str, other: str) -> bool:
    return not (SpecifierSet(one) & SpecifierSet(other)).is_unsatisfiable()


def _those(finding: Finding, wanted: Mapping[str, Wanted]) -> str:
    """The pins that a finding speaks of: "`deepspeed==0.9.5`: ", or an empty string."""
    names = [name for name in (*finding.subjects, *finding.observed) if name in wanted and pinned(wanted[name].spec)]
    return f"{', '.join(f'`{name}{wanted[name].spec}`' for name in dict.fromkeys(names))}: " if names else ""


def _ways_out(against: list[Finding], wanted: Mapping[str, Wanted]) -> Iterator[Fix]:
    """The first two ways out of the only finding; of several, the first of each. None undoes a step of the project's own."""
    count = 2 if len(against) == 1 else 1
    kept = (fix for item in against for fix in [fix for fix in item.fixes[:2] if not _undoes(fix, wanted)][:count])
    return iter({fix.change: fix for fix in kept}.values())


def _undoes(fix: Fix, wanted: Mapping[str, Wanted]) -> bool:
    """Whether a change of a package contradicts what the project puts in place on purpose."""
    try:
        requirement = Requirement(fix.change)
    except InvalidRequirement:  # a setting, or something to do
        return False
    item = wanted.get(normalised(requirement.name))
    return item is not None and item.origin == OVERRIDE and not _meet(item.spec, str(requirement.specifier))
