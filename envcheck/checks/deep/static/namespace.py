"""The names that a module's top level binds, the imports it makes, and under which conditions: one pass over its statements."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from envcheck.checks.deep.static.evaluate import ABOVE, last_name
from envcheck.checks.deep.static.values import (
    UNKNOWN,
    FunctionValue,
    ModuleValue,
    RaisedError,
    Reference,
    Thunk,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from envcheck.checks.deep.static.finder import Module
    from envcheck.checks.deep.static.world import World

IMPORT_ERRORS = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})

AVAILABLE = re.compile(r"_?is_(\w+?)_available$")

#: What `is_X_available` speaks of, where it is not the module's own name.
ALIASES = {
    "vision": "PIL", "tf": "tensorflow", "flash_attn_2": "flash_attn", "bnb": "bitsandbytes", "torch_tpu": "torch_xla",
    "npu": "torch_npu", "xpu": "intel_extension_for_pytorch", "mlu": "torch_mlu", "musa": "torch_musa",
    "hpu": "habana_frameworks",
}  # fmt: skip


class Flow(Enum):
    """How a block of statements ends."""

    NEXT = "next"
    RAISE = "raise"
    MAYBE = "maybe"


@dataclass(frozen=True, slots=True)
class Under:
    """The conditions that a statement stands under.

    Attributes:
        guards: Conditions that could not be decided, as source text; both ways are read.
        likely: Conditions that hold as far as names tell (`is_x_available()` with x installed).
        handled: An `except` or a context manager takes a failing import.
    """

    guards: tuple[str, ...] = ()
    likely: tuple[str, ...] = ()
    handled: bool = False


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement that the top level makes.

    Attributes:
        line: Its line.
        module: Absolute name of the module.
        names: Names taken from it; empty for `import module`.
        star: True for `*`.
        under: Its conditions.
    """

    line: int
    module: str
    names: tuple[str, ...]
    star: bool
    under: Under


@dataclass(slots=True, eq=False)
class Namespace:
    """What a module's top level does.

    Attributes:
        module: The module.
        names: Bound names with their values; UNKNOWN where the value or the binding is not sure.
        imports: In order.
        exports: Further names of a literal `__all__`.
        stars: Modules that it takes everything from.
        open: Why it may have further names; empty where it has not.
        registers: Whether it enters modules of other names into `sys.modules`.
        lazy_names: Names that are loaded when they are used -> module that gives them.
        lazy_stars: Modules whose names a type checker sees in it, and that it loads when they are used.
    """

    module: Module
    names: dict[str, object] = field(default_factory=dict)
    imports: list[Import] = field(default_factory=list)
    exports: set[str] = field(default_factory=set)
    stars: list[str] = field(default_factory=list)
    open: str = ""
    registers: bool = False
    lazy_names: dict[str, str] = field(default_factory=dict)
    lazy_stars: list[str] = field(default_factory=list)


def read_namespace(module: Module, tree: ast.Module, world: World) -> Namespace:
    """Read the top level of a module."""
    reader = _Reader(module, world)
    reader.block(tree.body, Under())
    return reader.finish()


class _Reader:
    """The pass over one module."""

    def __init__(self, module: Module, world: World) -> None:
        self.space = Namespace(module)
        self.world = world
        self.typing_names: dict[str, str] = {}
        self.typing_stars: list[str] = []
        self.structures: dict[str, dict[str, list[str] | None]] = {}
        self.lazy = False
        self.shallow = False

    def finish(self) -> Namespace:
        """The namespace, with what a lazy module gives on demand."""
        space = self.space
        if self.lazy:
            for structure in self.structures.values():
                for key, names in structure.items():
                    where = f"{space.module.name}.{key}"
                    space.lazy_names.setdefault(key, where)
                    for name in names or ():
                        space.lazy_names.setdefault(name, where)
                    if names is None and key:
                        space.lazy_stars.append(where)
            for name, where in self.typing_names.items():
                space.lazy_names.setdefault(name, where)
            space.lazy_stars += self.typing_stars
            if not space.lazy_names and not space.lazy_stars:
                space.open = "its lazy names are computed"
        return space

    def block(self, body: Sequence[ast.stmt], under: Under) -> Flow:
        """Read statements until one surely raises."""
        flow = Flow.NEXT
        for statement in body:
            ended = self.statement(statement, under)
            if ended is Flow.RAISE:
                return Flow.RAISE if flow is Flow.NEXT else Flow.MAYBE
            if ended is Flow.MAYBE:
                flow = Flow.MAYBE
                under = replace(under, guards=(*under.guards, f"line {statement.lineno} does not raise"))
        return flow

    def statement(self, node: ast.stmt, under: Under) -> Flow:  # noqa: C901, PLR0912 - one branch a statement
        """Read one statement."""
        match node:
            case ast.Import() | ast.ImportFrom():
                self._import(node, under)
            case ast.If():
                return self._if(node, under)
            case ast.Try():
                return self._try(node, under)
            case ast.With(items=items, body=body):
                return self.block(body, replace(under, handled=under.handled or any(_suppresses(item) for item in items)))
            case ast.FunctionDef(name=name):
                self.space.names[name] = FunctionValue(node, self.space)
                if name == "__getattr__":
                    self.space.open = "it has a `__getattr__`"
            case ast.AsyncFunctionDef(name=name):
                self.space.names[name] = UNKNOWN
            case ast.ClassDef(name=name, body=body):
                kept = dict(self.space.names)
                self.block([item for item in body if isinstance(item, (ast.Import, ast.ImportFrom))], under)
                self.space.names = {**kept, name: UNKNOWN}
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target, value, under)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, value, under)
            case ast.AugAssign(target=target, value=value):
                self._augment(target, value)
            case ast.For(target=target, body=body, orelse=orelse) | ast.AsyncFor(target=target, body=body, orelse=orelse):
                self._bind_unknown(target)
                self._both([body, orelse], under, "a loop")
            case ast.While(body=body, orelse=orelse):
                self._both([body, orelse], under, "a loop")
            case ast.Match(cases=cases):
                self._both([case.body for case in cases], under, "a match")
            case ast.Expr(value=ast.Call() as call):
                self._called(call)
            case ast.Delete(targets=targets):
                for target in targets:
                    if isinstance(target, ast.Name) and not under.guards:
                        self.space.names.pop(target.id, None)
            case ast.Raise():
                return Flow.RAISE
        return Flow.NEXT

    # Imports.

    def _import(self, node: ast.Import | ast.ImportFrom, under: Under) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                self.space.imports.append(Import(node.lineno, alias.name, (), star=False, under=under))
                first = alias.name.partition(".")[0]
                self._bind(alias.asname or first, ModuleValue(alias.name if alias.asname else first), under)
            return
        module = self.world.absolute(self.space.module, node.module, node.level)
        names = tuple(alias.name for alias in node.names)
        star = names == ("*",)
        self.space.imports.append(Import(node.lineno, module, () if star else names, star=star, under=under))
        if star:
            if not self.shallow:
                self._take_all(module)
            return
        for alias in node.names:
            self._bind(alias.asname or alias.name, Reference(module, alias.name), under)
            if alias.asname == "__getattr__" or alias.name == "__getattr__":
                self.space.open = "its `__getattr__` comes from elsewhere"

    def _take_all(self, module: str) -> None:
        self.space.stars.append(module)
        given = self.world.namespace(module)
        if given is None or given.open or given.lazy_names or given.lazy_stars:
            self.space.open = f"it takes all names of `{module}`"
        if given is not None:
            for name in (*given.names, *given.exports):
                self.space.names.setdefault(name, Reference(module, name))

    def fails(self, node: ast.stmt) -> bool:
        """Whether an import statement surely fails, as far as its own module and names tell."""
        if isinstance(node, ast.Import):
            return any(self.world.there(alias.name) is False for alias in node.names)
        if not isinstance(node, ast.ImportFrom):
            return False
        module = self.world.absolute(self.space.module, node.module, node.level)
        if self.world.there(module) is False:
            return True
        return any(self.world.has(module, alias.name) is False for alias in node.names if alias.name != "*")

    # Conditions.

    def _if(self, node: ast.If, under: Under) -> Flow:
        text = ast.unparse(node.test)[:120]
        if "TYPE_CHECKING" in text:
            self._typing(node.body if not text.startswith("not ") else node.orelse)
        truth, likely = self.decide(node.test)
        if truth is None:
            return self._both([node.body, node.orelse], under, text)
        if likely:
            under = replace(under, likely=(*under.likely, text))
        return self.block(node.body if truth else node.orelse, under)

    def decide(self, test: ast.expr) -> tuple[bool | None, bool]:
        """The truth of a condition, None where it cannot be told; and whether it is only likely."""
        value = self._value(test)
        if value is not UNKNOWN:
            return (bool(value) if not isinstance(value, (ModuleValue, FunctionValue)) else True), False
        match test:
            case ast.Call(func=function, args=[]):
                named = AVAILABLE.fullmatch(last_name(function))
                if named:
                    module = ALIASES.get(named[1], named[1])
                    return (True, True) if self.world.finder.find(module) else (False, False)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                truth, likely = self.decide(operand)
                return (None if truth is None else not truth), likely
            case ast.BoolOp(op=op, values=values):
                parts = [self.decide(item) for item in values]
                stop = isinstance(op, ast.Or)
                if any(truth is stop and not likely for truth, likely in parts):
                    return stop, False
                if any(truth is None for truth, _ in parts):
                    return None, False
                return (stop if any(truth is stop for truth, _ in parts) else not stop), True
        return None, False

    def _value(self, node: ast.expr) -> object:
        try:
            return self.world.evaluator().value(node, self.space)
        except RaisedError:
            return UNKNOWN

    def _both(self, bodies: Sequence[Sequence[ast.stmt]], under: Under, text: str) -> Flow:
        """Read every way; names that one of them binds have no sure value."""
        before = dict(self.space.names)
        ends = [self.block(body, replace(under, guards=(*under.guards, text))) for body in bodies]
        for name, value in self.space.names.items():
            if name not in before or before[name] is not value:
                self.space.names[name] = UNKNOWN
        if all(end is Flow.RAISE for end in ends):
            return Flow.RAISE
        return Flow.NEXT if all(end is Flow.NEXT for end in ends) else Flow.MAYBE

    def _try(self, node: ast.Try, under: Under) -> Flow:
        catching = [handler for handler in node.handlers if _takes(handler, IMPORT_ERRORS)]
        failing = next((number for number, item in enumerate(node.body) if self.fails(item)), None) if catching else None
        if failing is not None:
            self.block(node.body[:failing], replace(under, handled=True))
            again = any(isinstance(item, ast.Raise) for item in catching[0].body)
            self.block([node.body[failing]], replace(under, handled=not again))
            flow = self.block(catching[0].body, under)
            self.block(node.finalbody, under)
            return flow
        flow = self.block(node.body, replace(under, handled=under.handled or bool(catching)))
        others = [handler.body for handler in node.handlers]
        if flow is Flow.RAISE and others:
            thrown = _thrown(node.body)
            taken = next((item.body for item in node.handlers if _takes(item, frozenset({thrown, *ABOVE.get(thrown, ())}))), None)
            flow = self.block(taken, under) if taken is not None else self._both(others, under, "an exception")
        elif flow is Flow.NEXT:
            flow = self.block(node.orelse, under)
            self._aside(others, under)
        elif others:
            flow = self._both([node.orelse, *others], under, "an exception")
        self.block(node.finalbody, under)
        return flow

    def _aside(self, bodies: Sequence[Sequence[ast.stmt]], under: Under) -> None:
        """Handlers of what does not seem to happen: they may still bind names."""
        kept = dict(self.space.names)
        for body in bodies:
            self.block(body, replace(under, guards=(*under.guards, "an exception"), handled=True))
        self.space.names = {**self.space.names, **kept}

    def _typing(self, body: Sequence[ast.stmt]) -> None:
        """What a type checker sees, and a lazy module gives on demand."""
        inner = _Reader(self.space.module, self.world)
        inner.shallow = True
        inner.space.names = dict(self.space.names)
        inner.block(body, Under())
        for item in inner.space.imports:
            if item.star:
                self.typing_stars.append(item.module)
            for name in item.names:
                below = f"{item.module}.{name}"
                self.typing_names[name] = below if self.world.finder.find(below) else item.module

    # Bindings.

    def _bind(self, name: str, value: object, under: Under) -> None:
        self.space.names[name] = value if not under.guards else UNKNOWN

    def _bind_unknown(self, target: ast.expr) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name):
                self.space.names[node.id] = UNKNOWN

    def _assign(self, target: ast.expr, value: ast.expr, under: Under) -> None:
        match target:
            case ast.Name(id=name):
                self._assign_name(name, value, under)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                names = [part.id for part in parts if isinstance(part, ast.Name)]
                if "__getattr__" in names:
                    self._attached(value)
                elif isinstance(value, ast.Tuple) and len(value.elts) == len(parts):
                    for part, item in zip(parts, value.elts, strict=True):
                        self._assign(part, item, under)
                else:
                    self._unpack(parts, value)
            case ast.Subscript(value=base, slice=index):
                self._assign_item(base, index, value)
            case ast.Attribute():
                pass
            case _:
                self._bind_unknown(target)

    def _unpack(self, parts: Sequence[ast.expr], value: ast.expr) -> None:
        known = self._value(value)
        items = list(known) if isinstance(known, (tuple, list)) and len(known) == len(parts) else [UNKNOWN] * len(parts)
        for part, item in zip(parts, items, strict=True):
            if isinstance(part, ast.Name):
                self.space.names[part.id] = item
            else:
                self._bind_unknown(part)

    def _assign_name(self, name: str, value: ast.expr, under: Under) -> None:
        structure = _structure(value)
        if structure is not None:
            self.structures[name] = structure
        if name == "__all__":
            self.space.exports |= set(_texts(value))
        if name == "__getattr__":
            self.space.open = "its `__getattr__` is computed"
        again = name in self.space.names and any(isinstance(item, ast.Name) and item.id == name for item in ast.walk(value))
        plain = self._value(value) if again or isinstance(value, (ast.Constant, ast.BoolOp)) else Thunk(value, self.space)
        self._bind(name, plain, under)

    def _attached(self, value: ast.expr) -> None:
        """`__getattr__, __dir__, __all__ = attach(__name__, submod_attrs={...})` (lazy_loader, huggingface_hub)."""
        self.space.names["__getattr__"] = UNKNOWN
        arguments = [*value.args, *(item.value for item in value.keywords)] if isinstance(value, ast.Call) else []
        found = False
        for argument in arguments:
            structure = self.structures.get(argument.id) if isinstance(argument, ast.Name) else _structure(argument)
            if structure:
                self.structures.setdefault("attached", {}).update(structure)
                found = True
        self.lazy = found
        self.space.open = "" if found else "it has a `__getattr__`"

    def _assign_item(self, base: ast.expr, index: ast.expr, value: ast.expr) -> None:
        """`_import_structure["sub"] = [...]`, `sys.modules[...] = ...`, `globals()[...] = ...`."""
        if isinstance(base, ast.Attribute) and base.attr == "modules" and last_name(base.value) == "sys":
            self._replace(index, value)
        elif (isinstance(base, ast.Call) and last_name(base.func) in ("globals", "vars")) or last_name(base) == "__dict__":
            self.space.open = "it sets names through `globals()`"
        elif isinstance(base, ast.Name) and base.id in self.structures and isinstance(index, ast.Constant):
            self.structures[base.id][str(index.value)] = _list(value)

    def _replace(self, index: ast.expr, value: ast.expr) -> None:
        if not (isinstance(index, ast.Name) and index.id == "__name__"):
            self.space.registers = True
            return
        if isinstance(value, ast.Call) and "Lazy" in last_name(value.func):
            self.lazy = True
        else:
            self.space.open = "it puts something else into `sys.modules` in its place"
            self.space.registers = True

    def _augment(self, target: ast.expr, value: ast.expr) -> None:
        match target:
            case ast.Name(id="__all__"):
                self.space.exports |= set(_texts(value))
            case ast.Name(id=name):
                self.space.names[name] = UNKNOWN
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=key)) if name in self.structures:
                self._more(name, str(key), _list(value))

    def _more(self, name: str, key: str, names: list[str] | None) -> None:
        known = self.structures[name].setdefault(key, [])
        self.structures[name][key] = None if known is None or names is None else known + names

    def _called(self, call: ast.Call) -> None:
        """Calls that change names: `_import_structure["sub"].extend(...)`, `globals().update(...)`, `exec(...)`."""
        match call.func:
            case ast.Attribute(
                value=ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=key)), attr="extend" | "append"
            ):
                if name in self.structures and call.args:
                    argument = call.args[0]
                    self._more(name, str(key), _texts(argument) if isinstance(argument, ast.Constant) else _list(argument))
            case ast.Attribute(value=ast.Call(func=ast.Name(id="globals" | "vars")), attr="update" | "setdefault"):
                self.space.open = "it sets names through `globals()`"
            case ast.Attribute(value=ast.Attribute(attr="modules"), attr=_):
                self.space.registers = True
            case ast.Name(id="exec" | "setattr" as name):
                self.space.open = f"it sets names through `{name}`"
            case ast.Attribute(value=ast.Name(id="__all__"), attr="extend" | "append"):
                self.space.exports |= {text for argument in call.args for text in _texts(argument)}
            case ast.Name(id=name) if self._registers(name):
                self.space.registers = True

    def _registers(self, name: str) -> bool:
        """Whether a function of this module writes to `sys.modules`."""
        function = self.space.names.get(name)
        return isinstance(function, FunctionValue) and "sys.modules" in ast.unparse(function.node)


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements, those in conditions and handlers too."""
    for node in body:
        yield node
        for part in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, part, ()))
        for handler in getattr(node, "handlers", ()):
            yield from _statements(handler.body)


def _takes(handler: ast.ExceptHandler, kinds: frozenset[str]) -> bool:
    if handler.type is None:
        return True
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(last_name(item) in kinds | {"Exception", "BaseException"} for item in types)


def _thrown(body: Sequence[ast.stmt]) -> str:
    """The last exception that the statements raise by name."""
    raised = [node for node in _statements(body) if isinstance(node, ast.Raise)]
    if not raised:
        return "ImportError"
    error = raised[-1].exc
    return last_name(error.func if isinstance(error, ast.Call) else error) or "Exception"


def _suppresses(item: ast.withitem) -> bool:
    """`contextlib.suppress(ImportError)`, `try_import()` and their like."""
    call = item.context_expr
    name = last_name(call.func) if isinstance(call, ast.Call) else last_name(call)
    return name == "suppress" or "import" in name.lower()


def _texts(node: ast.expr) -> list[str]:
    return [item.value for item in ast.walk(node) if isinstance(item, ast.Constant) and isinstance(item.value, str)]


def _list(node: ast.expr) -> list[str] | None:
    """The texts of a literal list; None where something in it is computed."""
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)) and all(isinstance(item, ast.Constant) for item in node.elts):
        return _texts(node)
    return None


def _structure(node: ast.expr) -> dict[str, list[str] | None] | None:
    """A literal dict of submodule -> names, as lazy modules have it; None for anything else."""
    if not isinstance(node, ast.Dict):
        return None
    if not all(isinstance(key, ast.Constant) and isinstance(key.value, str) for key in node.keys):
        return None
    pairs = zip(node.keys, node.values, strict=True)
    return {str(key.value): _list(value) for key, value in pairs if isinstance(key, ast.Constant)}
