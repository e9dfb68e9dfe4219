"""uv as the resolver of the full graph: the one module that knows its command line and its words."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from envcheck.errors import EnvcheckError, ToolError
from envcheck.process import run
from envcheck.resolve import pylock
from envcheck.resolve.install import find_uv
from envcheck.resolve.lockfile import Lock, LockedPackage
from envcheck.resolve.nogoods import INSTALLED, Step
from envcheck.resolve.search import Answer, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from envcheck.resolve.request import Request

#: Seconds for one answer; a cold cache on a slow line has to fetch the metadata of a hundred packages.
DEADLINE = 1800.0

NO_SOLUTION = "No solution found"
OFFLINE = ("network was disabled", "UV_OFFLINE")
NETWORK = re.compile(
    r"error sending request|Failed to fetch|dns error|Connection refused|timed out|Could not resolve host|tcp connect error"
    r"|Failed to connect to|unable to access"
)
UNBUILT = re.compile(r"`([a-z0-9-]+)@([^`]+)` depends on `torch`, but doesn't declare it")
YANKED = re.compile(r'^warning: `([^`]+==[^`]+)` is yanked(?: \(reason: "(.*)"\))?', re.MULTILINE)
ADDRESS = re.compile(r"https?://[^\s`)]+")
OF_A_REPOSITORY = (
    "what a repository holds, its version too, is known only from it",
    "name a mirror of it, an archive (`NAME @ URL`), or a release",
)
#: What begins every conclusion of uv's but the first, and how many are kept.
STEP, STEPS = " And because ", 3
NOTES = re.compile(r"^(warning|Resolved|Using|Updating|\s*Updating|hint: `?--?)")


class UnbuiltError(ToolError):
    """A source archive cannot even say what it needs without torch: its package and version."""

    def __init__(self, message: str, package: str, version: str) -> None:
        """As uv names them."""
        super().__init__(message, hints=(f"`{package}` has to come as a wheel: name it (`{package} @ URL`)",))
        self.package, self.version = package, version


@dataclass(slots=True)
class Uv:
    """A `search.Backend` over `uv pip compile`, one answer a call, remembered.

    Attributes:
        request: What is to be locked.
        progress: Told in a few words what is being asked.
        program: uv; found beside our interpreter or on PATH where left empty.
        calls: How often uv was run.
    """

    request: Request
    progress: Callable[[str], None] = lambda _: None
    program: str = ""
    calls: int = 0
    _known: dict[frozenset[Step], Answer | Refusal] = field(default_factory=dict)

    def ask(self, steps: frozenset[Step]) -> Answer | Refusal:
        """The set that uv chooses under further conditions, as a `Lock` in the payload; or its reasons.

        Raises:
            ToolError: uv is missing, failed, or could not reach an index.
        """
        if steps not in self._known:
            self._known[steps] = self._run(steps)
        return self._known[steps]

    def _run(self, steps: frozenset[Step]) -> Answer | Refusal:
        self.calls += 1
        self.progress(f"uv, call {self.calls}" + (f": under {len(steps)} conditions of the matrix" if steps else ""))
        with tempfile.TemporaryDirectory(prefix="envcheck-lock-") as folder:
            place = Path(folder)
            output = place / "pylock.toml"
            ended = run(self._command(place, steps), timeout=DEADLINE, env=environment())
            if ended.returncode == 0:
                return self._answer(output, yanked(ended.stderr))
        if ended.returncode == 1 and NO_SOLUTION in ended.stderr and not any(word in ended.stderr for word in OFFLINE):
            return Refusal(reason_of(ended.stderr))
        raise failure(ended.outcome, ended.stderr)

    def _answer(self, output: Path, withdrawn: Mapping[str, str]) -> Answer:
        try:
            lock = replace(pylock.parse(output.read_text(encoding="utf-8"), "uv's answer"), yanked=withdrawn)
        except (OSError, ValueError, EnvcheckError) as error:
            raise ToolError(f"uv's answer cannot be read: {error}") from error
        return Answer({package.name: package.version for package in lock.packages}, lock)

    def _command(self, place: Path, steps: frozenset[Step]) -> list[str]:
        """The command line; writes its input files into `place`."""
        request = self.request
        added = sorted(step.name for step in steps if step.clause == INSTALLED)
        bounds = sorted(f"{step.name}{step.clause}" for step in steps if step.clause != INSTALLED)
        command = [
            self.program or _program(), "pip", "compile", "--color", "never", "--no-header",
            _write(place / "requirements.in", [*request.requirements, *added]),
            "--constraints", _write(place / "constraints.txt", [*request.constraints, *bounds]),
            "--python-version", request.python, "--python-platform", request.platform,
            "--format", "pylock.toml", "--output-file", str(place / "pylock.toml"),
        ]  # fmt: skip
        for option, lines in (("--overrides", request.overrides), ("--build-constraints", request.build_constraints)):
            command += [option, _write(place / f"{option.strip('-')}.txt", lines)] if lines else []
        if request.preferred:
            (place / "pylock.toml").write_text(preferences(request.preferred), encoding="utf-8")
        for option, value in (
            ("--torch-backend", request.torch_backend), ("--exclude-newer", request.exclude_newer),
            ("--python", request.interpreter),
        ):  # fmt: skip
            command += [option, value] if value else []
        for link in request.find_links:
            command += ["--find-links", link]
        return command


def _program() -> str:
    found = find_uv()
    if found is None:
        raise ToolError("uv was not found", hints=("install it beside envcheck: pip install 'envcheck-ml[lock]'",))
    return found


def _write(path: Path, lines: list[str] | tuple[str, ...]) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def environment() -> dict[str, str]:
    """The environment for uv: ours, without a choice of Python of its own; pip's extra places of wheels where uv has none."""
    environ = {name: value for name, value in os.environ.items() if name not in ("UV_PYTHON", "UV_SYSTEM_PYTHON")}
    if "UV_FIND_LINKS" not in environ and environ.get("PIP_FIND_LINKS"):
        environ["UV_FIND_LINKS"] = environ["PIP_FIND_LINKS"].replace(" ", ",")
    return environ | {"UV_NO_PROGRESS": "1"}


def yanked(said: str) -> dict[str, str]:
    """The releases of which uv says that they were withdrawn, as `name==version`, and why; the reason may be empty."""
    return {found[1]: (found[2] or "").strip() for found in YANKED.finditer(said)}


def preferences(versions: Mapping[str, str]) -> str:
    """A lock of bare versions: what stands in uv's output file before it runs is kept where possible."""
    return pylock.render(Lock(tuple(LockedPackage(name, versions[name]) for name in sorted(versions))))


def reason_of(text: str) -> str:
    """The chain of reasons that uv gives, without its headline, notes and line breaks."""
    _, _, after = text.partition(NO_SOLUTION)
    lines = [line.strip() for line in after.splitlines()[1:]]
    kept = [line.removeprefix("cause:").removeprefix("╰─▶").strip() for line in lines if line and not NOTES.match(line)]
    return last_steps(" ".join(kept))


def last_steps(chain: str) -> str:
    """A long chain of conclusions without its beginning: what the refusal comes to stands at the end."""
    steps = chain.split(STEP)
    left_out = len(steps) - STEPS
    if left_out <= 0:
        return chain
    return f"After {left_out} earlier steps: because {STEP.join(steps[left_out:])}"


def failure(outcome: str, text: str) -> ToolError:
    """The error of a run of uv that gave no answer; what could not be reached is named."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("warning:")]
    shown = "\n  ".join(lines[-12:])
    if any(word in text for word in OFFLINE):
        return ToolError("uv may not use the network, and its cache lacks a package\n  " + shown, hints=("unset UV_OFFLINE",))
    if NETWORK.search(text):
        found = ADDRESS.search(text)
        address = found[0].rstrip(".,") if found else "the package index"
        hints = OF_A_REPOSITORY if "Git operation failed" in text else meant(address)
        return ToolError(f"cannot reach {address}\n  {shown}", hints=(*hints, "nothing was written"))
    if found := UNBUILT.search(text):
        return UnbuiltError(f"uv failed ({outcome})\n  {shown}", *found.groups())
    return ToolError(f"uv failed ({outcome})\n  {shown}")


def meant(address: str) -> tuple[str, ...]:
    """What an address that cannot be reached would have given, where its name says so."""
    name = address.rpartition("/")[2].replace("%2B", "+")
    if name.endswith(".whl"):
        return (f"the wheel meant is `{name}`: fetch it elsewhere and name its folder with --find-links",)
    torch = re.search(r"download\.pytorch\.org/whl/(\w+)/([\w-]+)", address)
    if torch:
        return (f"meant is a wheel of `{torch[2]}` built for `{torch[1]}` (+{torch[1]} in its version)",)
    return ("an index is chosen by UV_DEFAULT_INDEX, further ones by UV_INDEX and UV_FIND_LINKS",)
