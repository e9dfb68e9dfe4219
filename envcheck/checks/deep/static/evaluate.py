"""Decide the conditions that guard imports: a small, side-effect-free reading of Python expressions and functions.

What it does not understand is undecided, never guessed. Steps and depth are limited: a hostile file ends as undecided.
"""

from __future__ import annotations

import ast
import operator
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from envcheck.checks.deep.static.values import (
    PLAIN,
    PURE,
    UNKNOWN,
    VERSION_MAKERS,
    FunctionValue,
    ModuleValue,
    Native,
    RaisedError,
    Reference,
    Thunk,
    UndecidedError,
    call_method,
    call_pure,
    make_version,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from envcheck.checks.deep.static.namespace import Namespace
    from envcheck.checks.deep.static.world import World

STEPS, DEPTH = 4000, 25

COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip

#: Helpers that every project of this field has under one of these names: is a package there, and which version.
AVAILABILITY = frozenset({"_is_package_available", "is_package_available", "_package_available"})


class Returned(Exception):  # noqa: N818 - it is no error
    """A function's `return`."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value


class Evaluator:
    """Evaluates expressions of the modules of one world."""

    def __init__(self, world: World) -> None:
        """An evaluator with all its steps left."""
        self.world = world
        self.steps = STEPS
        self.depth = 0

    def value(self, node: ast.expr, home: Namespace, local: dict[str, object] | None = None) -> object:
        """The value of an expression, or UNKNOWN.

        Raises:
            RaisedError: Evaluating it raises.
        """
        try:
            return self._eval(node, home, local)
        except (UndecidedError, RecursionError):
            return UNKNOWN

    def settle(self, value: object) -> object:
        """The value with references and unevaluated expressions followed.

        Raises:
            UndecidedError: It leads nowhere.
        """
        for _ in range(DEPTH):
            if isinstance(value, Reference):
                value = self.world.lookup(value.module, value.name)
            elif isinstance(value, Thunk):
                value = self._unfold(value)
            elif value is UNKNOWN:
                raise UndecidedError
            else:
                return value
        raise UndecidedError

    def _unfold(self, thunk: Thunk) -> object:
        return self._deeper(lambda: self._eval(thunk.node, thunk.home, None))

    def _deeper(self, work: Callable[[], object]) -> object:
        self.depth += 1
        try:
            if self.depth > DEPTH:
                raise UndecidedError
            return work()
        finally:
            self.depth -= 1

    def _eval(self, node: ast.expr, home: Namespace, local: dict[str, object] | None) -> object:  # noqa: C901, PLR0912 - one branch a node
        self.steps -= 1
        if self.steps < 0:
            raise UndecidedError
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self._name(name, home, local)
            case ast.Attribute(value=base, attr=name):
                return self._attribute(self._eval(base, home, local), name)
            case ast.Call():
                return self._call(node, home, local)
            case ast.Compare():
                return self._compare(node, home, local)
            case ast.BoolOp():
                return self._boolean(node, home, local)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self._truth(operand, home, local)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(number))):
                return -number
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self._eval(body if self._truth(test, home, local) else orelse, home, local)
            case ast.Tuple(elts=items):
                return tuple(self._eval(item, home, local) for item in items)
            case ast.List(elts=items):
                return [self._eval(item, home, local) for item in items]
            case ast.Set(elts=items):
                return {self._hashable(self._eval(item, home, local)) for item in items}
            case ast.Dict(keys=keys, values=values):
                pairs = zip(keys, values, strict=True)
                return {self._hashable(self._key(key, home, local)): self._eval(value, home, local) for key, value in pairs}
            case ast.Subscript(value=base, slice=index):
                return self._item(self._eval(base, home, local), self._index(index, home, local))
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                return self._add(self._eval(left, home, local), self._eval(right, home, local))
            case ast.JoinedStr(values=parts):
                return "".join(str(self._plain(self._part(part, home, local))) for part in parts)
            case ast.GeneratorExp(elt=body, generators=[generator]) | ast.ListComp(elt=body, generators=[generator]):
                return list(self._comprehend(body, generator, home, local))
        raise UndecidedError

    def _key(self, key: ast.expr | None, home: Namespace, local: dict[str, object] | None) -> object:
        if key is None:
            raise UndecidedError
        return self._eval(key, home, local)

    def _part(self, part: ast.expr, home: Namespace, local: dict[str, object] | None) -> object:
        return self._eval(part.value if isinstance(part, ast.FormattedValue) else part, home, local)

    @staticmethod
    def _hashable(value: object) -> Any:  # noqa: ANN401 - a key
        if isinstance(value, (str, int, float, bool, type(None), tuple)):
            return value
        raise UndecidedError

    @staticmethod
    def _plain(value: object) -> Any:  # noqa: ANN401 - as Python has it
        if isinstance(value, PLAIN):
            return value
        raise UndecidedError

    @staticmethod
    def _add(left: object, right: object) -> object:
        for kind in (str, tuple, list):
            if isinstance(left, kind) and isinstance(right, kind):
                return left + right  # type: ignore[operator]
        raise UndecidedError

    def _name(self, name: str, home: Namespace, local: dict[str, object] | None) -> object:
        if local is not None and name in local:
            return self.settle(local[name])
        if name in home.names:
            return self.settle(home.names[name])
        if name in PURE or name in ("hasattr", "getattr", "map", "print"):
            return Native(name)
        if name == "__name__":
            return home.module.name
        raise UndecidedError

    def _attribute(self, base: object, name: str) -> object:
        if isinstance(base, ModuleValue):
            return self.settle(self.world.lookup(base.name, name))
        if isinstance(base, Native):
            return self.world.native(f"{base.name}.{name}")
        if isinstance(base, Version):
            return call_version(base, name)
        raise UndecidedError

    def _truth(self, node: ast.expr, home: Namespace, local: dict[str, object] | None) -> bool:
        value = self._eval(node, home, local)
        if isinstance(value, (ModuleValue, FunctionValue)):
            return True
        return bool(self._plain(value))

    def _boolean(self, node: ast.BoolOp, home: Namespace, local: dict[str, object] | None) -> object:
        stop = isinstance(node.op, ast.Or)
        undecided = False
        value: object = None
        for item in node.values:
            try:
                value = self._eval(item, home, local)
                truth = True if isinstance(value, (ModuleValue, FunctionValue)) else bool(self._plain(value))
            except UndecidedError:
                undecided = True
                continue
            if truth is stop:
                # What is undecided before it may decide the value, but not the truth.
                return stop if undecided else value
        if undecided:
            raise UndecidedError
        return value

    def _compare(self, node: ast.Compare, home: Namespace, local: dict[str, object] | None) -> bool:
        left = self._eval(node.left, home, local)
        for test, right_node in zip(node.ops, node.comparators, strict=True):
            right = self._eval(right_node, home, local)
            if not self._holds(test, left, right):
                return False
            left = right
        return True

    def _holds(self, test: ast.cmpop, left: object, right: object) -> bool:
        if isinstance(test, (ast.Is, ast.IsNot)):
            if left is None or right is None or isinstance(left, bool) or isinstance(right, bool):
                return (left is right) == isinstance(test, ast.Is)
            raise UndecidedError
        left, right = self._plain(left), self._plain(right)
        if isinstance(left, Version) and isinstance(right, str):
            right = make_version(right)
        elif isinstance(right, Version) and isinstance(left, str):
            left = make_version(left)
        try:
            return COMPARE[type(test)](left, right)
        except TypeError:
            raise RaisedError("TypeError") from None

    def _index(self, node: ast.expr, home: Namespace, local: dict[str, object] | None) -> object:
        if isinstance(node, ast.Slice):
            parts = [None if part is None else self._eval(part, home, local) for part in (node.lower, node.upper, node.step)]
            return slice(*parts)
        return self._eval(node, home, local)

    def _item(self, base: object, index: object) -> object:
        if not isinstance(base, (str, tuple, list, dict)):
            raise UndecidedError
        try:
            return self.settle(base[index])  # type: ignore[index,call-overload]
        except (KeyError, IndexError, TypeError) as error:
            raise RaisedError(type(error).__name__) from None

    def _comprehend(
        self, body: ast.expr, generator: ast.comprehension, home: Namespace, local: dict[str, object] | None,
    ) -> Iterator[object]:  # fmt: skip
        source = self._plain(self._eval(generator.iter, home, local))
        if not isinstance(generator.target, ast.Name) or not isinstance(source, (str, tuple, list, dict, set, frozenset)):
            raise UndecidedError
        for item in source:
            inner = {**(local or {}), generator.target.id: item}
            if all(self._truth(test, home, inner) for test in generator.ifs):
                yield self._eval(body, home, inner)

    def _call(self, node: ast.Call, home: Namespace, local: dict[str, object] | None) -> object:
        if any(isinstance(item, ast.Starred) for item in node.args) or any(item.arg is None for item in node.keywords):
            raise UndecidedError
        if isinstance(node.func, ast.Attribute):
            base = self._eval(node.func.value, home, local)
            if isinstance(base, PLAIN):
                return call_method(base, node.func.attr, [self._eval(item, home, local) for item in node.args])
            function = self._attribute(base, node.func.attr)
        else:
            function = self._eval(node.func, home, local)
        keywords = {item.arg: item.value for item in node.keywords if item.arg}
        if isinstance(function, Native):
            return self._native(function.name, node.args, keywords, home, local)
        if isinstance(function, FunctionValue):
            if function.node.name in AVAILABILITY:
                return self._available(node.args, keywords, home, local)
            arguments = [self._lenient(item, home, local) for item in node.args]
            named = {name: self._lenient(item, home, local) for name, item in keywords.items()}
            return self._deeper(lambda: self._run(function, arguments, named))
        raise UndecidedError

    def _lenient(self, node: ast.expr, home: Namespace, local: dict[str, object] | None) -> object:
        """An argument; one that cannot be told may still not matter."""
        try:
            return self._eval(node, home, local)
        except UndecidedError:
            return UNKNOWN

    def _available(
        self, arguments: list[ast.expr], keywords: dict[str, ast.expr], home: Namespace, local: dict[str, object] | None,
    ) -> object:  # fmt: skip
        """The answer of a project's own `_is_package_available(name, return_version=False)`."""
        if not arguments:
            raise UndecidedError
        name = self._eval(arguments[0], home, local)
        if not isinstance(name, str) or set(keywords) - {"return_version", "metadata_name"} or len(arguments) > 2:  # noqa: PLR2004
            raise UndecidedError
        there = self.world.finder.find(name) is not None
        if "return_version" in keywords and self._truth(keywords["return_version"], home, local):
            return there, (self.world.version_of(name) or "N/A") if there else "N/A"
        return there

    def _native(  # noqa: C901 - one branch a function
        self, name: str, nodes: list[ast.expr], keywords: dict[str, ast.expr], home: Namespace, local: dict[str, object] | None,
    ) -> object:  # fmt: skip
        arguments = [self._eval(item, home, local) for item in nodes]
        first = arguments[0] if arguments else None
        if name in ("importlib.util.find_spec", "importlib.find_loader", "pkgutil.find_loader") and isinstance(first, str):
            return ModuleValue(first) if self.world.finder.find(first) else None
        if name in ("importlib.metadata.version", "importlib_metadata.version") and isinstance(first, str):
            version = self.world.version_of(first)
            if version is None:
                raise RaisedError("PackageNotFoundError")
            return version
        if name in ("os.environ.get", "os.getenv") and isinstance(first, str):
            return self.world.variable(first, arguments[1] if len(arguments) > 1 else None)
        if name in VERSION_MAKERS:
            return make_version(first)
        if name == "hasattr" and isinstance(first, ModuleValue) and isinstance(arguments[1], str):
            known = self.world.has(first.name, arguments[1])
            if known is None:
                raise UndecidedError
            return known
        if name == "getattr" and isinstance(first, ModuleValue) and isinstance(arguments[1], str):
            return self._attribute(first, arguments[1])
        if name == "map" and isinstance(first, Native) and isinstance(arguments[1], (tuple, list)):
            return [call_pure(first.name, [item]) for item in arguments[1]]
        if name in PURE and not keywords:
            return call_pure(name, arguments)
        if name in self.world.constants:
            return self.world.constants[name]
        raise UndecidedError

    def _run(self, function: FunctionValue, arguments: list[object], named: dict[str, object]) -> object:
        """Call a function of a module; decorators other than caches change what it does."""
        node = function.node
        if any(not _is_cache(item) for item in node.decorator_list):
            raise UndecidedError
        parameters = [*node.args.posonlyargs, *node.args.args]
        if len(arguments) > len(parameters) or node.args.vararg or node.args.kwarg:
            raise UndecidedError
        local: dict[str, object] = {}
        for parameter, default in zip(reversed(parameters), reversed(node.args.defaults), strict=False):
            local[parameter.arg] = Thunk(default, function.home)
        for parameter, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
            if value is not None:
                local[parameter.arg] = Thunk(value, function.home)
        local.update({parameter.arg: value for parameter, value in zip(parameters, arguments, strict=False)})
        local.update(named)
        try:
            self._body(node.body, function.home, local)
        except Returned as done:
            if done.value is UNKNOWN:
                raise UndecidedError from None
            return done.value
        return None

    def _body(self, body: list[ast.stmt], home: Namespace, local: dict[str, object]) -> None:
        for statement in body:
            self.steps -= 1
            self._statement(statement, home, local)

    def _statement(self, node: ast.stmt, home: Namespace, local: dict[str, object]) -> None:  # noqa: C901, PLR0912 - one branch a node
        match node:
            case ast.Return(value=value):
                raise Returned(None if value is None else self._eval(value, home, local))
            case ast.Assign(targets=[target], value=value):
                self._assign(target, self._lenient(value, home, local), local)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                local[name] = self._lenient(value, home, local)
            case ast.If(test=test, body=body, orelse=orelse):
                self._body(body if self._truth(test, home, local) else orelse, home, local)
            case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=final):
                self._try(body, handlers, orelse, home, local)
                self._body(final, home, local)
            case ast.Raise(exc=error):
                raise RaisedError(last_name(error.func if isinstance(error, ast.Call) else error) or "Exception")
            case ast.Import(names=names):
                for alias in names:
                    self._imported(alias.name, None)
                    local[alias.asname or alias.name.partition(".")[0]] = ModuleValue(
                        alias.name if alias.asname else alias.name.partition(".")[0]
                    )
            case ast.ImportFrom(module=str(module), names=names, level=0):
                for alias in names:
                    self._imported(module, alias.name)
                    local[alias.asname or alias.name] = Reference(module, alias.name)
            case ast.ImportFrom(names=names):
                module = self.world.absolute(home.module, node.module, node.level)
                for alias in names:
                    local[alias.asname or alias.name] = Reference(module, alias.name)
            case ast.With(body=body):
                self._body(body, home, local)
            case ast.For(target=ast.Name(id=name), iter=source, body=body, orelse=[]):
                for item in self._sequence(self._eval(source, home, local)):
                    local[name] = item
                    self._body(body, home, local)
            case ast.Expr() | ast.Pass() | ast.Global() | ast.Assert():
                pass
            case _:
                raise UndecidedError

    def _sequence(self, value: object) -> list[object]:
        if isinstance(value, (tuple, list)) and len(value) < 1000:  # noqa: PLR2004 - a guard loops over a handful
            return list(value)
        raise UndecidedError

    def _imported(self, module: str, name: str | None) -> None:
        """Raise what an import inside a function raises."""
        there = self.world.finder.find(module)
        if there is None:
            if not self.world.finder.sure(module):
                raise UndecidedError
            raise RaisedError("ModuleNotFoundError")
        if name and self.world.has(module, name) is False:
            raise RaisedError("ImportError")

    def _assign(self, target: ast.expr, value: object, local: dict[str, object]) -> None:
        if isinstance(target, ast.Name):
            local[target.id] = value
        elif isinstance(target, ast.Tuple):
            items = value if isinstance(value, (tuple, list)) and len(value) == len(target.elts) else [UNKNOWN] * len(target.elts)
            for part, item in zip(target.elts, items, strict=True):
                self._assign(part, item, local)
        # An attribute or an item of something else: no name of this function changes.

    def _try(
        self, body: list[ast.stmt], handlers: list[ast.ExceptHandler], orelse: list[ast.stmt], home: Namespace,
        local: dict[str, object],
    ) -> None:  # fmt: skip
        try:
            self._body(body, home, local)
        except RaisedError as error:
            for handler in handlers:
                if catches(handler, error.kind):
                    self._body(handler.body, home, local)
                    return
            raise
        self._body(orelse, home, local)


#: Exceptions with those that they are also caught as.
ABOVE = {
    "ModuleNotFoundError": ("ImportError",), "PackageNotFoundError": ("ModuleNotFoundError", "ImportError"),
    "InvalidVersion": ("ValueError",), "KeyError": ("LookupError",), "IndexError": ("LookupError",),
    "OptionalDependencyNotAvailable": ("BaseException",), "NotImplementedError": ("RuntimeError",),
}  # fmt: skip


def catches(handler: ast.ExceptHandler, kind: str) -> bool:
    """Whether a handler takes an exception of that name."""
    if handler.type is None:
        return True
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    wanted = {kind, "Exception", "BaseException", *ABOVE.get(kind, ())}
    return any(last_name(item) in wanted for item in types)


def last_name(node: ast.expr | None) -> str:
    """`version` of `importlib.metadata.version`; empty for anything but names and attributes."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _is_cache(decorator: ast.expr) -> bool:
    function = decorator.func if isinstance(decorator, ast.Call) else decorator
    return last_name(function) in ("lru_cache", "cache")


def call_version(version: Version, name: str) -> object:
    """A property of a version.

    Raises:
        UndecidedError: It has no such property.
    """
    if name in ("major", "minor", "micro", "release", "base_version", "public", "local", "is_prerelease", "is_devrelease"):
        return getattr(version, name)
    if name == "version":  # of a LooseVersion
        return list(version.release)
    raise UndecidedError
