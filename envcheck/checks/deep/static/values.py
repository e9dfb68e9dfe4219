"""What is known of a value without running anything, and the few functions of the standard library that guards call."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    import ast

    from envcheck.checks.deep.static.namespace import Namespace


class Unknown:
    """A value that cannot be told."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown()


@dataclass(frozen=True, slots=True)
class ModuleValue:
    """A module."""

    name: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A name of another module, looked up when it is needed."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class Native:
    """Something of the standard library, or of `packaging`, that is understood."""

    name: str


@dataclass(frozen=True, slots=True)
class FunctionValue:
    """A function with the namespace it was defined in."""

    node: ast.FunctionDef
    home: Namespace


@dataclass(frozen=True, slots=True)
class Thunk:
    """An expression that nobody has asked for yet."""

    node: ast.expr
    home: Namespace


class UndecidedError(Exception):
    """The value hangs on something that cannot be told."""


class RaisedError(Exception):
    """The code would raise; `kind` is the last part of the exception's name."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


#: Values whose methods may be called.
PLAIN = (str, int, float, bool, tuple, list, dict, set, frozenset, type(None), Version)

METHODS = frozenset({
    "split", "rsplit", "partition", "rpartition", "strip", "lstrip", "rstrip", "startswith", "endswith", "lower", "upper",
    "replace", "get", "keys", "values", "items", "count", "isdigit", "isnumeric", "removeprefix", "removesuffix", "join",
    "major", "minor", "micro", "release", "base_version", "public", "local", "is_prerelease", "is_devrelease", "copy", "union",
})  # fmt: skip

#: Functions without side effects and with small results.
PURE: dict[str, Any] = {
    "int": int, "str": str, "float": float, "bool": bool, "len": len, "tuple": tuple, "list": list, "set": set, "dict": dict,
    "frozenset": frozenset, "any": any, "all": all, "min": min, "max": max, "sorted": sorted, "abs": abs,
    **{f"operator.{name}": getattr(operator, name) for name in ("gt", "ge", "lt", "le", "eq", "ne", "not_")},
}  # fmt: skip

#: Each makes a version that compares; LooseVersion is taken for one where the text is a PEP 440 version.
VERSION_MAKERS = frozenset({
    "packaging.version.parse", "packaging.version.Version", "pkg_resources.parse_version",
    "distutils.version.LooseVersion", "packaging.version.LegacyVersion",
})  # fmt: skip

LONGEST = 4096


def make_version(text: object) -> Version:
    """The version a text means.

    Raises:
        RaisedError: The text is no version.
        UndecidedError: It is no text.
    """
    if isinstance(text, Version):
        return text
    if not isinstance(text, str) or len(text) > LONGEST:
        raise UndecidedError
    try:
        return Version(text)
    except InvalidVersion:
        raise RaisedError("InvalidVersion") from None


def call_pure(name: str, arguments: list[object]) -> object:
    """The result of a function of `PURE`.

    Raises:
        RaisedError: It raises.
        UndecidedError: An argument is not plain.
    """
    if any(not isinstance(item, PLAIN) for item in arguments):
        raise UndecidedError
    try:
        return PURE[name](*arguments)
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise RaisedError(type(error).__name__) from None


def call_method(value: object, name: str, arguments: list[object]) -> object:
    """The result of a harmless method of a plain value.

    Raises:
        RaisedError: It raises.
        UndecidedError: The method is not among `METHODS`, or an argument is not plain.
    """
    if name not in METHODS or not isinstance(value, PLAIN) or any(not isinstance(item, PLAIN) for item in arguments):
        raise UndecidedError
    try:
        result = getattr(value, name)(*arguments)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise RaisedError(type(error).__name__) from None
    if isinstance(result, str) and len(result) > LONGEST:
        raise UndecidedError
    return list(result) if name in ("keys", "values", "items") else result
