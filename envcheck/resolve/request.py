"""What is to be locked: requirements, the target they are for, and what was said about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from envcheck.checks.requirements import marker_environment
from envcheck.errors import InputError, UsageError
from envcheck.facts.metadata import normalised
from envcheck.facts.model import Absent, Environment, Known
from envcheck.matrix.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from envcheck.facts.model import Fact

#: Facts of a machine that stay true whatever is installed; those that a lock records are marked with `True`.
MACHINE = {
    "python": False, "system": True, "machine": True, "glibc": True, "libstdcxx": False, "gcc": False, "driver": True,
    "driver_cuda": True, "kernel_module": False, "kernel_module_flavour": False, "libcuda": False, "libnvidia_ml": False,
    "cuda_compat": True, "cuda_toolkit": True, "gpu.compute_capability": True, "gpu.name": False, "gpu.class": False,
    "gpu.vendor": False, "gpu.memory_mib": False, "gpu.count": False, "nvswitch": False, "fabricmanager": False,
    "fabricmanager_version": False, "ram_gib": False, "msvc": False,
}  # fmt: skip

#: uv's word for a target platform, by system and machine.
PLATFORMS = {
    ("Linux", "x86_64"): "x86_64-unknown-linux-gnu", ("Linux", "aarch64"): "aarch64-unknown-linux-gnu",
    ("Darwin", "x86_64"): "x86_64-apple-darwin", ("Darwin", "arm64"): "aarch64-apple-darwin",
    ("Windows", "AMD64"): "x86_64-pc-windows-msvc",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that decides a lock, besides the matrix and the index.

    Attributes:
        requirements: PEP 508 lines.
        python: `major.minor`, or a full version.
        machine: The facts to lock for; its packages do not count.
        platform: uv's name of the target platform.
        constraints: PEP 508 lines that bind a package only if it is installed anyway.
        overrides: PEP 508 lines that replace what other packages require.
        build_constraints: PEP 508 lines for what builds source distributions.
        settings: What is known of the training settings.
        others: Further settings that the same set has to serve.
        waived: Rule id -> reason.
        torch_backend: uv's `--torch-backend`, or an empty string for the default index.
        exclude_newer: Nothing uploaded later than this date or time, or an empty string.
        find_links: Further places of wheels.
        preferred: Name -> version to keep where possible.
        interpreter: The Python that source distributions are built with; empty for uv's choice.
    """

    requirements: tuple[str, ...]
    python: str
    machine: Environment = field(default_factory=Environment)
    platform: str = "x86_64-unknown-linux-gnu"
    constraints: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    build_constraints: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)
    others: tuple[Settings, ...] = ()
    waived: Mapping[str, str] = field(default_factory=dict)
    torch_backend: str = ""
    exclude_newer: str = ""
    find_links: tuple[str, ...] = ()
    preferred: Mapping[str, str] = field(default_factory=dict)
    interpreter: str = ""

    def wanted(self) -> dict[str, SpecifierSet]:
        """The packages asked for, with the versions that requirements and constraints leave; what a marker excludes is left out.

        Raises:
            UsageError: A requirement does not follow PEP 508.
        """
        markers = marker_environment(self.machine, self.python)
        found: dict[str, SpecifierSet] = {}
        for line in self.requirements:
            one = parse_requirement(line)
            if one.marker is None or one.marker.evaluate({**markers, "extra": ""}):
                name = normalised(one.name)
                found[name] = found.get(name, SpecifierSet()) & one.specifier
        for line in self.constraints:
            one = parse_requirement(line)
            name = normalised(one.name)
            if name in found and one.marker is None:
                found[name] &= one.specifier
        overridden = {normalised(parse_requirement(line).name): parse_requirement(line).specifier for line in self.overrides}
        return {name: overridden.get(name, spec) for name, spec in found.items()}


def parse_requirement(line: str) -> Requirement:
    """A PEP 508 line.

    Raises:
        UsageError: It is none.
    """
    try:
        return Requirement(line)
    except (InvalidRequirement, RecursionError) as error:
        reason = str(error).splitlines()[0]
        hints = ("such as `torch>=2.4` or `name @ https://...`",)
        raise UsageError(f"`{line}` is not a requirement: {reason}", hints=hints) from error


def read_requirements(path: str, seen: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    """The lines of a requirements file and of the files it names: (`requirement` or `constraint`, PEP 508 line).

    Raises:
        InputError: Not readable, or a line that is neither a requirement nor `-r` / `-c`; with its number.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the requirements: {getattr(error, 'strerror', None) or error}", where=path) from error
    wrong = []
    for number, line in enumerate(text.replace("\\\n", " ").splitlines(), 1):
        bare = line.partition(" #")[0].strip()
        if not bare or bare.startswith("#"):
            continue
        option, _, rest = bare.partition(" ")
        if option in ("-r", "--requirement", "-c", "--constraint"):
            nested = str(Path(path).parent / rest.strip())
            if nested not in seen:
                for kind, found in read_requirements(nested, seen | {path}):
                    yield ("constraint" if option.lstrip("-")[0] == "c" else kind), found
            continue
        try:
            yield "requirement", str(Requirement(bare.partition(" --hash")[0]))
        except InvalidRequirement as error:
            wrong.append(f"line {number}: `{bare[:80]}`: {str(error).splitlines()[0]}")
    if wrong:
        hints = ("options of an index belong into the environment: UV_DEFAULT_INDEX, UV_INDEX, UV_FIND_LINKS",)
        raise InputError("not every line is a requirement", where=path, problems=tuple(wrong), hints=hints)


def machine_of(environment: Environment) -> Environment:
    """The part of an environment that stays true whatever is installed in it."""
    facts = {name: fact for name, fact in environment.facts.items() if name in MACHINE}
    return Environment(facts=facts, gpus=environment.gpus, source=environment.source)


def another_machine(python: str, platform: str, driver: str, capabilities: Iterable[str]) -> Environment:
    """The machine that options describe; what they do not say is unknown."""
    from envcheck.facts.model import Gpu  # noqa: PLC0415 - only for another machine

    system, machine = next((key for key, word in PLATFORMS.items() if word == platform), _system_of(platform))
    words = {"python": python, "system": system, "machine": machine}
    facts: dict[str, Fact] = {name: Known(word, "option") for name, word in words.items()}
    if driver == "none":
        facts["driver"] = Absent(("option",))
    elif driver:
        facts["driver"] = Known(driver, "option")
    gpus = tuple(Gpu("", text) for text in capabilities)
    return Environment(facts=facts, gpus=gpus or (() if driver == "none" else None), source="options")


def _system_of(platform: str) -> tuple[str, str]:
    words = {"windows": "Windows", "macos": "Darwin", "apple": "Darwin"}
    system = next((word for part, word in words.items() if part in platform), "Linux")
    return system, "aarch64" if platform.startswith("aarch64") else "x86_64"


def platform_of(machine: Environment) -> str:
    """The name that uv has for a machine's platform; Linux on x86-64 where it is not known."""
    key = (machine.text("system") or "Linux", machine.text("machine") or "x86_64")
    return PLATFORMS.get(key, PLATFORMS["Linux", "x86_64"])


def for_python(machine: Environment, python: str) -> Environment:
    """The machine with another Python."""
    return machine._replace(facts={**machine.facts, "python": Known(python, "option")})


def recorded(machine: Environment) -> dict[str, str]:
    """The facts that a lock records: name -> text, `none` for what is absent; unknown ones are left out."""
    found = {}
    for name, recorded_here in MACHINE.items():
        fact = machine.fact(name)
        if recorded_here and isinstance(fact, Known):
            found[name] = fact.value if isinstance(fact.value, str) else ", ".join(fact.value)
        elif recorded_here and isinstance(fact, Absent):
            found[name] = "none"
    if machine.gpus is not None:
        kinds = sorted({gpu.compute_capability for gpu in machine.gpus if gpu.compute_capability})
        found["gpu.compute_capability"] = ", ".join(kinds) if kinds else ("none" if not machine.gpus else "unknown")
    return found
