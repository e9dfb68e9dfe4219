"""Collect the facts of one environment once: what has to be waited for side by side, then all frozen."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from envcheck.facts.compiler import compiler_facts
from envcheck.facts.distributions import Installed, read_installed
from envcheck.facts.driver import DriverState, driver_state
from envcheck.facts.interpreter import other, own
from envcheck.facts.machine import Machine
from envcheck.facts.model import Environment, Known, Unreadable
from envcheck.facts.programs import program_facts
from envcheck.facts.system import system_facts
from envcheck.facts.toolkit import toolkit_facts
from envcheck.facts.torch_build import torch_facts
from envcheck.facts.variables import nccl_fact, path_facts, variable_facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from envcheck.facts.interpreter import Interpreter
    from envcheck.facts.model import Fact

T = TypeVar("T")

#: Seconds to wait for the driver, the compiler and nvcc together; a wedged driver never answers.
PATIENCE = 6.0

DRIVER_FACTS = ("driver", "driver_cuda", "kernel_module", "kernel_module_flavour", "libcuda", "libnvidia_ml")


class Waiting(Generic[T]):
    """A collector that may wait for a program or a driver, in a thread of its own."""

    def __init__(self, function: Callable[[], T], instead: Callable[[str], T]) -> None:
        """Start `function`; where it fails or does not end, `instead` makes the result from the reason."""
        self._function = function
        self._instead = instead
        self._result: T | None = None
        self._reason = ""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._function()
        except Exception as error:  # noqa: BLE001 - one fact that cannot be read must not hide the others
            self._reason = f"{type(error).__name__}: {error}"

    def result(self, patience: float = PATIENCE) -> T:
        """The result, after waiting at most `patience` seconds."""
        self._thread.join(patience)
        if self._result is not None:
            return self._result
        return self._instead(self._reason or f"no answer within {patience:g} s")


def collect(python: str | None = None, *, progress: Callable[[str], None] | None = None) -> Environment:
    """The facts of the running interpreter's environment, or of another one's.

    Args:
        python: An interpreter, a venv folder, or its bin folder; None for the running interpreter.
        progress: Told in a few words what is being done.

    Raises:
        CouldNotLookError: `python` is not there, is not a Python, or does not answer.
    """
    say = progress or (lambda _: None)
    machine = Machine(variables=dict(os.environ), system=_system())
    driver = Waiting(lambda: driver_state(machine, _architecture()), _no_driver_answer)
    compiler = Waiting(lambda: compiler_facts(machine), lambda reason: _unreadable(("gcc",), "compiler", reason))
    say("asking the interpreter")
    interpreter = own() if python is None else other(python)
    prefix = interpreter.prefix
    toolkit = Waiting(
        lambda: toolkit_facts(machine, prefix),
        lambda reason: _unreadable(("cuda_toolkit",), "toolkit", reason),
    )
    say("reading installed distributions")
    installed = read_installed(interpreter.path, machine.variables)
    facts = _environment_facts(interpreter, machine, installed)
    say("waiting for driver and compiler")
    state = driver.result()
    facts.update({**state.facts, **compiler.result(), **toolkit.result()})
    return Environment(
        packages=installed.packages,
        complete=True,
        facts=facts,
        gpus=state.gpus,
        problems=installed.problems,
        prefix=prefix,
        source="this interpreter" if python is None else interpreter.executable,
        markers=dict(interpreter.markers),
    )


def _environment_facts(interpreter: Interpreter, machine: Machine, installed: Installed) -> dict[str, Fact]:
    packages = installed.packages
    nccl = next((item.location for name, item in packages.items() if name.startswith("nvidia-nccl-cu")), None)
    system = system_facts(interpreter, machine)
    return {
        **variable_facts(interpreter),
        **system,
        **path_facts(interpreter, machine),
        **program_facts(machine),
        **torch_facts(packages, machine, system["conda_packages"]),
        **metadata_facts(installed, interpreter.user_site),
        "nccl_file": nccl_fact(machine, nccl),
    }


def metadata_facts(installed: Installed, user_site: str) -> dict[str, Fact]:
    """`duplicate_metadata`, `broken_metadata`, `tilde_leftovers`, `user_site_packages`, each a list."""
    facts: dict[str, Fact] = {}
    for fact, kind in (
        ("duplicate_metadata", "duplicate"),
        ("broken_metadata", "broken"),
        ("tilde_leftovers", "leftover"),
    ):
        names = {problem.name for problem in installed.problems if problem.kind == kind}
        facts[fact] = Known(tuple(sorted(names)), "metadata folders on sys.path")
    users = [name for name, item in installed.packages.items() if user_site and item.location == user_site]
    facts["user_site_packages"] = Known(tuple(sorted(users)), user_site or "the user site is not used")
    return facts


def _unreadable(names: tuple[str, ...], source: str, reason: str) -> dict[str, Fact]:
    return {name: Unreadable(source, reason) for name in names}


def _no_driver_answer(reason: str) -> DriverState:
    return DriverState(_unreadable(DRIVER_FACTS, "NVIDIA driver", reason), None)


def _system() -> str:
    return os.uname().sysname if hasattr(os, "uname") else "Windows"


def _architecture() -> str:
    return os.uname().machine if hasattr(os, "uname") else ""
