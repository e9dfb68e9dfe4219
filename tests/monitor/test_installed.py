"""envcheck as a wheel beside a real DeepSpeed: the entry point of torch, `envcheck run --probe`, launchers."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.probe.targets import see, target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.slow, pytest.mark.network]

ROOT = Path(__file__).parent.parent.parent
PLAIN = Path(__file__).parent / "target" / "plain.py"
SETTINGS: dict[str, dict[str, object]] = {
    "zero2.json": {
        "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": "auto", "zero_optimization": {"stage": 2},
        "bf16": {"enabled": False}, "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False,
    },
    "args.json": {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 2, "max_steps": 6, "learning_rate": 1e-3},
}  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The interpreter of an environment that sees a real DeepSpeed's and has the wheel of this checkout."""
    dist = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = dist.glob("*.whl")

    @functools.cache
    def make(version: str) -> Path:
        base = target(version)
        home = tmp_path_factory.mktemp("venv") / "env"
        uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
        subprocess.run([uv, "venv", "--quiet", "--python", base, str(home)], check=True, timeout=120)
        see(home, Path(base))
        install = [
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            str(home / "bin" / "python"),
            f"envcheck-ml[plots] @ {wheel.as_uri()}",
        ]
        subprocess.run(install, check=True, timeout=600)
        return home / "bin" / "python"

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    for name, content in SETTINGS.items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    yield tmp_path
    for rendezvous in tmp_path.glob("envcheck-run-*"):
        shutil.rmtree(rendezvous)


def environ(python: Path, folder: Path, **more: str) -> dict[str, str]:
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "ENVCHECK_MATRICES")}
    env.update(
        PATH=f"{python.parent}{os.pathsep}{env['PATH']}", DS_ACCELERATOR="cpu", CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1",
        GLOO_SOCKET_IFNAME="lo", HF_HUB_OFFLINE="1", TORCH_EXTENSIONS_DIR=str(folder / "extensions"), TMPDIR=str(folder),
        ENVCHECK_CACHE=str(folder / "cache"), **more,
    )  # fmt: skip
    return env


def call(python: Path, folder: Path, *argv: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(argv), env=environ(python, folder, **more), cwd=folder, capture_output=True, text=True, check=False, timeout=900
    )


def torchrun(python: Path, *argv: str) -> list[str]:
    return [str(python), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *argv]


def found(folder: Path) -> list[str]:
    lines = (folder / "envcheck-monitor.jsonl").read_text(encoding="utf-8").splitlines()
    return [text for line in map(json.loads, lines) if line["event"] == "finding" for text in line["because"]]


@pytest.mark.parametrize("way", ["trainer", "engine"])
def test_the_entry_point_watches_a_script_that_knows_nothing_of_it(
    installed: Callable[[str], Path], folder: Path, way: str
) -> None:
    python = installed("0.17.6")
    done = call(python, folder, *torchrun(python, str(PLAIN), way), ENVCHECK_MONITOR="1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("trained") == 2
    assert any("only micro-batch 3 of 3 counted" in text for text in found(folder))
    assert "only micro-batch 3 of 3 counted" in done.stderr
    page = (folder / "envcheck-monitor.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert "only micro-batch 3 of 3 counted" in page


def test_without_the_variable_nothing_happens(installed: Callable[[str], Path], folder: Path) -> None:
    python = installed("0.19.8")
    code = "import sys; before = list(sys.meta_path); import torch; print([one for one in sys.modules if 'envcheck' in one])"
    done = call(python, folder, str(python), "-c", f"{code}; assert sys.meta_path == before")
    assert (done.stdout, done.returncode) == ("['envcheck_startup']\n", 0), done.stderr
    assert list(folder.glob("envcheck-monitor*")) == []


def test_torch_is_imported_whatever_has_become_of_envcheck(installed: Callable[[str], Path], folder: Path) -> None:
    python = installed("0.19.8")
    (folder / "envcheck").mkdir()
    (folder / "envcheck" / "__init__.py").write_text("raise SystemError('broken')\n", encoding="utf-8")
    done = call(python, folder, str(python), "-c", "import torch; print('there')", ENVCHECK_MONITOR="1")
    assert (done.stdout, done.returncode) == ("there\n", 0)
    assert done.stderr == "envcheck monitor: could not start: SystemError: broken\n"


def test_a_probe_is_made_once_and_the_command_runs_with_its_own_exit_code(installed: Callable[[str], Path], folder: Path) -> None:
    python = installed("0.19.8")
    command = [str(python), "-c", "import os, sys; print('out', os.environ['ENVCHECK_MONITOR']); sys.exit(37)"]
    told = ["--ds-config", "zero2.json", "--training-args", "args.json"]
    first = call(python, folder, str(python), "-m", "envcheck", "run", "--probe", *told, "--", *command)
    assert (first.returncode, first.stdout) == (37, "out 1\n"), first.stderr
    assert "envcheck: probing" in first.stderr
    begin = time.monotonic()
    second = call(python, folder, str(python), "-m", "envcheck", "run", "--probe", *told, "--", *command)
    assert (second.returncode, second.stdout) == (37, "out 1\n")
    assert "the probe was clean here before" in second.stderr
    assert time.monotonic() - begin < 60
    (folder / "args.json").write_text(json.dumps({**SETTINGS["args.json"], "gradient_accumulation_steps": 2}), encoding="utf-8")
    argv = [str(python), "-m", "envcheck", "run", "--probe", *told, "--", *command]
    other = subprocess.Popen(argv, env=environ(python, folder), cwd=folder, text=True, stderr=subprocess.PIPE)
    try:
        assert any("envcheck: probing" in line for line in other.stderr or ())  # that it begins is enough
    finally:
        other.terminate()
        other.communicate(timeout=60)


@pytest.mark.long
def test_0_17_6_is_refused_by_the_check_with_settings_and_by_the_probe_without(
    installed: Callable[[str], Path], folder: Path
) -> None:
    python = installed("0.17.6")
    command = [str(python), "-c", "open('started', 'w')"]
    told = ["--ds-config", "zero2.json", "--training-args", "args.json"]
    done = call(python, folder, str(python), "-m", "envcheck", "run", *told, "--", *torchrun(python, str(PLAIN), "trainer"))
    assert done.returncode == 1
    assert "deepspeed-zero2-last-micro-batch" in done.stdout
    assert "probe" not in done.stderr
    # from another interpreter, which `--python` leads away from
    done = call(
        Path(sys.executable), folder, sys.executable, "-m", "envcheck", "run", "--probe", "--python", str(python), "--", *command,
        PYTHONPATH=str(ROOT),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "only micro-batch 3 of 3 counted" in done.stdout
    assert done.stderr.splitlines()[-1] == "envcheck: the command was not started"
    assert not (folder / "started").exists()


@pytest.mark.long
def test_each_rank_of_torchrun_becomes_the_script_and_one_of_them_checks(installed: Callable[[str], Path], folder: Path) -> None:
    python = installed("0.19.8")
    inner = ["--no-python", str(python), "-m", "envcheck", "run", "--", str(python), str(PLAIN), "trainer"]
    done = call(python, folder, *torchrun(python, *inner))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("the command starts") == 1
    assert done.stdout.count("trained") == 2
    assert found(folder) == []
    assert json.loads((folder / "envcheck-monitor.jsonl").read_text("utf-8").splitlines()[-1])["event"] == "end"


@pytest.mark.long
def test_the_deepspeed_launcher_is_run_and_its_exit_code_passed_on(installed: Callable[[str], Path], folder: Path) -> None:
    python = installed("0.19.8")
    launch = [str(python), "-m", "deepspeed.launcher.runner", "--num_gpus", "2", str(PLAIN), "engine"]
    done = call(python, folder, str(python), "-m", "envcheck", "run", "--", *launch)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("trained") == 2
    assert found(folder) == []
    steps = [line for line in (folder / "envcheck-monitor.jsonl").read_text("utf-8").splitlines() if '"equal"' in line]
    assert steps
    failed = call(python, folder, str(python), "-m", "envcheck", "run", "--", *launch, EXIT="37")
    assert failed.returncode == call(python, folder, *launch, EXIT="37").returncode != 0


def test_a_first_rank_that_is_killed_while_it_checks_ends_the_others(installed: Callable[[str], Path], folder: Path) -> None:
    python = installed("0.19.8")
    argv = [str(python), "-m", "envcheck", "run", "--probe", "--", str(python), "-c", "open('started', 'w')"]
    ranks = [
        subprocess.Popen(
            argv, env=environ(python, folder, LOCAL_RANK=rank, WORLD_SIZE="2", MASTER_PORT="29500"), cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    first, second = ranks
    assert first.stderr is not None
    assert "probing" in first.stderr.readline()
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 3
    assert "the first local rank ended without a word" in said
    assert not (folder / "started").exists()
