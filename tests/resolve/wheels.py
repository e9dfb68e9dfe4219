"""Tiny wheels and environments, made without a network."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

UV = Path(sys.executable).with_name("uv")


def wheel(
    folder: Path, name: str, version: str, *, requires: Iterable[str] = (), files: Mapping[str, str] | None = None,
    script: bool = False,
) -> Path:  # fmt: skip
    """A wheel with a module that says its version, and these further files."""
    stem = f"{name.replace('-', '_')}-{version}"
    module = name.replace("-", "_")
    info = f"{stem}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {item}" for item in requires)]
    content = {
        f"{module}/__init__.py": f"__version__ = '{version}'\n\n\ndef main():\n    print('{version}')\n",
        **(files or {}),
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if script:
        content[f"{info}/entry_points.txt"] = f"[console_scripts]\n{name} = {module}:main\n"
    record = "".join(f"{path},{_digest(text)},{len(text.encode())}\n" for path, text in content.items())
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for entry, text in content.items():
            archive.writestr(zipfile.ZipInfo(entry), text)
    return path


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256={base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def pinned(*wheels: Path) -> str:
    """These wheels as hashed requirements."""
    lines = []
    for path in wheels:
        name, version = path.name.split("-")[:2]
        lines.append(f"{name.replace('_', '-')}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}")
    return "\n".join(lines) + "\n"


def offline(links: Path) -> dict[str, str]:
    """Environment variables under which uv and pip know these wheels alone; uv's index is an empty folder."""
    index = links / "index"
    index.mkdir(parents=True, exist_ok=True)
    words = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    return {
        **words, "UV_FIND_LINKS": str(links), "UV_DEFAULT_INDEX": index.as_uri(), "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_CONFIG": "1", "PIP_FIND_LINKS": str(links), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }  # fmt: skip


def make_environment(prefix: Path, links: Path, *requirements: str) -> Path:
    """An environment with these requirements installed from the wheels; its interpreter."""
    if not UV.exists():
        pytest.skip("no uv beside the interpreter")
    for command in (
        ["venv", "--quiet", "--python", sys.executable, str(prefix)],
        ["pip", "install", "--quiet", "--python", str(prefix), *requirements],
    ):
        subprocess.run([str(UV), *command], check=True, env=offline(links), timeout=120)
    return prefix / "bin" / "python"


def tree(prefix: Path) -> dict[str, tuple[str, int, int]]:
    """Every file of an environment but bytecode: content or link target, mode, time."""
    found: dict[str, tuple[str, int, int]] = {}
    for path in sorted(prefix.rglob("*")):
        status = path.lstat()
        if "__pycache__" in path.parts or stat.S_ISDIR(status.st_mode):
            continue
        if stat.S_ISLNK(status.st_mode):
            content, when = os.readlink(path), 0  # noqa: PTH115 - exactly as it is
        else:
            content, when = hashlib.sha256(path.read_bytes()).hexdigest(), status.st_mtime_ns
        found[path.relative_to(prefix).as_posix()] = (content, stat.S_IMODE(status.st_mode), when)
    return found
