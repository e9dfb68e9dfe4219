"""What one install command asks for: requirement texts as pip, uv and conda take them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

from envcheck.facts.metadata import normalised

COMMIT = re.compile(r"[0-9a-f]{40}")
#: `git+https://host/path@ref#egg=name`; the ref follows the last `@` behind the host.
VCS = re.compile(r"(?P<kind>git|hg|svn|bzr)\+(?P<url>[^#]*?)(?:@(?P<ref>[^@/#:]+(?:/[^@#:]+)*))?(?:#(?P<fragment>.*))?$")


class Kind(str, Enum):
    """How firmly a requirement names what is installed."""

    PINNED = "pinned"
    RANGE = "range"
    BARE = "bare"
    WHEEL = "wheel"
    ARCHIVE = "archive"
    VCS = "vcs"
    LOCAL = "local"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One requirement.

    Attributes:
        text: As written.
        kind: How firm it is.
        name: Normalised, or an empty string where the text does not say.
        specifier: PEP 440 (for conda already translated), or an empty string.
        version: The one version that it can be, or an empty string.
        url: Of a wheel, archive or repository; the path of a local project.
        ref: Branch, tag or commit of a repository.
        extras: Names of the extras asked for.
        digest: Whether the text itself holds a digest.
        marker: Environment marker, or an empty string.
    """

    text: str
    kind: Kind
    name: str = ""
    specifier: str = ""
    version: str = ""
    url: str = ""
    ref: str = ""
    extras: tuple[str, ...] = ()
    digest: bool = False
    marker: str = ""

    @property
    def commit(self) -> bool:
        """Whether `ref` is a whole commit id."""
        return bool(COMMIT.fullmatch(self.ref))


def read(text: str, *, known: bool = True) -> Wanted:
    """A requirement as `pip install` takes it: PEP 508, a path, or an address."""
    if not known:
        return Wanted(text, Kind.UNKNOWN, name=_name_before(text))
    bare = text.strip()
    if re.match(r"(git|hg|svn|bzr)\+", bare):
        return _repository(text, bare, "", ())
    if re.match(r"(https?|ftp|file)://", bare):
        return _address(text, bare, "", ())
    if bare.startswith((".", "/", "~")) or bare.endswith(".whl"):
        return _path(text, bare)
    return _requirement(text, bare)


def _requirement(text: str, bare: str) -> Wanted:
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415 - slow to import

    try:
        found = Requirement(bare)
    except InvalidRequirement:
        return _path(text, bare) if "/" in bare else Wanted(text, Kind.UNKNOWN)
    name, extras = normalised(found.name), tuple(sorted(found.extras))
    if found.url:
        inner = _repository if re.match(r"(git|hg|svn|bzr)\+", found.url) else _address
        return inner(text, found.url, name, extras)
    exact = [item.version for item in found.specifier if item.operator in ("==", "===") and not item.version.endswith(".*")]
    kind = Kind.PINNED if exact else Kind.RANGE if found.specifier else Kind.BARE
    marker = str(found.marker) if found.marker else ""
    return Wanted(
        text, kind, name, str(found.specifier), exact[0] if exact else "", extras=extras, digest="--hash=" in text, marker=marker
    )


def _name_before(text: str) -> str:
    """The name in `torch==$VERSION`, where one stands before what is not known."""
    found = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(\[[^]]*\])?\s*[=<>!~@]", text)
    return normalised(found[1]) if found else ""


def _repository(text: str, url: str, name: str, extras: tuple[str, ...]) -> Wanted:
    found = VCS.match(url)
    if found is None:
        return Wanted(text, Kind.VCS, name, url=url, extras=extras)
    egg = re.search(r"egg=([\w.-]+)", found["fragment"] or "")
    base = re.sub(r"\.git$", "", found["url"].rstrip("/")).rpartition("/")[2]
    ref = found["ref"] or ""
    version = re.fullmatch(r"v?(\d+(?:\.\d+)*(?:\.?(?:post|rc|a|b)\d+)?)", ref)
    return Wanted(
        text,
        Kind.VCS,
        name or normalised(egg[1] if egg else base),
        url=found["url"],
        ref=ref,
        version=version[1] if version and "." in ref else "",
        extras=extras,
    )


def _address(text: str, url: str, name: str, extras: tuple[str, ...]) -> Wanted:
    path, _, fragment = url.partition("#")
    file = unquote(path.partition("?")[0].rpartition("/")[2])
    digest = bool(re.search(r"(?:^|&)sha(?:256|384|512)=[0-9a-f]{64,}", fragment))
    if file.endswith(".whl"):
        stem, version = _wheel(file)
        return Wanted(text, Kind.WHEEL, name or stem, version=version, url=url, extras=extras, digest=digest)
    return Wanted(text, Kind.ARCHIVE, name, url=url, extras=extras, digest=digest)


def _path(text: str, bare: str) -> Wanted:
    if "*" in bare or "?" in bare:
        return Wanted(text, Kind.UNKNOWN)
    path, bracket, rest = bare.partition("[") if bare.endswith("]") else (bare, "", "")
    extras = tuple(sorted(item.strip() for item in rest.rstrip("]").split(",") if item.strip())) if bracket else ()
    if path.endswith(".whl"):
        stem, version = _wheel(path.rpartition("/")[2])
        return Wanted(text, Kind.WHEEL, stem, version=version, url=path, extras=extras)
    kind = Kind.ARCHIVE if path.endswith((".tar.gz", ".zip", ".tar.bz2")) else Kind.LOCAL
    return Wanted(text, kind, url=path.removeprefix("file://"), extras=extras)


def _wheel(file: str) -> tuple[str, str]:
    """Name and version of a wheel file's name, empty where it is none."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename  # noqa: PLC0415 - slow to import

    try:
        name, version, _, _ = parse_wheel_filename(file)
    except InvalidWheelFilename:
        return "", ""
    return str(name), str(version)


#: Conda's names of what PyPI calls otherwise, as far as training scripts use them.
CONDA_NAMES = {"pytorch": "torch", "pytorch-gpu": "torch", "pytorch-cpu": "torch", "py-opencv": "opencv-python"}


def read_conda(text: str, *, known: bool = True) -> Wanted:
    """A conda match spec (`channel::name=1.2=build`, `name>=1,<2`); one `=` means that release line."""
    spec = text.strip().rpartition("::")[2]
    found = re.match(r"([A-Za-z0-9_][\w.-]*)\s*(.*)$", spec)
    if not known or found is None:
        return Wanted(text, Kind.UNKNOWN, name=CONDA_NAMES.get(_name_before(text), _name_before(text)))
    name = normalised(found[1])
    name = CONDA_NAMES.get(name, name)
    rest = found[2].strip().partition("[")[0].strip()
    single = re.fullmatch(r"=?\s*([\w.!+]+)(?:=.*)?", rest)
    if not rest:
        return Wanted(text, Kind.BARE, name)
    if rest.startswith("==") or (single and rest.count("=") > 1 and not rest.startswith(("<", ">", "!"))):
        version = rest.lstrip("=").partition("=")[0]
        return Wanted(text, Kind.PINNED, name, f"=={version}", version)
    if single:
        return Wanted(text, Kind.PINNED if single[1].count(".") > 1 else Kind.RANGE, name, f"=={single[1]}.*", single[1])
    return Wanted(text, Kind.RANGE, name, rest)
