"""The monitor on the real Trainer and DeepSpeed, two gloo ranks on the CPU: each fault is named, healthy runs are silent."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli

from tests.probe.targets import laid_over, target

pytestmark = [pytest.mark.slow, pytest.mark.network]

ROOT = Path(__file__).parent.parent.parent
TRAIN = Path(__file__).parent / "target" / "train.py"
RANKS = 2

Found = dict[str, list[dict[str, Any]]]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def train(version: str, scenarios: list[dict[str, Any]], folder: Path, over: tuple[str, ...] = (), ranks: int = RANKS) -> Found:
    """Run the scenarios one after another, with the releases `over` laid over the environment; name -> findings of rank 0."""
    python, above = laid_over(version, list(over)) if over else (target(version), None)
    path = os.pathsep.join(map(str, filter(None, [above, ROOT])))
    argv = [python, str(TRAIN), json.dumps(scenarios), str(folder)]
    for _ in range(3):
        codes = start(argv, path, folder, ranks)
        said = (folder / "output0").read_text(encoding="utf-8")
        if codes == [0] * ranks or "EADDRINUSE" not in said:  # the port may be taken before rank 0 takes it
            break
    assert codes == [0] * ranks, said[-3000:]
    assert "an error of its own" not in said
    return {one["name"]: read(folder, one["name"], 0) for one in scenarios}


def start(argv: list[str], path: str, folder: Path, ranks: int) -> list[int | None]:
    """Run the ranks to their end; their exit codes."""
    port = str(free_port())
    started = []
    for rank in range(ranks):
        env = {
            **os.environ, "PYTHONPATH": path, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks),
            "LOCAL_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "DS_ACCELERATOR": "cpu",
            "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1",
            "TORCH_EXTENSIONS_DIR": str(folder / "extensions"), "ENVCHECK_MONITOR_PYTHON": sys.executable,
            "ENVCHECK_MONITOR_DEBUG": "1",
        }  # fmt: skip
        output = (folder / f"output{rank}").open("w", encoding="utf-8")
        started.append((subprocess.Popen(argv, env=env, cwd=folder, stdout=output, stderr=output), output))
    try:
        started[0][0].wait(1800)
        for process, _ in started[1:]:
            process.wait(120)  # rank 0 has ended: what is left of them is their own end
    except subprocess.TimeoutExpired:
        pass
    finally:
        for process, output in started:
            process.kill()
            process.wait()
            output.close()
    return [process.returncode for process, _ in started]


def read(folder: Path, name: str, rank: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / f"{name}.{rank}.json").read_text(encoding="utf-8"))["findings"]
    return found


def scenario(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, **more}


#: Name -> what is planted, and words that the first two findings (or causes) must hold between them.
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "nan-weight": (
        {"fault": "nan-weight", "dtype": "bf16"},
        "not finite before the first step: `model.layers.1.mlp.up_proj.weight`",
    ),
    "frozen": ({"fault": "frozen"}, "none of the 21 parameters is trainable"),
    "left-out": ({"fault": "projector-left-out"}, "in no parameter group of the optimizer: `mm_projector.1.weight`"),
    "late": (
        {"fault": "late-projector"},
        "made or unfrozen after the optimizer was built, and not in it: `mm_projector.2.weight`",
    ),
    "lr": (
        {"fault": "lr", "config": {"scheduler": {"type": "OneCycle", "params": {"cycle_min_lr": 0, "cycle_max_lr": 0}}}},
        "the learning rate is 0",
    ),
    "short": ({"fault": "short-checkpoint"}, "not finite before the first step: `mm_projector.1.weight`"),
    "labels": ({"fault": "labels-ignored"}, "the loss is not finite"),
    "unused": ({"fault": "unused"}, "never reached by a gradient: `extra.weight`"),
}


def healthy_runs() -> list[dict[str, Any]]:
    scenarios = []
    for seed in range(20):
        stage, accumulation, dtype = (2, 3, 1, 2)[seed % 4], 1 + seed % 3, ("fp32", "bf16")[seed // 4 % 2]
        model = ("llama", "projector")[seed % 2]
        way = "engine" if seed % 5 == 4 else "trainer"
        more = {"accumulation": accumulation, "dtype": dtype, "model": model, "way": way}
        scenarios.append(scenario(f"healthy{seed}", seed=seed, stage=stage, steps=12 if seed % 4 == 1 else 4, **more))
    return scenarios


STOP = scenario("stop", fault="nan-weight", dtype="bf16", action="auto", steps=40)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, Path]:
    """The faults, the healthy runs and the stop in one set of processes; the findings, and the folder with what they left."""
    folder = tmp_path_factory.mktemp("runs")
    faults = [scenario(name, **planted) for name, (planted, _) in FAULTS.items()]
    return train("0.19.8", [*faults, *healthy_runs(), STOP], folder), folder


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_named_first_or_second(runs: tuple[Found, Path], name: str) -> None:
    found = runs[0][name]
    assert found
    said = [text for one in found[:2] for text in one["because"]]
    assert any(FAULTS[name][1] in text for text in said), found[:3]


def test_a_stop_is_agreed_and_every_rank_ends_after_the_same_step(runs: tuple[Found, Path]) -> None:
    found, folder = runs
    assert found["stop"]
    output = [(folder / f"output{rank}").read_text(encoding="utf-8") for rank in range(RANKS)]
    said = [text.split("scenario: stop\n")[1] for text in output]  # the last one
    ends = [[text.split(" in ")[0] for text in one.splitlines() if " steps in " in text] for one in said]
    assert ends[0] == ends[1]
    assert int(ends[0][0].removesuffix(" steps")) < 40
    assert [one.count("training is stopped") for one in said] == [1, 0]  # each thing is said by one rank
    assert [one.count("envcheck monitor: step ") for one in said] == [len(found["stop"]), 0]
    assert "envcheck monitor: rank" not in said[1]


def test_twenty_healthy_runs_give_no_finding(runs: tuple[Found, Path]) -> None:
    found, folder = runs
    names = [one["name"] for one in healthy_runs()]
    assert {name: found[name] for name in names if found[name]} == {}
    checked = [
        one
        for name in names
        for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        for one in json.loads(line).get("check", ())
    ]
    assert len(checked) >= 20 * 2 * 2
    assert {one["kind"] for one in checked} == {"equal"}


def test_0_17_6_keeps_only_the_last_micro_batch_and_the_first_step_says_so(tmp_path: Path) -> None:
    scenarios = [
        scenario("zero2", stage=2, accumulation=3, steps=3),
        scenario("zero2-bf16", stage=2, accumulation=3, dtype="bf16", steps=3),
        scenario("engine", way="engine", stage=2, accumulation=3, steps=3),
        scenario("zero1", stage=1, accumulation=3, steps=3),
        scenario("zero3", stage=3, accumulation=3, steps=3),
        scenario("alone", stage=2, accumulation=1, steps=3),
    ]
    found = train("0.17.6", scenarios, tmp_path)
    words = {name: [text for one in seen for text in one["because"]] for name, seen in found.items()}
    for name in ("zero2", "zero2-bf16", "engine"):
        assert any("only micro-batch 3 of 3 counted" in text for text in words[name]), words[name]
    assert [found[name] for name in ("zero1", "zero3", "alone")] == [[], [], []]


PAIRS = tomli.loads((Path(__file__).parent / "pairs.toml").read_text(encoding="utf-8"))["pair"]


@pytest.mark.parametrize(
    "pair",
    [pytest.param(one, id=one["packages"][0], marks=[] if one.get("sample") else [pytest.mark.long]) for one in PAIRS],
)
def test_pairs_of_real_releases(pair: dict[str, Any], tmp_path: Path) -> None:
    """The real Trainer on the real DeepSpeed: the engine is found and checked, a healthy run is silent, two faults are named."""
    faults = ("left-out", pair["fault"])
    scenarios = [scenario("healthy", stage=2, accumulation=3), scenario("zero1", stage=1, accumulation=2, dtype="bf16")]
    scenarios += [scenario(name, **FAULTS[name][0]) for name in faults]
    for one in scenarios:
        one.update(steps=4, arguments=pair.get("arguments", {}))
    found = train("0.19.8", scenarios, tmp_path, tuple(pair["packages"]))
    assert found["healthy"] == []
    lines = [json.loads(line) for line in (tmp_path / "healthy.jsonl").read_text(encoding="utf-8").splitlines()]
    ran = {f"{name}=={version}" for name, version in lines[0]["packages"].items()}
    assert {one for one in pair["packages"] if one.split("==")[0] in ("deepspeed", "transformers", "accelerate")} <= ran
    checks = [one["kind"] for line in lines for one in line.get("check", ())]
    assert checks == ["equal"] * 6  # three parameters in each of two steps, against the engine's own gradients
    words = [text for one in found["zero1"] for text in one["because"]]
    assert [one["id"] for one in found["zero1"]] == (["run-gradient-not-averaged"] if "zero1" in pair else [])
    assert pair.get("zero1", "") in " ".join(words)
    for name in faults:
        said = [text for one in found[name][:2] for text in one["because"]]
        assert any(FAULTS[name][1] in text for text in said), found[name]
