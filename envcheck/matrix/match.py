"""Match one rule against an environment and settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from envcheck.facts.model import Known
from envcheck.matrix.conditions import gpu_attribute, lookup, operand_text
from envcheck.matrix.index import COMPARE, FACT, PACKAGE, SETTING, USE, conditions_of, holds
from envcheck.matrix.rule import SettingCondition, show, subject_of_fact
from envcheck.matrix.settings import UNSAID, UNSET
from envcheck.matrix.versions import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envcheck.facts.model import Environment
    from envcheck.matrix.index import Condition
    from envcheck.matrix.rule import Rule
    from envcheck.matrix.settings import Settings


class Match(NamedTuple):
    """A rule of which nothing is false.

    Attributes:
        rule: The rule.
        open_packages: Packages of which nothing is known.
        open_facts: Facts that are not known.
        open_uses: Usage words nobody confirmed.
        open_settings: Conditions on settings nobody gave.
        inexact: Packages whose version was counted as the release it leads to.
    """

    rule: Rule
    open_packages: tuple[str, ...] = ()
    open_facts: tuple[str, ...] = ()
    open_uses: tuple[str, ...] = ()
    open_settings: tuple[SettingCondition, ...] = ()
    inexact: tuple[str, ...] = ()

    @property
    def decided(self) -> bool:
        """True when the whole condition is true."""
        return not (self.open_packages or self.open_facts or self.open_uses or self.open_settings)


def match(rule: Rule, environment: Environment, settings: Settings, kinds: Mapping[str, str]) -> Match | None:
    """Match a rule; None when some part of its condition is false.

    Args:
        rule: The rule.
        environment: The facts.
        settings: What is known of the settings.
        kinds: Fact name -> kind, from the vocabulary.
    """
    opened: list[Condition] = []
    for item in conditions_of(rule):
        truth = holds(item, environment, settings, kinds)
        if truth is False:
            return None
        if truth is None:
            opened.append(item)
    return Match(
        rule,
        open_packages=tuple(item.name for item in opened if item.kind == PACKAGE),
        open_facts=tuple(item.name for item in opened if item.kind in (FACT, COMPARE)),
        open_uses=tuple(item.name for item in opened if item.kind == USE),
        open_settings=tuple(SettingCondition(*item.fields) for item in opened if item.kind == SETTING),
        inexact=tuple(name for name in rule.packages if not _exact(environment, name)),
    )


def _exact(environment: Environment, name: str) -> bool:
    found = environment.packages.get(name)
    version = plain(found.version) if found else None
    return version is None or version.exact


def reasons(found: Match, environment: Environment, settings: Settings) -> tuple[str, ...]:
    """Why the rule speaks, one sentence for each part of its condition; open parts begin with `only if`."""
    rule = found.rule
    lines = [_package_reason(environment, name, spec) for name, spec in rule.packages.items()]
    lines += [f"{name} is {_fact_text(environment, name)} (rule: `{text}`)" for name, text in rule.facts.items()]
    lines += [
        f"{item} ({operand_text(environment, item.left)} and {operand_text(environment, item.right)})" for item in rule.compare
    ]
    for item in rule.settings:
        if item in found.open_settings:
            lines.append(f"only if {item}, which is not known")
        elif settings.get(item.key) is not UNSAID:
            lines.append(f"`{item.key}` is {_setting_text(settings, item.key)}")
    lines += [f"{name} is a pre-release or vendor build, counted as its release" for name in found.inexact]
    return tuple(lines)


def _package_reason(environment: Environment, name: str, spec: str) -> str:
    package = environment.packages.get(name)
    if package is None:
        return f"`{name}` is not installed"
    return f"`{name}` is {package.version}" + ("" if spec == "*" else f", in `{spec}`")


def _fact_text(environment: Environment, name: str) -> str:
    if name.startswith("gpu.") and name != "gpu.count" and environment.gpus:
        return ", ".join(gpu_attribute(environment, gpu, name) or "unknown" for gpu in environment.gpus)
    fact = lookup(environment, name)
    if not isinstance(fact, Known):
        return "absent"
    return fact.value if isinstance(fact.value, str) else ", ".join(fact.value)


def _setting_text(settings: Settings, key: str) -> str:
    value = settings.get(key)
    return "not set" if value is UNSET else show(value)


def observed(rule: Rule, environment: Environment, settings: Settings) -> dict[str, str]:
    """What was seen of each subject of the rule that is known."""
    seen = {name: environment.packages[name].version for name in rule.packages if name in environment.packages}
    for name in rule.facts:
        seen[subject_of_fact(name)] = _fact_text(environment, name)
    for comparison in rule.compare:
        for side in (comparison.left, comparison.right):
            seen[subject_of_fact(side)] = operand_text(environment, side) or "unknown"
    for item in rule.settings:
        if settings.get(item.key) is not UNSAID:
            seen[item.key] = _setting_text(settings, item.key)
    return seen
