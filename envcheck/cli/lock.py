"""`envcheck lock`: requirements -> a lock that the matrix has nothing against."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from envcheck.checks.context import Context
from envcheck.checks.waivers import Waiver, apply, find, in_force
from envcheck.cli.check import add_settings_options, read_profile, read_training, settings_for
from envcheck.cli.console import add_report_options, emit, progress
from envcheck.cli.inputs import read_environment
from envcheck.errors import ExitCode, UsageError
from envcheck.facts.model import Environment
from envcheck.files import write_whole
from envcheck.findings import Finding, Fix, Report, Severity, StackRow, sort_findings
from envcheck.matrix.database import load

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from envcheck.findings import Waived
    from envcheck.matrix.database import Matrix
    from envcheck.matrix.profile import Profile
    from envcheck.resolve.elsewhere import Meant
    from envcheck.resolve.lockfile import Lock
    from envcheck.resolve.nogoods import Nogood
    from envcheck.resolve.refusal import Impossible
    from envcheck.resolve.request import Request
    from envcheck.resolve.search import NoSolution
    from envcheck.resolve.solve import Case, Solved

BACKENDS = "auto, cpu, or a CUDA tag such as cu126: torch from its own index; default: what the usual index has"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `envcheck lock`."""
    parser.add_argument("requirements", nargs="*", metavar="REQ", help="what to lock, such as 'torch>=2.4'")
    parser.add_argument("-r", "--requirement", metavar="FILE", action="append", default=[], help="a requirements file")
    parser.add_argument("--profile", metavar="NAME", help="what a project needs (`envcheck profiles` lists them)")
    parser.add_argument("-c", "--constraint", metavar="FILE", action="append", default=[], help="bounds for what comes in anyway")
    parser.add_argument("--override", metavar="REQ", action="append", default=[], help="replaces what other packages require")
    parser.add_argument("-o", dest="lock", metavar="FILE", default="pylock.toml", help="pylock.toml, or requirements.txt")
    parser.add_argument("--explain", action="store_true", help="say for every watched package why it has its version")
    add_target_options(parser)
    add_choice_options(parser)
    add_settings_options(parser)
    add_report_options(parser)


def add_target_options(parser: argparse.ArgumentParser, title: str = "target (default: this machine and its Python)") -> None:
    """For which machine and Python the lock is."""
    group = parser.add_argument_group(title)
    which = group.add_mutually_exclusive_group()
    which.add_argument("--python", metavar="PATH", help="an interpreter or a venv folder: its version and its machine")
    which.add_argument("--snapshot", metavar="FILE", help="lock for the machine of a snapshot; `-` is standard input")
    group.add_argument("--python-version", metavar="X.Y", help="lock for this Python")
    group.add_argument("--python-platform", metavar="NAME", help="as uv calls it, such as x86_64-unknown-linux-gnu")
    group.add_argument("--driver", metavar="V", help="lock for a machine with this NVIDIA driver; `none` for no GPU")
    group.add_argument("--compute-capability", metavar="X.Y", action="append", default=[], help="of its GPUs; may be repeated")
    group.add_argument("--torch-backend", metavar="NAME", default="", help=BACKENDS)
    group.add_argument("--matrices", metavar="DIR", help="another matrix folder (also ENVCHECK_MATRICES)")


def add_choice_options(parser: argparse.ArgumentParser, title: str = "choice") -> None:
    """What decides between the versions that are possible."""
    group = parser.add_argument_group(title)
    group.add_argument("--prefer", metavar="LOCK", help="keep the versions of an existing lock where possible")
    group.add_argument("--waive", metavar="ID=REASON", action="append", default=[], help="accept a rule; written into the lock")
    group.add_argument("--exclude-newer", metavar="DATE", default="", help="nothing uploaded later; makes a lock repeatable")
    group.add_argument("--find-links", metavar="PLACE", action="append", default=[], help="a folder or page with further wheels")


def run(args: argparse.Namespace) -> int:
    """Lock, write, report; returns the exit code."""
    matrix = load(args.matrices)
    text, told = make(args, matrix, read_profile(args.profile, matrix.folder) if args.profile else None)
    if not text:
        return emit(told, args)
    if args.lock == "-":
        sys.stdout.write(text)
        return int(ExitCode.OK)
    write_whole(args.lock, text, "lock")
    return emit(told, args)


def make(args: argparse.Namespace, matrix: Matrix, profile: Profile | None) -> tuple[str, Report]:
    """The lock that the options ask for, in the form that its name has, and what is to be said of it.

    Returns:
        The text is empty where there is no lock; the report then says why.
    """
    from envcheck.resolve import elsewhere  # noqa: PLC0415 - slow start is paid only here
    from envcheck.resolve.lockfile import lock_text  # noqa: PLC0415 - likewise
    from envcheck.resolve.profile import refusal, remarks, wrong_build  # noqa: PLC0415 - likewise
    from envcheck.resolve.solve import Solved  # noqa: PLC0415 - likewise

    waivers = read_waivers(args.waive)
    if profile and profile.lock.refused:
        return "", Report(findings=(refusal(profile),))
    request = read_request(args, matrix, in_force(waivers), profile)
    with progress() as say:
        found, meant = elsewhere.solve_with_wheels(request, matrix, progress=say)
        impossible = None if isinstance(found, Solved) else explain(*found, say)
    if not isinstance(found, Solved):
        assert impossible is not None  # noqa: S101 - made above
        return "", refusal_report(impossible, request)
    findings, waived = apply((_accepted(nogood) for nogood in found.waived), waivers)
    made = Context(found.environment(), matrix)
    findings += [*remarks(profile), *wrong_build(profile, made)] if profile else ()
    findings += remarks_on(found.lock, made, meant)
    return lock_text(found.lock, args.lock), report(found, request, args, findings, waived)


def remarks_on(lock: Lock, made: Context, meant: tuple[Meant, ...]) -> list[Finding]:
    """What a reader of the lock should know: versions nobody judged, withdrawn releases, archives in the place of wheels."""
    from envcheck.resolve import elsewhere  # noqa: PLC0415 - slow start is paid only here
    from envcheck.resolve.profile import withdrawn  # noqa: PLC0415 - likewise

    return [*_unjudged(lock), *withdrawn(lock.yanked), *elsewhere.remarks(lock, made, meant)]


def _unjudged(lock: Lock) -> Iterator[Finding]:
    """One finding for each package of which only its build says the version: no rule was held against it."""
    from envcheck.resolve.explain import UNJUDGED  # noqa: PLC0415 - slow start is paid only here

    for package in lock.packages:
        if not package.version:
            yield Finding(
                "locked-version-unknown", Severity.INFO, f"`{package.name}` is {UNJUDGED}", (package.name,),
                because=(f"it comes from {package.direct or 'a folder'}",),
                fixes=(Fix("do", "write the version into its metadata, or check the environment once it is installed"),),
            )  # fmt: skip


def explain(case: Case, found: NoSolution, say: Callable[[str], None]) -> Impossible:
    """Why a search ended without a lock."""
    from envcheck.resolve.refusal import explain_refusal  # noqa: PLC0415 - only where there is no lock

    return explain_refusal(case, found, say)


def read_waivers(given: list[str]) -> list[Waiver]:
    """The waivers of the command line, then those of the project.

    Raises:
        UsageError, InputError: One is malformed.
    """
    return [*(Waiver(rule, reason, None, "--waive") for rule, reason in map(parse_waiver, given)), *find(os.curdir)]


def read_request(
    args: argparse.Namespace, matrix: Matrix, waived: dict[str, str], profile: Profile | None = None,
) -> Request:  # fmt: skip
    """What the options ask for.

    Raises:
        UsageError: Nothing is asked for, or an option makes no sense.
        InputError: A file cannot be read.
    """
    from envcheck.matrix.profile_requirements import lock_request  # noqa: PLC0415 - slow start is paid only here
    from envcheck.resolve.lockfile import read_lock  # noqa: PLC0415 - likewise
    from envcheck.resolve.profile import recipes  # noqa: PLC0415 - likewise
    from envcheck.resolve.request import Request, parse_requirement  # noqa: PLC0415 - likewise

    asked = lock_request(profile) if profile else None
    lines = [*read_lines(args), *(("requirement", line) for line in (asked.requirements if asked else ()))]
    lines += [("constraint", line) for line in (asked.constraints if asked else ())]
    requirements = tuple(dict.fromkeys(line for kind, line in lines if kind == "requirement"))
    if not requirements:
        raise UsageError("nothing to lock", hints=("name requirements, a file with -r, or a --profile",))
    machine, python, platform = read_target(args, asked.python if asked else "")
    told = settings_for(args, read_training(args), Environment(), matrix)
    served = recipes(profile, told) if profile else [told]
    return Request(
        requirements=requirements,
        python=python,
        machine=machine,
        platform=asked.platform if asked and asked.platform and not args.python_platform else platform,
        constraints=tuple(dict.fromkeys(line for kind, line in lines if kind == "constraint")),
        overrides=(*(asked.overrides if asked else ()), *(str(parse_requirement(text)) for text in args.override)),
        build_constraints=asked.build_constraints if asked else (),
        settings=served[0],
        others=tuple(served[1:]),
        waived=waived,
        torch_backend=choose_backend(args.torch_backend, machine, matrix),
        exclude_newer=args.exclude_newer,
        find_links=tuple(args.find_links),
        preferred=read_lock(args.prefer).versions() if args.prefer else {},
    )


def read_lines(args: argparse.Namespace) -> list[tuple[str, str]]:
    """The lines of the arguments and files, each a `requirement` or a `constraint`.

    Raises:
        UsageError, InputError: One is neither, or a file cannot be read.
    """
    from envcheck.resolve.request import parse_requirement, read_requirements  # noqa: PLC0415 - slow start is paid only here

    lines = [("requirement", str(parse_requirement(text))) for text in args.requirements]
    for path in args.requirement:
        lines += read_requirements(path)
    for path in args.constraint:
        lines += [("constraint", line) for _, line in read_requirements(path)]
    return lines


def read_target(args: argparse.Namespace, usual: str = "") -> tuple[Environment, str, str]:
    """The machine, `major.minor` of the Python (`usual` where no option names one), and uv's platform.

    Another machine's driver, GPU or platform makes everything else that is known of this machine unknown.
    """
    from envcheck.resolve import request  # noqa: PLC0415 - slow start is paid only here

    elsewhere = args.driver or args.compute_capability or args.python_platform
    here = request.machine_of(read_environment(args)) if not (elsewhere and args.python_version) or args.snapshot else None
    usual = "" if args.python or args.snapshot else usual
    python = args.python_version or usual or ".".join(((here.text("python") if here else None) or "").split(".")[:2])
    if not python.replace(".", "").isdigit():
        wrong = f"`{python}` is not a Python version" if python else "the Python to lock for is not known"
        raise UsageError(wrong, hints=("--python-version 3.11",))
    if elsewhere:
        platform = args.python_platform or request.platform_of(here or request.machine_of(read_environment(args)))
        return request.another_machine(python, platform, args.driver or "", args.compute_capability), python, platform
    assert here is not None  # noqa: S101 - read above
    return request.for_python(here, python), python, request.platform_of(here)


def choose_backend(word: str, machine: Environment, matrix: Matrix) -> str:
    """The torch backend for uv; `auto` is the newest CUDA build that the driver of the target can run, or `cpu` without a driver.

    Raises:
        UsageError: `auto`, and nothing is known of the driver.
    """
    if word != "auto":
        return str(word)
    from envcheck.checks.gpu import driver_runs  # noqa: PLC0415 - slow start is paid only here
    from envcheck.facts.model import Absent  # noqa: PLC0415 - likewise

    if isinstance(machine.fact("driver"), Absent):
        return "cpu"
    if not machine.text("driver"):
        raise UsageError("`--torch-backend auto` needs to know the driver", hints=("--driver V, or `none`, or name a backend",))
    context = Context(machine, matrix)
    tags = {tag for row in matrix.table("torch").get("rows", []) for tag in row["builds"]}
    able = [tag for tag in tags if driver_runs(context, tag)]
    return max(able, key=lambda tag: int(tag.removeprefix("cu")), default="cpu")


def parse_waiver(text: str) -> tuple[str, str]:
    """`ID=REASON`.

    Raises:
        UsageError: No id, or no reason.
    """
    rule, _, reason = text.partition("=")
    if not rule.strip() or not reason.strip():
        hints = ("a waiver without a reason helps nobody who reads the lock",)
        raise UsageError(f"`--waive {text}` is not ID=REASON", hints=hints)
    return rule.strip(), reason.strip()


def report(
    found: Solved, request: Request, args: argparse.Namespace, findings: list[Finding], waived: list[Waived],
) -> Report:  # fmt: skip
    """What was locked, what shaped it, what was waived and what could not be avoided."""
    from envcheck.resolve.explain import decisive  # noqa: PLC0415 - slow start is paid only here

    lock = found.lock
    watched = [package for package in lock.packages if package.because]
    rows = [StackRow("lock", args.lock, f"{len(lock.packages)} packages, Python {request.python}, {request.platform}")]
    rows += [StackRow(package.name, package.version) for package in watched]
    notes = [f"{package.name} {package.version}".rstrip() + f": {line}" for package in watched for line in package.because]
    if not args.explain:
        notes = [f"{name}: not {one.text}: {one.title} ({one.id})" for one, name in decisive(found.case, found.solution)]
    provenance = lock.provenance
    return Report(
        findings=sort_findings([*findings, *(_warning(nogood) for nogood in found.solution.unavoided)]),
        stack=tuple(rows),
        notes=tuple(dict.fromkeys(notes)),
        waived=tuple(waived),
        extra={
            "lock": {
                "file": args.lock, "packages": lock.versions(), "uv_calls": found.calls,
                "rules": [shape.rule for shape in provenance.rules] if provenance else [],
                "because": {package.name: list(package.because) for package in watched},
            },
        },
    )  # fmt: skip


def _warning(nogood: Nogood) -> Finding:
    return Finding(
        nogood.id, Severity.WARNING, nogood.title, tuple(term.name for term in nogood.terms),
        because=(f"no set without {nogood.text} was found, and whether it matters hangs on a setting that is not known",),
        certain=False, fixes=nogood.fixes, evidence=nogood.evidence,
    )  # fmt: skip


def _accepted(nogood: Nogood) -> Finding:
    subjects = tuple(term.name for term in nogood.terms)
    return Finding(nogood.id, Severity.ERROR, nogood.title, subjects, because=nogood.because, evidence=nogood.evidence)


def refusal_report(impossible: Impossible, request: Request) -> Report:
    """Why there is no lock, each rule and each of uv's reasons a finding, and what to relax."""
    relax = tuple(Fix("package", text) for text in impossible.relaxations)
    findings = [
        Finding(
            nogood.id, Severity.ERROR, nogood.title, tuple(term.name for term in nogood.terms),
            because=(f"forbidden: {nogood.text}", *nogood.because), evidence=nogood.evidence,
            fixes=(*relax, *(fix for fix in nogood.fixes if fix.kind != "package"), Fix("do", f"--waive {nogood.id}=REASON")),
        )
        for nogood in impossible.nogoods
    ]  # fmt: skip
    if impossible.refusals:
        title = "uv finds no set for what is left"
        findings.append(Finding("uv-finds-no-solution", Severity.ERROR, title, because=impossible.refusals, fixes=relax))
    asked = ", ".join(f"`{line}`" for line in (*request.requirements, *request.constraints))
    few = "" if impossible.smallest else "; the rules below are more than the smallest set"
    return Report(findings=tuple(findings), notes=(f"no lock: nothing was written; asked for {asked}{few}",))
