"""What keeps a setup script from reproducing: one rule a function, each from the steps to findings with line numbers."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from envcheck.findings import Evidence, Finding, Fix, Severity
from envcheck.matrix.versions import satisfies
from envcheck.reproduce.steps import (
    Clone,
    Download,
    Install,
    NotUnderstood,
    System,
    TouchSitePackages,
)
from envcheck.reproduce.wanted import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from envcheck.reproduce.intent import Asked, Intent
    from envcheck.reproduce.script import Command, Script
    from envcheck.reproduce.steps import Step

#: Tools of the installation itself: which release of them is used changes what is built, seldom what is installed.
INSTALLERS = frozenset({"pip", "setuptools", "wheel", "uv", "packaging", "ninja"})

#: Packages whose metadata asks for torch without an upper bound.
NEED_TORCH = frozenset({"flash-attn", "causal-conv1d", "mamba-ssm", "deepspeed", "accelerate", "peft", "bitsandbytes", "timm"})

REPEATABLE = (Evidence("docs", "pip documentation: Repeatable Installs"),)
HASHES = (Evidence("docs", "pip documentation: Secure installs (hash-checking mode)"),)
VCS_DOCS = (Evidence("docs", "pip documentation: VCS Support"),)
RECORDS = (Evidence("docs", "PyPA specifications: Recording installed projects (RECORD)"),)
CONDA_DOCS = (Evidence("docs", "conda documentation: Using pip in a conda environment"),)
BASH = (Evidence("docs", "Bash Reference Manual: The Set Builtin"),)

LISTED = 8


@dataclass(frozen=True, slots=True)
class Subject:
    """What the rules look at."""

    where: str
    script: Script
    steps: tuple[Step, ...]
    intent: Intent

    def place(self, command: Command) -> str:
        """`file:line:1`."""
        return f"{self.where}:{command.line}:1"


def names_of(texts: list[str] | tuple[str, ...], most: int = LISTED) -> str:
    """The first names, and how many more."""
    head = ", ".join(texts[:most])
    return head + (f" and {len(texts) - most} more" if len(texts) > most else "")


def unpinned(subject: Subject) -> Iterator[Finding]:
    """Installs that take what is newest on the day."""
    exact: dict[str, str] = {}
    told: set[tuple[str, str]] = set()
    floating: dict[tuple[int, str], list[Asked]] = defaultdict(list)
    for item in subject.intent.asked:
        wanted = item.wanted
        if item.step.locked:
            continue
        if wanted.kind in (Kind.BARE, Kind.RANGE) and not _held(item, exact, subject.intent):
            if item.file and (wanted.text, item.file) in told:
                continue
            told.add((wanted.text, item.file))
            floating[item.line, item.file].append(item)
        elif wanted.version:
            exact[wanted.name] = wanted.version
    for items in floating.values():
        yield from _unpinned(subject, items)


def _held(item: Asked, exact: dict[str, str], intent: Intent) -> bool:
    """Whether an earlier pin, or a constraint, holds what is asked for without a version."""
    name = item.wanted.name
    if name in intent.pinned_by_constraints and item.step.constraints:
        return True
    if not name or {"-U", "--upgrade", "--force-reinstall"} & item.step.flags:
        return False
    return name in exact and satisfies(exact[name], item.wanted.specifier) is not False


def _unpinned(subject: Subject, items: list[Asked]) -> Iterator[Finding]:
    first = items[0]
    tools = [item.wanted.text for item in items if item.wanted.name in INSTALLERS]
    others = [item for item in items if item.wanted.name not in INSTALLERS]
    if others:
        names = names_of([item.wanted.text for item in others])
        from_file = f"`{first.file}` lists them, and line {first.line} installs it" if first.file else ""
        yield Finding(
            "script-project-pulls-unpinned" if first.file else "script-unpinned-install",
            Severity.WARNING,
            f"Line {first.line} installs {_count(len(others), 'package')} without a pinned version"
            + (f" from {first.file}" if first.file else ""),
            subjects=tuple(dict.fromkeys(item.wanted.name for item in others if item.wanted.name)),
            because=tuple(filter(None, (f"not pinned: {names}", from_file))),
            fixes=(Fix("do", "name one version with `==`, or install from a lock with digests (`envcheck lock`)"),),
            evidence=REPEATABLE,
            symptom="The same script gives other packages on another day.",
            place=subject.place(first.step.command),
        )
    if tools:
        yield Finding(
            "script-unpinned-installer",
            Severity.INFO,
            f"Line {first.line} installs {names_of(tools)} in whatever release is newest",
            subjects=tuple(tools),
            evidence=REPEATABLE,
            place=subject.place(first.step.command),
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def unhashed(subject: Subject) -> Iterator[Finding]:
    """One finding for the whole script: without digests, what the packages require is chosen on the day."""
    hashed = {id(step) for step, listed in subject.intent.listed if listed.hashed}
    installs = [
        step
        for step in subject.steps
        if isinstance(step, Install)
        and not step.locked
        and id(step) not in hashed
        and not step.tool.startswith("conda")
        and not ({wanted.name for wanted in step.wanted} <= INSTALLERS and not step.files)
        and not ("--no-deps" in step.flags and all(wanted.commit or wanted.digest for wanted in step.wanted))
    ]
    if installs:
        lines = ", ".join(dict.fromkeys(str(step.command.line) for step in installs))
        yield Finding(
            "script-not-hashed",
            Severity.INFO,
            "No digest is checked, and what the packages themselves require is not pinned",
            because=(f"installed without `--require-hashes` or a lock: line {lines}",),
            fixes=(Fix("do", "lock what it asks for with digests, and let `envcheck setup write` make the script"),),
            evidence=HASHES,
            place=subject.place(installs[0].command),
        )


def installed_over(subject: Subject) -> Iterator[Finding]:
    """A version that one line asks for and a later line replaces."""
    before: dict[str, list[Asked]] = defaultdict(list)
    for item in subject.intent.asked:
        name = item.wanted.name
        if not name:
            continue
        hits = [old for old in before[name] if not old.step.command.excludes(item.step.command) and _replaces(old, item)]
        if hits:
            yield _over(subject, hits[-1], item)
        before[name].append(item)


def _replaces(old: Asked, new: Asked) -> bool:
    """Whether the later requirement leaves another version than the earlier one asked for."""
    if not (old.wanted.specifier or old.wanted.version):
        return False
    if new.wanted.version:
        if old.wanted.version:
            return satisfies(new.wanted.version, f"=={old.wanted.version}") is False
        return satisfies(new.wanted.version, old.wanted.specifier) is False
    if old.wanted.version and new.wanted.specifier:
        return satisfies(old.wanted.version, new.wanted.specifier) is False
    forced = bool({"-U", "--upgrade"} & new.step.flags)
    return bool(old.wanted.version) and forced and new.wanted.kind is Kind.BARE and not new.file


def _over(subject: Subject, old: Asked, new: Asked) -> Finding:
    first, second = _told(old), _told(new)
    return Finding(
        "script-pin-installed-over",
        Severity.WARNING,
        f"`{new.wanted.name}`: what line {old.line} asks for is replaced by line {new.line}",
        subjects=(new.wanted.name,),
        observed={new.wanted.name: new.wanted.version or new.wanted.text},
        because=(f"line {old.line}: {first}", f"line {new.line}: {second}"),
        fixes=(
            Fix("do", "ask once for the version that is meant; where a project's own pin is in the way, override it in a lock"),
        ),
        evidence=REPEATABLE,
        symptom="`pip check` complains, and the order of the lines decides what is installed.",
        place=subject.place(new.step.command),
    )


def _told(item: Asked) -> str:
    return f"`{item.wanted.text}`" + (f" in {item.file}" if item.file else "")


def repositories(subject: Subject) -> Iterator[Finding]:
    """Repositories without a commit."""
    seen: set[tuple[str, str]] = set()
    for item in subject.intent.asked:
        wanted = item.wanted
        if (
            wanted.kind is Kind.VCS
            and not wanted.commit
            and not item.step.locked
            and (wanted.url, item.file or str(item.line)) not in seen
        ):
            seen.add((wanted.url, item.file or str(item.line)))
            yield _moving(subject, item.step.command, wanted.url, wanted.ref, wanted.name, item.file)
    for step in subject.steps:
        if isinstance(step, Clone) and not re.fullmatch(r"[0-9a-f]{7,40}", step.ref):
            yield _moving(subject, step.command, step.url, step.ref, "", "")


def _moving(subject: Subject, command: Command, url: str, ref: str, name: str, file: str) -> Finding:
    release = bool(re.match(r"v?\d+\.\d+", ref))
    said = (
        f"`{ref}` is a {'tag' if release else 'branch or tag'}, which can be moved"
        if ref
        else "no commit, tag or branch is named"
    )
    return Finding(
        "script-repository-without-commit",
        Severity.INFO if release else Severity.WARNING,
        f"Line {command.line} takes {url.rstrip('/').rpartition('/')[2].removesuffix('.git') or url} at no fixed commit",
        subjects=(name,) if name else (),
        because=(said, *((f"it is named in {file}",) if file else ())),
        fixes=(Fix("do", "name the whole commit id: `git+URL@<40 hex digits>`, or `git checkout <commit>` after the clone"),),
        evidence=VCS_DOCS,
        place=subject.place(command),
    )


def downloads(subject: Subject) -> Iterator[Finding]:
    """Files fetched without a digest."""
    for step in subject.steps:
        if isinstance(step, Download) and not step.digest:
            yield _fetched(subject, step.command, step.url, runs=step.runs)
    for item in subject.intent.asked:
        wanted = item.wanted
        if wanted.kind in (Kind.WHEEL, Kind.ARCHIVE) and "://" in wanted.url and not wanted.digest and not item.step.locked:
            yield _fetched(subject, item.step.command, wanted.url, name=wanted.name)


def _fetched(subject: Subject, command: Command, url: str, *, runs: str = "", name: str = "") -> Finding:
    because = (
        (f"what {url} holds is run by `{runs}` at once",) if runs else (f"nothing compares what {url} holds with a known digest",)
    )
    fix = (
        f"append `#sha256=<digest>` to the address of `{name}`"
        if name
        else "compare it: `echo '<digest>  FILE' | sha256sum -c -`"
    )
    return Finding(
        "script-download-without-digest",
        Severity.WARNING,
        f"Line {command.line} downloads a file without checking its digest",
        subjects=(name,) if name else (),
        because=because,
        fixes=(Fix("do", fix),),
        evidence=HASHES,
        place=subject.place(command),
    )


def unread_projects(subject: Subject) -> Iterator[Finding]:
    """Projects and requirement files that the script installs and that could not be read here."""
    for step, listed in subject.intent.listed:
        if listed.reason and not step.locked:
            yield Finding(
                "script-requirements-not-read",
                Severity.WARNING,
                f"What line {step.command.line} installs from {listed.file} is not known",
                because=(listed.reason,),
                certain=False,
                place=subject.place(step.command),
                evidence=REPEATABLE,
                fixes=(Fix("do", "run the lint where the script's project lies beside it"),),
            )


def touched_files(subject: Subject) -> Iterator[Finding]:
    """Files changed inside site-packages."""
    for step in subject.steps:
        if isinstance(step, TouchSitePackages):
            because = [
                f"{step.verb} {step.target}",
                "a version check cannot see it, and the next install of the package undoes it",
            ]
            if re.match(r"(~|/|\$HOME)", step.target) and "<" not in step.target:
                because.append(
                    "the path is fixed in the script: in another environment the files land beside it, without a message"
                )
            yield Finding(
                "script-changes-site-packages",
                Severity.WARNING,
                f"Line {step.command.line} {step.verb} files inside site-packages",
                subjects=_package_below(step.target),
                because=tuple(because),
                place=subject.place(step.command),
                evidence=RECORDS,
                fixes=(
                    Fix("do", "name each file with its digest before and after as a patch of `envcheck setup write --patches`"),
                ),
            )


def _package_below(target: str) -> tuple[str, ...]:
    found = re.search(r"(?:site-packages>?|dist-packages)/([A-Za-z_][\w]*)", target)
    return (found[1].replace("_", "-").lower(),) if found else ()


def torch_owners(subject: Subject) -> Iterator[Finding]:
    """Both conda and pip installing torch."""
    owners: dict[bool, Asked] = {}
    for item in subject.intent.asked:
        if item.wanted.name == "torch":
            owners.setdefault(item.step.tool.startswith("conda"), item)
    if len(owners) == 2 and not owners[True].step.command.excludes(owners[False].step.command):  # noqa: PLR2004 - both
        conda, pip = owners[True], owners[False]
        yield Finding(
            "script-conda-and-pip-torch",
            Severity.WARNING,
            "conda and pip both install torch",
            subjects=("torch",),
            because=(f"conda, line {conda.line}: {_told(conda)}", f"pip, line {pip.line}: {_told(pip)}"),
            fixes=(Fix("do", "let one of them install torch; pip cannot see conda's build and CUDA libraries"),),
            evidence=CONDA_DOCS,
            symptom="Which files are left depends on the order; libtorch and CUDA libraries of two builds can meet.",
            place=subject.place(max(conda.step.command, pip.step.command, key=lambda command: command.line)),
        )


def torch_dragged_in(subject: Subject) -> Iterator[Finding]:
    """Something that requires torch, installed before any torch is pinned."""
    for item in subject.intent.asked:
        name, command = item.wanted.name, item.step.command
        if any(other.wanted.name == "torch" for other in _same(subject, item)):
            return
        if name in NEED_TORCH and "--no-deps" not in item.step.flags and not item.step.locked:
            later = next(
                (other for other in subject.intent.asked if other.wanted.name == "torch" and other.line > item.line), None
            )
            if later is not None:
                yield Finding(
                    "script-torch-dragged-in",
                    Severity.WARNING,
                    f"Line {item.line}: `{name}` brings the newest torch; line {later.line} asks for {later.wanted.text}",
                    subjects=(name, "torch"),
                    because=(f"`{name}` requires torch without an upper bound, and none is installed yet",),
                    fixes=(Fix("do", f"install `{later.wanted.text}` first, or `{name}` with `--no-deps`"),),
                    evidence=REPEATABLE,
                    place=subject.place(command),
                )
            return


def _same(subject: Subject, item: Asked) -> list[Asked]:
    return [other for other in subject.intent.asked if other.step.command is item.step.command]


def variables(subject: Subject) -> Iterator[Finding]:
    """Requirements that hang on what the script is told."""
    for item in subject.intent.asked:
        if item.wanted.kind is Kind.UNKNOWN and not item.step.locked:
            yield Finding(
                "script-install-depends",
                Severity.WARNING,
                f"What line {item.line} installs depends on something not known here",
                subjects=(item.wanted.name,) if item.wanted.name else (),
                because=(f"`{item.wanted.text}`",),
                certain=False,
                evidence=REPEATABLE,
                place=subject.place(item.step.command),
            )


def not_understood(subject: Subject) -> Iterator[Finding]:
    """Every step whose effect is not known, each by itself: none is dropped."""
    entries = [(step.command.line, step.command.source, step.reason) for step in subject.steps if isinstance(step, NotUnderstood)]
    entries += [(item.line, item.source, item.reason) for item in subject.script.unread]
    for line, source, reason in sorted(entries):
        yield Finding(
            "script-step-not-understood",
            Severity.WARNING,
            f"Line {line} was not understood: `{source}`",
            because=(reason,),
            certain=False,
            place=f"{subject.where}:{line}:1",
        )


def not_strict(subject: Subject) -> Iterator[Finding]:
    """A script that goes on after a failed step."""
    if not subject.script.strict and any(isinstance(step, Install) for step in subject.steps):
        yield Finding(
            "script-goes-on-after-failure",
            Severity.INFO,
            "Without `set -e` a step that fails is passed over",
            fixes=(Fix("do", "`set -euo pipefail` at the top"),),
            evidence=BASH,
            place=f"{subject.where}:1:1",
        )


def passed_over(subject: Subject) -> Iterator[Finding]:
    """Installs whose failure the script passes over with `|| true` and the like."""
    for step in subject.steps:
        if isinstance(step, Install) and step.command.excused:
            yield Finding(
                "script-failure-passed-over",
                Severity.INFO,
                f"Where line {step.command.line} fails, the script goes on",
                because=(step.command.source,),
                fixes=(Fix("do", "let it fail, or write both cases with `if`"),),
                evidence=BASH,
                symptom="What is installed depends on what the index, the network or the compiler did on that day.",
                place=subject.place(step.command),
            )


def system_packages(subject: Subject) -> Iterator[Finding]:
    """Packages of the operating system, in whatever version it offers."""
    steps = [step for step in subject.steps if isinstance(step, System) and any("=" not in name for name in step.names)]
    if steps:
        names = [name for step in steps for name in step.names if "=" not in name]
        yield Finding(
            "script-system-packages",
            Severity.INFO,
            f"{steps[0].tool} installs {_count(len(names), 'system package')} in whatever version there is",
            because=(names_of(names),),
            evidence=REPEATABLE,
            place=subject.place(steps[0].command),
        )


RULES: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    unpinned,
    unhashed,
    installed_over,
    repositories,
    downloads,
    unread_projects,
    touched_files,
    torch_owners,
    torch_dragged_in,
    variables,
    not_understood,
    not_strict,
    passed_over,
    system_packages,
)
