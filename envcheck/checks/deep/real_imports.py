"""`--import`: each watched package is really imported, in a child process of the environment's interpreter."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from envcheck.checks.deep import import_worker
from envcheck.checks.rules import speaking
from envcheck.errors import ToolError
from envcheck.facts.metadata import normalised
from envcheck.findings import Evidence, Finding, Fix, Severity, Skip
from envcheck.matrix.message import knows
from envcheck.matrix.rule import LOUD
from envcheck.process import Completed, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.context import Context, Outcome
    from envcheck.checks.deep.target import Target
    from envcheck.matrix.rule import Rule

#: Seconds for one package with the parts that it loads on demand; torch on a cold network disk needs a minute.
DEADLINE = 180.0

LONGEST = 300


@dataclass(frozen=True, slots=True)
class Attempt:
    """How the import of one module ended; `error` is empty where it went well."""

    module: str
    error: str = ""
    message: str = ""
    place: str = ""


def check_real_imports(target: Target, timeout: float = DEADLINE) -> Iterator[Outcome]:
    """A finding for each watched module whose import fails, crashes or does not end.

    Raises:
        ToolError: The interpreter cannot be run.
    """
    rows = target.context.matrix.table("watched_imports").get("rows", ())
    installed = [row for row in rows if normalised(row["module"]) in target.context.environment.packages]
    if not installed:
        yield Skip("import", "none of the packages that are watched is installed")
    for number, row in enumerate(installed, 1):
        target.say(f"importing {row['module']} ({number} of {len(installed)})")
        modules = [row["module"], *row.get("lazy", ())]
        for attempt in import_all(target.interpreter.executable, modules, timeout):
            if attempt.error:
                yield _finding(target.context, attempt)


def import_all(python: str, modules: list[str], timeout: float) -> Iterator[Attempt]:
    """Import modules in one child; after one that does not come back, the rest is not tried.

    Raises:
        ToolError: The interpreter cannot be run.
    """
    with tempfile.TemporaryDirectory(prefix="envcheck-") as folder:
        answer = Path(folder, "answer.jsonl")
        ended = run([python, "-B", import_worker.__file__, str(answer), *modules], timeout=timeout, cwd=folder)
        if not answer.exists():
            raise ToolError(f"the interpreter did not start: {ended.outcome}", where=python, hints=(ended.stderr[-LONGEST:],))
        yield from read_answer(answer.read_text(encoding="utf-8", errors="replace"), ended)


def read_answer(text: str, ended: Completed) -> Iterator[Attempt]:
    """The attempts that a worker wrote down; one that was begun and not ended crashed or hung."""
    begun = ""
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # cut off by the crash
        begun = str(entry.get("start", ""))
        if "done" in entry:
            yield Attempt(*(str(entry.get(key, "")) for key in ("done", "error", "message", "place")))
    if begun:
        yield Attempt(begun, "Timeout" if ended.timed_out else "Crash", ended.outcome)


def _finding(context: Context, attempt: Attempt) -> Finding:
    root = normalised(attempt.module.partition(".")[0])
    package = context.environment.packages[root]
    rules = list(_rules(context, attempt, root))
    others = [name for rule in rules for name in rule.packages if name in context.environment.packages]
    subjects = tuple(dict.fromkeys((root, *others)))
    kind = {"Crash": "import-crashes", "Timeout": "import-hangs"}.get(attempt.error, "import-fails")
    how = {"Crash": f"crashes ({attempt.message})", "Timeout": "does not end"}.get(attempt.error, f"raises {attempt.error}")
    message = attempt.message.strip().splitlines()
    return Finding(
        id=kind,
        severity=Severity.ERROR if "." not in attempt.module else Severity.WARNING,
        title=f"`import {attempt.module}` {how}",
        subjects=subjects,
        observed={name: context.environment.packages[name].version for name in subjects},
        because=(*((message[0][:LONGEST],) if message and kind == "import-fails" else ()),
                 *(f"rule `{rule.id}`: {rule.title}" for rule in rules)),
        fixes=tuple(fix.as_fix() for rule in rules for fix in rule.fix) or (Fix("do", f"reinstall `{root}`"),),
        evidence=(*(item for rule in rules for item in rule.evidence), Evidence("code", f"{root} {package.version}, run here")),
        place=attempt.place,
        symptom=f"The same happens to every program that imports `{attempt.module}`.",
    )  # fmt: skip


def _rules(context: Context, attempt: Attempt, root: str) -> Iterator[Rule]:
    """Rules that hold here, speak of this package, and know the message."""
    text = f"{attempt.error}: {attempt.message}"
    for match in speaking(context, lambda item: item.sketch.effect in LOUD):
        if not isinstance(match, Skip) and root in match.rule.packages and knows(match.rule.error, text):
            yield match.rule
