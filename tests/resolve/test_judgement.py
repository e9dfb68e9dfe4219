"""Answers before the checks: tables become nogoods over ranges, and what follows from the chosen torch is known."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from envcheck.checks.context import Context
from envcheck.checks.registry import CHECKS, run_all
from envcheck.facts.model import Absent, Environment, Fact, Gpu, Known
from envcheck.findings import Finding, Severity
from envcheck.matrix.database import load
from envcheck.matrix.settings import Settings
from envcheck.resolve.judgement import LISTED, Court, convene, listed, runs, torch_source

MATRIX = load(cache=False)
PYPI = "https://files.pythonhosted.org/packages/torch.whl"


def machine(driver: str = "", capability: str = "", python: str = "3.11") -> Environment:
    facts: dict[str, Fact] = {"python": Known(python), "system": Known("Linux"), "machine": Known("x86_64")}
    if driver:
        facts["driver"] = Absent() if driver == "none" else Known(driver)
    gpus = (Gpu("", capability),) if capability else None
    return Environment(facts=facts, gpus=gpus)


def court(driver: str = "", capability: str = "", python: str = "3.11", waived: frozenset[str] = frozenset()) -> Court:
    return Court(MATRIX, machine(driver, capability, python), Settings(), waived)


@pytest.mark.parametrize(
    ("driver", "capability", "build", "expected"),
    [
        ("535.104.05", "", "", {("driver-too-old-for-torch-cuda", ">=2.11.0")}),
        ("580.65", "", "", set()),
        ("none", "", "", set()),
        ("", "", "", set()),
        ("580.65", "9.0", "", {("gpu-not-in-torch-build", ">=1.13.0")}),
        ("535.104.05", "8.0", "cu126", set()),
    ],
)
def test_driver_and_gpu_exclude_ranges_of_torch(driver: str, capability: str, build: str, expected: set[tuple[str, str]]) -> None:
    found = list(court(driver, capability).of_torch(build))
    assert {(item.id, item.terms[0].spec.partition(",")[0]) for item in found} == expected


@pytest.mark.parametrize(
    ("asked", "spoken"), [("==2.5.1", "torch 2.5.1 "), ("<2.6", "torch 2.5.1 "), ("", "torch 2.7.1 "), (">=2.9", "torch 2.7.1 ")]
)
def test_a_range_of_torch_argues_from_what_was_asked_for(asked: str, spoken: str) -> None:
    (found,) = court("580.65", "12.0").of_torch("", SpecifierSet(asked))
    assert found.because[0].startswith(spoken)


def test_ranges_of_torch_hold_what_the_checks_call_an_error_and_nothing_else() -> None:
    told = court("470.57.02", "7.0", "3.12")
    found = list(told.of_torch())
    for version in listed(MATRIX, "torch"):
        environment = told.environment({"torch": version}, {"torch": PYPI})
        context = Context(environment, MATRIX, Settings())
        outcomes = [item for name in ("driver", "gpu-torch", "torch-python") for item in CHECKS[name](context)]
        errors = {item.id for item in outcomes if isinstance(item, Finding) and item.severity is Severity.ERROR}
        assert {item.id for item in found if item.violated({"torch": version})} == errors, version


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ({"torch": "2.10.0", "torchvision": "0.20.1"}, "torchvision>=0.14.0,<=0.24.1 with torch>=2.10.0,<=2.15.0"),
        ({"torch": "2.5.1", "torchvision": "0.20.1"}, None),
        ({"torch": "2.5.1+cu121", "torchvision": "0.20.1+cu121"}, None),
        ({"torch": "2.6.0", "triton": "3.3.1"}, "triton>=3.3.1,<=3.8.0 with torch==2.6.0"),
    ],
)
def test_pairs_are_excluded_as_ranges(versions: dict[str, str], expected: str | None) -> None:
    found = court().violated(versions, {})
    assert [item.text for item in found] == ([expected] if expected else [])
    assert all(item.violated(versions) for item in found)


def test_a_package_for_other_gpus_is_excluded_by_its_tables_range() -> None:
    found = court("535.104.05", "7.0").violated({"torch": "2.3.0", "flash-attn": "2.5.8"}, {})
    assert [item.text for item in found] == ["flash-attn>=2.0"]


def test_rules_about_the_build_of_torch_are_judged_on_the_answer() -> None:
    told = Court(MATRIX, machine(), Settings())
    environment = told.environment({"torch": "2.3.0"}, {"torch": PYPI})
    assert environment.fact("torch_cuda") == Known("12.1", "the chosen build")
    assert environment.fact("torch_source") == Known("pypi", "the file's place")
    cpu = told.environment({"torch": "2.13.0+cpu"}, {"torch": "file:///wheels/torch.whl"})
    assert isinstance(cpu.fact("torch_cuda"), Absent)
    assert cpu.complete


def test_versions_that_must_be_equal_are_excluded_as_they_are() -> None:
    versions = {"torch": "2.6.0", "transformer-engine": "2.1", "transformer-engine-torch": "2.0"}
    found = [item for item in court().violated(versions, {}) if item.id == "transformer-engine-torch-differs"]
    assert len(found) == 1
    assert "transformer-engine-torch==2.0" in found[0].text
    assert found[0].violated(versions)


def test_a_wheel_named_by_url_is_judged_by_its_name() -> None:
    wheel = "https://example.org/flash_attn-2.5.8+cu122torch2.3cxx11abiFALSE-cp310-cp310-linux_x86_64.whl"
    versions, sources = {"torch": "2.3.0", "flash-attn": "2.5.8"}, {"torch": PYPI, "flash-attn": wheel}
    assert not court(python="3.10").violated(versions, sources)
    found = court(python="3.11").violated(versions, sources)
    assert [item.id for item in found] == ["wheel-for-another-environment"]
    found = court(python="3.10").violated({**versions, "torch": "2.4.0"}, sources)
    assert [item.text for item in found] == ["flash-attn==2.5.8 with torch>=2.4.0,<=2.15.0"]


def releases() -> dict[str, list[str]]:
    """Versions that the rules' own examples name, and those that the tables list."""
    found: dict[str, set[str]] = {}
    for rule in MATRIX.rules():
        for example in (*rule.matches, *rule.clear):
            for name, version in example.packages.items():
                found.setdefault(name, set()).add(version)
    for name in LISTED:
        found.setdefault(name, set()).update(listed(MATRIX, name))
    return {name: sorted(versions) for name, versions in sorted(found.items())}


RELEASES = releases()
LIKELY = (
    "torch",
    "deepspeed",
    "transformers",
    "accelerate",
    "torchvision",
    "triton",
    "numpy",
    "peft",
    "flash-attn",
    "setuptools",
)
NAMES = st.one_of(st.sampled_from(LIKELY), st.sampled_from(sorted(RELEASES)))
SETS = st.lists(NAMES, max_size=8, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: st.sampled_from(RELEASES[name]) for name in names})
)
MACHINES = st.builds(
    machine, st.sampled_from(["", "none", "470.57.02", "535.104.05", "580.65"]), st.sampled_from(["", "7.0", "8.0", "12.0"]),
    st.sampled_from(["3.9", "3.10", "3.11", "3.12", "3.13"]),
)  # fmt: skip
KNOWN: dict[str, list[Any]] = {
    "zero_optimization.stage": [0, 1, 2, 3],
    "gradient_accumulation_steps": [1, 4],
    "bf16.enabled": [True, False],
    "world_size": [1, 8],
}
SETTINGS = st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in KNOWN.items()}).map(Settings)


def errors(environment: Environment, settings: Settings) -> set[str]:
    findings, _ = run_all(Context(environment, MATRIX, settings))
    return {item.id for item in findings if item.severity is Severity.ERROR}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(versions=SETS, here=MACHINES, told=SETTINGS)
def test_a_lock_refuses_a_set_exactly_where_the_check_of_its_environment_has_an_error_that_versions_mend(
    versions: dict[str, str], here: Environment, told: Settings,
) -> None:  # fmt: skip
    court = convene(MATRIX, here, told)
    refused = {item.id for item in court.violated(versions, {}) if not item.soft}
    found = errors(court.environment(versions, {}), told)
    assert refused <= found
    assert bool(refused) is bool(found - errors(court.environment({}, {}), told))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(versions=SETS, installed=SETS, here=MACHINES, told=SETTINGS)
def test_an_installed_set_is_judged_as_a_lock_of_the_same_versions_is(
    versions: dict[str, str], installed: dict[str, str], here: Environment, told: Settings,
) -> None:  # fmt: skip
    """Whatever was installed before: what `fix` may choose is what `lock` may."""
    before = convene(MATRIX, here, told).environment(installed, {})
    lock, fix = convene(MATRIX, here, told), convene(MATRIX, before, told)
    assert bool([item for item in lock.violated(versions, {}) if not item.soft]) is bool(
        [item for item in fix.violated(versions, {}) if not item.soft]
    )
    assert errors(lock.environment(versions, {}), told) == errors(fix.environment(versions, {}), told)


def test_waived_findings_do_not_count() -> None:
    versions = {"torch": "2.10.0", "torchvision": "0.20.1"}
    assert not court(waived=frozenset({"torchvision-for-another-torch"})).violated(versions, {})


def test_the_machines_own_faults_are_no_nogoods() -> None:
    broken = Environment(facts={"driver": Known("535.104.05"), "libcuda": Known("535.54"), "kernel_module": Known("535.104.05")})
    assert not Court(MATRIX, broken, Settings()).violated({"idna": "3.10"}, {})


def test_runs() -> None:
    assert list(runs(["1.0", "1.1", "1.2", "1.3"], ["1.0", "1.2", "1.3"])) == ["==1.0", ">=1.2,<=1.3"]
    assert not list(runs(["1.0"], []))


def test_sources() -> None:
    assert torch_source(PYPI) == "pypi"
    assert torch_source("https://download.pytorch.org/whl/cu126/torch.whl") == "pytorch-index"
    assert torch_source("file:///x/torch.whl") == ""
