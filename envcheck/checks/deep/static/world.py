"""All modules of one environment, read when they are asked for."""

from __future__ import annotations

import ast
import re
import warnings
from typing import TYPE_CHECKING

from envcheck.checks.deep.static.evaluate import Evaluator
from envcheck.checks.deep.static.finder import Finder, Kind, Module
from envcheck.checks.deep.static.namespace import Namespace, read_namespace
from envcheck.checks.deep.static.values import PURE, VERSION_MAKERS, ModuleValue, Native, UndecidedError
from envcheck.facts.metadata import normalised
from envcheck.facts.model import Known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envcheck.facts.model import Environment

#: Every module has these.
ALWAYS = frozenset({
    "__name__", "__file__", "__doc__", "__dict__", "__spec__", "__path__", "__loader__", "__package__", "__all__",
})  # fmt: skip

NATIVE = VERSION_MAKERS | {
    "importlib.util.find_spec", "importlib.find_loader", "pkgutil.find_loader", "importlib.metadata.version",
    "importlib_metadata.version", "os.environ", "os.getenv", *(name for name in PURE if name.startswith("operator.")),
}  # fmt: skip

#: Generated code beyond this is not read.
LARGEST = 8 << 20

STAR = re.compile(r"^\s*from\s+[.\w]+\s+import\s+\*", re.MULTILINE)


class World:
    """The modules of an environment, and what can be told of their names."""

    def __init__(
        self, environment: Environment, path: tuple[str, ...], version: str, variables: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """A world over `path`, for a Python of `version` (`3.11.7`)."""
        numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
        self.environment = environment
        self.finder = Finder(path, (numbers[0], numbers[1]))
        self.unread: dict[str, str] = {}
        self._variables = variables or {}
        self._namespaces: dict[str, Namespace | None] = {}
        self._texts: dict[str, str] = {}
        self._reading: set[str] = set()
        markers = environment.markers
        self.attributes: dict[str, object] = {
            "sys.version_info": numbers, "sys.platform": markers.get("sys_platform", "linux"),
            "sys.version_info.major": numbers[0], "sys.version_info.minor": numbers[1],
            "os.name": markers.get("os_name", "posix"), "typing.TYPE_CHECKING": False,
            "typing_extensions.TYPE_CHECKING": False, **self._torch(),
        }  # fmt: skip
        self.constants: dict[str, object] = {
            "platform.system": markers.get("platform_system", "Linux"), "platform.python_version": version,
            "platform.machine": markers.get("platform_machine", "x86_64"),
        }  # fmt: skip

    def _torch(self) -> dict[str, object]:
        version = self.version_of("torch")
        if version is None:
            return {}
        cuda = self.environment.fact("torch_cuda")
        known: dict[str, object] = {"torch.__version__": version, "torch.version.__version__": version}
        if isinstance(cuda, Known):
            known["torch.version.cuda"] = cuda.value
        elif "+cpu" in version:
            known["torch.version.cuda"] = None
        return known

    def version_of(self, name: str) -> str | None:
        """The version of the distribution of that name, in any spelling."""
        found = self.environment.packages.get(normalised(name))
        return found.version if found else None

    def variable(self, name: str, default: object) -> object:
        """An environment variable; one that is not known is taken for not set."""
        return self._variables.get(name, default)

    def native(self, name: str) -> object:
        """Something of the standard library by its full name."""
        if name in self.attributes:
            return self.attributes[name]
        return Native(name)

    def namespace(self, name: str) -> Namespace | None:
        """The names of a module; None where it has no source text, or is being read just now."""
        if name in self._namespaces:
            return self._namespaces[name]
        module = self.finder.find(name)
        if name in self._reading or module is None:
            return None
        self._reading.add(name)
        try:
            self._namespaces[name] = self._read(module)
        finally:
            self._reading.discard(name)
        return self._namespaces[name]

    def _read(self, module: Module) -> Namespace | None:
        if module.kind is Kind.NAMESPACE:
            return Namespace(module)
        if module.kind is not Kind.SOURCE:
            return None
        text = self.text(module)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an invalid escape in somebody's source is not our business
                tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            self.unread[module.file] = getattr(error, "msg", None) or str(error)
            return None
        return read_namespace(module, tree, self)

    def text(self, module: Module) -> str:
        """The source text of a module; empty where it cannot be read."""
        if module.file not in self._texts:
            try:
                with open(module.file, "rb") as stream:  # noqa: PTH123 - pathlib is slow
                    self._texts[module.file] = stream.read(LARGEST).decode("utf-8", "replace").removeprefix("\ufeff")
            except OSError as error:
                self.unread[module.file] = error.strerror or "unreadable"
                self._texts[module.file] = ""
        return self._texts[module.file]

    def evaluator(self) -> Evaluator:
        """An evaluator with all its steps left."""
        return Evaluator(self)

    def lookup(self, module: str, name: str) -> object:
        """The value of a module's name, as far as it goes.

        Raises:
            UndecidedError: It cannot be told.
        """
        full = f"{module}.{name}"
        if full in self.attributes:
            return self.attributes[full]
        if full in NATIVE or full in self.constants:
            return Native(full)
        if name == "__version__" and "." not in module and self.version_of(module):
            return self.version_of(module)
        space = self.namespace(module)
        if space is not None and name in space.names:
            return space.names[name]
        if self.finder.find(full):
            return ModuleValue(full)
        raise UndecidedError

    def absolute(self, module: Module, name: str | None, level: int) -> str:
        """The module that `from ..name import` means."""
        if not level:
            return name or ""
        base = module.package
        for _ in range(level - 1):
            base = base.rpartition(".")[0]
        return f"{base}.{name}" if name and base else base or (name or "")

    def there(self, name: str) -> bool | None:
        """Whether a module can be imported by that name, as far as files tell; None where something may answer for it."""
        if self.finder.find(name):
            return True
        parent = name.rpartition(".")[0]
        if not parent:
            return None if not self.finder.sure(name) else False
        above = self.there(parent)
        if not above:
            return above
        module = self.finder.find(parent)
        space = self.namespace(parent)
        if module is None or not module.folders or space is None or space.registers:
            return None  # an extension, a module that answers for its submodules, or one that is being read
        return False if self.finder.sure(name) else None

    def has(self, module: str, name: str) -> bool | None:
        """Whether `from module import name` finds the name; None where that cannot be told."""
        found = self.provider(module, name)
        return None if found is None else bool(found)

    def provider(self, module: str, name: str) -> str | None:
        """The module whose code gives the name: `module` itself, a lazily loaded one; empty where nothing does; None: unknown."""
        if self.finder.find(f"{module}.{name}"):
            return f"{module}.{name}"
        space = self.namespace(module)
        if space is None:
            return None
        if name in space.names or name in ALWAYS or name in space.exports:
            return module
        if name in space.lazy_names:
            return space.lazy_names[name]
        for target in space.lazy_stars:
            found = self._through_star(target, name, set())
            if found or found is None:
                return found
        return None if space.open else ""

    def _through_star(self, module: str, name: str, seen: set[str]) -> str | None:
        """As `provider`, for `from module import *` that only a type checker sees; files without the word are not parsed."""
        found = self.finder.find(module)
        if module in seen or found is None:
            return ""
        seen.add(module)
        if found.kind is not Kind.SOURCE:
            return None
        text = self.text(found)
        if name not in text and not STAR.search(text):
            return ""
        space = self.namespace(module)
        if space is None:
            return None
        if name in space.names or name in space.exports:
            return module
        if name in space.lazy_names:
            return space.lazy_names[name]
        for target in (*space.lazy_stars, *space.stars):
            inner = self._through_star(target, name, seen)
            if inner or inner is None:
                return inner
        return ""
