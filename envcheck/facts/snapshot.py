"""Snapshots: an environment as JSON (`envcheck.snapshot/1`), written by us or by hand, and read back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from envcheck.facts.model import Absent, Known, Unreadable
from envcheck.facts.redaction import redacted
from envcheck.facts.snapshot_reading import FIELDS, PLATFORM_FIELDS, SCHEMA, load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envcheck.facts.model import Distribution, Environment, Fact, Gpu, MetadataProblem

#: Left out where they are empty; an empty fact, or an empty list of GPUs, says something.
OPTIONAL = frozenset({"source", "prefix", "platform", "packages", "facts", "sources", "unreadable", "problems", "markers"})

__all__ = ["SCHEMA", "dumps", "load", "to_json"]


def to_json(environment: Environment) -> dict[str, Any]:
    """The environment as plain JSON data, without home folders, user names and credentials.

    Every fact stands once: under the name a hand-written snapshot gives it (`driver`, `platform.glibc`), else
    under `facts`. `null` is "looked for and absent". Where each was read or looked for is in `sources`; what
    could not be read is in `unreadable`. `load` reads back an equal environment.
    """
    clean = redacted(environment)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "complete": clean.complete,
        "source": clean.source,
        "prefix": clean.prefix,
    }
    decided = {name: fact for name, fact in clean.facts.items() if isinstance(fact, (Known, Absent))}
    document.update({name: _value(decided[name]) for name in FIELDS if name in decided})
    if document.get("torch_cxx11_abi") in ("true", "false"):
        document["torch_cxx11_abi"] = document["torch_cxx11_abi"] == "true"
    document["platform"] = {name: _value(decided[name]) for name in PLATFORM_FIELDS if name in decided}
    if clean.gpus is not None:
        document["gpus"] = [_gpu(gpu) for gpu in clean.gpus]
    document["packages"] = {name: _package(package) for name, package in clean.packages.items()}
    document["facts"] = {
        name: _value(fact) for name, fact in decided.items() if name not in FIELDS and name not in PLATFORM_FIELDS
    }
    document["sources"] = _sources(decided)
    document["unreadable"] = {
        name: {"source": fact.source, "reason": fact.reason}
        for name, fact in clean.facts.items() if isinstance(fact, Unreadable)
    }  # fmt: skip
    document["problems"] = [_problem(problem) for problem in clean.problems]
    document["markers"] = dict(clean.markers)
    return {name: value for name, value in document.items() if value or name not in OPTIONAL}


def dumps(environment: Environment) -> str:
    """`to_json` as text, indented, with a newline at the end."""
    return json.dumps(to_json(environment), indent=2) + "\n"


def _value(fact: Known | Absent) -> str | bool | list[str] | None:
    if isinstance(fact, Absent):
        return None
    if isinstance(fact.value, tuple):
        return list(fact.value)
    return fact.value


def _sources(facts: Mapping[str, Fact]) -> dict[str, str | list[str]]:
    """Where a known fact was read (text), where an absent one was looked for (list)."""
    found: dict[str, str | list[str]] = {}
    for name, fact in sorted(facts.items()):
        if isinstance(fact, Known) and fact.source:
            found[name] = fact.source
        elif isinstance(fact, Absent) and fact.looked_in:
            found[name] = list(fact.looked_in)
    return found


def _package(package: Distribution) -> str | dict[str, Any]:
    """The bare version where nothing else is known, else an object without empty fields."""
    fields = {
        "version": package.version,
        "requires": list(package.requires),
        "requires_python": package.requires_python,
        "extras": list(package.extras),
        "location": package.location,
        "direct_url": package.direct_url,
        "installer": package.installer,
        "editable": package.editable,
        "commit": package.commit,
    }
    kept = {name: value for name, value in fields.items() if value or name == "version"}
    return package.version if len(kept) == 1 else kept


def _gpu(gpu: Gpu) -> dict[str, Any]:
    fields = {
        "name": gpu.name, "compute_capability": gpu.compute_capability, "memory_mib": gpu.memory_mib, "class": gpu.product_class,
    }  # fmt: skip
    return {name: value for name, value in fields.items() if value}


def _problem(problem: MetadataProblem) -> dict[str, str]:
    fields = {"kind": problem.kind, "name": problem.name, "path": problem.path, "detail": problem.detail}
    return {name: value for name, value in fields.items() if value}
