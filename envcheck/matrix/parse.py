"""Parse a rules file into rules; every mistake of the file is reported at once, with rule id and key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from packaging.specifiers import InvalidSpecifier

from envcheck.facts.metadata import normalised
from envcheck.findings import Evidence
from envcheck.matrix.rule import (
    ABSENT,
    ANY,
    EFFECTS,
    EVIDENCE_KINDS,
    OPERATORS,
    PRESENT,
    STATUSES,
    Comparison,
    Example,
    Rule,
    RuleFix,
    SettingCondition,
)
from envcheck.matrix.versions import specifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

IDENTIFIER = re.compile(r"[a-z0-9]+(?:[-.][a-z0-9]+)*")
COMPARISON = re.compile(r"\s*(\S+)\s+(==|!=|<=|>=|<|>)\s+(\S+)\s*")
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
TEXTS = ("id", "title", "status", "effect", "symptom", "error", "bounds", "uncertain", "measured", "unknown")
KEYS = {*TEXTS, "when", "fix", "evidence", "reviewed", "source_id", "matches", "clear"}
WHEN = {"packages", "settings", "facts", "compare", "uses"}


class Mistakes:
    """Collects mistakes under a dotted place that grows as parsing descends."""

    def __init__(self, place: str, found: list[str]) -> None:
        self.place = place
        self.found = found

    def at(self, key: str) -> Mistakes:
        """A collector one level down; both write to the same list."""
        return Mistakes(f"{self.place}: {key}" if self.place else key, self.found)

    def add(self, message: str) -> None:
        """Note one mistake here."""
        self.found.append(f"{self.place}: {message}")


def parse_rules(document: Mapping[str, Any], file: str, kinds: Mapping[str, str]) -> tuple[list[Rule], list[str]]:
    """Rules of one parsed TOML document and every mistake in it.

    Args:
        document: The parsed file: `rule` (list of tables) and `uses` (table).
        file: Its name, for messages.
        kinds: Fact name -> kind, from the vocabulary.
    """
    mistakes: list[str] = []
    top = Mistakes(file, mistakes)
    for key in document.keys() - {"rule", "uses"}:
        top.add(f"unknown key `{key}`")
    entries = document.get("rule", [])
    if not isinstance(entries, list):
        top.add("`rule` must be an array of tables (`[[rule]]`)")
        return [], mistakes
    rules = [rule for index, entry in enumerate(entries) if (rule := _rule(entry, index, file, kinds, top))]
    return rules, mistakes


def _rule(entry: Any, index: int, file: str, kinds: Mapping[str, str], top: Mistakes) -> Rule | None:  # noqa: ANN401 - TOML values
    if not isinstance(entry, dict):
        top.add(f"rule {index + 1} is not a table")
        return None
    identity = entry.get("id")
    here = top.at(identity if isinstance(identity, str) else f"rule {index + 1}")
    before = len(here.found)
    for key in entry.keys() - KEYS:
        here.add(f"unknown key `{key}`")
    texts = {key: parse_text(entry, key, here) for key in TEXTS}
    _words(texts, here)
    when = parse_table(entry, "when", here)
    for key in when.keys() - WHEN:
        here.at("when").add(f"unknown key `{key}`")
    rule = Rule(
        **texts,
        packages=parse_packages(parse_table(when, "packages", here.at("when")), here.at("when.packages")),
        settings=tuple(parse_list(when, "settings", here.at("when"), parse_setting)),
        facts=_facts(parse_table(when, "facts", here.at("when")), kinds, here.at("when.facts")),
        compare=tuple(parse_list(when, "compare", here.at("when"), _comparison)),
        uses=tuple(parse_list(when, "uses", here.at("when"), parse_word)),
        fix=tuple(parse_list(entry, "fix", here, _fix)),
        evidence=tuple(sorted(parse_list(entry, "evidence", here, parse_evidence), key=lambda item: item.kind == "probe")),
        reviewed=str(entry.get("reviewed", "")),
        source_id=_source_ids(entry.get("source_id", ()), here),
        matches=tuple(parse_list(entry, "matches", here, _example)),
        clear=tuple(parse_list(entry, "clear", here, _example)),
        file=file,
    )
    _whole(rule, here)
    return rule if len(here.found) == before else None


def _whole(rule: Rule, here: Mistakes) -> None:
    """What must hold of a rule as a whole."""
    if not (rule.packages or rule.facts or rule.compare or rule.settings):
        here.add("`when` names no package, setting or fact: it would always hold")
    if not DATE.fullmatch(rule.reviewed):
        here.add("`reviewed` must be a date (2026-11-24)")
    if rule.unknown not in ("", "warn", "info"):
        here.add('`unknown` must be "warn" or "info"')
    if rule.unknown and not rule.settings:
        here.add("`unknown` says what happens when a setting is not known, but the rule has no settings")


def _words(texts: Mapping[str, str], here: Mistakes) -> None:
    for key in ("id", "title", "status", "effect", "bounds"):
        if not texts[key]:
            here.add(f"`{key}` is missing")
    if texts["id"] and not IDENTIFIER.fullmatch(texts["id"]):
        here.add(f"`id` must be kebab-case, not `{texts['id']}`")
    for key, allowed in (("status", STATUSES), ("effect", sorted(EFFECTS))):
        if texts[key] and texts[key] not in allowed:
            here.add(f"`{key}` must be one of {', '.join(allowed)}, not `{texts[key]}`")


def parse_text(entry: Mapping[str, Any], key: str, here: Mistakes) -> str:
    """The text under `key`, or an empty one."""
    value = entry.get(key, "")
    if not isinstance(value, str):
        here.add(f"`{key}` must be a text")
        return ""
    return value


def parse_table(entry: Mapping[str, Any], key: str, here: Mistakes) -> dict[str, Any]:
    """The table under `key`, or an empty one."""
    value = entry.get(key, {})
    if not isinstance(value, dict):
        here.add(f"`{key}` must be a table")
        return {}
    return value


def parse_list(
    entry: Mapping[str, Any], key: str, here: Mistakes, parse: Callable[[Any, Mistakes], Any],
) -> Iterator[Any]:  # fmt: skip
    """What `parse` makes of each item of the array under `key`."""
    value = entry.get(key, [])
    if not isinstance(value, list):
        here.add(f"`{key}` must be an array")
        return
    for index, item in enumerate(value):
        parsed = parse(item, here.at(f"{key}[{index}]"))
        if parsed is not None:
            yield parsed


def parse_packages(table: Mapping[str, Any], here: Mistakes) -> dict[str, str]:
    """Normalised name -> specifier set, `*` or `absent`."""
    for name, spec in table.items():
        if name != normalised(name):
            here.add(f"`{name}` is not a normalised name")
        if spec not in (ANY, ABSENT):
            check_specifier(spec, here.at(name))
    return {name: spec for name, spec in table.items() if isinstance(spec, str)}


def check_specifier(spec: Any, here: Mistakes) -> None:  # noqa: ANN401 - TOML values
    """Note a text that is no specifier set."""
    if not isinstance(spec, str) or not spec.strip():
        here.add("must be a specifier set such as `>=1.0,<2.0`")
        return
    try:
        specifier(spec)
    except InvalidSpecifier:
        here.add(f"`{spec}` is not a specifier set")


def parse_setting(item: Any, here: Mistakes) -> SettingCondition | None:  # noqa: ANN401 - TOML values
    """A condition on one setting."""
    if not isinstance(item, dict) or not isinstance(item.get("key"), str):
        here.add("must be a table with a `key`")
        return None
    for key in item.keys() - {"key", "or_unset", "or_unknown", *OPERATORS}:
        here.add(f"unknown key `{key}`")
    operators = [name for name in OPERATORS if name in item]
    if len(operators) != 1:
        here.add(f"needs exactly one of {', '.join(OPERATORS)}")
        return None
    flags = {name: item.get(name, False) for name in ("or_unset", "or_unknown")}
    for name in (name for name, value in flags.items() if not isinstance(value, bool)):
        here.add(f"`{name}` must be true or false")
    _check_operand(operators[0], item[operators[0]], here)
    return SettingCondition(item["key"], operators[0], item[operators[0]], **flags)


def _check_operand(name: str, operand: Any, here: Mistakes) -> None:  # noqa: ANN401 - TOML values
    number = isinstance(operand, (int, float)) and not isinstance(operand, bool)
    if name in ("above", "at_least", "below", "at_most") and not number:
        here.add(f"`{name}` needs a number")
    if name in ("in", "not_in") and not (isinstance(operand, list) and operand):
        here.add(f"`{name}` needs an array")
    if name == "set" and not isinstance(operand, bool):
        here.add("`set` needs true or false")


def _facts(table: Mapping[str, Any], kinds: Mapping[str, str], here: Mistakes) -> dict[str, str]:
    facts: dict[str, str] = {}
    for name, condition in _flat(table):
        kind = "word" if name.startswith("env.") else kinds.get(name)
        if kind is None:
            here.add(f"`{name}` is not in vocabulary.toml")
        elif not isinstance(condition, str) or not condition:
            here.at(name).add("must be a text")
        else:
            _check_fact(kind, condition, here.at(name))
            facts[name] = condition
    return facts


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`gpu.name = "x"` is a nested table to TOML; the vocabulary's names are dotted."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _check_fact(kind: str, condition: str, here: Mistakes) -> None:
    if condition in (ABSENT, PRESENT):
        return
    if kind == "version":
        check_specifier(condition, here)
    if kind == "list" and condition.split(" ", 1)[0] not in ("contains", "lacks"):
        here.add("a list fact needs `contains X` or `lacks X`")


def _comparison(item: Any, here: Mistakes) -> Comparison | None:  # noqa: ANN401 - TOML values
    found = COMPARISON.fullmatch(item) if isinstance(item, str) else None
    if not found:
        here.add("must be a text `left op right`")
        return None
    return Comparison(found[1], found[2], found[3])


def parse_word(item: Any, here: Mistakes) -> str | None:  # noqa: ANN401 - TOML values
    """A kebab-case word."""
    if not isinstance(item, str) or not IDENTIFIER.fullmatch(item):
        here.add("must be a kebab-case word")
        return None
    return item


def _fix(item: Any, here: Mistakes) -> RuleFix | None:  # noqa: ANN401 - TOML values
    if isinstance(item, dict) and isinstance(item.get("do"), str) and len(item) == 1:
        return RuleFix("do", item["do"], None)
    for kind in ("package", "setting", "fact"):
        if isinstance(item, dict) and item.keys() == {kind, "to"} and isinstance(item[kind], str):
            if kind == "package" and item["to"] != ABSENT:
                check_specifier(item["to"], here)
            return RuleFix(kind, item[kind], item["to"])
    here.add("must be { package, to }, { setting, to }, { fact, to } or { do }")
    return None


def parse_evidence(item: Any, here: Mistakes) -> Evidence | None:  # noqa: ANN401 - TOML values
    """Where a claim comes from."""
    if not isinstance(item, dict) or item.keys() != {"kind", "ref"} or not isinstance(item["ref"], str):
        here.add("must be { kind, ref }")
        return None
    if item["kind"] not in EVIDENCE_KINDS or not item["ref"].strip():
        here.add(f"`kind` must be one of {', '.join(EVIDENCE_KINDS)} and `ref` must say where")
        return None
    return Evidence(item["kind"], item["ref"])


def _example(item: Any, here: Mistakes) -> Example | None:  # noqa: ANN401 - TOML values
    if not isinstance(item, dict):
        here.add("must be a table")
        return None
    for key in item.keys() - {"packages", "settings", "facts", "uses"}:
        here.add(f"unknown key `{key}`")
    return Example(
        packages={key: str(value) for key, value in parse_table(item, "packages", here).items()},
        settings=dict(_flat(parse_table(item, "settings", here))),
        facts=dict(_flat(parse_table(item, "facts", here))),
        uses=tuple(parse_list(item, "uses", here, parse_word)),
    )


def _source_ids(value: Any, here: Mistakes) -> tuple[str, ...]:  # noqa: ANN401 - TOML values
    ids = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else (None,)
    if not all(isinstance(item, str) for item in ids):
        here.add("`source_id` must be a text or an array of texts")
        return ()
    return tuple(map(str, ids))
