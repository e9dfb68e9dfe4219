"""The command: with no torch, and (slow) with a real one on the case that motivated it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from envcheck.cli.main import main
from envcheck.params import ask
from envcheck.process import Completed
from tests.params.files import sharded
from tests.probe.targets import laid_over, target

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


def call(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    code = main(["params", *options, "--format", "json"])
    return code, json.loads(capsys.readouterr().out)


def model_folder(folder: Path) -> Path:
    sharded(folder, {"a.safetensors": {"x.weight": (2, 3)}})
    (folder / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    return folder


def bare(folder: Path) -> str:
    """A venv without torch."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return str(folder)


def test_no_torch_is_exit_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = call(capsys, "--model", str(model_folder(tmp_path / "m")), "--python", bare(tmp_path / "venv"))
    assert code == 3
    assert any("torch" in skip["reason"] for skip in found["skipped"])


def test_a_damaged_checkpoint_is_an_error_without_torch_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "a.safetensors").write_bytes(b"version https://git-lfs")
    code, found = call(capsys, "--model", str(folder), "--python", bare(tmp_path / "venv"))
    assert code == 1
    assert [one["id"] for one in found["findings"]] == ["params-checkpoint-broken"]


def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["params", "--model", str(tmp_path)]) == 2
    assert main(["params", "--model", "a:b", "--checkpoint", str(tmp_path / "absent")]) == 2
    assert main(["params", "--model", "a:b", "--python", str(tmp_path / "absent")]) == 2
    assert main(["params", "--model", "a:b", "--timeout", "0"]) == 2
    assert "absent" in capsys.readouterr().err


class Warm:
    """An interpreter that has imported torch and transformers and runs scripts in forks of itself, as `process.run` would."""

    def __init__(self, python: str, folder: Path) -> None:
        self.python, self.folder = python, folder
        env = {**ask.environment(folder), "DS_ACCELERATOR": "cpu"}
        argv = [python, str(HERE / "warm.py")]
        self.process = subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, argv: list[str], *, timeout: float, env: dict[str, str]) -> Completed:
        assert argv[0] == self.python
        output = self.folder / "output"
        words = {"argv": argv[1:], "env": env, "cwd": str(Path.cwd()), "output": str(output), "timeout": int(timeout)}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        code = os.waitstatus_to_exitcode(int(self.process.stdout.readline()))
        return Completed(tuple(argv), code, "", output.read_text(encoding="utf-8", errors="replace"))


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    warm = Warm(target("0.16.9"), tmp_path_factory.mktemp("warm"))
    yield warm
    warm.process.communicate(timeout=60)


@pytest.fixture
def warm(interpreter: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting an interpreter with torch takes longer than looking at a model: most cases share one."""
    monkeypatch.setattr("envcheck.params.ask.run", interpreter.run)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, interpreter: Warm) -> Path:
    folder = tmp_path_factory.mktemp("composed")
    argv = [interpreter.python, str(HERE / "composed.py"), str(folder)]
    done = interpreter.run(argv, timeout=300, env={**os.environ, "DS_ACCELERATOR": "cpu"})
    assert done.returncode == 0, done.stderr
    return folder


#: Function -> what must be found at or above a warning.
CASES = {
    "whole": set[str](),
    "extended_by_hand": set[str](),
    "extended_frozen": {"params-missing-and-frozen"},
    "extended_huge": {"params-missing", "params-suspicious"},
    "blind": {"params-unreachable"},
    "gated": {
        "params-missing",
        "params-uninitialised",
        "params-loss-not-finite",
        "params-gradient-not-finite",
        "transformers-new-bare-parameters",
    },
    "mixed": {"params-dtype-mix"},
    "poisoned": {"params-not-finite", "params-loss-not-finite", "params-gradient-not-finite"},
}


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("function", CASES)
@pytest.mark.usefixtures("warm")
def test_each_fault_of_a_composed_model(
    function: str, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("COMPOSED", str(home))
    monkeypatch.chdir(HERE)
    _, found = call(capsys, "--model", f"composed:{function}", "--checkpoint", str(home), "--python", target("0.16.9"))
    assert {one["id"] for one in found["findings"] if one["severity"] != "info"} == CASES[function]
    assert not [skip for skip in found["skipped"] if skip["check"] != "values"]


@pytest.mark.slow
@pytest.mark.network
def test_tied_weights_and_a_crash(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPOSED", str(home))
    monkeypatch.chdir(HERE)
    python = target("0.16.9")  # started for each, as a user's is
    code, found = call(capsys, "--model", str(home / "tied"), "--python", python)
    assert (code, found["findings"]) == (0, [])
    _, found = call(capsys, "--model", "composed:untied", "--checkpoint", str(home / "tied"), "--python", python)
    assert [one["id"] for one in found["findings"]] == ["params-tie-broken"]
    code, found = call(capsys, "--model", "composed:crash", "--python", python)
    assert code == 3
    assert "SIGABRT" in found["skipped"][0]["reason"]


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.usefixtures("warm")
def test_a_tied_pair_stored_twice_and_a_dtype_that_config_json_does_not_name(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(HERE)
    python = target("0.16.9")
    _, found = call(capsys, "--model", str(home / "apart"), "--python", python)
    assert [one["id"] for one in found["findings"]] == ["params-tied-differ"]
    code, found = call(capsys, "--model", str(home / "twice"), "--python", python)
    assert (code, found["findings"]) == (0, [])
    place = home / "twice" / "config.json"
    place.write_text(place.read_text(encoding="utf-8").replace("bfloat16", "float32"), encoding="utf-8")
    code, found = call(capsys, "--model", str(home / "twice"), "--python", python)
    assert [(one["id"], one["severity"]) for one in found["findings"]] == [("params-stored-dtype", "info")]
    assert "made float32" in found["findings"][0]["because"][0]


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.usefixtures("warm")
def test_a_new_head_of_a_library_class_is_initialised_whatever_the_way_of_loading(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path / "classifier"
    shutil.copytree(home / "llm", folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"architectures": ["LlamaForSequenceClassification"], "num_labels": 2, "pad_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for option in ([], ["--low-cpu-mem-usage"]):
        code, found = call(capsys, "--model", str(folder), "--python", target("0.16.9"), *option)
        assert code == 0
        assert {one["id"] for one in found["findings"]} == {"params-missing", "params-unexpected"}
        assert found["skipped"] == []


#: transformers to be laid over the environment (none: its own 4.57.6), option -> ids, in order of severity.
LLAVA: list[tuple[list[str], dict[str, list[str]]]] = [
    ([], {
        "--low-cpu-mem-usage": ["params-missing"],
        "--ds-config": ["transformers-457-zero3-new-head-not-initialised", "params-missing"],
        "--values=never": ["params-missing"],
    }),
    (["transformers==4.46.3", "tokenizers==0.20.3"], {
        "--low-cpu-mem-usage": ["params-uninitialised", "transformers-low-cpu-mem-new-params", "params-missing"],
        "--ds-config": ["params-missing"],
        "--values=never": ["params-missing"],
    }),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize(("packages", "wanted"), LLAVA, ids=["4.57.6", "4.46.3"])
def test_a_llava_whose_checkpoint_lacks_the_projector(
    packages: list[str], wanted: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is said of low_cpu_mem_usage and ZeRO-3 was compared with real loads under each (the rules' `measured`)."""
    python, above = laid_over("0.16.9", packages) if packages else (target("0.16.9"), "")
    shown = tmp_path / "python"
    shown.write_text(f'#!/bin/sh\nPYTHONPATH="{above}" exec "{python}" "$@"\n', encoding="utf-8")
    shown.chmod(0o755)
    folder, config = tmp_path / "llava", tmp_path / "zero3.json"
    subprocess.run([str(shown), str(HERE / "llava.py"), str(folder)], check=True, timeout=300)
    config.write_text('{"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}', encoding="utf-8")
    for option, ids in wanted.items():
        options = [option, str(config)] if option == "--ds-config" else [option]
        code, found = call(capsys, "--model", str(folder), "--python", str(shown), *options)
        unreached = [one["because"][0] for one in found["findings"] if one["id"] == "params-unreachable"]
        assert all(text.startswith("`") and "post_layernorm" in text and "projector" not in text for text in unreached)
        seen = [one for one in found["findings"] if one["id"] != "params-unreachable"]
        assert [one["id"] for one in seen] == ids
        missing = next(one for one in seen if one["id"] == "params-missing")
        assert "multi_modal_projector.linear_2.bias" in " ".join(missing["because"])
        assert code == int(any(one["severity"] == "error" for one in seen)), found["skipped"]
