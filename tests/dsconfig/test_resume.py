"""`resume_from_checkpoint` says which rules about resuming apply."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from envcheck.cli.main import main
from envcheck.dsconfig.resume import ACROSS, saved_under, words

if TYPE_CHECKING:
    from pathlib import Path


def checkpoint(folder: Path, module: str) -> str:
    """A folder with what matters of a file that `torch.save` wrote: the pickle's name of numpy's constructor."""
    folder.mkdir()
    (folder / "rng_state_0.pth").write_bytes(b"PK\x03\x04" + b"\0" * 60 + f"c{module}.multiarray\n_reconstruct\n".encode())
    return str(folder)


@pytest.mark.parametrize(("module", "installed", "across"), [
    ("numpy.core", "2.2.6", True), ("numpy.core", "1.26.4", False), ("numpy._core", "2.2.6", False),
    ("numpy._core", "1.26.4", True), ("nothing", "2.2.6", False), ("numpy.core", "", False),
])  # fmt: skip
def test_the_checkpoint_names_the_numpy_that_saved_it(module: str, installed: str, across: bool, tmp_path: Path) -> None:
    arguments = {"resume_from_checkpoint": checkpoint(tmp_path / "checkpoint-10", module)}
    assert (ACROSS in words(arguments, {"numpy": installed})) == across


@pytest.mark.parametrize("value", [True, None, "", "/nowhere", "a\0b", 3])
def test_what_is_no_checkpoint_says_nothing(value: Any) -> None:
    assert words({"resume_from_checkpoint": value}, {"numpy": "2.2.6"}) == frozenset()


@pytest.mark.slow
def test_a_file_that_torch_saved_is_read(tmp_path: Path) -> None:
    numpy, torch = pytest.importorskip("numpy"), pytest.importorskip("torch")
    torch.save({"python": 1, "numpy": numpy.random.get_state()}, tmp_path / "rng_state.pth")
    assert saved_under(str(tmp_path)) == numpy.__version__.partition(".")[0]


@pytest.mark.parametrize(
    ("packages", "rule"),
    [
        ({"transformers": "4.46.3", "torch": "2.6.0"}, "transformers-torch26-resume"),
        ({"transformers": "4.52.4", "torch": "2.5.1"}, "transformers-452-torch-before-26-resume"),
        ({"transformers": "4.57.6", "torch": "2.6.0", "numpy": "2.2.6"}, "transformers-numpy-major-change-resume"),
        ({"deepspeed": "0.15.4", "torch": "2.6.0"}, "deepspeed-torch26-load-checkpoint"),
    ],
)
def test_resuming_across_releases_is_decided_by_the_arguments(
    packages: dict[str, str], rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document, snapshot = tmp_path / "ds.json", tmp_path / "snapshot.json"
    document.write_text('{"train_batch_size": "auto", "zero_optimization": {"stage": 2}}', encoding="utf-8")
    snapshot.write_text(json.dumps({"packages": packages}), encoding="utf-8")
    saved = checkpoint(tmp_path / "checkpoint-10", "numpy.core")
    found: dict[bool, set[str]] = {}
    for resumes in (True, False):
        more = f" --resume_from_checkpoint {saved}" if resumes else ""
        options = ["--snapshot", str(snapshot), "--training-args-cmd", f"train.py{more}", "--format", "json"]
        main(["config", str(document), *options])
        report = json.loads(capsys.readouterr().out)
        found[resumes] = {item["id"] for item in report["findings"] if item["severity"] == "error"}
    assert rule in found[True] - found[False]
