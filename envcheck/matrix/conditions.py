"""The conditions of a rule, three-valued: True, False, or None where something is not known."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from envcheck.facts.model import Absent, Known
from envcheck.matrix.rule import ABSENT, ANY, PRESENT, Comparison, SettingCondition
from envcheck.matrix.settings import UNSAID, UNSET, Settings
from envcheck.matrix.versions import part, plain, satisfies

if TYPE_CHECKING:
    from collections.abc import Callable

    from envcheck.facts.model import Environment, Fact, Gpu

COMPARATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
NUMERIC: dict[str, Callable[[Any, Any], bool]] = {
    "above": operator.gt, "at_least": operator.ge, "below": operator.lt, "at_most": operator.le,
}  # fmt: skip
PARTS = ("major", "minor", "local")


def package_holds(environment: Environment, name: str, spec: str) -> bool | None:
    """Whether the installed version of `name` fulfils `spec` (a specifier set, `*` or `absent`)."""
    found = environment.packages.get(name)
    if found is None:
        return (spec == ABSENT) if environment.complete else None
    if spec == ABSENT:
        return False
    return True if spec == ANY else satisfies(found.version, spec)


def setting_holds(settings: Settings, condition: SettingCondition) -> bool | None:
    """Whether the setting fulfils the condition; None where its value is not known."""
    value = settings.get(condition.key)
    if value is UNSAID:
        return True if condition.or_unknown else None
    if condition.operator == "set":
        return (value is not UNSET) is bool(condition.operand)
    if value is UNSET:
        return condition.or_unset
    return _compare_setting(value, condition.operator, condition.operand)


def _compare_setting(value: Any, name: str, operand: Any) -> bool | None:  # noqa: ANN401 - JSON values
    if name in NUMERIC:
        number = as_number(value)
        return None if number is None else NUMERIC[name](number, operand)
    options = operand if name in ("in", "not_in") else [operand]
    found = any(same(value, option) for option in options)
    return found if name in ("equals", "in") else not found


def as_number(value: object) -> float | None:
    """A JSON number, or a text that holds one, as float; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None


def same(left: object, right: object) -> bool:
    """Equality of settings: booleans only equal booleans, numbers by value, texts without regard to case."""
    if isinstance(left, bool) or isinstance(right, bool):
        return _as_bool(left) is not None and _as_bool(left) is _as_bool(right)
    one, two = as_number(left), as_number(right)
    if one is not None and two is not None:
        return one == two
    return str(left).lower() == str(right).lower()


def _as_bool(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(str(value).lower())


def fact_holds(environment: Environment, kind: str, name: str, condition: str) -> bool | None:
    """Whether a fact fulfils a condition of `when.facts`; for `gpu.*` whether any visible GPU does."""
    if name.startswith("gpu.") and name != "gpu.count" and environment.gpus is not None:
        return _any_gpu_holds(environment, kind, name, condition)
    fact = lookup(environment, name)
    if isinstance(fact, Absent):
        return condition == ABSENT or (condition[:1] == "!" and kind == "word")
    if not isinstance(fact, Known):
        return None
    if condition in (ABSENT, PRESENT):
        return condition == PRESENT
    return value_holds(fact.value, kind, condition)


def lookup(environment: Environment, name: str) -> Fact:
    """The fact, with environment variables that were looked for and not set as `Absent`, and GPUs counted."""
    fact = environment.fact(name)
    if name in environment.facts:
        return fact
    if name.startswith("env.") and isinstance(environment.fact("env"), Known):
        return Absent(("process environment",))
    if name == "gpu.count" and environment.gpus is not None:
        return Known(str(len(environment.gpus)), "visible GPUs")
    return fact


def gpu_attribute(environment: Environment, gpu: Gpu, name: str) -> str:
    """One fact `gpu.*` of one GPU as text; empty where it is not known."""
    if name == "gpu.vendor":
        ours = gpu.compute_capability or gpu.product_class or "nvidia" in gpu.name.lower()
        return environment.text(name) or ("nvidia" if ours else "")
    values = {
        "gpu.name": gpu.name, "gpu.class": gpu.product_class, "gpu.compute_capability": gpu.compute_capability,
        "gpu.memory_mib": str(gpu.memory_mib or ""),
    }  # fmt: skip
    return values.get(name, "")


def _any_gpu_holds(environment: Environment, kind: str, name: str, condition: str) -> bool | None:
    if not environment.gpus:
        return condition == ABSENT
    results = [_gpu_holds(gpu_attribute(environment, gpu, name), kind, condition) for gpu in environment.gpus]
    return True if True in results else (None if None in results else False)


def _gpu_holds(value: str, kind: str, condition: str) -> bool | None:
    if not value:
        return None
    return (condition == PRESENT) if condition in (ABSENT, PRESENT) else value_holds(value, kind, condition)


def value_holds(value: str | tuple[str, ...], kind: str, condition: str) -> bool | None:
    """Whether a known value fulfils a condition of its kind (`version`, `word` or `list`)."""
    if kind == "list":
        return _list_holds((value,) if isinstance(value, str) else value, condition)
    text = value if isinstance(value, str) else " ".join(value)
    if kind == "version":
        return satisfies(text, condition)
    negated = condition.startswith("!")
    options = condition.removeprefix("!").split("|")
    return any(_like(text.lower(), option.strip().lower()) for option in options) is not negated


def _list_holds(values: tuple[str, ...], condition: str) -> bool:
    word, _, wanted = condition.partition(" ")
    found = any(_among(values, option.strip()) for option in wanted.split("|"))
    return found if word == "contains" else not found


def _among(values: tuple[str, ...], option: str) -> bool:
    """Whether an option, in which `*` stands for any text, is one of the values."""
    return any(_like(value, option) for value in values)


def _like(text: str, pattern: str) -> bool:
    """Whether a text is the pattern, in which `*` stands for any text."""
    if "*" not in pattern:
        return text == pattern
    from fnmatch import fnmatchcase  # noqa: PLC0415 - most conditions need none

    return fnmatchcase(text, pattern.replace("[", "[[]").replace("?", "[?]"))


def comparison_holds(environment: Environment, comparison: Comparison) -> bool | None:
    """Whether `left op right` holds; None where an operand is unknown, absent or not a version."""
    left, right = operand_text(environment, comparison.left), operand_text(environment, comparison.right)
    if left is None or right is None:
        return None
    one, two = plain(left), plain(right)
    compare = COMPARATORS[comparison.operator]
    if one is None or two is None:
        return compare(left, right) if comparison.operator in ("==", "!=") else None
    return compare(one.version, two.version)


def operand_text(environment: Environment, name: str) -> str | None:
    """The text of an operand of `when.compare`, or None."""
    base, _, suffix = name.rpartition(".")
    wanted = suffix if suffix in PARTS and base else ""
    base = base if wanted else name
    if base.startswith("package:"):
        found = environment.packages.get(base.removeprefix("package:"))
        text = found.version if found else None
    else:
        fact = lookup(environment, base)
        text = fact.value if isinstance(fact, Known) and isinstance(fact.value, str) else None
    return part(text, wanted) if wanted and text is not None else text
