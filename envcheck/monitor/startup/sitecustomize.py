"""`envcheck run` puts this folder first on PYTHONPATH: Python imports `sitecustomize` in every process of the command.

It makes `envcheck` importable (nothing else of envcheck's own environment), switches the monitor on, and then runs the
sitecustomize that it stands before, if there is one. Python 3.8 syntax; it must never keep a process from starting.
"""

import importlib.util
import os
import sys
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.dirname(os.path.dirname(HERE))


class _Finder:
    """Finds the package `envcheck` in its own folder, and nothing beside it."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        if name != "envcheck":
            return None
        init = os.path.join(PACKAGE, "__init__.py")
        return importlib.util.spec_from_file_location(name, init, submodule_search_locations=[PACKAGE])


def _start() -> None:
    if sys.version_info < (3, 10):
        return
    if importlib.util.find_spec("envcheck") is None:
        sys.meta_path.append(_Finder)
    from envcheck.monitor.activation import activate

    activate()


def _next() -> None:
    """The sitecustomize that would have been imported without this folder."""
    from importlib.machinery import PathFinder

    rest = [entry for entry in sys.path if os.path.abspath(entry or os.getcwd()) != HERE]
    spec = PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


try:
    _start()
except Exception as _error:
    sys.stderr.write("envcheck monitor: could not start: %s: %s\n" % (type(_error).__name__, _error))
_next()
