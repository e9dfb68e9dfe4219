"""The deep checks in the order in which they run."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from envcheck.checks.deep import caches, imports, integrity, links, patches, real_imports
from envcheck.checks.deep.inventory import take_inventory
from envcheck.checks.deep.target import Target
from envcheck.facts.interpreter import other, own
from envcheck.findings import Finding, Skip
from envcheck.matrix.patches import load_patches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from envcheck.checks.context import Context, Outcome
    from envcheck.facts.model import Fact


@dataclass(frozen=True, slots=True)
class Deep:
    """What the deep checks found: findings and skips in the order they came, and the context with the facts they add."""

    findings: list[Finding]
    skips: list[Skip]
    context: Context


def run_deep(
    context: Context, python: str | None, say: Callable[[str], None] = lambda _: None, *,
    files: bool = True, really: bool = False,
) -> Deep:  # fmt: skip
    """Every deep check on one environment.

    Args:
        context: Facts and matrix, as the other checks get them.
        python: The interpreter, or None for the running one.
        say: Told in a few words what is being done.
        files: Read the installed files.
        really: Import the watched packages, in child processes.

    Raises:
        CouldNotLookError: The interpreter does not answer.
        ToolError: A child process failed.
    """
    target = Target(own() if python is None else other(python), context, say)
    findings: list[Finding] = []
    skips: list[Skip] = []
    facts: dict[str, Fact] = {}
    told = [_outcomes(target, facts)] if files else []
    told += [real_imports.check_real_imports(target)] if really else []
    for outcome in chain.from_iterable(told):
        if isinstance(outcome, Finding):
            findings.append(outcome)
        else:
            skips.append(outcome)
    environment = context.environment._replace(facts={**context.environment.facts, **facts})
    return Deep(findings, skips, context._replace(environment=environment))


def _outcomes(target: Target, facts: dict[str, Fact]) -> Iterator[Outcome]:
    environment = target.context.environment
    found = take_inventory(target)
    seen = patches.sightings(load_patches(target.context.matrix.folder), environment, found)
    yield from integrity.judge(found, patches.explained(seen))
    yield from patches.judge(seen, environment)
    linked, known = links.check_links(target, {path: claims[0].info for path, claims in found.claims.items()})
    facts.update(known)
    yield from linked
    yield from imports.check_imports(target)
    yield from caches.check_caches(target)
