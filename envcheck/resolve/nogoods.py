"""What must not be combined, as a conjunction over packages; and the ways out of it as single version clauses.

The negation of `deepspeed>=0.17.6,<0.18.3` is the choice between `deepspeed<0.17.6` and `deepspeed>=0.18.3`: a resolver takes
conjunctions only, so each way out is one clause, and choosing among them is the search's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from envcheck.matrix.rule import ABSENT, ANY
from envcheck.matrix.versions import plain, satisfies, specifier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from packaging.specifiers import Specifier

    from envcheck.findings import Evidence, Fix

#: The clause that no release fulfils.
NEVER = "<0"

#: The clause of a package that has to be installed, in any version.
INSTALLED = ""

#: Way out of a plain clause: operator -> clauses, each of which suffices (`{}` is the version).
OPPOSITE = {
    "<": (">={}",), ">": ("<={}",), ">=": ("<{}",), "<=": (">={},!={}",), "==": ("!={}",), "!=": ("=={}",), "===": ("!={}",),
}  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class Step:
    """One condition put to the resolver: `name` fulfils `clause`, if it is installed; `INSTALLED` asks for it.

    Attributes:
        name: Normalised name.
        clause: PEP 440 clauses, `NEVER`, or `INSTALLED`.
    """

    name: str
    clause: str

    def __str__(self) -> str:
        """As a user would write it."""
        if self.clause == INSTALLED:
            return f"{self.name} (any version)"
        return f"no {self.name}" if self.clause == NEVER else f"{self.name}{self.clause}"


@dataclass(frozen=True, slots=True)
class Term:
    """One package of a nogood: a specifier set, `*` (any version) or `absent`."""

    name: str
    spec: str

    def holds(self, version: str | None) -> bool:
        """Whether a chosen version (None: not installed) is in the term.

        A pre-release or vendor build never is: a rule is certain about releases only.
        """
        if version is None or self.spec == ABSENT:
            return version is None and self.spec == ABSENT
        found = plain(version)
        if found is None or not found.exact:
            return False
        return self.spec == ANY or satisfies(version, self.spec) is True

    def ways_out(self) -> tuple[Step, ...]:
        """The single conditions each of which makes the term false; the ones that allow newer versions first."""
        if self.spec in (ABSENT, ANY):
            return (Step(self.name, INSTALLED if self.spec == ABSENT else NEVER),)
        return tuple(Step(self.name, clause) for clause in opposites(self.spec))

    def __str__(self) -> str:
        """`deepspeed>=0.17.6,<0.18.3`, `no setuptools`, `apex (any version)`."""
        if self.spec == ABSENT:
            return f"no {self.name}"
        return f"{self.name} (any version)" if self.spec == ANY else f"{self.name}{self.spec}"


@dataclass(frozen=True, slots=True)
class Nogood:
    """Packages that must not be chosen together: the part of a rule that is left when facts and settings are known.

    Attributes:
        id: The rule's or the check's.
        title: One line saying what is wrong.
        terms: Forbidden together; never empty.
        soft: To be avoided where possible: it hangs on a setting that nobody gave.
        because: The facts and settings that were folded in, one sentence each.
        fixes: The rule's own ways out, best first.
        evidence: Where the claim comes from.
    """

    id: str
    title: str
    terms: tuple[Term, ...]
    soft: bool = False
    because: tuple[str, ...] = ()
    fixes: tuple[Fix, ...] = ()
    evidence: tuple[Evidence, ...] = ()

    def violated(self, versions: Mapping[str, str]) -> bool:
        """Whether a chosen set (name -> version; what is not named is not installed) contains the whole conjunction."""
        return all(term.holds(versions.get(term.name)) for term in self.terms)

    def ways_out(self) -> tuple[Step, ...]:
        """Every single condition that makes the nogood false."""
        return tuple(dict.fromkeys(step for term in self.terms for step in term.ways_out()))

    @property
    def text(self) -> str:
        """The forbidden combination in words: `torch<2.4 with transformers>=5`."""
        return " with ".join(map(str, self.terms))


@lru_cache(maxsize=4096)
def opposites(spec: str) -> tuple[str, ...]:
    """The clauses of which each lies wholly outside `spec`, and which together cover all releases outside of it."""
    found = [clause for part in specifier(spec) for clause in _opposite(part)]
    return tuple(sorted(dict.fromkeys(found), key=lambda clause: (_direction(clause), clause)))


def _opposite(part: Specifier) -> tuple[str, ...]:
    if part.operator == "~=":
        prefix = part.version.rpartition(".")[0]
        return (f"<{part.version}", f"!={prefix}.*")
    return tuple(text.format(*[part.version] * text.count("{}")) for text in OPPOSITE[part.operator])


def _direction(clause: str) -> int:
    """Newer versions first, then holes, then older versions."""
    return 0 if clause[0] == ">" else (2 if clause[0] == "<" else 1)
