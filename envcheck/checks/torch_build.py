"""Which torch is installed and for which CUDA it was built: the question most table checks begin with."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from packaging.version import Version

from envcheck.facts.model import Absent, Known
from envcheck.findings import Evidence, Severity
from envcheck.matrix.versions import plain, satisfies

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envcheck.checks.context import Context
    from envcheck.facts.model import Environment

CUDA_TAG = re.compile(r"cu(\d{1,2})(\d)")
NO_CUDA_TAG = re.compile(r"cpu|rocm|xpu")
REFERENCE = re.compile(r"[\w.-]+/[\w.-]+#\d+")

#: A finding names this many of a table's sources; the table has all.
SHOWN_SOURCES = 3

#: `torch_source` values whose wheels the tables describe.
WHEEL_SOURCES = frozenset({"pypi", "pytorch-index"})


class TorchBuild(NamedTuple):
    """The installed torch.

    Attributes:
        text: Version as installed.
        version: Its public part; for a pre-release or vendor build the release it leads to.
        exact: False where that step was taken.
        cuda: CUDA version it was built for, `major.minor`; empty for a CPU, ROCm or XPU build; None where unknown.
        told: False where `cuda` is only what PyPI's wheel of this version has.
        source: `torch_source`, or an empty string.
        local: Local version label, or an empty string.
    """

    text: str
    version: Version
    exact: bool
    cuda: str | None
    told: bool = True
    source: str = ""
    local: str = ""

    @property
    def minor(self) -> str:
        """`major.minor` of the version."""
        return f"{self.version.major}.{self.version.minor}"

    @property
    def cuda_major(self) -> int | None:
        """The CUDA major, or None for no CUDA or an unknown one."""
        return int(self.cuda.partition(".")[0]) if self.cuda else None

    @property
    def tag(self) -> str:
        """`cu121` for 12.1, `cpu` for none, an empty string for unknown."""
        if self.cuda is None:
            return ""
        return "cu" + "".join(self.cuda.split(".")[:2]) if self.cuda else "cpu"

    @property
    def published(self) -> bool:
        """True where it is, or may be, one of the published wheels: neither a vendor's nor an own build."""
        return self.exact and (not self.source or self.source in WHEEL_SOURCES)

    @property
    def why(self) -> str:
        """Where the CUDA version comes from, as a reason for a finding."""
        if self.told:
            return f"torch {self.text} is built for CUDA {self.cuda}"
        return f"the PyPI wheel of torch {self.text} is built for CUDA {self.cuda}; nothing says that it is another build"


def torch_build(context: Context) -> TorchBuild | None:
    """The installed torch, or None where it is not installed or its version cannot be read."""
    environment = context.environment
    package = environment.packages.get("torch")
    version = plain(package.version) if package else None
    if package is None or version is None:
        return None
    source = environment.text("torch_source") or ""
    local = (Version(package.version).local or "").lower()
    cuda, told = _stated(environment, local), True
    if cuda is None and not local and version.exact and source in ("", "pypi") and _linux_x86_64(environment):
        row = torch_row(context, str(version.version))
        cuda, told = (cuda_of_tag(row["pypi_build"]), source == "pypi") if row else (None, True)
    return TorchBuild(package.version, version.version, version.exact, cuda, told, source, local)


def _stated(environment: Environment, local: str) -> str | None:
    """The CUDA version that a fact or the local label states; empty for none."""
    fact = environment.fact("torch_cuda")
    if isinstance(fact, Known) and isinstance(fact.value, str) and (known := plain(fact.value)):
        return f"{known.version.major}.{known.version.minor}"
    if isinstance(fact, Absent) or isinstance(environment.fact("torch_hip"), Known):
        return ""
    return cuda_of_local(local)


def _linux_x86_64(environment: Environment) -> bool:
    system, machine = environment.text("system") or "Linux", environment.text("machine") or "x86_64"
    return system == "Linux" and machine.lower() in ("x86_64", "amd64")


def cuda_of_tag(tag: str) -> str | None:
    """`12.1` for `cu121`; None for anything else."""
    found = CUDA_TAG.fullmatch(tag)
    return f"{found[1]}.{found[2]}" if found else None


def cuda_of_local(local: str) -> str | None:
    """The CUDA version of a local version label: `12.1` for `cu121`, empty for `cpu`, None where it says nothing."""
    if NO_CUDA_TAG.match(local):
        return ""
    return cuda_of_tag(local.partition(".")[0])


@lru_cache(maxsize=256)
def minor_of(text: str) -> str | None:
    """`major.minor` of a version text, or None where it is not PEP 440."""
    version = plain(text)
    return f"{version.version.major}.{version.version.minor}" if version else None


@lru_cache(maxsize=512)
def release(text: str) -> Version:
    """A version text of a table, parsed once."""
    return Version(text)


def rows(context: Context, table: str, key: str = "rows") -> list[dict[str, Any]]:
    """The rows of a table; empty where the matrix has no such table."""
    found: list[dict[str, Any]] = context.matrix.table(table).get(key, [])
    return found


def torch_row(context: Context, version: str) -> dict[str, Any] | None:
    """The row of a torch release, or None."""
    return next((row for row in rows(context, "torch") if row["version"] == version), None)


def row_for(entries: list[dict[str, Any]], version: str, key: str = "versions") -> dict[str, Any] | None:
    """The first row whose specifier set under `key` holds the version, or None."""
    return next((row for row in entries if satisfies(version, row[key])), None)


def evidence(context: Context, table: str, row: Mapping[str, Any] | None = None) -> tuple[Evidence, ...]:
    """Where a table's row comes from: its own evidence, else the table's first sources."""
    found = (row or {}).get("evidence") or context.matrix.table(table).get("table", {}).get("sources", [])
    return tuple(Evidence(kind_of(text), text) for text in found[:SHOWN_SOURCES])


def kind_of(reference: str) -> str:
    """The evidence kind of a table's source: an issue, something read in code, wheels or metadata, or a page."""
    if REFERENCE.fullmatch(reference):
        return "issue"
    read = ("metadata", "wheel", "publish.yml", ".py", ".h ", ".sh", "build", "headers", "scripts")
    return "code" if any(word in reference for word in read) else "docs"


def capped(severity: Severity, *certain: bool) -> Severity:
    """The severity, at most a warning unless every argument is true."""
    return severity if all(certain) else min(severity, Severity.WARNING)
