"""The PEP 751 form of a lock, `pylock.toml`.

What uv wrote about a package is kept as it is; what envcheck knows stands in `[tool.envcheck]`, and why a version was chosen
in comments above its package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import tomli

from envcheck.errors import InputError
from envcheck.facts.metadata import normalised
from envcheck.resolve.lockfile import Artifact, Lock, LockedPackage
from envcheck.resolve.provenance import provenance_of, provenance_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def parse(text: str, where: str = "pylock.toml") -> Lock:
    """A PEP 751 lock.

    Raises:
        InputError: Not TOML, or not a lock; with the offending key.
    """
    from packaging.pylock import Pylock, PylockValidationError  # noqa: PLC0415 - only with a lock

    try:
        document = tomli.loads(text)
        Pylock.from_dict(document)
    except (tomli.TOMLDecodeError, PylockValidationError, RecursionError, TypeError, AttributeError) as error:
        raise InputError(f"not a PEP 751 lock: {error}", where=where) from error
    packages = tuple(sorted(map(package_of_table, document["packages"]), key=lambda package: package.name))
    said = document.get("tool", {}).get("envcheck")
    return Lock(packages, document.get("requires-python", ""), provenance_of(said, where), document["created-by"])


def package_of_table(table: Mapping[str, Any]) -> LockedPackage:
    """A package from its table in a `pylock.toml` (already validated)."""
    return LockedPackage(
        name=normalised(table["name"]),
        version=str(table.get("version", "")),
        marker=table.get("marker", ""),
        wheels=tuple(artifact_of_table(item) for item in table.get("wheels", [])),
        sdist=_source(table),
        direct=direct_reference(table),
        table={key: value for key, value in table.items() if key != "tool"},
    )


def artifact_of_table(table: Mapping[str, Any]) -> Artifact:
    """A file from its table: its url, or its path where it has none."""
    url = table.get("url") or table.get("path", "")
    name = table.get("name") or unquote(urlsplit(url).path).rpartition("/")[2]
    return Artifact(name, url, dict(table.get("hashes", {})))


def _source(table: Mapping[str, Any]) -> Artifact | None:
    found = table.get("sdist") or table.get("archive")
    return artifact_of_table(found) if found else None


def direct_reference(table: Mapping[str, Any]) -> str:
    """The URL that `name @ URL` would name: of an archive, a repository at its commit, or a folder; else empty."""
    if "archive" in table:
        return artifact_of_table(table["archive"]).url
    if "vcs" in table:
        vcs = table["vcs"]
        part = f"#subdirectory={vcs['subdirectory']}" if vcs.get("subdirectory") else ""
        return f"{vcs['type']}+{vcs.get('url') or vcs.get('path')}@{vcs['commit-id']}{part}"
    return str(table["directory"]["path"]) if "directory" in table else ""


def render(lock: Lock) -> str:
    """The lock as PEP 751 TOML, each reason also as a comment above its package."""
    import tomli_w  # noqa: PLC0415 - only when a lock is written

    document: dict[str, Any] = {"lock-version": "1.0", "created-by": lock.created_by}
    if lock.requires_python:
        document["requires-python"] = lock.requires_python
    document["packages"] = [_package_table(package) for package in lock.packages]
    if lock.provenance:
        document["tool"] = {"envcheck": provenance_table(lock.provenance)}
    reasons = {f"name = {tomli_w.dumps({'x': package.name})[4:].strip()}": package.because for package in lock.packages}
    lines = tomli_w.dumps(document).split("\n")
    return "\n".join(_commented(lines, reasons))


def _package_table(package: LockedPackage) -> dict[str, Any]:
    """The package's table; from its parts where it was not read from one."""
    if package.table:
        return dict(package.table)
    table: dict[str, Any] = {"name": package.name}
    if package.version:
        table["version"] = package.version
    if package.marker:
        table["marker"] = package.marker
    if package.direct and package.sdist:
        return {**table, "archive": {"url": package.direct, "hashes": dict(package.sdist.hashes)}}
    if package.sdist:
        table["sdist"] = _artifact_table(package.sdist)
    if package.wheels:
        table["wheels"] = [_artifact_table(wheel) for wheel in package.wheels]
    return table


def _artifact_table(artifact: Artifact) -> dict[str, Any]:
    return {"name": artifact.name, "url": artifact.url, "hashes": dict(artifact.hashes)}


def _commented(lines: list[str], reasons: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line == "[[packages]]":
            yield from (f"# {reason}" for reason in reasons.get(following, ()))
        yield line
