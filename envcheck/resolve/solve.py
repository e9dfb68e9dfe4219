"""From a request to a lock: fold the matrix, ask uv, judge its answer, search on, explain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from envcheck.errors import ToolError
from envcheck.resolve.explain import because, shaping
from envcheck.resolve.judgement import convene
from envcheck.resolve.lockfile import Lock
from envcheck.resolve.measured import Combination, best
from envcheck.resolve.provenance import BUILD, Provenance
from envcheck.resolve.request import recorded
from envcheck.resolve.search import Answer, GaveUpError, NoSolution, Search, Solution
from envcheck.resolve.uv import Uv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from packaging.specifiers import SpecifierSet

    from envcheck.facts.model import Environment
    from envcheck.matrix.database import Matrix
    from envcheck.resolve.judgement import Court
    from envcheck.resolve.nogoods import Nogood, Step
    from envcheck.resolve.request import Request
    from envcheck.resolve.search import Backend

#: Questions after which a search is given up; no request seen needs a tenth of them.
LIMIT = 96

#: Operators by which a user names a release or a line of releases.
PINS = ("==", "===", "~=")

#: The packages whose newest versions are kept first, in this order; what the user pinned comes before them all.
KEPT = ("torch", "transformers", "deepspeed")


@dataclass(frozen=True, slots=True)
class Solved:
    """A lock, and how it came about.

    Attributes:
        lock: The lock.
        case: What was searched.
        solution: The search's way to it.
        waived: What the set violates and a waiver accepts.
        calls: How often uv was run.
    """

    lock: Lock
    case: Case
    solution: Solution
    waived: tuple[Nogood, ...]
    calls: int

    def environment(self) -> Environment:
        """The environment that installing the lock would give."""
        answer = self.solution.answer
        return self.case.court.environment(answer.versions, sources(answer))


@dataclass(slots=True)
class Case:
    """A request before the matrix: everything that does not change from question to question.

    Attributes:
        request: What is to be locked; its preferences hold the measured combination's.
        matrix: Rules and tables.
        backend: The resolver.
        court: What answers are judged by.
        combination: The measured combination that is preferred, or None.
        wanted: The packages asked for.
    """

    request: Request
    matrix: Matrix
    backend: Backend
    court: Court
    combination: Combination | None
    wanted: Mapping[str, SpecifierSet]

    def search(self, nogoods: Iterable[Nogood] | None = None) -> Solution | NoSolution:
        """The search over the whole matrix, or over these nogoods alone.

        Raises:
            ToolError: uv failed, or the search was given up.
        """
        chosen = tuple(self.court.nogoods if nogoods is None else nogoods)
        limited = nogoods is not None

        def judge(answer: Answer) -> list[Nogood]:
            if limited:
                return [nogood for nogood in chosen if nogood.violated(answer.versions)]
            return self.court.violated(answer.versions, sources(answer))

        try:
            return Search(self.backend, judge, self.wanted, chosen, self.price, LIMIT).run()
        except GaveUpError as error:
            raise ToolError(f"the search was given up: {error}", hints=("bind the versions you know",)) from error

    def price(self, step: Step) -> int:
        """The class of a way out: what the user pinned, torch, transformers, deepspeed, what else was asked for, the rest."""
        if any(part.operator in PINS for part in self.wanted.get(step.name, ())):
            return 0
        if step.name in KEPT:
            return 1 + KEPT.index(step.name)
        return len(KEPT) + (1 if step.name in self.wanted else 2)


def open_case(request: Request, matrix: Matrix, progress: Callable[[str], None], backend: Backend | None = None) -> Case:
    """Fold the matrix for a request and choose what to prefer.

    Raises:
        UsageError: A requirement does not follow PEP 508.
    """
    wanted = request.wanted()
    waived = frozenset(request.waived)
    court = convene(matrix, request.machine, request.settings, waived, others=request.others)
    build = request.torch_backend if request.torch_backend.startswith("cu") else ""
    tables = tuple(court.of_torch(build, wanted.get("torch"))) if request.torch_backend in ("", build) else ()
    court = replace(court, nogoods=court.nogoods + tables)
    combination = best(matrix.folder, wanted, request.settings, court.nogoods)
    measured = combination.versions if combination else {}
    request = replace(request, preferred={**measured, **request.preferred})
    return Case(request, matrix, backend or Uv(request, progress), court, combination, wanted)


def solve(
    request: Request, matrix: Matrix, *, progress: Callable[[str], None] = lambda _: None, backend: Backend | None = None,
) -> Solved | tuple[Case, NoSolution]:  # fmt: skip
    """Lock a request. This is the entry for profiles and fixes.

    Args:
        request: Requirements, target, settings, waivers.
        matrix: Rules and tables.
        progress: Told in a few words before each call of uv.
        backend: The resolver; uv where left out.

    Returns:
        The lock; or, where there is none, the case and why its search ended.

    Raises:
        UsageError: A requirement does not follow PEP 508.
        ToolError: uv is missing, failed, or could not reach an index; or the search was given up.
    """
    case = open_case(request, matrix, progress, backend)
    found = case.search()
    if isinstance(found, NoSolution):
        return case, found
    waived = accepted(case, found.answer)
    return Solved(lock_of(case, found, waived), case, found, waived, found.questions)


def accepted(case: Case, answer: Answer) -> tuple[Nogood, ...]:
    """What the answer violates and would be refused for without the waivers."""
    request = case.request
    if not request.waived:
        return ()
    strict = convene(case.matrix, request.machine, request.settings, others=request.others)
    known = [item for item in strict.nogoods if not item.soft and item.violated(answer.versions)]
    learned = replace(strict, nogoods=()).violated(answer.versions, sources(answer))
    found = {item.id: item for item in (*learned, *known)}
    return tuple(found[name] for name in sorted(found) if name in request.waived)


def sources(answer: Answer) -> dict[str, str]:
    """The URL of each package's file, for the packages of which the answer knows it."""
    if not isinstance(answer.payload, Lock):
        return {}
    found = {}
    for package in answer.payload.packages:
        files = [package.direct] if package.direct else [file.url for file in package.wheels or ()]
        if files:
            found[package.name] = files[0]
    return found


def lock_of(case: Case, found: Solution, waived: Iterable[Nogood]) -> Lock:
    """The answer as envcheck's lock: with reasons, and for what it was solved."""
    assert isinstance(found.answer.payload, Lock)  # noqa: S101 - what `Uv` gives
    request, answer = case.request, found.answer.payload
    packages = tuple(replace(package, because=because(package, case, found)) for package in answer.packages)
    options = {
        "torch-backend": request.torch_backend, "exclude-newer": request.exclude_newer,
        BUILD: "\n".join(request.build_constraints),
    }  # fmt: skip
    provenance = Provenance(
        requirements=request.requirements,
        constraints=request.constraints,
        python=request.python,
        platform=request.platform,
        facts=recorded(request.machine),
        settings=request.settings.values,
        others=tuple(item.values for item in request.others),
        uses=tuple(sorted(request.settings.uses)),
        matrix=case.matrix.digest,
        rules=shaping(case, found),
        waived={nogood.id: request.waived[nogood.id] for nogood in waived},
        unavoided=tuple(sorted(nogood.id for nogood in found.unavoided)),
        measured=case.combination.digest if case.combination else "",
        options={name: value for name, value in options.items() if value},
    )
    minor = ".".join(request.python.split(".")[:2])
    return Lock(packages, f"=={minor}.*", provenance, yanked=answer.yanked)
