"""A program that answers `uv pip compile` over a table of versions, for tests without an index."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import tomli
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: A few releases of the packages that most rules are about, oldest first.
VERSIONS = {
    "deepspeed": ["0.16.9", "0.17.5", "0.17.6", "0.18.2", "0.18.3", "0.18.4", "0.19.8", "0.20.0"],
    "transformers": ["4.46.0", "4.57.6", "5.2.0"],
    "torch": ["2.3.0", "2.5.1", "2.10.0", "2.13.0", "2.15.0"],
    "torchvision": ["0.18.0", "0.20.1", "0.25.0", "0.28.0"],
    "accelerate": ["1.12.0", "1.15.0"],
    "numpy": ["1.26.4", "2.4.6"],
    "setuptools": ["80.9.0"],
    "idna": ["3.9", "3.10"],
}

WHEEL = "https://files.pythonhosted.org/{0}-{1}-py3-none-any.whl"


def write_uv(folder: Path, **table: object) -> Path:
    """The program below `folder`; `fail` and `code` make it end with that text on stderr, `say` makes it say that first."""
    place = folder / "table.json"
    place.write_text(json.dumps({"versions": VERSIONS, "needs": {"torch": ["numpy"]}, **table}))
    program = folder / "uv"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "{folder}" "$@"\n')
    program.chmod(0o755)
    return program


def calls(folder: Path) -> list[list[str]]:
    """The command lines the program was given."""
    log = folder / "log"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def main(folder: Path, argv: list[str]) -> int:
    """Choose the newest version of everything, or say that there is none."""
    table = json.loads((folder / "table.json").read_text())
    with (folder / "log").open("a") as log:
        log.write(json.dumps(argv) + "\n")
    sys.stderr.write(table.get("say", ""))
    if "fail" in table:
        sys.stderr.write(table["fail"])
        return int(table["code"])
    output = Path(argv[argv.index("--output-file") + 1])
    kept = {item["name"]: item["version"] for item in tomli.loads(output.read_text())["packages"]} if output.exists() else {}
    source = next(word for word in argv if word.endswith("requirements.in"))
    asked = [Requirement(line) for line in Path(source).read_text().splitlines()]
    bounds = Path(argv[argv.index("--constraints") + 1]).read_text().splitlines()
    chosen = choose(table, asked, [*asked, *map(Requirement, bounds)], kept)
    if isinstance(chosen, str):
        sys.stderr.write(f"error: No solution found when resolving dependencies\n  cause: Because no version of {chosen} fits.\n")
        return 1
    output.write_text(lock(chosen))
    return 0


def choose(
    table: dict[str, Any], asked: list[Requirement], bounds: list[Requirement], kept: dict[str, str],
) -> dict[str, str] | str:  # fmt: skip
    chosen: dict[str, str] = {}
    queue: list[str] = [canonicalize_name(item.name) for item in asked]
    while queue:
        name = queue.pop(0)
        if name not in chosen:
            specs = [item.specifier for item in bounds if canonicalize_name(item.name) == name]
            fitting = [text for text in table["versions"].get(name, []) if all(spec.contains(text) for spec in specs)]
            if not fitting:
                return name
            chosen[name] = kept[name] if kept.get(name) in fitting else fitting[-1]
            queue += table["needs"].get(name, [])
    return chosen


def lock(chosen: dict[str, str]) -> str:
    lines = ['lock-version = "1.0"', 'created-by = "uv"', 'requires-python = ">=3.11"']
    for name, version in sorted(chosen.items()):
        wheel = f'{{ url = "{WHEEL.format(name.replace("-", "_"), version)}", hashes = {{ sha256 = "{"0" * 64}" }} }}'
        lines += ["[[packages]]", f'name = "{name}"', f'version = "{version}"', f"wheels = [{wheel}]"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
