"""What `envcheck matrix lint` refuses: decided by range algebra and by running every rule's own examples."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

from envcheck.facts.model import Absent, Distribution, Environment, Fact, Gpu, Known
from envcheck.matrix.conditions import setting_holds
from envcheck.matrix.match import match
from envcheck.matrix.rule import ABSENT, ANY, LOUD, Rule, SettingCondition
from envcheck.matrix.settings import UNSET, Settings
from envcheck.matrix.versions import specifier

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from packaging.ranges import VersionRange

    from envcheck.matrix.rule import Example

UNSET_TEXT = "<unset>"


def audit(rules: Sequence[Rule], kinds: Mapping[str, str], uses: Mapping[str, str]) -> list[str]:
    """Every defect of the rules, one line each, in file order."""
    found = [f"{rule.file}: {rule.id}: {text}" for rule in rules for text in audit_rule(rule, kinds)]
    found += [f"{one.file}: {one.id}: {text}" for one, text in contradictions(rules)]
    found += [f"{one.file}: {one.id}: {text}" for one, text in shadows(rules)]
    used = {word for rule in rules for word in rule.uses}
    found += [f"uses.{word}: no rule uses this word" for word in uses if word not in used]
    return found


def audit_rule(rule: Rule, kinds: Mapping[str, str]) -> Iterator[str]:
    """The defects of one rule on its own."""
    if not rule.evidence:
        yield "has no evidence"
    if not rule.matches or not rule.clear:
        yield "needs an example on both sides (`matches` and `clear`)"
    if rule.status != "good" and not (rule.fix and rule.symptom):
        yield "needs a `fix` and a `symptom`"
    if rule.status != "good" and rule.effect == "none":
        yield "needs an `effect`"
    if rule.unknown == "warn" and rule.effect in LOUD:
        yield '`unknown = "warn"` is for silent effects'
    for name, spec in rule.packages.items():
        if spec not in (ANY, ABSENT) and specifier(spec).is_unsatisfiable():
            yield f"when.packages.{name}: no version is in `{spec}`"
    yield from _fixes(rule)
    yield from _examples(rule, kinds)


def _fixes(rule: Rule) -> Iterator[str]:
    for fix in rule.fix:
        spec = rule.packages.get(fix.name, ABSENT) if fix.kind == "package" else ABSENT
        if spec in (ABSENT, ANY) or fix.to == ABSENT:
            continue
        if not span(spec).is_disjoint(span(str(fix.to))):
            yield f"fix: `{fix.name}{fix.to}` overlaps the bad range `{spec}`"


def _examples(rule: Rule, kinds: Mapping[str, str]) -> Iterator[str]:
    for index, example in enumerate(rule.matches):
        found = match(rule, example_environment(example), example_settings(example), kinds)
        if found is None or not found.decided:
            why = "its condition is false" if found is None else f"undecided: {_open(found)}"
            yield f"matches[{index}] does not match: {why}"
    for index, example in enumerate(rule.clear):
        if match(rule, example_environment(example), example_settings(example), kinds) is not None:
            yield f"clear[{index}] is not clear: no part of the condition is false"


def _open(found: Any) -> str:  # noqa: ANN401 - a Match
    settings = [item.key for item in found.open_settings]
    return ", ".join([*found.open_packages, *found.open_facts, *found.open_uses, *settings])


def example_environment(example: Example) -> Environment:
    """The environment an example describes; packages it does not list are absent, facts it does not list unknown."""
    packages = {name: Distribution(name, text) for name, text in example.packages.items() if text != ABSENT}
    facts = {name: _fact(value) for name, value in example.facts.items()}
    gpu = {name.removeprefix("gpu."): value for name, value in example.facts.items() if name.startswith("gpu.")}
    gpus = None
    if gpu.keys() & {"name", "compute_capability", "memory_mib", "class"}:
        memory = int(gpu.get("memory_mib", 0))
        gpus = (Gpu(gpu.get("name", ""), str(gpu.get("compute_capability", "")), memory, gpu.get("class", "")),)
    return Environment(packages=packages, complete=True, facts=facts, gpus=gpus)


def _fact(value: object) -> Fact:
    if value == ABSENT:
        return Absent(("example",))
    if isinstance(value, list):
        return Known(tuple(map(str, value)), "example")
    return Known(str(value).lower() if isinstance(value, bool) else str(value), "example")


def example_settings(example: Example) -> Settings:
    """The settings an example describes; `<unset>` means known not to be set."""
    values = {key: UNSET if value == UNSET_TEXT else value for key, value in example.settings.items()}
    return Settings(values=values, uses=frozenset(example.uses))


def span(spec: str) -> VersionRange:
    """The versions of a specifier set as a range; pre-releases do not matter here."""
    return specifier(spec).to_range()


def contradictions(rules: Sequence[Rule]) -> Iterator[tuple[Rule, str]]:
    """Good rules inside which a bad rule would certainly speak."""
    bad = [rule for rule in rules if rule.status == "bad" and not (rule.facts or rule.compare or rule.uses)]
    for good in (rule for rule in rules if rule.status == "good"):
        for rule in bad:
            if _speaks_inside(rule, good):
                yield good, f"`{rule.id}` calls part of this good combination bad"


def _speaks_inside(bad: Rule, good: Rule) -> bool:
    for name, spec in bad.packages.items():
        other = good.packages.get(name)
        if other is None or ABSENT in (spec, other):
            return False
        if ANY not in (spec, other) and span(spec).is_disjoint(span(other)):
            return False
    fixed = {item.key: item.operand for item in good.settings if item.operator == "equals"}
    return all(setting_holds(Settings(values=fixed), item) for item in bad.settings)


def shadows(rules: Iterable[Rule]) -> Iterator[tuple[Rule, str]]:
    """Rules that never say anything which another rule does not say already."""
    groups: dict[tuple[str, str, tuple[str, ...]], list[Rule]] = {}
    for rule in rules:
        groups.setdefault((rule.status, rule.effect, tuple(sorted(rule.packages))), []).append(rule)
    for group in groups.values():
        for one, other in combinations(group, 2):
            for narrow, wide in ((one, other), (other, one)):
                if _implies(narrow, wide):
                    yield narrow, f"`{wide.id}` always speaks when this rule does"
                    break


def _implies(narrow: Rule, wide: Rule) -> bool:
    """Whether the condition of `narrow` implies that of `wide` (same packages)."""
    if not all(_inside(spec, wide.packages[name]) for name, spec in narrow.packages.items()):
        return False
    if not all(narrow.facts.get(name) == text for name, text in wide.facts.items()):
        return False
    if not set(wide.compare) <= set(narrow.compare) or not set(wide.uses) <= set(narrow.uses):
        return False
    return all(any(_stronger(item, other) for item in narrow.settings) for other in wide.settings)


def _inside(narrow: str, wide: str) -> bool:
    if wide in (narrow, ANY):
        return narrow != ABSENT or wide == ABSENT
    if ABSENT in (narrow, wide) or narrow == ANY:
        return False
    return span(narrow).is_subset(span(wide))


def _stronger(narrow: SettingCondition, wide: SettingCondition) -> bool:
    if narrow == wide:
        return True
    if narrow.key != wide.key or (narrow.or_unset and not wide.or_unset):
        return False
    if narrow.operator in ("equals", "in"):
        values = narrow.operand if narrow.operator == "in" else [narrow.operand]
        return all(setting_holds(Settings(values={wide.key: value}), wide) for value in values)
    return False
