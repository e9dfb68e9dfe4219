"""A resolver's answer before the checks: what `envcheck check` would call an error becomes a nogood over ranges.

The tables (driver floors, architectures, pairings, Python support) are read by the checks alone. An error that a check reports
about an answer is widened here: as long as the check says the same of a neighbouring listed release, that one is excluded too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet

from envcheck.checks.context import Context
from envcheck.checks.registry import CHECKS
from envcheck.checks.torch_build import release, row_for, torch_build
from envcheck.facts.model import Absent, Distribution, Environment, Known
from envcheck.findings import Finding, Severity
from envcheck.matrix.rule import ABSENT, ANY
from envcheck.matrix.versions import plain
from envcheck.resolve.fold import fold_rules, nogood_of
from envcheck.resolve.nogoods import Nogood, Term
from envcheck.resolve.request import machine_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from envcheck.checks.context import Check
    from envcheck.matrix.database import Matrix
    from envcheck.matrix.rule import Rule
    from envcheck.matrix.settings import Settings

#: Package -> table and column that list its releases.
LISTED = {
    "torch": ("torch", "version"), "torchvision": ("torch_pairing", "torchvision"), "torchaudio": ("torch_pairing", "torchaudio"),
    "xformers": ("xformers", "version"), "vllm": ("vllm", "version"), "triton": ("triton", "version"),
}  # fmt: skip

#: Package -> table and key whose rows say which GPUs a range of its releases needs.
RANGED = {"flash-attn": ("flash_attn", "gpus"), "bitsandbytes": ("bitsandbytes", "rows")}

#: The checks that judge a torch release by machine facts alone.
BY_MACHINE = ("driver", "gpu-torch", "torch-python")

#: Facts that follow from the torch that is installed.
OF_TORCH = ("torch_cuda", "torch_source", "torch_cxx11_abi")

#: The `torch_source` of wheels from the usual index.
PYPI = "pypi"

#: `torch_source` -> where its files are.
SOURCES = {PYPI: "https://files.pythonhosted.org/", "pytorch-index": "https://download.pytorch.org/"}

#: The checks that look at which packages are there, and not at their versions.
BY_NAME = ("nvidia-collisions",)


@dataclass(frozen=True, slots=True)
class Court:
    """What answers are judged by: the one folding of the matrix, for a lock and for a change of an installed set.

    Attributes:
        matrix: Rules and tables.
        before: The machine's facts, without packages for a lock; the whole environment for a change.
        settings: What is known of the training settings.
        waived: Ids that do not count.
        nogoods: The folded rules, and what the tables say of torch.
        elsewhere: Installed packages that answers do not name and that stay.
        others: Further settings that the same set has to serve.
        learned: What the checks found in answers so far.
    """

    matrix: Matrix
    before: Environment
    settings: Settings
    waived: frozenset[str] = frozenset()
    nogoods: tuple[Nogood, ...] = ()
    elsewhere: frozenset[str] = frozenset()
    others: tuple[Settings, ...] = ()
    learned: list[Nogood] = field(default_factory=list)

    def violated(self, versions: Mapping[str, str], sources: Mapping[str, str]) -> list[Nogood]:
        """The nogoods that a chosen set violates: the known ones, else those that the checks find.

        Args:
            versions: Name -> version.
            sources: Name -> URL of the file that would be installed, where it is known.
        """
        known = [nogood for nogood in (*self.nogoods, *self.learned) if nogood.violated(versions)]
        if any(not nogood.soft for nogood in known):
            return known
        charges = self.charges(self.environment(versions, sources))
        found = list(dict.fromkeys(self._left_of(nogood) or nogood for _, nogood in charges if nogood is not None))
        self.learned.extend(found)
        return known + found

    def environment(self, versions: Mapping[str, str], sources: Mapping[str, str]) -> Environment:
        """The environment that installing the set would give; what an old version's metadata and files said is then not known."""
        before = self.before.packages
        packages = {name: item for name, item in before.items() if name in self.elsewhere}
        packages |= {name: _distribution(name, version, before.get(name), sources) for name, version in versions.items()}
        moved = {name for name in before.keys() | packages.keys() if packages.get(name) is not before.get(name)}
        stale = tuple(f"{name.replace('-', '_')}_" for name in moved)
        facts = {name: fact for name, fact in self.before.facts.items() if not (stale and name.startswith(stale))}
        complete = self.before.complete or not before
        environment = self.before._replace(packages=packages, facts=facts, complete=complete)
        return self._with_torch(environment, sources.get("torch", "")) if "torch" in moved else environment

    def _with_torch(self, environment: Environment, url: str) -> Environment:
        """The facts that follow from the torch that would be installed; it comes from where the one before came from."""
        facts = {name: fact for name, fact in environment.facts.items() if name not in OF_TORCH}
        if source := torch_source(url) or (PYPI if not url and self.before.text("torch_source") == PYPI else ""):
            facts["torch_source"] = Known(source, "the file's place")
        environment = environment._replace(facts=facts)
        build = torch_build(Context(environment, self.matrix))
        if build is not None and build.cuda is not None:
            facts["torch_cuda"] = Known(build.cuda, "the chosen build") if build.cuda else Absent(("the chosen build",))
        return environment

    def charges(self, environment: Environment) -> Iterator[tuple[Finding, Nogood | None]]:
        """Every error that the checks report, with what must not be combined; None where no choice of versions mends it."""
        for settings in (self.settings, *self.others):
            context = Context(environment, self.matrix, settings)
            for name, check in CHECKS.items():
                for finding in self._errors(check, context):
                    yield finding, self._of_rule(finding, context) if name == "rules" else widened(name, finding, context)

    def _errors(self, check: Check, context: Context) -> Iterator[Finding]:
        for outcome in check(context):
            if isinstance(outcome, Finding) and outcome.severity is Severity.ERROR and outcome.id not in self.waived:
                yield outcome

    def _of_rule(self, finding: Finding, context: Context) -> Nogood | None:
        """A rule whose facts follow from the chosen packages: those packages, as they are, complete its terms."""
        rule = next(rule for rule in self.matrix.rules() if rule.id == finding.id)
        packages = context.environment.packages
        more = tuple(Term(name, _between([packages[name].version])) for name in _implied(rule, context.environment))
        return nogood_of(rule, context.settings, more=more) if rule.packages or more else None

    def _left_of(self, nogood: Nogood) -> Nogood | None:
        """The terms that answers decide; None where packages elsewhere make it false, or decide it alone."""
        packages = self.before.packages
        if any(term.name in self.elsewhere and not term.holds(packages[term.name].version) for term in nogood.terms):
            return None
        terms = tuple(term for term in nogood.terms if term.name not in self.elsewhere)
        return replace(nogood, terms=terms) if terms else None

    def of_torch(self, build: str = "", asked: SpecifierSet | None = None) -> Iterator[Nogood]:
        """What driver, GPUs and Python say of the listed torch releases (`build`: of the builds with this tag).

        Each range argues from its newest release that `asked` admits, or else from its newest one.
        """
        local = f"+{build}" if build else ""
        source = SOURCES["pytorch-index" if build else PYPI]
        bad: dict[str, dict[str, Finding]] = {}
        for version in listed(self.matrix, "torch"):
            packages = {"torch": Distribution("torch", version + local)}
            environment = self._with_torch(self.before._replace(packages=packages, complete=False), source)
            context = Context(environment, self.matrix, self.settings)
            for name in BY_MACHINE:
                for finding in self._errors(CHECKS[name], context):
                    bad.setdefault(finding.id, {}).setdefault(version, finding)
        for found in bad.values():
            for run in runs(listed(self.matrix, "torch"), list(found)):
                inside = [version for version in found if version in SpecifierSet(run)]
                wanted = [version for version in inside if asked is not None and version in asked]
                yield _nogood(found[(wanted or inside)[-1]], (Term("torch", run),))


def convene(
    matrix: Matrix, before: Environment, settings: Settings, waived: frozenset[str] = frozenset(), *,
    elsewhere: frozenset[str] = frozenset(), others: tuple[Settings, ...] = (),
) -> Court:  # fmt: skip
    """The court over a machine or an environment, with every rule folded.

    Where an installed set is not known completely, a package that it does not name is not known to be absent.
    """
    court = Court(matrix, before, settings, waived, (), elsewhere, others)
    every = [item for one in (settings, *others) for item in fold_rules(matrix, machine_of(before), one, waived)]
    hardest: dict[tuple[str, tuple[Term, ...]], Nogood] = {}
    for nogood in filter(None, map(court._left_of, every)):  # noqa: SLF001 - made here
        if before.complete or not before.packages or all(term.spec != ABSENT for term in nogood.terms):
            known = hardest.setdefault((nogood.id, nogood.terms), nogood)
            if known.soft and not nogood.soft:
                hardest[nogood.id, nogood.terms] = nogood
    return replace(court, nogoods=tuple(hardest.values()))


def torch_source(url: str) -> str:
    """The `torch_source` word for a file's URL, or an empty string."""
    return next((word for word, place in SOURCES.items() if url.startswith(place)), "")


def _distribution(name: str, version: str, before: Distribution | None, sources: Mapping[str, str]) -> Distribution:
    if before is not None and before.version == version:
        return before
    return Distribution(name, version, direct_url=sources.get(name, "") if _names_a_build(name, sources) else "")


def _names_a_build(name: str, sources: Mapping[str, str]) -> bool:
    """Whether a package comes from a place of its own, so that its file's name says for what it was compiled."""
    url = sources.get(name, "")
    return url.endswith(".whl") and not torch_source(url)


def _implied(rule: Rule, environment: Environment) -> list[str]:
    """Packages that a rule speaks of through facts or comparisons and not through `when.packages`."""
    names = [side for item in rule.compare for side in (item.left, item.right)]
    found = {name.removeprefix("package:").rpartition(".")[0] or name[8:] for name in names if name.startswith("package:")}
    if any(name.split(".")[0] in OF_TORCH for name in (*rule.facts, *names)):
        found.add("torch")
    specific = {name for name, spec in rule.packages.items() if spec != "*"}
    return sorted(name for name in found - specific if name in environment.packages)


def widened(family: str, finding: Finding, context: Context) -> Nogood | None:
    """The nogood of a finding of a table check, over as many listed releases as the check says the same of.

    None where no package takes part: that is the machine's own fault, which no choice of versions mends.
    """
    packages, check = context.environment.packages, CHECKS[family]
    names = [name for name in finding.subjects if name in packages]
    if family in BY_NAME:
        return _nogood(finding, tuple(Term(name, ANY) for name in names)) if names else None
    spans = {name: [packages[name].version] for name in names}
    for name in sorted(names, key=lambda name: name == "torch"):
        neighbours = listed(context.matrix, name)
        if _public(packages[name].version) in map(_public, neighbours):
            spans[name] = _run(neighbours, packages[name].version, lambda version, name=name: _all(  # type: ignore[misc]
                check, finding.id, context, {**spans, name: [version]}))  # fmt: skip
    terms = tuple(Term(name, _spec(context, finding, name, spans[name])) for name in names)
    return _nogood(finding, terms) if terms else None


def _all(check: Check, finding: str, context: Context, spans: Mapping[str, Sequence[str]]) -> bool:
    """Whether the check reports the finding as an error for every combination of the versions."""
    combinations: list[dict[str, str]] = [{}]
    for name, versions in spans.items():
        combinations = [{**chosen, name: version} for chosen in combinations for version in versions]
    return all(_reports(check, finding, context, chosen) for chosen in combinations)


def _reports(check: Check, finding: str, context: Context, chosen: Mapping[str, str]) -> bool:
    packages = dict(context.environment.packages)
    packages.update({name: packages[name]._replace(version=version) for name, version in chosen.items()})
    facts = {name: fact for name, fact in context.environment.facts.items() if name != "torch_cuda"}
    varied = Context(context.environment._replace(packages=packages, facts=facts), context.matrix, context.settings)
    outcomes = [item for item in check(varied) if isinstance(item, Finding) and item.id == finding]
    return any(item.severity is Severity.ERROR for item in outcomes)


def _run(neighbours: Sequence[str], version: str, same: Callable[[str], bool]) -> list[str]:
    """The consecutive releases around `version` that `same` holds for."""
    place = [_public(item) for item in neighbours].index(_public(version))
    first = last = place
    while first > 0 and same(neighbours[first - 1]):
        first -= 1
    while last + 1 < len(neighbours) and same(neighbours[last + 1]):
        last += 1
    return list(neighbours[first : last + 1])


def _spec(context: Context, finding: Finding, name: str, versions: Sequence[str]) -> str:
    """The specifier of a run of releases; where the finding is about the GPUs of a range of releases, that range."""
    if name in RANGED and "gpu" in finding.subjects:
        table, key = RANGED[name]
        row = row_for(context.matrix.table(table).get(key, []), versions[0])
        if row is not None:
            return str(row["versions"])
    return _between(versions)


def _between(versions: Sequence[str]) -> str:
    """The specifier from the first to the last version; any version where they are none."""
    first, last = _public(versions[0]), _public(versions[-1])
    if not first:
        return ANY
    return f"=={first}" if first == last else f">={first},<={last}"


def runs(neighbours: Sequence[str], chosen: Sequence[str]) -> Iterator[str]:
    """Specifiers of the maximal runs of consecutive releases among the chosen ones."""
    wanted, held = set(chosen), list[str]()
    for version in [*neighbours, ""]:
        if version in wanted:
            held.append(version)
        elif held:
            yield _between(held)
            held = []


def listed(matrix: Matrix, name: str) -> list[str]:
    """The releases of a package that a table lists, oldest first; empty where none does."""
    if name not in LISTED:
        return []
    table, column = LISTED[name]
    found = {str(row[column]) for row in matrix.table(table).get("rows", []) if column in row}
    return sorted(found, key=release)


def _public(version: str) -> str:
    found = plain(version)
    return str(found.version) if found else ""


def _nogood(finding: Finding, terms: tuple[Term, ...]) -> Nogood:
    return Nogood(finding.id, finding.title, terms, False, finding.because, finding.fixes, finding.evidence)
