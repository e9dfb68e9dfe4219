"""Manifests of set-up environments: read, made anew of an environment, and told apart."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envcheck.errors import CouldNotLookError, InputError
from envcheck.facts.document import Reader, parse
from envcheck.findings import Finding, Fix, Severity, StackRow
from envcheck.process import run
from envcheck.reproduce.shell import program

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = "envcheck.setup-manifest/1"

#: Seconds for the keeper: it reads one RECORD per distribution.
PATIENCE = 300.0

#: Facts whose difference alone can change results: what they differ in is a warning, in others information.
WEIGHTY = ("python", "implementation", "system", "machine")


@dataclass(frozen=True, slots=True)
class Installed:
    """One distribution of a manifest; `record` is the digest over its RECORD, empty where it has none."""

    version: str
    record: str = ""
    tags: tuple[str, ...] = ()
    editable: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was installed and where.

    Attributes:
        where: The file, or the interpreter that was asked.
        plan: Digest of the plan that was followed, or an empty string.
        facts: Of the machine and the interpreter.
        distributions: By normalised name.
        patched: SHA-256 of each file copied over an installed one, by its path below site-packages.
        conda: Version and build of conda's own packages.
    """

    where: str
    plan: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    distributions: dict[str, Installed] = field(default_factory=dict)
    patched: dict[str, str] = field(default_factory=dict)
    conda: dict[str, str] = field(default_factory=dict)


def load(text: str, where: str) -> Manifest:
    """A manifest from its JSON text.

    Raises:
        InputError: Not JSON, another format, or wrong fields; `problems` holds every mistake.
    """
    document = parse(text, where, "manifest")
    if document.get("schema") != SCHEMA:
        raise InputError(f"this is no manifest of `envcheck setup`: `schema` is not `{SCHEMA}`", where=where)
    reader = Reader()
    found = Manifest(
        where,
        reader.at("plan").text(document.get("plan", "")),
        _texts(document.get("facts", {}), reader.at("facts")),
        {name: _installed(item, at) for name, item, at in reader.at("distributions").items(document.get("distributions"))},
        _texts(document.get("patched", {}), reader.at("patched")),
        _texts(document.get("conda", {}), reader.at("conda")),
    )
    if reader.mistakes:
        raise InputError("the manifest has wrong fields", where=where, problems=tuple(reader.mistakes[:50]))
    return found


def _texts(value: Any, reader: Reader) -> dict[str, str]:  # noqa: ANN401 - JSON
    return {key: at.text(item) for key, item, at in reader.items(value)}


def _installed(value: Any, reader: Reader) -> Installed:  # noqa: ANN401 - JSON
    if not reader.expect(value, dict, "an object"):
        return Installed("")
    return Installed(
        reader.at("version").text(value.get("version", "")),
        reader.at("record").text(value.get("record", "")),
        reader.at("tags").texts(value.get("tags", [])),
        value.get("editable") is True,
    )


def interpreter(name: str) -> Path:
    """The interpreter that `name` (an interpreter, a venv folder, or its bin folder) means.

    Raises:
        CouldNotLookError: There is none.
    """
    path = Path(name)
    for candidate in (path, path / "bin" / "python", path / "python", path / "Scripts" / "python.exe"):
        if candidate.is_file():
            return candidate
    raise CouldNotLookError("there is no Python interpreter", where=name)


def take(python: Path, patched: tuple[str, ...] = ()) -> Manifest:
    """The manifest of an environment as it is now; `patched` are the files to give digests of.

    Raises:
        CouldNotLookError: The interpreter does not run.
    """
    import json  # noqa: PLC0415 - not for comparing two files

    plan = json.dumps([{"file": file} for file in patched])
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "manifest.json"
        done = run([str(python), "-I", "-c", program("target/keeper.py"), "manifest", str(target), "", plan], timeout=PATIENCE)
        if done.returncode != 0 or not target.is_file():
            raise CouldNotLookError(
                f"the environment could not be read: {done.stderr.strip()[-500:] or done.outcome}", where=str(python)
            )
        return load(target.read_text(encoding="utf-8"), str(python))


def differences(first: Manifest, second: Manifest) -> Iterator[Finding]:
    """What two environments differ in; nothing where they hold the same files."""
    for name in sorted(first.distributions.keys() | second.distributions.keys()):
        finding = _distribution(name, first.distributions.get(name), second.distributions.get(name))
        if finding is not None:
            yield finding
    for file in sorted(first.patched.keys() | second.patched.keys()):
        here, there = first.patched.get(file, "not listed"), second.patched.get(file, "not listed")
        if here != there:
            yield _different(
                "setup-patched-file-differs", f"`{file}` differs", file.partition("/")[0], _short(here), _short(there)
            )
    for name in sorted(first.conda.keys() | second.conda.keys()):
        here, there = first.conda.get(name, "not installed"), second.conda.get(name, "not installed")
        if here != there:
            yield _different("setup-conda-package-differs", f"conda's `{name}` differs", name, here, there, Severity.WARNING)
    for name in sorted(first.facts.keys() | second.facts.keys()):
        here, there = first.facts.get(name, ""), second.facts.get(name, "")
        if here != there:
            severity = Severity.WARNING if name in WEIGHTY else Severity.INFO
            yield _different("setup-fact-differs", f"`{name}` differs", name, here or "unknown", there or "unknown", severity)


def _short(digest: str) -> str:
    return f"sha256 {digest[:16]}" if len(digest) == 64 else digest  # noqa: PLR2004 - hex digits


def _distribution(name: str, here: Installed | None, there: Installed | None) -> Finding | None:
    if here is None or there is None:
        present = here or there
        version = present.version if present else ""
        told = (version, "not installed") if here else ("not installed", version)
        return _different("setup-package-missing", f"`{name}` is installed in one of them only", name, *told)
    if here.version != there.version:
        return _different("setup-version-differs", f"`{name}` has another version", name, here.version, there.version)
    if here.tags != there.tags:
        return _different(
            "setup-wheel-differs", f"`{name}` {here.version} is another wheel", name, ", ".join(here.tags), ", ".join(there.tags)
        )
    if here.record != there.record:
        told = (_short(here.record) or "no RECORD", _short(there.record) or "no RECORD")
        return _different("setup-files-differ", f"`{name}` {here.version} holds other files", name, *told)
    return None


def _different(id_: str, title: str, subject: str, here: str, there: str, severity: Severity = Severity.ERROR) -> Finding:
    return Finding(
        id_,
        severity,
        title,
        subjects=(subject,),
        because=(f"first: {here}", f"second: {there}"),
        fixes=(Fix("do", "run the same script, or `envcheck setup run` with the same lock, on both"),)
        if severity is Severity.ERROR
        else (),
    )


def rows(first: Manifest, second: Manifest) -> Iterator[StackRow]:
    """The two that are compared."""
    for label, item in (("first", first), ("second", second)):
        yield StackRow(
            label, f"{len(item.distributions)} distributions, Python {item.facts.get('python', 'unknown')}", item.where
        )
