"""Small site-packages folders with real RECORD files, for the tests of the deep checks."""

from __future__ import annotations

import base64
import hashlib
import sys
from functools import cache
from typing import TYPE_CHECKING

from envcheck.checks.context import Context
from envcheck.checks.deep.target import Target
from envcheck.facts.distributions import read_installed
from envcheck.facts.interpreter import Interpreter
from envcheck.facts.machine import Machine
from envcheck.facts.model import Environment
from envcheck.matrix.database import load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from envcheck.matrix.database import Matrix


@cache
def matrix() -> Matrix:
    return load(environ={})


def digest(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def install(site: Path, name: str, version: str, files: Mapping[str, str | bytes], **metadata: str) -> Path:
    """Write the files and their `dist-info`; `metadata` adds files to it. Returns the dist-info folder."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    texts = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "INSTALLER": "pip\n", **metadata}
    everything = {**files, **{f"{info.name}/{key}": value for key, value in texts.items()}}
    lines = []
    for path, content in everything.items():
        raw = content if isinstance(content, bytes) else content.encode()
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(raw)
        lines.append(f"{path},{digest(raw)},{len(raw)}")
    (info / "RECORD").write_text("\n".join([*lines, f"{info.name}/RECORD,,", ""]))
    return info


def site_of(folder: Path) -> Path:
    site = folder / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True, exist_ok=True)
    return site


def target(site: Path, *more: Path, variables: Mapping[str, str] | None = None, version: str = "") -> Target:
    """The environment around `site`, as an interpreter in it would describe it."""
    path = tuple(map(str, (site, *more)))
    prefix = str(site.parent.parent.parent)
    own = ".".join(map(str, sys.version_info[:3]))
    interpreter = Interpreter(f"{prefix}/bin/python", version or own, prefix, prefix, path=path, variables=variables or {})
    installed = read_installed(path)
    environment = Environment(packages=installed.packages, complete=True, problems=installed.problems, prefix=prefix)
    return Target(interpreter, Context(environment, matrix()), machine=Machine(dict(variables or {})))
