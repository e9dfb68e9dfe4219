"""`envcheck check` over an environment of 300 distributions, against bare Python and `pip check` in the same run.

    python benchmarks/check.py [--distributions 300] [--repeat 15]

Makes a venv with made-up distributions (realistic metadata: a description of 20 kB, eight requirements each, all
fulfilled) and the metadata of a training stack, so that rules and known-good sets are really compared; puts envcheck and
pip on its path, and reports the best wall time of each command, the ratios, what a ten-fold matrix adds, and the peak
memory of the check. Four states are measured: nothing changed since the last check (a job that starts again); something
changed, a setting or the driver (every check is computed; the matrix, metadata and what was said of each pair of a version
and a range come from the cache); nothing compared before (the same without the pairs, as after new releases of everything);
and an empty cache (the very first run).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

#: The stack whose metadata stands beside the made-up distributions.
STACK = {"torch": "2.7.1", "deepspeed": "0.19.8", "transformers": "4.57.3", "accelerate": "1.11.0", "peft": "0.17.1"}

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


def best(argv: list[str], repeat: int, env: dict[str, str], forget: str = "") -> float:
    """The best wall time in milliseconds; files of the cache that match `forget` go before each run."""
    times = []
    for _ in range(repeat):
        for path in Path(env["ENVCHECK_CACHE"]).glob(forget) if forget else ():
            path.unlink()
        start = time.perf_counter()
        subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        times.append(time.perf_counter() - start)
    return min(times) * 1000


def tenfold(folder: Path) -> Path:
    """The matrix, with every rule there ten times under other ids."""
    target = folder / "matrices"
    shutil.copytree(HERE / "matrices", target)
    for path in (target / "rules").glob("*.toml"):
        text = path.read_text()
        head, _, rules = text.partition("[[rule]]")
        copies = "".join(("[[rule]]" + rules).replace('\nid = "', f'\nid = "copy{number}-') for number in range(9))
        path.write_text(f"{head}[[rule]]{rules}\n{copies}" if rules else text)
    return target


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
        more = [*check, "--matrices", str(tenfold(folder))]
        time.sleep(4)  # metadata written a moment ago is not remembered
        measured = {
            "python -c pass": best([python, "-c", "pass"], args.repeat, env),
            "envcheck check": best(check, args.repeat, env),
            "something changed": best(check, args.repeat, env, "answer-*"),
            "nothing compared before": best(check, args.repeat, env, "[ac]*"),
            "empty cache": best(check, max(args.repeat // 3, 3), env, "*"),
            "ten-fold matrix": best(more, args.repeat, env),
            "ten-fold matrix, something changed": best(more, args.repeat, env, "answer-*"),
            "pip check": best([python, "-m", "pip", "check"], max(args.repeat // 3, 3), env),
        }
        code = f"import resource,sys,runpy\nsys.argv={check[2:]!r}\ntry: runpy.run_module('envcheck',run_name='__main__')\nfinally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"  # noqa: E501
        done = subprocess.run([python, "-c", code], env=env, capture_output=True, text=True, check=False)
        peak = int(done.stderr.split()[-1]) / 1024
    base = measured["python -c pass"]
    print(json.dumps({
        "milliseconds": {name: round(value, 1) for name, value in measured.items()},
        "check / python": round(measured["envcheck check"] / base, 2),
        "check / pip check": round(measured["envcheck check"] / measured["pip check"], 2),
        "something changed / python": round(measured["something changed"] / base, 2),
        "nothing compared before / python": round(measured["nothing compared before"] / base, 2),
        "something changed / pip check": round(measured["something changed"] / measured["pip check"], 2),
        "ten-fold matrix adds ms": round(measured["ten-fold matrix"] - measured["envcheck check"], 1),
        "and where something changed": round(measured["ten-fold matrix, something changed"] - measured["something changed"], 1),
        "peak MiB": round(peak, 1),
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
