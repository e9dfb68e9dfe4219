"""What a check has to know of a lock, whichever file and tool it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class LockedPackage(Protocol):
    """One package of a lock: its version, when it is installed, the hashes of its files, and its URL where it has one."""

    @property
    def name(self) -> str:
        """Normalised name."""
        ...

    @property
    def version(self) -> str:
        """As locked; empty where only the source decides it."""
        ...

    @property
    def marker(self) -> str:
        """When it is installed, or an empty string."""
        ...

    @property
    def direct(self) -> str:
        """The URL of a direct reference, or an empty string."""
        ...

    @property
    def hashes(self) -> tuple[str, ...]:
        """`sha256:...` of every file."""
        ...


class SolvedFor(Protocol):
    """What a lock was solved for."""

    @property
    def python(self) -> str:
        """`major.minor`, or a full version."""
        ...

    @property
    def facts(self) -> Mapping[str, str]:
        """The machine facts that the lock hangs on; lists joined by a comma and a space."""
        ...

    @property
    def settings(self) -> Mapping[str, object]:
        """The training settings, flat."""
        ...

    @property
    def others(self) -> Sequence[Mapping[str, object]]:
        """Further training settings that the same set serves, each flat."""
        ...

    @property
    def uses(self) -> tuple[str, ...]:
        """Usage words."""
        ...

    @property
    def matrix(self) -> str:
        """Digest of the matrix."""
        ...

    @property
    def waived(self) -> Mapping[str, str]:
        """Rule id -> reason."""
        ...


class Lock(Protocol):
    """A lock, whichever file it was read from."""

    @property
    def packages(self) -> Sequence[LockedPackage]:
        """Every package, each once."""
        ...

    @property
    def requires_python(self) -> str:
        """Specifier set, or an empty string."""
        ...

    @property
    def provenance(self) -> SolvedFor | None:
        """What it was solved for; None where it does not say."""
        ...
