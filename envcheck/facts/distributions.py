"""The installed distributions of an environment, read over its `sys.path`; nothing of it is imported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from envcheck.facts.machine import read_start
from envcheck.facts.metadata import Headers, is_name, normalised, read_headers, scan
from envcheck.facts.model import Distribution, MetadataProblem
from envcheck.facts.remembered import ENDINGS, INSTALLER_OF, Memory, metadata_files, stamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from importlib_metadata import PathDistribution

    from envcheck.facts.remembered import Content

#: What a half-removed folder begins with: pip renames what it removes, then deletes it or renames it back.
LEFTOVER = "~"

#: How the .pth files begin that setuptools writes for an editable install.
HOOK = "__editable__."

DIRECT_URL_LIMIT = 1 << 16


class Installed(NamedTuple):
    """What is installed: distributions by normalised name, and broken metadata."""

    packages: dict[str, Distribution]
    problems: tuple[MetadataProblem, ...]


class _Folder:
    """One folder of `sys.path` while it is read."""

    def __init__(self, path: str, names: frozenset[str]) -> None:
        self.path = path
        self.names = names
        self.seen: dict[str, str] = {}
        self.problems: list[MetadataProblem] = []

    def broken(self, name: str, where: str, detail: str) -> None:
        self.problems.append(MetadataProblem("broken", name, where, detail))


class _Info(NamedTuple):
    """One metadata folder; `stem` is its name without the ending: `torch-2.3.0`."""

    found: PathDistribution
    where: str
    stem: str
    headers: Headers | None

    @property
    def shown(self) -> str:
        """The distribution's name as the folder's name has it."""
        return self.stem.partition("-")[0]

    @property
    def name(self) -> str:
        """The normalised name: what the metadata says, else what the folder is called."""
        stated = self.headers.name if self.headers else ""
        return normalised(stated if is_name(stated) else self.shown)

    @property
    def version(self) -> str:
        """The version that the folder's name gives."""
        return self.stem.partition("-")[2].partition("-")[0]


def read_installed(path: Iterable[str], environ: Mapping[str, str] | None = None) -> Installed:
    """Every distribution on `path`; of several with one name the first counts, as for the import system.

    Two metadata folders of one name in the same folder are a problem; in different folders the first hides
    the others.

    Args:
        path: Folders and archives, in the order of `sys.path`.
        environ: Variables that say where the cache is; None reads every file.
    """
    entries = tuple(_unique(path))
    memory = Memory(entries, environ) if environ is not None else None
    packages: dict[str, Distribution] = {}
    problems: list[MetadataProblem] = []
    for entry in entries:
        found, wrong = _content(_Folder(entry, _names(entry)), memory)
        for distribution in found:
            packages.setdefault(distribution.name, distribution)
        problems += wrong
    if memory is not None:
        memory.keep()
    return Installed(packages, tuple(problems))


def _content(folder: _Folder, memory: Memory | None) -> Content:
    if not os.path.exists(folder.path):  # noqa: PTH110 - as above
        return [], []
    if memory is None:
        return _read(folder)
    content = memory.recall(folder.path, stamp(folder.path, folder.names, memory.files(folder.path)))
    if content is None:
        files = metadata_files(folder.path, folder.names)
        mark = stamp(folder.path, folder.names, files)
        content = _read(folder)
        memory.learn(folder.path, mark, files, content)
    return content


def _read(folder: _Folder) -> Content:
    found = list(_distributions(folder)) if _may_hold(folder) else []
    return found, [*folder.problems, *_leftovers(folder)]


def _may_hold(folder: _Folder) -> bool:
    """Whether importlib_metadata could find anything: it looks for these names, and into eggs and archives."""
    if folder.path.rstrip("/").endswith(".egg") or not os.path.isdir(folder.path):  # noqa: PTH112 - as above
        return True
    return any(name.lower().endswith((*ENDINGS, "egg-info")) for name in folder.names)


def _unique(path: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for entry in path:
        try:
            real = os.path.realpath(entry)
        except (OSError, ValueError):
            continue
        if entry and real not in seen:
            seen.add(real)
            yield entry


def _names(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 - pathlib is slow, here and below
    except (OSError, ValueError):
        return frozenset()


def _distributions(folder: _Folder) -> Iterator[Distribution]:
    from importlib_metadata import DistributionFinder, MetadataPathFinder  # noqa: PLC0415 - slow to import

    context = DistributionFinder.Context(path=[folder.path])  # type: ignore[no-untyped-call]
    editable = _editable_names(folder.names)
    infos = [_info(folder, found) for found in MetadataPathFinder().find_distributions(context)]
    # Whole ones first: a folder without its METADATA must not hide them. Then by name, so that the same
    # environment gives the same report; the folder itself lists in no order.
    for info in sorted(infos, key=lambda info: (info.headers is None, info.where)):
        if not info.stem.startswith(LEFTOVER) and _counts(folder, info):
            yield _build(folder, info, editable)


def _info(folder: _Folder, found: PathDistribution) -> _Info:
    # The attribute is private, but there is no other way to the folder, and pip does the same.
    where = str(getattr(found, "_path", "")).rstrip("/")
    base = where.replace("\\", "/").rpartition("/")[2]
    if base == "EGG-INFO":  # inside NAME-VERSION-PYTHON.egg, which is itself on sys.path
        base = folder.path.rstrip("/").rpartition("/")[2]
    stem = base.rpartition(".")[0]
    headers = None if stem.startswith(LEFTOVER) else _headers(folder, found, where, stem.partition("-")[0])
    return _Info(found, where, stem, headers)


def _headers(folder: _Folder, found: PathDistribution, where: str, shown: str) -> Headers | None:
    """The headers, with a problem noted where they are not complete; None where there is no metadata file."""
    name = normalised(shown)
    try:
        headers = _load(found, where)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        folder.broken(name, where, f"its metadata cannot be read: {reason}")
        return None
    if headers is None:
        folder.broken(name, where, "it holds neither METADATA nor PKG-INFO")
        return None
    missing = [key for key, value in (("Name", headers.name), ("Version", headers.version)) if not value]
    if missing:
        folder.broken(name, where, f"no `{'` and no `'.join(missing)}` in its metadata")
    elif not is_name(headers.name):
        folder.broken(name, where, "its `Name` is not the name of a distribution")
    return headers


def _counts(folder: _Folder, info: _Info) -> bool:
    """Whether a metadata folder stands for an installed distribution; a second one of a name is noted."""
    if not is_name(info.name):
        return False
    if info.headers is None and (info.name in folder.seen or not _files_there(folder, info.shown)):
        return False
    if info.name in folder.seen:
        detail = f"the other is {folder.seen[info.name]}"
        folder.problems.append(MetadataProblem("duplicate", info.name, info.where, detail))
        return False
    folder.seen[info.name] = info.where
    return True


def _load(found: PathDistribution, where: str) -> Headers | None:
    for path in (f"{where}/METADATA", f"{where}/PKG-INFO"):
        try:
            headers = read_headers(path)
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            break
        return _with_egg_requirements(found, headers) if path.endswith("PKG-INFO") else headers
    if os.path.isdir(where):  # noqa: PTH112 - as above
        return None
    if os.path.isfile(where):  # noqa: PTH113 - an .egg-info file, as distutils wrote it
        return read_headers(where)
    text = found.read_text("METADATA") or found.read_text("PKG-INFO")  # inside a zip archive
    return scan(text.encode()) if text else None


def _with_egg_requirements(found: PathDistribution, headers: Headers) -> Headers:
    """Older egg-info folders keep requirements in requires.txt, which importlib_metadata translates."""
    if headers.requires:
        return headers
    try:
        requires = found.requires or []
    except (OSError, ValueError, KeyError, IndexError):
        requires = []
    return Headers(headers.name, headers.version, headers.requires_python, tuple(requires), headers.extras)


def _files_there(folder: _Folder, shown: str) -> bool:
    """Whether the package itself seems to be there although its metadata is not."""
    module = shown.lower().replace("-", "_").replace(".", "_")
    return any(name.lower() in (module, f"{module}.py") for name in folder.names)


def _build(folder: _Folder, info: _Info, editable: frozenset[str]) -> Distribution:
    headers = info.headers or Headers()
    url, commit, in_place = _direct_url(folder, info.where, info.name)
    return Distribution(
        name=info.name,
        version=headers.version or info.version,
        requires=headers.requires,
        requires_python=headers.requires_python,
        location=folder.path,
        direct_url=url,
        commit=commit,
        installer=(info.found.read_text("INSTALLER") or "").strip() if info.shown.lower() == INSTALLER_OF else "",
        editable=in_place or info.name in editable,
        extras=headers.extras,
    )


def _direct_url(folder: _Folder, where: str, name: str) -> tuple[str, str, bool]:
    """The url and commit that a distribution was installed from, and whether it is editable (PEP 610)."""
    try:
        content = read_start(f"{where}/direct_url.json", DIRECT_URL_LIMIT)
    except (OSError, ValueError):
        return "", "", False
    import json  # noqa: PLC0415 - only here

    try:
        document = json.loads(content)
        info, source = document.get("dir_info", {}), document.get("vcs_info", {})
        commit = str(source.get("commit_id", "")) if isinstance(source, dict) else ""
        return str(document["url"]), commit, isinstance(info, dict) and info.get("editable") is True
    except (ValueError, RecursionError, KeyError, AttributeError, TypeError):
        folder.broken(name, f"{where}/direct_url.json", "its `direct_url.json` is not what PEP 610 asks for")
        return "", "", False


def _editable_names(names: frozenset[str]) -> frozenset[str]:
    """Distributions that the folder's .egg-link files and setuptools' .pth files speak of."""
    links = {name.removesuffix(".egg-link") for name in names if name.endswith(".egg-link")}
    hooks = {name[len(HOOK) :].partition("-")[0] for name in names if name.startswith(HOOK)}
    return frozenset(normalised(name) for name in links | hooks)


def _leftovers(folder: _Folder) -> Iterator[MetadataProblem]:
    """One problem for each half-removed package: its folder and its metadata folder begin with `~`."""
    groups: dict[str, list[str]] = {}
    for name in sorted(folder.names):
        if name.startswith(LEFTOVER) and os.path.isdir(f"{folder.path}/{name}"):  # noqa: PTH112 - as above
            groups.setdefault(name.partition("-")[0].lower(), []).append(name)
    for stem, members in groups.items():
        info = next((member for member in members if member.endswith((".dist-info", ".egg-info"))), members[0])
        detail = f"half-removed: {', '.join(members)}"
        yield MetadataProblem("leftover", _leftover_name(f"{folder.path}/{info}", stem), f"{folder.path}/{info}", detail)


def _leftover_name(info: str, stem: str) -> str:
    try:
        name = read_headers(f"{info}/METADATA").name
    except (OSError, ValueError):
        return stem
    return normalised(name) if is_name(name) else stem
