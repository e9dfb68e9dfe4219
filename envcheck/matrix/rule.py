"""A rule as a value."""

from __future__ import annotations

from typing import Any, NamedTuple

from envcheck.findings import Evidence, Fix, Severity

STATUSES = ("bad", "suspect", "change", "good")
SILENT = frozenset({"wrong-gradient", "zero-gradient", "nan", "wrong-loss", "silent-change", "hang", "slow"})
LOUD = frozenset({"import-error", "crash", "build-failure", "install-conflict", "no-gpu"})
EFFECTS = SILENT | LOUD | {"none"}
EVIDENCE_KINDS = ("issue", "fix", "code", "docs", "probe")

#: Specifier texts that ask for presence or absence instead of a version.
ANY = "*"
ABSENT = "absent"
PRESENT = "present"

OPERATORS = ("equals", "not", "in", "not_in", "above", "at_least", "below", "at_most", "set")


class SettingCondition(NamedTuple):
    """One entry of `when.settings`.

    Attributes:
        key: Dotted DeepSpeed key, TrainingArguments name, `world_size` or `model_type`.
        operator: One of `OPERATORS`.
        operand: What it compares with.
        or_unset: True when a key that is known not to be set also fulfils it.
        or_unknown: True when a key of which nothing is known also fulfils it: the condition only excludes.
    """

    key: str
    operator: str
    operand: Any
    or_unset: bool = False
    or_unknown: bool = False

    def __str__(self) -> str:
        """In words: `gradient_accumulation_steps` above 1."""
        words = {
            "equals": "is", "not": "is not", "in": "is one of", "not_in": "is none of", "above": "is above",
            "at_least": "is at least", "below": "is below", "at_most": "is at most",
        }  # fmt: skip
        if self.operator == "set":
            return f"`{self.key}` is {'set' if self.operand else 'not set'}"
        operand = ", ".join(map(show, self.operand)) if isinstance(self.operand, list) else show(self.operand)
        return f"`{self.key}` {words[self.operator]} {operand}{' (or not set)' if self.or_unset else ''}"


class Comparison(NamedTuple):
    """One entry of `when.compare`: two operands (`fact.part` or `package:NAME.part`) and an operator."""

    left: str
    operator: str
    right: str

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.left} {self.operator} {self.right}"


class Example(NamedTuple):
    """One entry of `matches` or `clear`."""

    packages: dict[str, str]
    settings: dict[str, Any]
    facts: dict[str, Any]
    uses: tuple[str, ...] = ()


class RuleFix(NamedTuple):
    """One entry of `fix`: `kind` is package, setting, fact or do."""

    kind: str
    name: str
    to: Any

    def as_fix(self) -> Fix:
        """The report's form: `deepspeed>=0.19.6`, `zero_optimization.overlap_comm=false`, a sentence."""
        if self.kind == "do":
            return Fix("do", self.name)
        if self.kind == "setting":
            return Fix("config", f"{self.name}={show(self.to)}")
        return Fix(self.kind, f"{self.name}{self.to}" if str(self.to)[:1] in "<>=!~" else f"{self.name} {self.to}")


class Rule(NamedTuple):
    """One entry of the matrix; `matrices/README.md` explains every field."""

    id: str
    title: str
    status: str
    effect: str
    packages: dict[str, str]
    settings: tuple[SettingCondition, ...]
    facts: dict[str, str]
    compare: tuple[Comparison, ...] = ()
    uses: tuple[str, ...] = ()
    unknown: str = ""
    symptom: str = ""
    error: str = ""
    fix: tuple[RuleFix, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    bounds: str = ""
    uncertain: str = ""
    measured: str = ""
    reviewed: str = ""
    source_id: tuple[str, ...] = ()
    matches: tuple[Example, ...] = ()
    clear: tuple[Example, ...] = ()
    file: str = ""

    @property
    def severity(self) -> Severity:
        """The severity when the whole condition is true."""
        if self.status == "bad":
            return Severity.WARNING if self.effect == "slow" else Severity.ERROR
        return Severity.WARNING if self.status == "suspect" else Severity.INFO

    @property
    def subjects(self) -> tuple[str, ...]:
        """Every package, setting and fact the rule is about."""
        facts = [*self.facts, *(side for item in self.compare for side in (item.left, item.right))]
        named = [*self.packages, *(item.key for item in self.settings), *map(subject_of_fact, facts)]
        return tuple(dict.fromkeys(named))


def subject_of_fact(name: str) -> str:
    """The report's word for a fact: `gpu` for `gpu.*`, the package for `package:NAME.part`, else the name."""
    if name.startswith("package:"):
        return name.removeprefix("package:").rsplit(".", 1)[0]
    if name.startswith("gpu"):
        return "gpu"
    for suffix in (".major", ".minor", ".local"):
        name = name.removesuffix(suffix)
    return name


def show(value: object) -> str:
    """A setting's value as JSON would write it, without quotes around words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)
