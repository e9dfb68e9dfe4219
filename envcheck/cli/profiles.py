"""`envcheck profiles`: the projects it knows, and what each of them needs."""

from __future__ import annotations

import json
import os
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from envcheck.cli.console import encodable, terminal_width, write
from envcheck.cli.profile_tables import listed
from envcheck.errors import ExitCode
from envcheck.matrix.database import load
from envcheck.matrix.profile_requirements import lock_markers, lock_python, wanted_packages
from envcheck.matrix.profiles import load_profiles, open_profile
from envcheck.report.escape import markdown as escaped

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from envcheck.findings import Finding
    from envcheck.matrix.database import Matrix
    from envcheck.matrix.profile import Need, Profile

FORMS = ("text", "json", "markdown")

#: What a need is about, in words.
QUANTITIES = {
    "compute_capability": "compute capability", "gpus": "GPUs", "gpu_memory_gb": "GB on each GPU",
    "total_gpu_memory_gb": "GB over all GPUs", "driver": "driver",
}  # fmt: skip

#: The widest that running text is set.
WIDTH = 118


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `envcheck profiles`."""
    _add_options(parser)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    _add_options(actions.add_parser("list", help="every profile, a line each (the default)"), again=True)
    show = actions.add_parser("show", help="what one project needs, the steps a version check cannot see, and pitfalls")
    show.add_argument("name", metavar="NAME", help="in any spelling; the beginning will do where it is the only one")
    _add_options(show, again=True)
    check = actions.add_parser("check", help="which of them this environment (another, a snapshot) is ready for, a line each")
    which = check.add_mutually_exclusive_group()
    which.add_argument("--python", metavar="PATH", help="another interpreter, or a venv folder (default: this one)")
    which.add_argument("--snapshot", metavar="FILE", help="a saved or hand-written snapshot; `-` is standard input")
    _add_options(check, again=True)


def _add_options(parser: argparse.ArgumentParser, *, again: bool = False) -> None:
    """The options, before the action or `again` after it, where they win only if they are given."""
    from argparse import SUPPRESS  # noqa: PLC0415 - argparse is loaded by now

    parser.add_argument("--matrices", metavar="DIR", default=SUPPRESS if again else None, help="another matrix folder")
    parser.add_argument("--format", choices=FORMS, default=SUPPRESS if again else "text")
    parser.add_argument(
        "--output", metavar="FILE", default=SUPPRESS if again else None, help="write to FILE instead of standard output",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """List, show or check; returns the exit code."""
    matrix = load(args.matrices)
    width = 0 if args.output else terminal_width()
    if args.action == "show":
        text = shown(open_profile(matrix.folder, args.name), matrix, args.format, width)
    elif args.action == "check":
        text = checked(args, matrix, width)
    else:
        text = listed(load_profiles(matrix.folder), args.format, width)
    write(text if args.output else encodable(text), args.output)
    return int(ExitCode.OK)


def checked(args: argparse.Namespace, matrix: Matrix, width: int) -> str:
    """Every profile against the environment that the options name, the readiest first.

    Raises:
        InputError: The snapshot is unreadable.
        CouldNotLookError: The interpreter cannot be asked.
    """
    from envcheck.checks import waivers  # noqa: PLC0415 - only to check
    from envcheck.checks.context import Context  # noqa: PLC0415 - likewise
    from envcheck.checks.profile.verdict import Readiness, errors_elsewhere, hold_against, readiness_beside  # noqa: PLC0415
    from envcheck.cli.answers import answer  # noqa: PLC0415 - likewise
    from envcheck.cli.inputs import read_environment  # noqa: PLC0415 - likewise
    from envcheck.cli.profile_tables import Row, readiness_table  # noqa: PLC0415 - likewise

    context = Context(read_environment(args), matrix)
    findings, _ = waivers.apply(answer(context, os.environ).findings, waivers.find(os.curdir))
    rows = []
    for profile in load_profiles(matrix.folder):
        outcome = hold_against(context, profile, pins=False)
        elsewhere = errors_elsewhere(findings, outcome)
        rows.append(Row(outcome, readiness_beside(outcome, elsewhere), elsewhere))
    order = (Readiness.READY, Readiness.DEGRADED, Readiness.UNDECIDED, Readiness.CANNOT_RUN)
    rows.sort(key=lambda row: order.index(row.readiness))
    return readiness_table(rows, context.environment.source, args.format, width)


def shown(profile: Profile, matrix: Matrix, form: str, width: int = 0) -> str:
    """One profile whole, in one of `FORMS`; `width` is the terminal's, 0 for none."""
    from envcheck.checks.profile import pins  # noqa: PLC0415 - only to show one

    wanted = wanted_packages(profile, lock_markers(lock_python(profile)))
    against = pins.contradictions(profile, wanted.values(), matrix)
    works = list(pins.known_to_work(wanted, matrix)) if against else []
    if form == "json":
        return json.dumps(_data(profile, against, works), indent=2) + "\n"
    told = [*pins.contradiction_lines(against, wanted), *pins.replaced_lines(wanted), *works]
    sections = list(_sections(profile, told))
    if form == "markdown":
        return "\n".join(_markdown(profile, sections)) + "\n"
    return "\n".join(_text(profile, sections, min(width or WIDTH, WIDTH))) + "\n"


def _data(profile: Profile, against: list[Finding], works: list[str]) -> dict[str, Any]:
    pins = [{"id": item.id, "severity": item.severity.label, "title": item.title} for item in against]
    return {"schema": "envcheck.profile/1", **asdict(profile), "contradictions": pins, "known_to_work": works}


def _sections(profile: Profile, against: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Heading and lines of each part that the profile has; `against` is what contradicts its own list."""
    yield "about", list(_about(profile))
    yield "packages", list(_packages(profile))
    yield "bounds of ours", [f"{item.spec}: {item.why} ({item.source})" for item in profile.bounds]
    yield "not beside it", [f"{item.spec}: {item.why} ({item.source})" for item in profile.forbids]
    yield "hardware", [*map(_need, profile.needs), *([profile.hardware_note] if profile.hardware_note else [])]
    yield "programs and system packages", [*profile.programs, *profile.system]
    yield "servers", [_server(item.name, item.spec or item.version, item.note) for item in profile.servers]
    yield "training", [profile.training] if profile.training else []
    yield "steps a version check cannot see", [f"{number}. {step.text}" for number, step in enumerate(profile.steps, 1)]
    yield "pitfalls", [f"{item.text} [{item.source}]" for item in profile.pitfalls]
    yield "its own pins against the matrix", against
    yield "lock", list(_lock(profile))
    yield "how it is known", list(_provenance(profile))


def _about(profile: Profile) -> Iterator[str]:
    source = profile.source
    yield f"for: {', '.join(profile.use)}"
    yield f"source: {source.url} {source.release}, {source.date}" + (f", commit {source.commit}" if source.commit else "")
    yield f"python: {profile.python}" + (f" ({profile.python_only})" if profile.python_only else "")
    yield f"cuda: {profile.cuda or 'not stated'}" + (f". {profile.cuda_note}" if profile.cuda_note else "")
    if profile.aliases:
        yield f"also called: {', '.join(profile.aliases)}"
    if profile.advisory:
        yield "advice only: nearly everything here is inferred, so a check never fails on it"


def _packages(profile: Profile) -> Iterator[str]:
    if profile.requires:
        yield f"its list: {', '.join(profile.requires)}"
    for group, lines in profile.optional.items():
        yield f"{'with it' if group in profile.groups else 'optional'}, {group}: {', '.join(lines)}"
    if profile.overrides:
        yield f"put in place afterwards: {', '.join(profile.overrides)}"
    if profile.apart:
        yield f"installed apart: {', '.join(f'{item.spec} @ {item.url}' if item.url else item.spec for item in profile.apart)}"
    if profile.also:
        yield f"needed though not listed: {', '.join(profile.also)}"


def _need(need: Need) -> str:
    limit = f"at least {need.at_least}" if need.at_least else f"at most {need.at_most}"
    kind = "cannot run outside" if need.firm else "smallest known to work"
    source = f" ({need.source})" if need.source else ""
    return f"{QUANTITIES[need.what]} {limit}, {kind}{', inferred' if need.inferred else ''}: {need.why}{source}"


def _server(name: str, version: str, note: str) -> str:
    return f"{name} {version}".strip() + (f": {note}" if note else "")


def _lock(profile: Profile) -> Iterator[str]:
    lock = profile.lock
    if lock.refused:
        yield f"none: {lock.refused}"
    yield from (f"without `{item.what}` ({item.why}): {item.do}" for item in lock.left_out)
    if lock.note:
        yield lock.note


def _provenance(profile: Profile) -> Iterator[str]:
    known = profile.provenance
    yield f"read: {', '.join(known.evidence)} (reviewed {known.reviewed})"
    for label, text in (
        ("inferred", ", ".join(known.inferred)), ("not found", ", ".join(known.not_found)), ("resolver", known.resolver),
        ("checked", known.checked), ("notes", known.notes),
    ):  # fmt: skip
        if text:
            yield f"{label}: {text}"


def _text(profile: Profile, sections: Iterable[tuple[str, list[str]]], width: int) -> Iterator[str]:
    yield f"{profile.name}  [{profile.id}, {profile.file}]"
    for heading, lines in sections:
        if lines:
            yield from ("", heading)
            for line in lines:
                yield from textwrap.wrap(
                    line, width, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
                )


def _markdown(profile: Profile, sections: Iterable[tuple[str, list[str]]]) -> Iterator[str]:
    yield f"## {escaped(profile.name)}"
    for heading, lines in sections:
        if lines:
            yield from ("", f"### {heading}", "", *(f"- {escaped(line)}" for line in lines))
