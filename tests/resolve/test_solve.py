"""Requests to locks over a small index: what is chosen, why, and why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from packaging.specifiers import SpecifierSet

from envcheck.errors import InputError, UsageError
from envcheck.facts.model import Absent, Environment, Fact, Gpu, Known
from envcheck.matrix.database import load
from envcheck.matrix.settings import Settings
from envcheck.resolve import measured, pylock, uv
from envcheck.resolve.refusal import Impossible, explain_refusal
from envcheck.resolve.request import Request, another_machine, machine_of, read_requirements, recorded
from envcheck.resolve.solve import Solved, solve
from tests.resolve.fakeuv import write_uv

if TYPE_CHECKING:
    from pathlib import Path

MATRIX = load(cache=False)
STAGE2 = Settings({"zero_optimization.stage": 2, "gradient_accumulation_steps": 4})
OFFLOAD = Settings({"zero_optimization.stage": 2, "zero_optimization.offload_optimizer.device": "cpu"})
STAGE3 = Settings({"zero_optimization.stage": 3, "gradient_accumulation_steps": 4})


def machine(driver: str = "") -> Environment:
    facts: dict[str, Fact] = {"python": Known("3.11"), "system": Known("Linux"), "machine": Known("x86_64")}
    if driver:
        facts["driver"] = Known(driver)
    return Environment(facts=facts)


def lock(folder: Path, *requirements: str, **more: object) -> Solved | Impossible:
    request = Request(requirements, "3.11", **{"machine": machine(), **more})  # type: ignore[arg-type]
    program = str(write_uv(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uv, "find_uv", lambda: program)
        found = solve(request, MATRIX)
        return found if isinstance(found, Solved) else explain_refusal(*found, lambda _: None)


def solved(folder: Path, *requirements: str, **more: object) -> Solved:
    found = lock(folder, *requirements, **more)
    assert isinstance(found, Solved), found
    return found


def test_zero2_with_accumulation_goes_below_the_bad_range(tmp_path: Path) -> None:
    found = solved(tmp_path, "deepspeed<=0.18.3", "transformers", "torch", "accelerate", settings=STAGE2)
    assert found.lock.versions()["deepspeed"] == "0.17.5"
    package = next(item for item in found.lock.packages if item.name == "deepspeed")
    text = "\n".join(package.because)
    assert "asked for: `deepspeed<=0.18.3`" in text
    assert "not deepspeed>=0.17.6,<0.18.3: ZeRO-2 keeps only" in text
    assert "deepspeed-0183-divides-twice" in text


def test_without_a_measured_run_the_newest_allowed_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "records", lambda _: iter(()))
    found = solved(tmp_path, "deepspeed<=0.18.3", "transformers", "torch", "accelerate", settings=STAGE2)
    assert found.lock.versions()["deepspeed"] == "0.17.5"
    assert found.lock.versions()["transformers"] == "5.2.0"
    assert found.calls == 2


def test_zero3_may_take_what_zero2_may_not(tmp_path: Path) -> None:
    found = solved(tmp_path, "deepspeed<=0.18.3", "transformers", "torch", "accelerate", settings=STAGE3)
    assert found.lock.versions()["deepspeed"] in ("0.18.2", "0.18.3")


def test_a_pinned_bad_release_is_refused_with_the_rule_and_what_to_relax(tmp_path: Path) -> None:
    found = lock(tmp_path, "deepspeed==0.17.6", "transformers", "torch", settings=STAGE2)
    assert isinstance(found, Impossible)
    assert [item.id for item in found.nogoods] == ["deepspeed-zero2-last-micro-batch"]
    assert found.nogoods[0].evidence
    assert found.relaxations == ("deepspeed==0.17.6 -> deepspeed (would give 0.19.8)",)


def test_a_waived_rule_does_not_refuse_and_is_written_down(tmp_path: Path) -> None:
    waived = {"deepspeed-zero2-last-micro-batch": "accumulation is 1"}
    found = solved(tmp_path, "deepspeed==0.17.6", "transformers", settings=STAGE2, waived=waived)
    assert found.lock.provenance is not None
    assert found.lock.provenance.waived == waived
    assert 'deepspeed-zero2-last-micro-batch = "accumulation is 1"' in pylock.render(found.lock)


def test_the_smallest_set_of_reasons_mixes_rules_and_uv(tmp_path: Path) -> None:
    found = lock(tmp_path, "torch==2.10.0", "torchvision", "idna", constraints=("torchvision<0.25",))
    assert isinstance(found, Impossible)
    assert [item.id for item in found.nogoods] == ["torchvision-for-another-torch"]
    assert all("no version of torchvision fits" in text for text in found.refusals)
    found = lock(tmp_path, "torch==2.10.0", "torchvision", constraints=("torchvision!=0.25.0,!=0.28.0",))
    assert isinstance(found, Impossible)
    assert any("no version of torchvision fits" in text for text in found.refusals)
    assert "torchvision!=0.25.0,!=0.28.0" in "".join(found.relaxations).replace("!=0.28.0,!=0.25.0", "!=0.25.0,!=0.28.0")


def test_of_two_reasons_for_themselves_each_is_told_what_to_relax(tmp_path: Path) -> None:
    """The driver refuses torch, and a rule DeepSpeed: without one of the two pins there still is no lock."""
    pins = ("deepspeed==0.17.6", "torch==2.13.0", "transformers")
    found = lock(tmp_path, *pins, settings=STAGE2, machine=machine("535.104.05"))
    assert isinstance(found, Impossible)
    assert len(found.nogoods) == 1
    assert [text.partition(" (")[2] for text in found.relaxations] == ["answers this; then other reasons are left)"]


def test_what_uv_alone_refuses_names_no_rule(tmp_path: Path) -> None:
    found = lock(tmp_path, "idna>=9")
    assert isinstance(found, Impossible)
    assert found.nogoods == ()
    assert found.refusals == ("Because no version of idna fits.",)


def test_the_driver_bounds_torch_and_torch_its_companion(tmp_path: Path) -> None:
    found = solved(tmp_path, "torch", "torchvision", machine=machine("535.104.05"))
    assert found.lock.versions()["torch"] == "2.10.0"
    assert found.lock.versions()["torchvision"] == "0.25.0"
    assert found.lock.provenance is not None
    assert "driver-too-old-for-torch-cuda" in {shape.rule for shape in found.lock.provenance.rules}
    assert found.lock.provenance.facts["driver"] == "535.104.05"


def test_a_soft_nogood_is_avoided_where_possible_and_never_refuses(tmp_path: Path) -> None:
    avoided = solved(tmp_path, "deepspeed<0.18.3", "transformers", "torch")
    assert avoided.lock.versions()["deepspeed"] == "0.17.5"
    pinned = solved(tmp_path, "deepspeed==0.17.6", "transformers", "torch")
    assert "deepspeed-zero2-last-micro-batch" in {item.id for item in pinned.solution.unavoided}
    assert pinned.lock.provenance is not None
    assert "deepspeed-zero2-last-micro-batch" in pinned.lock.provenance.unavoided


def test_an_existing_lock_is_kept_before_a_measured_combination(tmp_path: Path) -> None:
    found = solved(tmp_path, "deepspeed", "torch", preferred={"torch": "2.5.1"})
    assert found.lock.versions()["torch"] == "2.5.1"
    assert found.lock.versions()["deepspeed"] == "0.19.8"
    reasons = {package.name: package.because for package in found.lock.packages}
    assert "kept from the preferred lock" in reasons["torch"]
    assert any(text.startswith("measured good with") for text in reasons["deepspeed"])


def test_the_same_request_gives_the_same_bytes(tmp_path: Path) -> None:
    texts = {pylock.render(solved(tmp_path, "deepspeed<=0.18.3", "transformers", settings=STAGE2).lock) for _ in range(3)}
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("settings", "wanted", "expected"),
    [
        (STAGE2, {"deepspeed": ""}, "0.19.8"),
        (STAGE2, {"deepspeed": "<=0.18.3"}, "0.17.5"),
        (STAGE3, {"deepspeed": "<0.18.3"}, "0.18.2"),
        (Settings(), {"deepspeed": "<0.18.3"}, "0.17.5"),
        (OFFLOAD, {"deepspeed": "<0.19"}, "0.15.1"),
        (STAGE2, {"deepspeed": "", "transformers": "<4"}, None),
        (STAGE2, {"torch": ""}, None),
    ],
)
def test_measured_combinations(settings: Settings, wanted: dict[str, str], expected: str | None) -> None:
    specs = {name: SpecifierSet(text) for name, text in wanted.items()}
    found = measured.best(MATRIX.folder, specs, settings, ())
    assert (found.versions["deepspeed"] if found else None) == expected


def test_wanted_counts_markers_constraints_and_overrides() -> None:
    request = Request(
        ("Torch>=2", "numpy ; python_version < '3.0'", "x[a]>=1", "x<3"), "3.11",
        constraints=("torch<2.5", "other<1"), overrides=("x==9",),
    )  # fmt: skip
    assert {name: str(spec) for name, spec in request.wanted().items()} == {"torch": "<2.5,>=2", "x": "==9"}
    with pytest.raises(UsageError, match="is not a requirement"):
        Request(("torch >>",), "3.11").wanted()


def test_requirements_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("torch>=2  # why\n\n# comment\n-r b.txt\n-c c.txt\nx @ https://example.org/x.whl\n")
    (tmp_path / "b.txt").write_text("idna==3.10 \\\n  --hash=sha256:00\n-r a.txt\n")
    (tmp_path / "c.txt").write_text("numpy<2\n")
    assert list(read_requirements(str(tmp_path / "a.txt"))) == [
        ("requirement", "torch>=2"), ("requirement", "idna==3.10"), ("constraint", "numpy<2"),
        ("requirement", "x @ https://example.org/x.whl"),
    ]  # fmt: skip
    (tmp_path / "d.txt").write_text("idna\n--index-url https://example.org\n./folder\n")
    with pytest.raises(InputError) as caught:
        list(read_requirements(str(tmp_path / "d.txt")))
    assert "line 2" in str(caught.value)
    assert "line 3" in str(caught.value)
    with pytest.raises(InputError, match="cannot read"):
        list(read_requirements(str(tmp_path / "none.txt")))


def test_only_facts_of_the_machine_are_kept_and_recorded() -> None:
    environment = Environment(
        facts={"driver": Known("570.1"), "torch_cuda": Known("12.1"), "cuda_toolkit": Absent(), "python": Known("3.11")},
        gpus=(Gpu("A", "8.0"), Gpu("A", "8.0"), Gpu("B", "9.0")),
    )
    told = machine_of(environment)
    assert sorted(told.facts) == ["cuda_toolkit", "driver", "python"]
    assert recorded(told) == {"driver": "570.1", "cuda_toolkit": "none", "gpu.compute_capability": "8.0, 9.0"}


def test_another_machine_is_what_the_options_say() -> None:
    told = another_machine("3.10", "aarch64-unknown-linux-gnu", "570.1", ["9.0"])
    assert recorded(told) == {"system": "Linux", "machine": "aarch64", "driver": "570.1", "gpu.compute_capability": "9.0"}
    assert recorded(another_machine("3.10", "windows", "none", ()))["system"] == "Windows"
