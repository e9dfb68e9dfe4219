"""Profiles: what a project asks of an environment, as values. `matrices/profiles/*.toml` holds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from envcheck.matrix.settings import TRAINER, Settings, flatten

#: What a profile may be for.
USES = ("train", "infer", "serve", "client")

#: What a need may be about; memory in GB as on the box.
QUANTITIES = ("compute_capability", "gpus", "gpu_memory_gb", "total_gpu_memory_gb", "driver")


@dataclass(frozen=True, slots=True)
class Source:
    """The state of the project that the profile was read from."""

    url: str
    release: str
    date: str
    commit: str = ""


@dataclass(frozen=True, slots=True)
class Bound:
    """A limit of ours on a package, or a package that must not be there.

    Attributes:
        spec: Requirement line.
        why: What goes wrong outside (or, for a forbidden one, with it).
        source: Where that is known from.
        breaks: True where the project then does not work; else it is advice.
    """

    spec: str
    why: str
    source: str
    breaks: bool = False


@dataclass(frozen=True, slots=True)
class Apart:
    """A package that upstream installs apart from its list.

    Attributes:
        spec: Requirement line.
        url: The wheel's address, where upstream names one.
        required: True where the project cannot be imported without it.
    """

    spec: str
    url: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """One need of hardware.

    Attributes:
        what: One of `QUANTITIES`.
        why: The reason.
        at_least, at_most: The limit, exactly one of them; `at_most` is for compute capabilities.
        torch_cuda: The CUDA build of torch that an `at_most` speaks of; other builds are not limited by it.
        firm: True where it cannot run outside; else it is the smallest set-up known to work, or an estimate.
        inferred: True where it is our inference, not upstream's statement.
        source: Where it is stated; may be empty for an inferred one.
    """

    what: str
    why: str
    at_least: str = ""
    at_most: str = ""
    torch_cuda: str = ""
    firm: bool = False
    inferred: bool = False
    source: str = ""


@dataclass(frozen=True, slots=True)
class Server:
    """An inference server that the project works with.

    Attributes:
        name: As people call it.
        package: Its distribution, or empty where it is not a Python package.
        spec: The versions that work, as a specifier set.
        version: The versions in words, where no specifier says it.
        install: The requirement to install it by, where `package` and `spec` do not make it.
        note: Flags and conditions.
    """

    name: str
    package: str = ""
    spec: str = ""
    version: str = ""
    install: str = ""
    note: str = ""

    @property
    def requirement(self) -> str:
        """The requirement line that installs it; empty where it is not a Python package."""
        return self.install or f"{self.package}{self.spec}"


@dataclass(frozen=True, slots=True)
class Verify:
    """How a step can be seen to be done; exactly one of `installed`, `program`, `patched` and `git`.

    Attributes:
        installed: A requirement that is then installed.
        program: Programs of which one is then on PATH.
        patched: Patches (ids of `patches/*.toml`) that are then applied; only a deep check sees them.
        git: The package that then comes from `url` at `revision`.
        url: Its repository.
        revision: Its commit.
        instead: Released versions that will do as well, as a specifier set.
    """

    installed: str = ""
    program: tuple[str, ...] = ()
    patched: tuple[str, ...] = ()
    git: str = ""
    url: str = ""
    revision: str = ""
    instead: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """An install step that a version check cannot see."""

    text: str
    verify: Verify | None = None


@dataclass(frozen=True, slots=True)
class Pitfall:
    """Something that went wrong for others, with its source."""

    text: str
    source: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What no lock of an index can hold: the package, why, and what to do after the lock."""

    what: str
    why: str
    do: str


@dataclass(frozen=True, slots=True)
class Locking:
    """What a lock of the profile cannot do.

    Attributes:
        python: The Python to solve for, where the profile admits several.
        platform: uv's name of the platform to solve for, where wheels need a newer glibc than uv assumes.
        left_out: Packages that are put in after the lock.
        stand_ins: Requirements that take the place of left-out ones while solving.
        note: What to know of the lock.
        refused: Why there is no lock at all; empty where there is one.
        source: Where that is known from.
    """

    python: str = ""
    platform: str = ""
    left_out: tuple[LeftOut, ...] = ()
    stand_ins: tuple[str, ...] = ()
    note: str = ""
    refused: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Training settings of the project's own scripts.

    Attributes:
        file: The DeepSpeed file they are in; `deepspeed` is then the whole of it.
        deepspeed: DeepSpeed settings, nested as in the file.
        trainer: TrainingArguments that its scripts give, or whose defaults they leave.
    """

    file: str = ""
    deepspeed: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)

    def settings(self) -> Settings:
        """As settings that rules are matched with."""
        values = {**self.trainer, **{f"{TRAINER}{name}": value for name, value in self.trainer.items()}}
        return Settings({**values, **flatten(self.deepspeed)}, deepspeed_complete=bool(self.file))


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a profile comes from and how far it was tried.

    Attributes:
        evidence: What was read.
        reviewed: When.
        resolver: What a resolver made of the list then.
        checked: What was done beyond resolving.
        inferred: Keys that are our inference.
        not_found: What was looked for and not found.
        notes: Anything else.
    """

    evidence: tuple[str, ...]
    reviewed: str
    resolver: str = ""
    checked: str = ""
    inferred: tuple[str, ...] = ()
    not_found: tuple[str, ...] = ()
    notes: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """What one release of a project asks for.

    Attributes:
        id: Kebab-case name.
        name: As people write it.
        use: What it is for, of `USES`.
        source: Where it was read.
        provenance: How it is known.
        aliases: Other names.
        advisory: True where nearly everything is inferred: never more than a warning.
        python: Specifier set.
        python_only: Why no other minor version works, where that is known.
        requires: Upstream's own list.
        optional: Upstream's optional groups.
        groups: Those that a complete environment has.
        overrides: Requirements that upstream's steps put in place of listed ones.
        apart: Packages installed apart from the list.
        also: Packages that must be there although no list names them.
        bounds: Limits of ours.
        forbids: Packages that must not be there.
        build: Limits on what builds source distributions.
        project: The project's own distribution.
        cuda: CUDA, in words.
        cuda_note: Where that comes from.
        needs: Hardware.
        hardware_note: Hardware, in words.
        programs: Programs that must be on PATH.
        system: System packages, in words.
        server: `required` where one of the servers must be there.
        servers: Inference servers.
        training: How it trains, in words.
        settings: Training settings of its own scripts.
        steps: Steps that a version check cannot see.
        pitfalls: What went wrong for others.
        lock: What a lock cannot do.
        file: The file it is in.
    """

    id: str
    name: str
    use: tuple[str, ...]
    source: Source
    provenance: Provenance
    python: str
    aliases: tuple[str, ...] = ()
    advisory: bool = False
    python_only: str = ""
    requires: tuple[str, ...] = ()
    optional: dict[str, tuple[str, ...]] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    apart: tuple[Apart, ...] = ()
    also: tuple[str, ...] = ()
    bounds: tuple[Bound, ...] = ()
    forbids: tuple[Bound, ...] = ()
    build: tuple[str, ...] = ()
    project: str = ""
    cuda: str = ""
    cuda_note: str = ""
    needs: tuple[Need, ...] = ()
    hardware_note: str = ""
    programs: tuple[str, ...] = ()
    system: tuple[str, ...] = ()
    server: str = ""
    servers: tuple[Server, ...] = ()
    training: str = ""
    settings: tuple[Recipe, ...] = ()
    steps: tuple[Step, ...] = ()
    pitfalls: tuple[Pitfall, ...] = ()
    lock: Locking = Locking()
    file: str = ""

    def need(self, what: str) -> Need | None:
        """The lower limit of a quantity, or None."""
        return next((need for need in self.needs if need.what == what and need.at_least), None)
