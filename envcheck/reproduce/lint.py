"""What of a setup script will not reproduce, as findings with line numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from envcheck.facts.model import Distribution
from envcheck.findings import Evidence, Finding, Report, Severity, StackRow
from envcheck.reproduce.commands import read_steps
from envcheck.reproduce.faults import RULES, Subject, names_of
from envcheck.reproduce.intent import environment, gather
from envcheck.reproduce.script import parse
from envcheck.reproduce.steps import (
    Clone,
    Download,
    Harmless,
    Install,
    MakeEnvironment,
    NotUnderstood,
    Remove,
    System,
    TouchSitePackages,
)
from envcheck.reproduce.wanted import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envcheck.facts.model import Environment
    from envcheck.matrix.database import Matrix
    from envcheck.reproduce.steps import Step


def lint(text: str, where: str, folder: Path, matrix: Matrix, given: Environment | None = None, *, check: bool = False) -> Report:
    """Lint a script.

    Args:
        text: The script.
        where: Its name for messages.
        folder: Its folder; projects and requirement files beside it are read.
        matrix: For which torch, CUDA and ABI published wheels are.
        given: Facts of the machine, and packages that are there already.
        check: Also say what the matrix knows of the versions that the script pins.

    Raises:
        InputError: It is no bash script that can be read.
    """
    subject = study(text, where, folder)
    findings = [finding for rule in RULES for finding in rule(subject)]
    findings += wheel_findings(subject, matrix, given)
    if check:
        findings += known_findings(subject, matrix, given)
    return Report(
        findings=sort_by_line(findings),
        stack=(StackRow("script", where), *rows(subject)),
        extra={"script": where, "steps": [plain_step(step) for step in subject.steps if not isinstance(step, Harmless)]},
    )


def study(text: str, where: str, folder: Path) -> Subject:
    """A script as what the rules look at; the arguments are those of `lint`.

    Raises:
        InputError: It is no bash script that can be read.
    """
    script = parse(text, where)
    steps = read_steps(script)
    return Subject(where, script, tuple(steps), gather(steps, folder))


def sort_by_line(findings: list[Finding]) -> tuple[Finding, ...]:
    """Most severe first, then in the order of the script."""
    return tuple(sorted(findings, key=lambda item: (-item.severity, _line(item.place), item.id, item.title)))


def _line(place: str) -> int:
    found = re.search(r":(\d+):\d+$", place)
    return int(found[1]) if found else 0


def syntax_finding(where: str, complaint: str) -> Finding:
    """What `bash -n` says."""
    first = complaint.strip().splitlines()[0] if complaint.strip() else "no reason given"
    line = re.search(r"line (\d+):", first)
    return Finding(
        "script-syntax",
        Severity.ERROR,
        "bash does not accept the script",
        because=(re.sub(r"^.*?: line", "line", first),),
        place=f"{where}:{line[1]}:1" if line else where,
        evidence=(Evidence("docs", "Bash Reference Manual: bash -n"),),
    )


# What is shown


def rows(subject: Subject) -> Iterator[StackRow]:
    """A line for each step that changes something, in the order in which they run."""
    for step in subject.steps:
        text = shown(step)
        if text:
            yield StackRow(f"line {step.command.line}", text + (" (in some cases)" if step.command.branches else ""))


def shown(step: Step) -> str:
    """A step in a few words; empty for what changes nothing."""
    match step:
        case Install(tool=tool, wanted=wanted, files=files):
            return f"{tool}: {names_of([*(item.text for item in wanted), *(f'-r {name}' for name in files)])}"
        case MakeEnvironment(tool=tool, python=python):
            return f"{tool}: an environment" + (f" with Python {python}" if python else "")
        case TouchSitePackages(verb=verb, target=target):
            return f"{verb} {target}"
        case Download(url=url, runs=runs):
            return f"downloads {url}" + (f" and runs it with `{runs}`" if runs else "")
        case Clone(url=url, ref=ref):
            return f"clones {url}" + (f" at {ref}" if ref else "")
        case Remove(names=names):
            return f"removes {names_of(names)}"
        case System(tool=tool, names=names):
            return f"{tool}: {names_of(names)}"
        case NotUnderstood(command=command):
            return f"not understood: {command.source}"
        case Harmless():
            return ""


def plain_step(step: Step) -> dict[str, object]:
    """A step as plain data for JSON reports."""
    return {
        "line": step.command.line,
        "kind": re.sub(r"(?<!^)(?=[A-Z])", "-", type(step).__name__).lower(),
        "what": shown(step),
        "conditional": bool(step.command.branches),
        "source": step.command.source,
    }


def wheel_findings(subject: Subject, matrix: Matrix, given: Environment | None) -> Iterator[Finding]:
    """Wheels whose names say another Python, torch, CUDA or ABI than the rest of the script or the facts."""
    from envcheck.checks.context import Context  # noqa: PLC0415 - only with `setup lint`
    from envcheck.checks.wheels import check_wheel_names  # noqa: PLC0415 - likewise

    base = environment(subject.intent, given)
    for item in subject.intent.asked:
        wanted = item.wanted
        if wanted.kind is not Kind.WHEEL or not wanted.name or not wanted.version:
            continue
        wheel = Distribution(wanted.name, wanted.version, direct_url=wanted.url)
        alone = base._replace(packages={**base.packages, wanted.name: wheel})
        for outcome in check_wheel_names(Context(alone, matrix)):
            if isinstance(outcome, Finding) and outcome.subjects[0] == wanted.name:
                yield outcome._replace(
                    id="script-wheel-for-another-environment",
                    place=subject.place(item.step.command),
                    title=f"Line {item.line}: the wheel of `{wanted.name}` is for another environment than the script makes",
                )


def known_findings(subject: Subject, matrix: Matrix, given: Environment | None) -> Iterator[Finding]:
    """What the matrix says of the versions that the script pins, at the line that decides them."""
    from envcheck.checks.context import Context  # noqa: PLC0415 - only with --check
    from envcheck.checks.registry import run_all  # noqa: PLC0415 - likewise

    final = subject.intent.final()
    for finding in run_all(Context(environment(subject.intent, given), matrix))[0]:
        lines = [final[name].line for name in finding.subjects if name in final]
        if lines and finding.id != "wheel-for-another-environment":
            yield finding._replace(place=f"{subject.where}:{max(lines)}:1")
