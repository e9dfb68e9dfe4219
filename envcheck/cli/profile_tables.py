"""The tables of `envcheck profiles`: what each profile is, and which of them an environment is ready for."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

from envcheck.findings import Severity
from envcheck.matrix.profile_requirements import lock_markers, lock_python, wanted_packages
from envcheck.report.escape import code_span
from envcheck.report.escape import markdown as escaped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from envcheck.checks.profile.verdict import ProfileOutcome, Readiness
    from envcheck.findings import Finding
    from envcheck.matrix.profile import Profile

COLUMNS = ("profile", "for", "python", "torch", "cuda", "gpu", "name")
READINESS_COLUMNS = ("profile", "verdict", "python", "packages", "servers", "hardware", "steps", "in the way")

#: A specifier set longer than this is cut to its first part where the terminal is narrow.
LONG = 10


class Row(NamedTuple):
    """One profile held against the environment.

    Attributes:
        outcome: What its checks came to.
        readiness: The verdict, with the errors that the matrix has against the environment.
        elsewhere: Those errors.
    """

    outcome: ProfileOutcome
    readiness: Readiness
    elsewhere: Sequence[Finding]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Titles of what keeps it from being ready, most severe first."""
        own = [item for item in self.outcome.findings if item.severity > Severity.INFO]
        return tuple(item.title for item in (*sorted(own, key=lambda item: -item.severity), *self.elsewhere))


def listed(profiles: Sequence[Profile], form: str, width: int = 0) -> str:
    """Every profile, in one of the forms `text`, `json` and `markdown`; `width` is the terminal's, 0 for none."""
    rows = [_row(profile) for profile in profiles]
    if form == "json":
        names = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        return json.dumps({"schema": "envcheck.profiles/1", "profiles": names}, indent=2) + "\n"
    if form == "markdown":
        return _markdown(COLUMNS, rows)
    short = [(row[0], row[1], row[2], _first(row[3]), *row[4:6]) for row in rows]
    for table in ([COLUMNS, *rows], [COLUMNS[:6], *short]):
        lines = list(_aligned(table))
        if not width or max(map(len, lines)) <= width:
            return "\n".join(lines) + "\n"
    return "".join(f"{row[0]}\n{_described(row, width)}\n" for row in rows)


def _row(profile: Profile) -> tuple[str, ...]:
    torch = wanted_packages(profile, lock_markers(lock_python(profile))).get("torch")
    torch_text = (torch.spec.removeprefix("==") or "any") if torch else "-"
    return (profile.id, "+".join(profile.use), profile.python, torch_text, _short(profile.cuda), gpu_text(profile), profile.name)


def _described(row: tuple[str, ...], width: int) -> str:
    """The cells of a row behind its id, for a terminal too narrow for a table."""
    _, use, python, torch, cuda, gpu, _ = row
    parts = [use, f"python {python}", *([] if torch == "-" else [f"torch {torch}"]), f"CUDA {cuda}", f"GPU {gpu}"]
    return textwrap.fill("; ".join(parts), max(width, 40), initial_indent=" " * 4, subsequent_indent=" " * 4)


def _first(spec: str) -> str:
    """`>=2.11.0,...` for a long specifier set; its lower bound where there is one."""
    parts = sorted(spec.split(","), key=lambda part: not part.startswith((">", "~", "==")))
    return spec if len(spec) <= LONG else f"{parts[0]},..."


def _short(cuda: str) -> str:
    """The version without the remark that follows it."""
    return "any" if cuda.startswith("any") else cuda.partition(" (")[0] or "-"


def gpu_text(profile: Profile) -> str:
    """`8 x 80 GB, 8.0+`: number, memory and compute capability, as far as known."""
    count, memory = profile.need("gpus"), profile.need("gpu_memory_gb")
    total, capability = profile.need("total_gpu_memory_gb"), profile.need("compute_capability")
    card = f"{memory.at_least} GB" if memory else ""
    parts = [f"{count.at_least} x {card or 'GPU'}" if count else card]
    parts += [f"{total.at_least} GB in all"] if total else []
    parts += [f"{capability.at_least}+"] if capability else []
    return ", ".join(part for part in parts if part) or "none"


def readiness_table(rows: Sequence[Row], source: str, form: str, width: int = 0) -> str:
    """Which profiles an environment is ready for, the readiest first; `width` cuts the last column of the text."""
    if form == "json":
        found = {"schema": "envcheck.readiness/1", "environment": source, "profiles": [_data(row) for row in rows]}
        return json.dumps(found, indent=2) + "\n"
    cells = [_cells(row) for row in rows]
    tally = _tally(rows)
    if form == "markdown":
        return f"{_markdown(READINESS_COLUMNS, cells)}\n{escaped(tally)}\n"
    lines = list(_aligned([READINESS_COLUMNS, *cells]))
    if width and max(map(len, lines)) > width:
        lines = list(_aligned([READINESS_COLUMNS[:2] + READINESS_COLUMNS[-1:], *((row[0], row[1], row[-1]) for row in cells)]))
    cut = [line if not width or len(line) <= width else f"{line[: width - 3]}..." for line in lines]
    return "\n".join([*cut, "", tally, "`envcheck check --profile NAME` says why, and what to do", ""])


def _cells(row: Row) -> tuple[str, ...]:
    areas = row.outcome.areas
    more = f" (and {len(row.reasons) - 1} more)" if len(row.reasons) > 1 else ""
    in_the_way = f"{row.reasons[0]}{more}" if row.reasons else ""
    if row.outcome.profile.advisory:
        in_the_way = f"advice only: {in_the_way or 'nearly everything about it is inferred'}"
    shown = [areas[name].value.removeprefix("will run ") for name in ("python", "packages", "servers", "hardware")]
    return (row.outcome.profile.id, row.readiness.value.removeprefix("will run "), *shown, _steps(row.outcome), in_the_way)


def _steps(outcome: ProfileOutcome) -> str:
    """How many of the steps are seen to be done; the others are for you to verify."""
    return f"{sum(state.value == 'done' for _, state in outcome.steps)}/{len(outcome.steps)}"


def _tally(rows: Sequence[Row]) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.readiness.value] = counts.get(row.readiness.value, 0) + 1
    return f"{len(rows)} profiles: {', '.join(f'{count} {word}' for word, count in counts.items())}"


def _data(row: Row) -> dict[str, Any]:
    from envcheck.checks.profile.verdict import data  # noqa: PLC0415 - only to check

    return {**data(row.outcome, row.readiness), "reasons": list(row.reasons)}


def _aligned(table: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[number]) for row in table) for number in range(len(table[0]))]
    for row in table:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(code_span(cell) if cell else '' for cell in row)} |" for row in rows)]) + "\n"
