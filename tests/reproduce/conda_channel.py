"""A conda channel in a folder, with one package: the Python that runs the tests."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import sysconfig
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SHORT = f"python{sys.version_info.major}.{sys.version_info.minor}"
LEFT_OUT = shutil.ignore_patterns(
    "__pycache__", "test", "tests", "idlelib", "tkinter", "site-packages", "dist-packages", "config-*"
)


def make_channel(folder: Path) -> None:
    """A channel as conda's package format version 1 has it: `info/` in each archive, `repodata.json` in each subfolder."""
    stage = folder / "stage"
    (stage / "bin").mkdir(parents=True)
    shutil.copy(os.path.realpath(getattr(sys, "_base_executable", sys.executable)), stage / "bin" / SHORT)
    for name in ("python", "python3"):
        (stage / "bin" / name).symlink_to(SHORT)
    shutil.copytree(sysconfig.get_path("stdlib"), stage / "lib" / SHORT, symlinks=True, ignore=LEFT_OUT)
    (stage / "lib" / SHORT / "site-packages").mkdir()
    (stage / "lib" / SHORT / "site-packages" / "README.txt").write_text("packages\n")
    version = ".".join(map(str, sys.version_info[:3]))
    record = {"name": "python", "version": version, "build": "0_tests", "build_number": 0, "depends": [], "subdir": "linux-64"}
    paths = [_entry(stage, path) for path in sorted(stage.rglob("*")) if path.is_file() or path.is_symlink()]
    (stage / "info").mkdir()
    (stage / "info" / "index.json").write_text(json.dumps(record))
    (stage / "info" / "files").write_text("".join(f"{entry['_path']}\n" for entry in paths))
    (stage / "info" / "paths.json").write_text(json.dumps({"paths": paths, "paths_version": 1}))
    archive = folder / "linux-64" / f"python-{version}-0_tests.tar.bz2"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:bz2", compresslevel=1) as stream:
        for part in ("info", "bin", "lib"):
            stream.add(stage / part, part)
    shutil.rmtree(stage)
    data = archive.read_bytes()
    record |= {"size": len(data), "md5": hashlib.md5(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest()}  # noqa: S324 - conda's index has it
    for subdir, packages in (("linux-64", {archive.name: record}), ("noarch", {})):
        (folder / subdir).mkdir(exist_ok=True)
        index = {"info": {"subdir": subdir}, "packages": packages, "packages.conda": {}, "removed": [], "repodata_version": 1}
        (folder / subdir / "repodata.json").write_text(json.dumps(index))


def _entry(root: Path, path: Path) -> dict[str, object]:
    data = path.read_bytes()
    kind = "softlink" if path.is_symlink() else "hardlink"
    digest = hashlib.sha256(data).hexdigest()
    return {"_path": str(path.relative_to(root)), "path_type": kind, "sha256": digest, "size_in_bytes": len(data)}
