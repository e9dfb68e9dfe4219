"""A plan as a bash script: a head of quoted values, and a body that is the same for every plan (`body.sh`)."""

from __future__ import annotations

import hashlib
import shlex
from importlib.resources import files
from typing import TYPE_CHECKING

from envcheck.errors import InputError
from envcheck.reproduce.plan import LockKind

if TYPE_CHECKING:
    from envcheck.reproduce.plan import PlacedLock, Plan

#: The oldest uv that reads both forms of lock as this project uses them.
UV_LEAST = "0.9"

HEAD = """#!/usr/bin/env bash
# Makes an environment from a lock in which every file is fixed by its digest, and checks it.
#
#   bash {file}{pad}make the environment and show `envcheck check` on it
#   bash {file} --no-check{gap}the same without the check
{trial}#
# Needs {python} (PYTHON=/path/to/python chooses one); no root. ENVCHECK_VENV names another folder. Run it again at
# any time: what is there is kept, and a run that was killed half-way is completed.
# Written by `envcheck setup write`; change the lock, not this file.
# shellcheck disable=SC2016
set -euo pipefail

"""


def script_of(plan: Plan, file: str) -> str:
    """The script for a plan; `file` is its own name.

    Raises:
        InputError: A value holds a NUL character, which no shell can.
    """
    stem = plain_name(file)
    name = f"{stem}.sh"
    trial = f"#   bash {name} --test{' ' * 8}the same with the test tools, then run all checks and tests\n" if plan.trial else ""
    head = HEAD.format(file=name, pad=" " * 15, gap=" " * 4, trial=trial, python=plan.pythons.words)
    values = "".join(f"{key}={shlex.quote(value)}\n" for key, value in assignments(plan, stem).items())
    indexes = " ".join(shlex.quote(word) for word in index_options(plan))
    text = f"{head}{values}indexes=({indexes})\n\n{_write_lock(plan.lock)}{program('body.sh')}"
    if "\0" in text:
        raise InputError("the lock holds a NUL character")
    return text


def plain_name(file: str) -> str:
    """The stem of a file's name with nothing in it but letters, digits, `_`, `.` and `-`: it stands in comments and messages."""
    stem = file.rpartition("/")[2].removesuffix(".sh")
    return (
        "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_.-") else "_" for letter in stem)
        or "environment_setup"
    )


def assignments(plan: Plan, stem: str) -> dict[str, str]:
    """The values that the body reads, by variable."""
    trial = plan.trial
    return {
        "name": stem,
        "python_words": plan.pythons.words,
        "python_condition": plan.pythons.condition,
        "python_names": " ".join(plan.pythons.names),
        "python_request": f">=3.{plan.pythons.lowest}" if plan.pythons.open and not plan.conda else f"3.{plan.pythons.highest}",
        "system": plan.system,
        "machine": plan.machine,
        "venv": plan.venv,
        "conda_name": plan.conda,
        "lock": plan.lock.path,
        "lock_file": plan.lock.file,
        "lock_form": plan.lock.kind.value,
        "test_lock": trial.lock.path if trial else "",
        "test_script": trial.script if trial else "",
        "editable": plan.editable,
        "build": "\n".join(plan.build),
        "profile": plan.by_hand.profile if plan.by_hand else "",
        "by_hand": " ".join(plan.by_hand.packages) if plan.by_hand else "",
        "left_out": "\n".join(plan.by_hand.left_out) if plan.by_hand else "",
        "by_hand_steps": "\n".join(plan.by_hand.steps) if plan.by_hand else "",
        "probe": "yes" if plan.probe else "no",
        "patches": plan.patches_json,
        "plan": plan.digest(),
        "uv_least": UV_LEAST,
        "uv_lock": program("uv.txt").rstrip("\n"),
        "keeper": program("target/keeper.py").rstrip("\n"),
    }


def index_options(plan: Plan) -> tuple[str, ...]:
    """The options of uv for the plan's extra indexes; digests make it safe to take a file from whichever has it."""
    options = tuple(word for url in plan.indexes for word in ("--index", url))
    return (*options, "--index-strategy", "unsafe-best-match") if options else ()


def program(name: str) -> str:
    """The text of a file of this package."""
    return files("envcheck.reproduce").joinpath(name).read_text(encoding="utf-8")


def _write_lock(lock: PlacedLock) -> str:
    """The function that prints the lock inside the script: a here-document whose end no line of the lock can be."""
    if lock.path:
        return "write_lock() { :; }\n"
    text = lock.text if lock.text.endswith("\n") else f"{lock.text}\n"
    end = f"END_OF_LOCK_{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    return f"write_lock() {{\n  cat <<'{end}'\n{text}{end}\n}}\n"


def lock_form(kind: LockKind) -> tuple[str, ...]:
    """The option of uv that makes a requirements file without digests an error; a pylock has them by its form."""
    return ("--require-hashes",) if kind is LockKind.REQUIREMENTS else ()
