"""`direct_url.json` (PEP 610) against what is installed: metadata of another file, a source tree or archive that is gone."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from envcheck.facts.machine import read_start
from envcheck.findings import Evidence, Finding, Fix, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.deep.target import InfoFolder

SPECIFICATION = Evidence("docs", "PEP 610: Recording the Direct URL Origin of installed distributions")
LIMIT = 1 << 16
ARCHIVE_LIMIT = 8 << 30


def check_direct_url(info: InfoFolder) -> Iterator[Finding]:
    """A distribution whose recorded origin cannot be where its files come from, or is gone."""
    document = _read(info)
    url = document.get("url")
    if not isinstance(url, str):
        return
    shown = _without_user(url)
    wheel = _wheel(url)
    if wheel is not None and wheel != (info.name, _public(info.version)):
        yield _finding(
            info, Severity.ERROR, f"{info.shown} says it was installed from a wheel of `{wheel[0]}` {wheel[1]}", shown,
            "the metadata folder and the installed files come from different installations",
        )  # fmt: skip
    path = _local(url)
    if path is None:
        return
    if _editable(document) and not os.path.isdir(path):  # noqa: PTH112 - pathlib is slow
        yield _finding(
            info, Severity.ERROR, f"the source tree of {info.shown} is gone", shown,
            "it is installed in place (editable): nothing of it can be imported",
        )  # fmt: skip
    elif _changed(document, path):
        yield _finding(
            info, Severity.WARNING, f"the archive that {info.shown} was installed from has changed since", shown,
            "its digest is not the one that was recorded: installing it again gives something else",
        )  # fmt: skip


def _read(info: InfoFolder) -> dict[str, Any]:
    try:
        document = json.loads(read_start(f"{info.path}/direct_url.json", LIMIT))
    except (OSError, ValueError, RecursionError):
        return {}  # not there, or broken, which `metadata-broken` says
    return document if isinstance(document, dict) else {}


def _without_user(url: str) -> str:
    """The url without user name and password, and without its query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an unreadable url"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:300]


def _wheel(url: str) -> tuple[str, str] | None:
    """Normalised name and public version by the file name of a wheel's url; None for anything else."""
    try:
        name = unquote(urlsplit(url).path).rpartition("/")[2]
        found = parse_wheel_filename(name)
    except (ValueError, InvalidWheelFilename):
        return None
    return str(found[0]), found[1].public


def _public(version: str) -> str:
    try:
        return Version(version).public
    except InvalidVersion:
        return version


def _local(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return unquote(parts.path) if parts.scheme == "file" and parts.netloc in ("", "localhost") else None


def _editable(document: dict[str, Any]) -> bool:
    info = document.get("dir_info")
    return isinstance(info, dict) and info.get("editable") is True


def _changed(document: dict[str, Any], path: str) -> bool:
    """Whether the archive is still there with another digest than the recorded one."""
    archive = document.get("archive_info")
    hashes = archive.get("hashes") if isinstance(archive, dict) else None
    digest = hashes.get("sha256") if isinstance(hashes, dict) else None
    if not isinstance(digest, str):
        return False
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > ARCHIVE_LIMIT:  # noqa: PTH113, PTH202 - as above
            return False
        state = hashlib.sha256()
        with open(path, "rb") as stream:  # noqa: PTH123 - as above
            while block := stream.read(1 << 20):
                state.update(block)
    except (OSError, ValueError):
        return False
    return state.hexdigest() != digest.lower()


def _finding(info: InfoFolder, severity: Severity, title: str, url: str, reason: str) -> Finding:
    return Finding(
        id="direct-url-differs",
        severity=severity,
        title=title,
        subjects=(info.name,),
        observed={info.name: info.version},
        because=(reason, f"recorded origin: {url}"),
        fixes=(Fix("do", f"uninstall `{info.name}`, then install it from where it should come from"),),
        evidence=(SPECIFICATION,),
        symptom="The environment cannot be made again from what it says of itself.",
    )
