"""`envcheck check` over an environment of 300 distributions, against bare Python and `pip check` in the same run.

    python benchmarks/check.py [--distributions 300] [--repeat 15]

Makes a venv with made-up distributions (realistic metadata: a description of 20 kB, eight requirements each, all
fulfilled) and the metadata of a training stack, so that rules and known-good sets are really compared; puts envcheck and
pip on its path, and reports the best wall and processor time of each command, run in turn, the ratios, what a ten-fold
matrix adds, and the peak memory of the check. The matrix is made ten-fold three times: with copies of every rule; with copies
that have other versions in their ranges (`varied`), so that there are ten times as many conditions too, and some more findings;
and with copies about packages that are not installed (`elsewhere`). Four states are measured:
nothing changed since the last check (a job that starts again); something changed, a setting or the driver (every check is
computed; the matrix, metadata and what was said of each pair of a version and a range come from the cache); nothing compared
before (the same without the pairs, as after new releases of everything); and an empty cache (the very first run).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: The stack whose metadata stands beside the made-up distributions.
STACK = {"torch": "2.7.1", "deepspeed": "0.19.8", "transformers": "4.57.3", "accelerate": "1.11.0", "peft": "0.17.1"}

#: Of a rule's text the line with its ranges, and in it the names, and the last part of each version.
PACKAGES = re.compile(r"^when\.packages = .*$", re.MULTILINE)
NAMES = re.compile(r"(?<=[{,] )[\w-]+(?= = )")
LAST_PART = re.compile(r"(?<=[0-9=<>~.])\d+(?=(?:\.\*)?[,\"])")

HERE = Path(__file__).resolve().parent.parent


def make_environment(folder: Path, count: int) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    where = [str(python), "-c", "import site; print(site.getsitepackages()[0])"]
    site = Path(subprocess.check_output(where, text=True).strip())
    for number in range(count):
        info = site / f"made_up_{number}-1.{number}.0.dist-info"
        info.mkdir()
        lines = [f"Requires-Dist: made-up-{(number * 7 + step) % count}>=1.0,<3" for step in range(8)]
        needs = "\n".join(f"{line}; extra == 'e'" if step > 4 else line for step, line in enumerate(lines))
        name = f"Name: made-up-{number}\nVersion: 1.{number}.0"
        head = f"Metadata-Version: 2.1\n{name}\nRequires-Python: >=3.8\n{needs}\n\n"
        (info / "METADATA").write_text(head + "text " * 4000)
        (info / "RECORD").write_text("")
        (info / "INSTALLER").write_text("pip\n")
    for name, version in STACK.items():
        info = site / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (site / "paths.pth").write_text(f"{HERE}\n{sysconfig.get_paths()['purelib']}\n")
    return python


class Command(NamedTuple):
    """What is timed.

    Attributes:
        argv: The command.
        cache: Its own cache folder.
        forget: Files of that cache which go before each run.
    """

    argv: list[str]
    cache: Path
    forget: str = ""


def best(commands: Mapping[str, Command], repeat: int, env: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """The best wall time and the best processor time of each, in milliseconds; they take turns, `repeat` times."""
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(repeat + 1):  # the first round fills the caches, and is in no minimum for long
        for name, command in commands.items():
            for path in command.cache.glob(command.forget) if command.forget else ():
                path.unlink()
            found.setdefault(name, []).append(timed(command, env))
    return {name: (min(wall for wall, _ in times), min(used for _, used in times)) for name, times in found.items()}


def timed(command: Command, env: Mapping[str, str]) -> tuple[float, float]:
    """Wall time and processor time of one run, in milliseconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    own = {**env, "ENVCHECK_CACHE": str(command.cache)}
    subprocess.run(command.argv, env=own, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall * 1000, used * 1000


#: The ten-fold matrices: what is done to the line with the ranges in the copy of that number.
TENFOLD: dict[str, Callable[[str, int], str]] = {
    "copies": lambda line, _: line,
    "varied": lambda line, number: LAST_PART.sub(lambda part: str(int(part[0]) + number), line),
    "elsewhere": lambda line, number: NAMES.sub(lambda name: f"elsewhere-{number}-{name[0]}", line),
}


def tenfold(folder: Path, words: str) -> Path:
    """The matrix, with every rule there ten times under other ids, changed as `words` says."""
    target = folder / f"matrix-{words}"
    shutil.copytree(HERE / "matrices", target)
    for path in (target / "rules").glob("*.toml"):
        text = path.read_text()
        head, _, rules = text.partition("[[rule]]")
        copies = (copied(f"[[rule]]{rules}", number, TENFOLD[words]) for number in range(1, 10))
        path.write_text(f"{head}[[rule]]{rules}\n{''.join(copies)}" if rules else text)
    return target


def copied(rules: str, number: int, change: Callable[[str, int], str]) -> str:
    """The rules under other ids, with the lines of their ranges changed."""
    renamed = rules.replace('\nid = "', f'\nid = "copy{number}-')
    return PACKAGES.sub(lambda line: change(line[0], number), renamed)


def findings(command: Command, env: Mapping[str, str]) -> int:
    """How many findings a check has."""
    own = {**env, "ENVCHECK_CACHE": str(command.cache)}
    argv = [*command.argv, "--format", "json"]
    done = subprocess.run(argv, env=own, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return len(json.loads(done.stdout)["findings"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--distributions", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=15)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = str(make_environment(folder, args.distributions))
        env = {**os.environ, "ENVCHECK_CACHE": str(folder / "cache")}
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
        check = [python, "-m", "envcheck", "check"]
        time.sleep(4)  # metadata written a moment ago is not remembered
        commands = {
            "python -c pass": Command([python, "-c", "pass"], folder / "cache"),
            "envcheck check": Command(check, folder / "cache"),
            "something changed": Command(check, folder / "changed", "answer-*"),
            "nothing compared before": Command(check, folder / "compared", "[ac]*"),
        }
        for words in TENFOLD:
            more = [*check, "--matrices", str(tenfold(folder, words))]
            commands[f"ten-fold ({words})"] = Command(more, folder / f"{words}-cache")
            commands[f"ten-fold ({words}), something changed"] = Command(more, folder / f"{words}-changed", "answer-*")
            commands[f"ten-fold ({words}), nothing compared before"] = Command(more, folder / f"{words}-compared", "[ac]*")
        measured = best(commands, args.repeat, env)
        slow = {
            "empty cache": Command(check, folder / "empty", "*"),
            "pip check": Command([python, "-m", "pip", "check"], folder / "cache"),
        }
        measured |= best(slow, max(args.repeat // 3, 3), env)
        said = {words: findings(commands[words], env) for words in commands if words.endswith((")", "envcheck check"))}
        code = f"import resource,sys,runpy\nsys.argv={check[2:]!r}\ntry: runpy.run_module('envcheck',run_name='__main__')\nfinally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"  # noqa: E501
        done = subprocess.run([python, "-c", code], env=env, capture_output=True, text=True, check=False)
        peak = int(done.stderr.split()[-1]) / 1024
    wall = {name: both[0] for name, both in measured.items()}
    states = ("something changed", "nothing compared before")
    adds = {
        f"{words}, {state}": [
            round(many - few, 1)
            for many, few in zip(measured[f"ten-fold ({words}), {state}"], measured[state], strict=True)
        ]
        for words in TENFOLD for state in states
    }  # fmt: skip
    print(json.dumps({
        "milliseconds (wall, processor)": {name: [round(value, 1) for value in both] for name, both in measured.items()},
        "of bare Python": {name: round(value / wall["python -c pass"], 2) for name, value in wall.items()},
        "of pip check": {name: round(value / wall["pip check"], 2) for name, value in wall.items()},
        "findings": said,
        "a ten-fold matrix adds ms (wall, processor)": adds,
        "peak MiB": round(peak, 1),
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
