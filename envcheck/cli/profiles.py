"""`envcheck profiles`: the projects it knows, and what each of them needs."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from envcheck.cli.console import encodable, write
from envcheck.errors import ExitCode
from envcheck.matrix.database import load
from envcheck.matrix.profile_requirements import lock_markers, lock_python, wanted_packages
from envcheck.matrix.profiles import load_profiles, open_profile
from envcheck.report.escape import code_span
from envcheck.report.escape import markdown as escaped

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from envcheck.findings import Finding
    from envcheck.matrix.database import Matrix
    from envcheck.matrix.profile import Need, Profile

FORMS = ("text", "json", "markdown")
WIDTH = 118
COLUMNS = ("profile", "for", "python", "torch", "cuda", "gpu", "name")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `envcheck profiles`."""
    _add_options(parser)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    _add_options(actions.add_parser("list", help="every profile, a line each (the default)"), again=True)
    show = actions.add_parser("show", help="what one project needs, the steps a version check cannot see, and pitfalls")
    show.add_argument("name", metavar="NAME", help="in any spelling; the beginning will do where it is the only one")
    _add_options(show, again=True)


def _add_options(parser: argparse.ArgumentParser, *, again: bool = False) -> None:
    """The options, before the action or `again` after it, where they win only if they are given."""
    from argparse import SUPPRESS  # noqa: PLC0415 - argparse is loaded by now

    parser.add_argument("--matrices", metavar="DIR", default=SUPPRESS if again else None, help="another matrix folder")
    parser.add_argument("--format", choices=FORMS, default=SUPPRESS if again else "text")
    parser.add_argument(
        "--output", metavar="FILE", default=SUPPRESS if again else None, help="write to FILE instead of standard output",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """List or show; returns the exit code."""
    matrix = load(args.matrices)
    if args.action == "show":
        text = shown(open_profile(matrix.folder, args.name), matrix, args.format)
    else:
        text = listed(load_profiles(matrix.folder), args.format)
    write(text if args.output else encodable(text), args.output)
    return int(ExitCode.OK)


def listed(profiles: list[Profile], form: str) -> str:
    """The listing in one of `FORMS`."""
    rows = [_row(profile) for profile in profiles]
    if form == "json":
        names = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        return json.dumps({"schema": "envcheck.profiles/1", "profiles": names}, indent=2) + "\n"
    if form == "markdown":
        lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        return "\n".join([*lines, *(f"| {' | '.join(map(code_span, row))} |" for row in rows)]) + "\n"
    table = [COLUMNS, *rows]
    widths = [max(len(row[number]) for row in table) for number in range(len(COLUMNS))]
    return "".join("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in table)


def _row(profile: Profile) -> tuple[str, ...]:
    torch = wanted_packages(profile, lock_markers(lock_python(profile))).get("torch")
    torch_text = (torch.spec.removeprefix("==") or "any") if torch else "-"
    return (profile.id, "+".join(profile.use), profile.python, torch_text, _short(profile.cuda), gpu_text(profile), profile.name)


def _short(cuda: str) -> str:
    """The version without the remark that follows it."""
    return "any" if cuda.startswith("any") else cuda.partition(" (")[0]


def gpu_text(profile: Profile) -> str:
    """`8 x 80 GB, 8.0+`: number, memory and compute capability, as far as known."""
    count, memory = profile.need("gpus"), profile.need("gpu_memory_gb")
    total, capability = profile.need("total_gpu_memory_gb"), profile.need("compute_capability")
    card = f"{memory.at_least} GB" if memory else ""
    parts = [f"{count.at_least} x {card or 'GPU'}" if count else card]
    parts += [f"{total.at_least} GB in all"] if total else []
    parts += [f"{capability.at_least}+"] if capability else []
    return ", ".join(part for part in parts if part) or "none"


def shown(profile: Profile, matrix: Matrix, form: str) -> str:
    """One profile whole, in one of `FORMS`."""
    from envcheck.checks.profile.pins import contradictions  # noqa: PLC0415 - only to show one

    wanted = wanted_packages(profile, lock_markers(lock_python(profile)))
    against = contradictions(profile, wanted.values(), matrix)
    if form == "json":
        return json.dumps(_data(profile, against), indent=2) + "\n"
    sections = list(_sections(profile, against))
    if form == "markdown":
        return "\n".join(_markdown(profile, sections)) + "\n"
    return "\n".join(_text(profile, sections)) + "\n"


def _data(profile: Profile, against: list[Finding]) -> dict[str, Any]:
    pins = [{"id": item.id, "severity": item.severity.label, "title": item.title} for item in against]
    return {"schema": "envcheck.profile/1", **asdict(profile), "contradictions": pins}


def _sections(profile: Profile, against: list[Finding]) -> Iterator[tuple[str, list[str]]]:
    """Heading and lines of each part that the profile has."""
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
    yield "its own pins against the matrix", [f"{item.title} ({item.id})" for item in against]
    yield "lock", list(_lock(profile))
    yield "how it is known", list(_provenance(profile))


def _about(profile: Profile) -> Iterator[str]:
    source = profile.source
    yield f"for: {', '.join(profile.use)}"
    yield f"source: {source.url} {source.release}, {source.date}" + (f", commit {source.commit}" if source.commit else "")
    yield f"python: {profile.python}" + (f" ({profile.python_only})" if profile.python_only else "")
    yield f"cuda: {profile.cuda}" + (f". {profile.cuda_note}" if profile.cuda_note else "")
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
    return f"{need.what.replace('_', ' ')} {limit}, {kind}{', inferred' if need.inferred else ''}: {need.why}{source}"


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


def _text(profile: Profile, sections: Iterable[tuple[str, list[str]]]) -> Iterator[str]:
    yield f"{profile.name}  [{profile.id}, {profile.file}]"
    for heading, lines in sections:
        if lines:
            yield from ("", heading)
            for line in lines:
                yield from textwrap.wrap(
                    line, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
                )


def _markdown(profile: Profile, sections: Iterable[tuple[str, list[str]]]) -> Iterator[str]:
    yield f"## {escaped(profile.name)}"
    for heading, lines in sections:
        if lines:
            yield from ("", f"### {heading}", "", *(f"- {escaped(line)}" for line in lines))
