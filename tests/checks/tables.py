"""The real tables, and contexts over them, for the tests of the checks that read tables."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli

from envcheck.checks.context import Context
from envcheck.facts.model import Absent, Distribution, Environment, Fact, Gpu, Known
from envcheck.findings import Finding, Skip
from envcheck.matrix.database import load
from envcheck.matrix.settings import combine

if TYPE_CHECKING:
    from envcheck.checks.context import Check
    from envcheck.matrix.database import Matrix

TABLES = Path(__file__).parents[2] / "matrices" / "tables"
CASES = Path(__file__).parents[1] / "data" / "tables"


@lru_cache
def table(name: str) -> dict[str, Any]:
    path = TABLES / f"{name}.toml"
    return tomli.loads(path.read_text()) if path.exists() else {}


@lru_cache
def matrix() -> Matrix:
    return load(environ={})


def fact(value: str | list[str]) -> Fact:
    if value == "absent":
        return Absent(("everywhere",))
    return Known(value if isinstance(value, str) else tuple(value))


def context(case: dict[str, Any]) -> Context:
    """A context from plain data: `packages`, `urls`, `facts`, `gpus` (name and capability), `deepspeed`, `trainer`, `uses`."""
    urls = case.get("urls", {})
    packages = {
        name: Distribution(name, version, direct_url=urls.get(name, ""), requires=tuple(case.get("requires", {}).get(name, ())))
        for name, version in case.get("packages", {}).items()
    }
    gpus = tuple(Gpu(name, capability) for name, capability in case["gpus"]) if "gpus" in case else None
    facts = {name: fact(value) for name, value in case.get("facts", {}).items()}
    settings = combine(case.get("deepspeed"), case.get("trainer"), {}, frozenset(case.get("uses", ())))
    return Context(Environment(packages=packages, facts=facts, gpus=gpus), matrix(), settings)


def run(check: Check, case: dict[str, Any]) -> tuple[list[Finding], list[Skip]]:
    outcomes = list(check(context(case)))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Skip)],
    )


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomli.loads((CASES / f"{name}.toml").read_text())["case"]
    return found
