"""Going back to a restore point: the same after a finished change, a failed one and a killed one."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from envcheck.errors import CouldNotLookError, EnvcheckError, UsageError
from envcheck.resolve.restore import digest_of, home, leftovers, relative, walk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envcheck.resolve.restore import Manifest, Point, Saved

#: Lost files are named up to this many.
NAMED = 3


@dataclass(frozen=True, slots=True)
class Undone:
    """What going back did: files put back, files removed."""

    back: int
    removed: int


def undo(point: Point, installed: Mapping[str, set[str]]) -> Undone:
    """Put the environment back; what it does can be stopped at any moment and done again.

    Args:
        point: The restore point.
        installed: The versions of each touched package that are there now, by normalised name.

    Raises:
        InputError: The manifest is not usable.
        CouldNotLookError: A kept file that is needed is lost or altered; nothing was changed.
        UsageError: A package is now at a version that is neither the one before nor the one after.
        EnvcheckError: A file cannot be written.
    """
    manifest = point.read()
    _refuse_others(manifest, installed)
    missing = [saved for saved in manifest.files if not _as_saved(point.prefix / saved.path, saved)]
    _refuse_lost(point, manifest, missing)
    try:
        removed = _remove_added(point.prefix, manifest)
        for saved in missing:
            _put_back(point, saved)
        _remove_folders(point.prefix, manifest)
    except OSError as error:
        raise EnvcheckError(
            f"cannot put the environment back: {error.strerror}", where=str(error.filename or point.prefix),
            hints=("the restore point is still there; run `envcheck fix --undo` again",),
        ) from error  # fmt: skip
    drop(point)
    return Undone(len(missing), removed)


def _refuse_others(manifest: Manifest, installed: Mapping[str, set[str]]) -> None:
    for package in manifest.packages:
        others = installed.get(package.name, set()) - {package.before, package.after, ""}
        if others:
            raise UsageError(
                f"`{package.name}` is at {', '.join(sorted(others))} now, neither {package.before or 'absent'} "
                f"nor {package.after or 'absent'}: it was changed after the fix",
                hints=(f"install `{package.name}=={package.after}` first, or keep what is there",),
            )


def _refuse_lost(point: Point, manifest: Manifest, missing: list[Saved]) -> None:
    lost = [saved.path for saved in missing if not saved.link and not _whole(point, saved)]
    if lost:
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        again = " ".join(f"{item.name}=={item.before}" for item in manifest.packages if item.before)
        raise CouldNotLookError(
            f"the restore point has lost what it kept of {', '.join(f'`{path}`' for path in lost[:NAMED])}{more}",
            where=str(point.folder),
            hints=("nothing was changed", f"what was installed: {again}"),
        )


def _whole(point: Point, saved: Saved) -> bool:
    try:
        return digest_of(point.folder / "files" / saved.content) == saved.content
    except OSError:
        return False


def _as_saved(path: Path, saved: Saved) -> bool:
    try:
        status = path.lstat()
        if saved.link:
            return stat.S_ISLNK(status.st_mode) and os.readlink(path) == saved.content  # noqa: PTH115 - as above
        regular = stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == saved.mode
        return regular and status.st_mtime_ns == saved.time and digest_of(path) == saved.content
    except OSError:
        return False


def _remove_added(prefix: Path, manifest: Manifest) -> int:
    """Remove the files that the change added, bytecode of both versions, and what a killed installer left."""
    keep = {saved.path for saved in manifest.files}
    gone = {*manifest.added, *(relative(path, prefix) for name in manifest.metadata for path in walk(prefix / name))}
    removed = sum(_remove(prefix / name) for name in sorted(gone - keep))
    ours = [prefix / name for name in {*keep, *manifest.added}]
    for path in ours:
        if path.suffix == ".py":
            for cached in (path.parent / "__pycache__").glob(f"{glob.escape(path.stem)}.*.pyc"):
                if relative(cached, prefix) not in keep:
                    cached.unlink(missing_ok=True)
    here = {prefix / folder for name in keep for folder in (Path(name), *Path(name).parents)}
    for path in leftovers(prefix, ours) - here - {prefix / name for name in manifest.leftovers}:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return removed


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False
    return True


def _put_back(point: Point, saved: Saved) -> None:
    """Write the file beside its place and rename it: no moment in which half of it is there."""
    target = point.prefix / saved.path
    parent = target.parent
    if os.path.lexists(parent) and not parent.is_dir():
        parent.unlink()
    parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    building = point.folder / "building"
    building.unlink(missing_ok=True)
    if saved.link:
        building.symlink_to(saved.content)
    else:
        kept = point.folder / "files" / saved.content
        shutil.copyfile(kept, building)
        building.chmod(saved.mode)
        os.utime(building, ns=(saved.time, saved.time))
    building.replace(target)


def _remove_folders(prefix: Path, manifest: Manifest) -> None:
    """Remove the folders that the change added, innermost first, where nothing of somebody else's is in them."""
    kept = {parent.as_posix() for saved in manifest.files for parent in Path(saved.path).parents}
    for name in set(manifest.metadata) - kept:
        shutil.rmtree(prefix / name, ignore_errors=True)
    parents = {parent.as_posix() for name in manifest.added for parent in Path(name).parents}
    added = sorted(set(manifest.folders) - kept, reverse=True)
    for name in (*(f"{parent}/__pycache__" for parent in parents | kept), *added):
        with contextlib.suppress(OSError):
            (prefix / name).rmdir()


def drop(point: Point) -> None:
    """Forget a restore point; at once for everybody who looks, then its files."""
    rubbish = point.folder.with_name(f"{point.folder.name}.dropped")
    shutil.rmtree(rubbish, ignore_errors=True)
    point.folder.replace(rubbish)
    tidy(point.prefix)


def tidy(prefix: Path) -> bool:
    """Remove what unfinished and dropped restore points left; true where there was anything."""
    rubbish = [home(prefix) / "staged"]
    with contextlib.suppress(OSError):
        rubbish += [entry for entry in (home(prefix) / "restore").iterdir() if not entry.name.isdecimal()]
    found = [path for path in rubbish if path.exists()]
    for path in found:
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        (home(prefix) / "restore").rmdir()
    return bool(found)
