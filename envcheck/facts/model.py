"""The facts of one environment as values, and what is not known about it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Known(NamedTuple):
    """A fact with its value (text, or a tuple of texts for a list fact) and where it was read."""

    value: str | tuple[str, ...]
    source: str = ""


class Absent(NamedTuple):
    """Looked for and not there; `looked_in` names the places."""

    looked_in: tuple[str, ...] = ()


class Unreadable(NamedTuple):
    """There, but it could not be read."""

    source: str
    reason: str


class Unknown(NamedTuple):
    """Nobody looked, or a snapshot does not say."""


#: One fact. Only `Known` and `Absent` decide conditions; `Unreadable` and `Unknown` leave them open.
Fact = Known | Absent | Unreadable | Unknown

UNKNOWN = Unknown()


class Gpu(NamedTuple):
    """One visible GPU.

    Attributes:
        name: As the driver gives it, or an empty string.
        compute_capability: `major.minor`, or an empty string where it is not known.
        memory_mib: Total memory in MiB, or 0 where it is not known.
        product_class: datacenter, workstation, geforce or jetson; empty until the matrix's table is asked, or where it
            does not know the name.
    """

    name: str = ""
    compute_capability: str = ""
    memory_mib: int = 0
    product_class: str = ""


class Distribution(NamedTuple):
    """One installed distribution.

    Attributes:
        name: Normalised name (PEP 503).
        version: As its metadata gives it; not necessarily PEP 440.
        requires: `Requires-Dist` lines, verbatim.
        requires_python: `Requires-Python`, or an empty string.
        location: Folder that holds its metadata, or an empty string (hand-written snapshot).
        direct_url: The url of `direct_url.json`, or an empty string.
        installer: Content of `INSTALLER`, or an empty string.
        editable: True for an editable install.
        extras: `Provides-Extra` names.
        commit: The commit it was installed from, where `direct_url.json` names one.
    """

    name: str
    version: str
    requires: tuple[str, ...] = ()
    requires_python: str = ""
    location: str = ""
    direct_url: str = ""
    installer: str = ""
    editable: bool = False
    extras: tuple[str, ...] = ()
    commit: str = ""


class MetadataProblem(NamedTuple):
    """A metadata folder that is broken: `kind` is duplicate, broken or leftover."""

    kind: str
    name: str
    path: str
    detail: str = ""


class Environment(NamedTuple):
    """Everything known about one environment.

    Attributes:
        packages: By normalised name.
        complete: True when a package that is not listed is not installed.
        facts: By the names of `matrices/vocabulary.toml`; a missing key is unknown.
        gpus: Visible GPUs, or None where nobody could look.
        problems: Broken metadata.
        prefix: `sys.prefix` of the interpreter, or an empty string.
        source: Where all this came from, in words for the report.
        markers: Values for environment markers (PEP 508 names), empty where unknown.
    """

    packages: Mapping[str, Distribution] = MappingProxyType({})
    complete: bool = False
    facts: Mapping[str, Fact] = MappingProxyType({})
    gpus: tuple[Gpu, ...] | None = None
    problems: tuple[MetadataProblem, ...] = ()
    prefix: str = ""
    source: str = ""
    markers: Mapping[str, str] = MappingProxyType({})

    def fact(self, name: str) -> Fact:
        """The fact called `name`; `Unknown` where nobody looked."""
        return self.facts.get(name, UNKNOWN)

    def text(self, name: str) -> str | None:
        """The fact's value where it is a known single text, else None."""
        fact = self.facts.get(name)
        return fact.value if isinstance(fact, Known) and isinstance(fact.value, str) else None
