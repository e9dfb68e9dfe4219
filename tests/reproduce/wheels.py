"""A tiny index: wheels made on the spot, and locks over them."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Wheel:
    name: str
    version: str
    path: Path

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def row(name: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}"


def make_wheel(
    folder: Path, name: str, version: str, files: dict[str, bytes] | None = None, *, tag: str = "py3-none-any", script: str = "",
    requires: tuple[str, ...] = (),
) -> Wheel:  # fmt: skip
    stem = name.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    content = dict(files or {f"{stem}/__init__.py": f"version = {version!r}\n".encode()})
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    content[f"{info}/METADATA"] += "".join(f"Requires-Dist: {line}\n" for line in requires).encode()
    content[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n".encode()
    if script:
        content[f"{info}/entry_points.txt"] = f"[console_scripts]\n{script} = {stem}:main\n".encode()
    record = "\n".join([row(path, data) for path, data in content.items()] + [f"{info}/RECORD,,"]) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, data in [*content.items(), (f"{info}/RECORD", record.encode())]:
            archive.writestr(zipfile.ZipInfo(inner, (2024, 1, 1, 0, 0, 0)), data)
    return Wheel(name, version, path)


def tiny_index(folder: Path, count: int = 12, files: int = 25) -> list[Wheel]:
    """`count` wheels of `files` files each, one of them with a command."""
    return [
        make_wheel(
            folder, f"tiny-{number}", f"1.{number}",
            {f"tiny_{number}/{part}.py": f"value = {number * part}\n".encode() * 40 for part in range(files)},
            script="tiny" if number == 0 else "",
        )
        for number in range(count)
    ]  # fmt: skip


def pylock(wheels: list[Wheel]) -> str:
    lines = ['lock-version = "1.0"', 'created-by = "tests"', 'requires-python = ">=3.8"']
    for wheel in wheels:
        lines += [
            "", "[[packages]]", f'name = "{wheel.name}"', f'version = "{wheel.version}"', "", "[[packages.wheels]]",
            f'name = "{wheel.path.name}"', f'url = "{wheel.path.as_uri()}"', f'hashes = {{ sha256 = "{wheel.sha256}" }}',
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def requirements(wheels: list[Wheel]) -> str:
    head = f"--no-index\n--find-links {wheels[0].path.parent.as_uri()}\n"
    return head + "".join(f"{wheel.name}=={wheel.version} \\\n    --hash=sha256:{wheel.sha256}\n" for wheel in wheels)
