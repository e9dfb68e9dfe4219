"""The plan of an environment: which lock, into what, with which files over it, and what is done at the end. Values only."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from enum import Enum

from envcheck.errors import UsageError

#: Oldest and newest minor version of Python 3 that plans speak of; an upper bound at the newest one means none.
OLDEST, NEWEST = 8, 14

SHA256 = re.compile(r"[0-9a-f]{64}")


class LockKind(str, Enum):
    """The two forms of a lock: PEP 751, or a requirements file with digests."""

    PYLOCK = "pylock"
    REQUIREMENTS = "requirements"


@dataclass(frozen=True, slots=True)
class PlacedLock:
    """A lock as a plan uses it.

    Attributes:
        kind: Its form.
        path: Relative to the script where it stays a file beside it, else an empty string.
        text: Its content where it goes into the script, else an empty string.
        packages: How many packages it holds.
    """

    kind: LockKind
    path: str = ""
    text: str = ""
    packages: int = 0

    @property
    def file(self) -> str:
        """The name under which uv knows its form."""
        return "pylock.toml" if self.kind is LockKind.PYLOCK else "requirements.txt"


@dataclass(frozen=True, slots=True)
class Patch:
    """A file copied over an installed one.

    Attributes:
        file: Below site-packages.
        source: Below the script's folder.
        before: SHA-256 of the installed file that it replaces, `absent`, or `locked`: what the lock's own wheel brought there, by
            its RECORD.
        after: SHA-256 of the file that is copied.
    """

    file: str
    source: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Pythons:
    """Minor versions of Python 3 that the lock is for, both ends included."""

    lowest: int = OLDEST
    highest: int = NEWEST

    @property
    def open(self) -> bool:
        """Whether releases newer than those known today are taken too."""
        return self.highest >= NEWEST

    @property
    def words(self) -> str:
        """`Python 3.10`, `Python 3.10 or newer`, `Python 3.9 to 3.11`."""
        if self.open:
            return f"Python 3.{self.lowest} or newer"
        return f"Python 3.{self.lowest}" + (f" to 3.{self.highest}" if self.highest > self.lowest else "")

    @property
    def condition(self) -> str:
        """The Python expression that is true for the interpreters of this range."""
        above = "" if self.open else f" and sys.version_info < (3, {self.highest + 1})"
        return f"sys.version_info >= (3, {self.lowest}){above}"

    @property
    def names(self) -> tuple[str, ...]:
        """Interpreters to look for on PATH, the newest first behind the plain name."""
        return ("python3", *(f"python3.{minor}" for minor in range(self.highest, self.lowest - 1, -1)), "python")


@dataclass(frozen=True, slots=True)
class Trial:
    """What the `--test` switch of a script does: install another lock, then run a bash file with its programs first on PATH."""

    lock: PlacedLock
    script: str


@dataclass(frozen=True, slots=True)
class ByHand:
    """What a project's profile, or the script that a lock was made from, leaves to be done after the lock is installed.

    Attributes:
        profile: Its id, for `envcheck check --profile`; empty where it is a script that was locked.
        packages: Normalised names of what is then put in; their coming is no change of the environment. `*`: nobody knows what.
        left_out: A line for each package that no lock holds.
        steps: Its steps, a line each.
    """

    profile: str
    packages: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a script or a run needs.

    Attributes:
        lock: What is installed.
        venv: Folder of the venv, relative to the script; unused where `conda` names an environment.
        conda: Name of the conda environment, or an empty string.
        pythons: Which interpreters fit the lock.
        system: `Linux` and the like where the lock's wheels are for one system only, else an empty string.
        machine: Likewise for the architecture.
        indexes: Package indexes beside the default one, such as PyTorch's for the CUDA build in the lock.
        patches: Files copied over installed ones.
        editable: Folder of a project that is installed in place, or an empty string.
        build: Limits on what builds source archives, PEP 508 lines.
        by_hand: What a profile leaves to do afterwards, or None.
        probe: Whether `envcheck probe` follows `envcheck check`.
        trial: What `--test` does, or None.
    """

    lock: PlacedLock
    venv: str = ".venv"
    conda: str = ""
    pythons: Pythons = field(default_factory=Pythons)
    system: str = ""
    machine: str = ""
    indexes: tuple[str, ...] = ()
    patches: tuple[Patch, ...] = ()
    editable: str = ""
    build: tuple[str, ...] = ()
    by_hand: ByHand | None = None
    probe: bool = False
    trial: Trial | None = None

    def digest(self) -> str:
        """A digest over what decides the environment, but for the content of lock files that stay beside the script."""
        data = {key: value for key, value in asdict(self).items() if key not in ("trial", "probe", "by_hand")}
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    @property
    def patches_json(self) -> str:
        """The patches as the keeper takes them."""
        return json.dumps([asdict(patch) for patch in self.patches], sort_keys=True)


def plain_line(text: str) -> str:
    """A text on one line, with `?` for what would move a terminal's cursor or hide what stands there."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def check_path(text: str, what: str) -> str:
    """A path that stays below where it starts, in `/` form.

    Raises:
        UsageError: It is empty, absolute, leads out, or holds a control character.
    """
    parts = text.split("/")
    if not text or text.startswith(("/", "~")) or ".." in parts or any(ord(letter) < 32 or ord(letter) == 127 for letter in text):  # noqa: PLR2004
        raise UsageError(f"{what} `{text}` must be a path below the script's folder", hints=("relative, without `..`",))
    return text
