"""A restore point: the files of the packages that a change touches, kept so that the environment can be put back.

What an installer is going to do is known before it starts: the new versions are first installed below a folder of
their own. Their files that are not there yet are noted as added; every file of the old versions, and every other file
that a new version would write over, is kept with its SHA-256, mode and times. So going back needs to know nothing
about how far the installer came, and is the same after a finished change, a failed one and a killed one.

Restore points lie in `PREFIX/.envcheck/restore/N`, the latest with the highest number; a folder whose name does not
end in a number is one that was never finished, and nothing was changed after it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envcheck.errors import CouldNotLookError, EnvcheckError, InputError
from envcheck.facts.metadata import normalised, scan

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from importlib_metadata import Distribution

    from envcheck.facts.metadata import Headers

SCHEMA = "envcheck.restore/1"
HOME = ".envcheck"
MANIFEST, DONE = "manifest.json", "done"

#: Files up to this size are copied, because editors write into them; larger ones are hard-linked where that works.
COPIED = 1 << 20

#: What killed installers leave beside the files they were at: pip `~ame`, uv `.tmpXXXXXX`.
LEFTOVERS = ("~", ".tmp")

#: The empty file below a prefix that uv locks, and leaves there.
UV_LOCK = ".lock"

#: Beside `.dist-info` and `.egg-info`: files of `site-packages` that several packages write into.
SHARED = (".pth", ".egg-link")


@dataclass(frozen=True, slots=True)
class Saved:
    """One file or link as it was.

    Attributes:
        path: Relative to the prefix.
        content: SHA-256 of a file's bytes; the target of a link.
        link: True for a symbolic link.
        mode: Permission bits.
        time: Modification time in nanoseconds.
    """

    path: str
    content: str
    link: bool = False
    mode: int = 0o644
    time: int = 0


@dataclass(frozen=True, slots=True)
class Touched:
    """One package of a change: the versions before and after (empty where it is not there) and where it came from."""

    name: str
    before: str
    after: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a restore point holds.

    Attributes:
        packages: The packages that the change touches.
        files: What was there, to be put back.
        added: Files that the change adds, relative to the prefix.
        folders: Folders that the change adds, outermost first.
        metadata: Metadata folders of the old and the new versions; what is not in `files` goes.
        leftovers: What killed installers had left before; not ours to remove.
    """

    packages: tuple[Touched, ...]
    files: tuple[Saved, ...]
    added: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Point:
    """A restore point on disk."""

    prefix: Path
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether the change that it was made for came to its end."""
        return (self.folder / DONE).exists()

    def finish(self) -> None:
        """Note that the change came to its end."""
        (self.folder / DONE).touch()

    def read(self) -> Manifest:
        """What it holds.

        Raises:
            InputError: The manifest is truncated, altered, or not one.
        """
        return read_manifest(self.folder / MANIFEST)


def home(prefix: Path) -> Path:
    """The folder below the environment's prefix that envcheck keeps its things in."""
    return prefix / HOME


def points(prefix: Path) -> list[Point]:
    """The finished restore points of an environment, oldest first."""
    folder = home(prefix) / "restore"
    with contextlib.suppress(OSError):
        names = [entry.name for entry in folder.iterdir() if entry.name.isdecimal()]
        return [Point(prefix, folder / name) for name in sorted(names, key=int)]
    return []


def site_folder(prefix: Path, path: Iterable[str]) -> Path:
    """The folder of `path` (a `sys.path`) below the prefix that packages are installed into.

    Raises:
        CouldNotLookError: There is none.
    """
    for entry in path:
        folder = Path(os.path.realpath(entry))
        if folder.name in ("site-packages", "dist-packages") and folder.is_relative_to(prefix) and folder.is_dir():
            return folder
    raise CouldNotLookError("this environment has no `site-packages` of its own", where=str(prefix))


# ---- making one


def save(prefix: Path, site: Path, staged: Path, packages: tuple[Touched, ...]) -> Point:
    """Keep what the installation of the staged versions is going to change.

    Args:
        prefix: The environment's prefix, without symbolic links in it.
        site: Its `site-packages`.
        staged: The folder below which the new versions are installed, laid out as the environment is.
        packages: What is going to change.

    Raises:
        EnvcheckError: The folder cannot be written (a read-only environment, a full disk).
    """
    names = {package.name for package in packages}
    old = [found for headers, found in distributions([site]) if headers.name in names]
    layout = Layout(prefix, site, staged, tuple(sorted({folder.parent for folder in staged.rglob("*.dist-info")})))
    new = [found for headers, found in distributions(layout.sites) if headers.name in names]
    written = {layout.target(path) for found in new for path in files_of(found)} | {prefix / UV_LOCK}
    kept = {path for found in old for path in files_of(found)} | {path for path in written if os.path.lexists(path)}
    kept |= {entry for entry in site.iterdir() if entry.suffix in SHARED}
    kept = {path for path in kept if path.is_relative_to(prefix) and (path.is_symlink() or path.is_file())}
    added = sorted(path for path in written if not os.path.lexists(path))
    metadata = {*map(place_of, old), *(layout.target(place_of(found)) for found in new)}
    manifest = Manifest(
        packages=packages,
        files=(),
        added=tuple(relative(path, prefix) for path in added),
        folders=tuple(sorted({relative(folder, prefix) for path in added for folder in _missing_parents(path, prefix)})),
        metadata=tuple(sorted(relative(path, prefix) for path in metadata)),
        leftovers=tuple(sorted(relative(path, prefix) for path in leftovers(prefix, [*kept, *added]))),
    )
    try:
        return _write(prefix, sorted(kept), manifest)
    except OSError as error:
        raise EnvcheckError(
            f"cannot write a restore point: {error.strerror}", where=str(error.filename or home(prefix)),
            hints=("nothing was changed",),
        ) from error  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layout:
    """Where staged files go: below the staged `site-packages` to the environment's, the rest below its prefix."""

    prefix: Path
    site: Path
    staged: Path
    sites: tuple[Path, ...]

    def target(self, path: Path) -> Path:
        """The place in the environment of a staged file."""
        for folder in self.sites:
            if path.is_relative_to(folder):
                return self.site / path.relative_to(folder)
        return self.prefix / path.relative_to(self.staged)


def sharing(site: Path, names: Container[str]) -> dict[str, str]:
    """The other packages that own files of these: name -> version. Uninstalling takes their files too."""
    every = list(distributions([site]))
    taken = {path for headers, found in every if headers.name in names for path in files_of(found)}
    return {
        headers.name: headers.version for headers, found in every
        if headers.name not in names and not taken.isdisjoint(files_of(found))
    }  # fmt: skip


def written_over(place: Path, site: Path, staged: Path, names: Container[str]) -> list[str]:
    """The files below the prefix `place` that these staged packages would write with another content."""
    layout = Layout(place, site, staged, tuple(sorted({folder.parent for folder in staged.rglob("*.dist-info")})))
    files = {path for headers, found in distributions(layout.sites) if headers.name in names for path in files_of(found)}
    pairs = [(path, layout.target(path)) for path in sorted(files)]
    return [relative(old, place) for new, old in pairs if old.is_file() and new.is_file() and digest_of(old) != digest_of(new)]


def leftovers(prefix: Path, files: Iterable[Path]) -> set[Path]:
    """What killed installers left in the folders of these files and in the folders around those."""
    folders = {folder for path in files for folder in path.parents if folder.is_relative_to(prefix)}
    found: set[Path] = set()
    for folder in folders:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found |= {entry for entry in folder.iterdir() if entry.name.startswith(LEFTOVERS)}
    return found


def distributions(folders: Iterable[Path]) -> Iterator[tuple[Headers, Distribution]]:
    """The distributions in these folders with their name (normalised; of the folder where metadata is lost) and version."""
    from importlib_metadata import DistributionFinder, MetadataPathFinder  # noqa: PLC0415 - slow to import

    context = DistributionFinder.Context(path=[str(folder) for folder in folders])  # type: ignore[no-untyped-call]
    for found in MetadataPathFinder().find_distributions(context):
        headers = scan((found.read_text("METADATA") or found.read_text("PKG-INFO") or "").encode())
        name = headers.name or place_of(found).name.partition("-")[0]
        yield headers._replace(name=normalised(name)), found


def files_of(found: Distribution) -> set[Path]:
    """Every file of a distribution: what its RECORD lists, its metadata folder, and, without a RECORD, its modules."""
    where = place_of(found)
    listed = {Path(os.path.normpath(str(found.locate_file(item)))) for item in found.files or ()}
    listed |= set(walk(where))
    if not (where / "RECORD").exists():
        for name in (found.read_text("top_level.txt") or "").split():
            listed |= set(walk(where.parent / name)) | {where.parent / f"{name}.py"}
    return listed


def place_of(found: Distribution) -> Path:
    """The metadata folder of a distribution."""
    return Path(str(getattr(found, "_path", "")))  # private, but there is no other way to the folder


def walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, links not followed; a file itself."""
    if not folder.is_dir() or folder.is_symlink():
        yield folder
        return
    for entry in folder.iterdir():
        yield from walk(entry)


def _missing_parents(path: Path, prefix: Path) -> Iterator[Path]:
    for parent in path.parents:
        if parent == prefix or parent.is_dir():
            return
        yield parent


def relative(path: Path, prefix: Path) -> str:
    """The path below the prefix, with slashes."""
    return path.relative_to(prefix).as_posix()


def _write(prefix: Path, files: list[Path], manifest: Manifest) -> Point:
    existing = points(prefix)
    number = int(existing[-1].folder.name) + 1 if existing else 1
    final = home(prefix) / "restore" / str(number)
    building = final.with_name(f"{number}.partial")
    shutil.rmtree(building, ignore_errors=True)
    (building / "files").mkdir(parents=True)
    saved = tuple(_keep(path, prefix, building / "files") for path in files)
    document = {
        "packages": [[item.name, item.before, item.after, item.source] for item in manifest.packages],
        "files": [[item.path, item.content, item.link, item.mode, item.time] for item in saved],
        "added": manifest.added, "folders": manifest.folders, "metadata": manifest.metadata,
        "leftovers": manifest.leftovers,
    }  # fmt: skip
    body = json.dumps(document, indent=0)
    head = json.dumps({"schema": SCHEMA, "sha256": hashlib.sha256(body.encode()).hexdigest()})
    (building / MANIFEST).write_text(f"{head}\n{body}\n", encoding="utf-8")
    building.replace(final)
    return Point(prefix, final)


def _keep(path: Path, prefix: Path, store: Path) -> Saved:
    """Keep a file under its digest; files of one content are kept once."""
    status = path.lstat()
    name = relative(path, prefix)
    if stat.S_ISLNK(status.st_mode):
        return Saved(name, os.readlink(path), link=True)  # noqa: PTH115 - exactly as it is
    digest = digest_of(path)
    target = store / digest
    if not target.exists():
        copy(path, target, linked=status.st_size > COPIED)
    return Saved(name, digest, mode=stat.S_IMODE(status.st_mode), time=status.st_mtime_ns)


def copy(source: Path, target: Path, *, linked: bool) -> None:
    """Copy a file, or hard-link it where asked for and possible."""
    if linked:
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# ---- reading one


def read_manifest(path: Path) -> Manifest:
    """The manifest in a file.

    Raises:
        InputError: It is not there, truncated, altered, or names files outside the environment.
    """
    hint = ("without it the environment cannot be put back; install the old versions again",)
    try:
        manifest = _manifest(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the restore point cannot be read: {error.strerror}", where=str(path), hints=hint) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError("the restore point is truncated or altered", where=str(path), hints=hint) from error
    named = [*(item.path for item in manifest.files), *manifest.added, *manifest.folders, *manifest.metadata, *manifest.leftovers]
    if any(name.startswith("/") or ".." in name.split("/") or not name for name in named):
        raise InputError("the restore point names files outside the environment", where=str(path))
    return manifest


def _manifest(text: str) -> Manifest:
    """The manifest that a text holds: a line with its digest, then the document.

    Raises:
        ValueError, KeyError, TypeError: Not one.
    """
    head, _, body = text.partition("\n")
    stated: Mapping[str, Any] = json.loads(head)
    if stated["schema"] != SCHEMA or stated["sha256"] != hashlib.sha256(body.removesuffix("\n").encode()).hexdigest():
        raise ValueError("another digest")
    document = json.loads(body)
    packages = tuple(Touched(*item) for item in document.pop("packages"))
    files = tuple(Saved(*item) for item in document.pop("files"))
    return Manifest(packages, files, **{name: tuple(paths) for name, paths in document.items()})
