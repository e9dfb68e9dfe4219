"""`envcheck matrix`: the database itself."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING

from envcheck.errors import ExitCode, InputError, UsageError
from envcheck.matrix.build import plain_rule
from envcheck.matrix.database import load

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from envcheck.matrix.database import Matrix
    from envcheck.matrix.rule import Rule


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `envcheck matrix`."""
    parser.add_argument("--matrices", metavar="DIR", help="another matrix folder")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="every rule, a line each")
    listing.add_argument("--package", metavar="NAME", help="only rules about this package")
    listing.add_argument("--status", choices=("bad", "suspect", "change", "good"))
    actions.add_parser("show", help="one rule, whole").add_argument("id", metavar="ID")
    actions.add_parser("lint", help="what is wrong with the data")
    actions.add_parser("stats", help="what the database holds")


def run(args: argparse.Namespace) -> int:
    """Run one action; returns the exit code."""
    if args.action == "lint":
        return _lint(args)
    matrix = load(args.matrices)
    if args.action == "list":
        return _list(matrix, args)
    return _show(matrix, args) if args.action == "show" else _stats(matrix, args)


def _lint(args: argparse.Namespace) -> int:
    from envcheck.matrix.audit import audit  # noqa: PLC0415 - range algebra is not needed elsewhere
    from envcheck.matrix.patches import load_patches  # noqa: PLC0415 - only deep checks read them otherwise
    from envcheck.matrix.profile_audit import audit_profiles  # noqa: PLC0415 - likewise

    try:
        matrix = load(args.matrices, cache=False)
        rules = list(matrix.rules())
        problems = audit(rules, matrix.kinds, matrix.uses) + _lint_signatures(matrix.folder, rules)
        problems += audit_profiles(matrix.folder, {patch.id for patch in load_patches(matrix.folder)})
        count = len(matrix)
    except InputError as error:
        if not error.problems:
            raise
        problems, count = list(error.problems), 0
    if args.format == "json":
        print(json.dumps({"schema": "envcheck.matrix-lint/1", "rules": count, "problems": problems}, indent=2))
    else:
        for problem in problems:
            print(problem)
        print(f"{count} rules, {len(problems)} problems", file=sys.stderr)
    return int(ExitCode.FINDINGS if problems else ExitCode.OK)


def _lint_signatures(folder: Path, rules: list[Rule]) -> list[str]:
    from envcheck.forensics.diagnose import NORM_DIFFERS  # noqa: PLC0415 - only for lint
    from envcheck.forensics.history import STEP_SKIPPED  # noqa: PLC0415 - only for lint
    from envcheck.matrix import signature  # noqa: PLC0415 - only for lint
    from envcheck.monitor.observation import Kind  # noqa: PLC0415 - only for lint

    kinds = {kind.value for kind in Kind} | {NORM_DIFFERS, STEP_SKIPPED}
    return signature.audit(signature.load(folder), frozenset(rule.id for rule in rules), frozenset(kinds))


def _list(matrix: Matrix, args: argparse.Namespace) -> int:
    rules = [
        rule
        for rule in matrix.rules()
        if (not args.package or args.package in rule.packages) and (not args.status or rule.status == args.status)
    ]
    if args.format == "json":
        print(json.dumps([plain_rule(rule) for rule in rules], indent=2, default=str))
        return int(ExitCode.OK)
    for rule in rules:
        print(f"{rule.status:8} {rule.id:58} {rule.title}")
    return int(ExitCode.OK)


def _show(matrix: Matrix, args: argparse.Namespace) -> int:
    rules = list(matrix.rules())
    rule = next((rule for rule in rules if rule.id == args.id), None)
    if rule is None:
        from difflib import get_close_matches  # noqa: PLC0415 - only on this path

        near = get_close_matches(args.id, [rule.id for rule in rules], n=3, cutoff=0.5)
        hints = (f"did you mean {', '.join(f'`{name}`' for name in near)}?",) if near else ()
        raise UsageError(f"no rule is called `{args.id}`", hints=hints)
    print(json.dumps(plain_rule(rule), indent=2, default=str) if args.format == "json" else _text(rule, matrix))
    return int(ExitCode.OK)


def _text(rule: Rule, matrix: Matrix) -> str:
    lines = [f"{rule.id}  ({rule.status}, {rule.effect}, {rule.file})", f"  {rule.title}", ""]
    lines += [f"  when   {name} {spec}" for name, spec in rule.packages.items()]
    lines += [f"  when   {item}" for item in rule.settings]
    lines += [f"  when   {name} {text}" for name, text in rule.facts.items()]
    lines += [f"  when   {item}" for item in rule.compare]
    lines += [f"  when   your code {matrix.uses.get(word, word)}" for word in rule.uses]
    for label, text in (
        ("seen", rule.symptom), ("error", rule.error), ("bounds", rule.bounds), ("measured", rule.measured),
        ("uncertain", rule.uncertain), ("reviewed", rule.reviewed),
    ):  # fmt: skip
        lines += [f"  {label:10} {text}"] if text else []
    lines += [f"  fix        {fix.as_fix().change}" for fix in rule.fix]
    lines += [f"  evidence   {item.kind}: {item.ref}" for item in rule.evidence]
    return "\n".join(lines)


def _stats(matrix: Matrix, args: argparse.Namespace) -> int:
    rules = list(matrix.rules())
    counts = {
        "folder": str(matrix.folder),
        "digest": matrix.digest,
        "rules": len(rules),
        "status": dict(Counter(rule.status for rule in rules).most_common()),
        "effect": dict(Counter(rule.effect for rule in rules).most_common()),
        "evidence": dict(Counter(item.kind for rule in rules for item in rule.evidence).most_common()),
        "packages": dict(Counter(name for rule in rules for name in rule.packages).most_common()),
        "tables": sorted(matrix.tables),
    }
    if args.format == "json":
        print(json.dumps(counts, indent=2))
        return int(ExitCode.OK)
    for key, value in counts.items():
        shown = ", ".join(f"{name} {number}" for name, number in value.items()) if isinstance(value, dict) else value
        print(f"{key:9} {', '.join(shown) if isinstance(shown, list) else shown}")
    return int(ExitCode.OK)
