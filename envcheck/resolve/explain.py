"""Why each version, and why nothing fits: the search's decisions and the resolver's refusals in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet

from envcheck.matrix.rule import ABSENT, ANY
from envcheck.matrix.versions import plain, specifier
from envcheck.resolve.provenance import Shaping
from envcheck.resolve.request import parse_requirement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.resolve.lockfile import LockedPackage
    from envcheck.resolve.nogoods import Nogood, Term
    from envcheck.resolve.search import Solution
    from envcheck.resolve.solve import Case

#: Always explained, besides what was asked for by name.
WATCHED = frozenset({
    "torch", "torchvision", "torchaudio", "deepspeed", "transformers", "accelerate", "peft", "trl", "flash-attn", "xformers",
    "triton", "bitsandbytes", "numpy", "tokenizers", "huggingface-hub",
})  # fmt: skip

#: What is said of a folder whose version its build decides.
UNJUDGED = "not judged: its version is not known before it is built"

#: A comment names this many sources of a rule; `envcheck matrix show` names all.
SHOWN_EVIDENCE = 3


def because(package: LockedPackage, case: Case, found: Solution) -> tuple[str, ...]:
    """Why a package has its version: what was asked, what excluded others, what was preferred. Empty for the unwatched."""
    if package.name not in WATCHED and package.name not in case.wanted:
        return ()
    unjudged = () if package.version else (UNJUDGED,)
    return (*_asked(package.name, case), *unjudged, *_excluded(package, case, found), *_preferred(package, case))


def _asked(name: str, case: Case) -> Iterator[str]:
    named = [line for line in case.request.requirements if _name(line) == name]
    bound = [line for line in (*case.request.constraints, *case.request.overrides) if _name(line) == name]
    if named or bound:
        yield f"asked for: {', '.join(f'`{line}`' for line in dict.fromkeys((*named, *bound)))}"
    else:
        yield "needed by the others"


def _name(line: str) -> str:
    from envcheck.facts.metadata import normalised  # noqa: PLC0415 - a leaf

    return normalised(parse_requirement(line).name)


def _excluded(package: LockedPackage, case: Case, found: Solution) -> Iterator[str]:
    for nogood, name in decisive(case, found):
        if name == package.name:
            yield f"not {nogood.text}: {reason(nogood)}"
    for nogood in found.unavoided:
        if any(term.name == package.name for term in nogood.terms):
            yield f"warning, could not be avoided: {nogood.text}: {reason(nogood)}"


def reason(nogood: Nogood) -> str:
    """What is wrong, the rule's id, the settings and facts, and its evidence, in one line."""
    told = f" where {' and '.join(nogood.because)}" if nogood.because else ""
    evidence = ", ".join(item.shown for item in nogood.evidence[:SHOWN_EVIDENCE])
    return f"{nogood.title}{told} [{nogood.id}{f'; {evidence}' if evidence else ''}]"


def _preferred(package: LockedPackage, case: Case) -> Iterator[str]:
    version = plain(package.version)
    measured = case.combination.versions if case.combination else {}
    if version is not None and measured.get(package.name) == str(version.version):
        assert case.combination is not None  # noqa: S101 - it gave the versions
        others = ", ".join(f"{name} {text}" for name, text in measured.items() if name != package.name)
        yield f"measured good with {others} ({case.combination.device}; run {case.combination.digest})"
    elif case.request.preferred.get(package.name) == package.version:
        yield "kept from the preferred lock"


def decisive(case: Case, found: Solution) -> list[tuple[Nogood, str]]:
    """The nogoods that keep a newer version of a chosen package away, or that the search had to leave, each with the package."""
    left = {(decision.nogood, decision.step.name): None for decision in found.branch.decisions if not decision.forced}
    judged = dict.fromkeys((*case.court.nogoods, *(decision.nogood for decision in found.branch.decisions)))
    kept = [(nogood, term.name) for nogood in judged for term in nogood.terms if _keeps_newer_away(nogood, term, case, found)]
    return list(dict.fromkeys((*left, *kept)))


def _keeps_newer_away(nogood: Nogood, term: Term, case: Case, found: Solution) -> bool:
    """Whether the other terms hold in the answer, and this one covers versions above the chosen one that were asked for.

    Only between packages asked for by name: what is pulled in follows from its requirer's metadata, rule or not.
    """
    versions = found.answer.versions
    version = plain(versions.get(term.name, ""))
    if version is None or term.spec in (ABSENT, ANY):
        return False
    if len(nogood.terms) > 1 and not all(other.name in case.wanted for other in nogood.terms):
        return False
    if not all(other is term or other.holds(versions.get(other.name)) for other in nogood.terms):
        return False
    above = case.wanted.get(term.name, SpecifierSet()).to_range() & specifier(f">{version.version}").to_range()
    return not above.is_disjoint(specifier(term.spec).to_range())


def shaping(case: Case, found: Solution) -> tuple[Shaping, ...]:
    """The decisive rules, for the lock's own record."""
    chosen = found.answer.versions
    shapes = (
        Shaping(nogood.id, nogood.text, f"{name}=={chosen[name]}" if name in chosen else f"no {name}")
        for nogood, name in decisive(case, found)
    )
    return tuple(dict.fromkeys(shapes))
