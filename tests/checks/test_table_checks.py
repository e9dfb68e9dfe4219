"""Every check that reads a table, against cases that are files: what must be said, and what must not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envcheck.checks.bitsandbytes import check_bitsandbytes
from envcheck.checks.driver import check_driver
from envcheck.checks.gpu import check_gpu_torch
from envcheck.checks.gpu_packages import check_gpu_packages
from envcheck.checks.nvidia_wheels import check_nvidia_collisions, check_nvidia_pins
from envcheck.checks.pairing import check_installing_xformers, check_pairing
from envcheck.checks.python_support import check_torch_python
from envcheck.checks.toolchain import check_deepspeed_nvcc, check_host_compiler, check_toolkit_gpu
from envcheck.checks.triton import check_triton
from envcheck.checks.wheels import check_addon_wheels, check_wheel_names
from envcheck.findings import Finding, Severity
from tests.checks.tables import CASES, cases, run

if TYPE_CHECKING:
    from envcheck.checks.context import Check

CHECKS: dict[str, Check] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_driver, check_gpu_torch, check_gpu_packages, check_pairing, check_triton, check_installing_xformers,
        check_wheel_names, check_addon_wheels, check_bitsandbytes, check_deepspeed_nvcc, check_host_compiler,
        check_toolkit_gpu, check_torch_python, check_nvidia_collisions, check_nvidia_pins,
    )
}  # fmt: skip

ALL = [case for path in sorted(CASES.glob("*.toml")) if path.stem != "known_good" for case in cases(path.stem)]
GOOD = cases("known_good")


def said(findings: list[Finding]) -> list[str]:
    return sorted(f"{item.severity.label} {item.id}" for item in findings)


@pytest.mark.parametrize("case", ALL, ids=lambda case: f"{case['check']}: {case['name']}")
def test_case(case: dict[str, Any]) -> None:
    findings, skips = run(CHECKS[case["check"]], case)
    assert said(findings) == sorted(case.get("says", []))
    assert [skip.reason for skip in skips] == case.get("skips", [])
    offered = [f"{fix.kind} {fix.change}" for item in findings for fix in item.fixes]
    assert not set(case.get("fixes", [])) - set(offered), offered
    if "certain" in case:
        assert [item.certain for item in findings] == [case["certain"]]
    if "because" in case:
        assert case["because"] in " / ".join(reason for item in findings for reason in item.because)


@pytest.mark.parametrize("case", ALL, ids=lambda case: f"{case['check']}: {case['name']}")
def test_every_finding_has_subjects_reasons_and_evidence(case: dict[str, Any]) -> None:
    for item in run(CHECKS[case["check"]], case)[0]:
        assert item.subjects
        assert item.because
        assert item.evidence
        assert set(item.observed) <= {*item.subjects, "torch_cuda", "driver_cuda", "installing"}
        assert not item.title.endswith(".")


def test_every_check_has_a_speaking_and_a_silent_case() -> None:
    for name in CHECKS:
        mine = [case for case in ALL if case["check"] == name]
        assert any(case.get("says") for case in mine), name
        assert any(not case.get("says") for case in mine), name


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case["project"])
def test_what_projects_pin_gives_neither_error_nor_warning(case: dict[str, Any]) -> None:
    findings = [item for check in CHECKS.values() for item in run(check, case)[0]]
    assert not [line for line in said(findings) if not line.startswith("info")]


@pytest.mark.parametrize("name", CHECKS)
def test_an_empty_environment_is_silent(name: str) -> None:
    assert run(CHECKS[name], {}) == ([], [])


@pytest.mark.parametrize("name", CHECKS)
def test_unknown_facts_give_at_most_one_skip_and_no_error(name: str) -> None:
    names = {"torch": "2.3.0+cu121", "flash-attn": "2.5.8", "bitsandbytes": "0.43.2", "deepspeed": "0.14.5"}
    findings, skips = run(CHECKS[name], {"packages": names})
    assert not [item for item in findings if item.severity is Severity.ERROR]
    assert len(skips) <= 1


NAMES = ("torch", "torchvision", "torchaudio", "xformers", "vllm", "triton", "flash-attn", "bitsandbytes", "deepspeed",
         "mamba-ssm", "causal-conv1d", "nvidia-nccl-cu12", "nvidia-nccl-cu13", "nvidia-cudnn-cu12")  # fmt: skip
FACTS = ("driver", "driver_cuda", "cuda_toolkit", "gcc", "glibc", "python", "torch_cuda", "torch_cxx11_abi", "system", "machine",
         "torch_source", "cuda_compat", "building", "installing")  # fmt: skip
VENDOR = ("2.5.0a0+872d972e41.nv24.8", "2.6.0a0+df5bbc09d1.nv24.12", "2.8.0a0+34c6371d24.nv25.8")
VERSIONS = st.one_of(
    st.text(max_size=12),
    st.sampled_from([*VENDOR, "2.3.0", "2.13.0", "2.7.1+cu128", "0.0.27", "3.2.0", "12.1", "535", "8", "1!2.0", "dev", ""]),
)
COMPANIONS = st.sampled_from(["0.20.0a0", "0.17.0", "2.3.0", "0.0.27", "3.2.0", "2.7.4.post1"])


@given(
    packages=st.dictionaries(st.sampled_from(NAMES), VERSIONS),
    facts=st.dictionaries(st.sampled_from(FACTS), VERSIONS),
    gpus=st.lists(st.tuples(VERSIONS, VERSIONS), max_size=2),
    urls=st.dictionaries(st.sampled_from(NAMES), st.text(max_size=40).map(lambda text: f"https://x/{text}.whl")),
)
def test_no_version_text_crashes_a_check(
    packages: dict[str, str], facts: dict[str, str], gpus: list[tuple[str, str]], urls: dict[str, str]
) -> None:
    for check in CHECKS.values():
        run(check, {"packages": packages, "facts": facts, "gpus": gpus, "urls": urls})


@given(
    torch=st.sampled_from(VENDOR),
    packages=st.dictionaries(st.sampled_from(NAMES[1:11]), COMPANIONS),
    capability=st.sampled_from(["6.1", "7.0", "8.0", "9.0", "10.0", "12.0"]),
)
def test_a_vendor_build_of_torch_gives_warnings_at_most(torch: str, packages: dict[str, str], capability: str) -> None:
    facts = {"torch_cuda": "12.6", "torch_source": "ngc", "python": "3.10.12"}
    case = {"packages": {**packages, "torch": torch}, "facts": facts, "gpus": [("", capability)]}
    for check in CHECKS.values():
        for item in run(check, case)[0]:
            assert "torch" not in item.subjects or item.severity < Severity.ERROR, item.id
