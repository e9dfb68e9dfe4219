"""Parts of the profile checks that need more than an environment: deep findings, other findings of the report."""

from __future__ import annotations

from typing import Any

import pytest

from envcheck.checks.context import Context
from envcheck.checks.profile.packages import breaks
from envcheck.checks.profile.steps import Done
from envcheck.checks.profile.subject import evidence
from envcheck.checks.profile.verdict import Readiness, attach, hold_against
from envcheck.facts.model import Distribution, Environment
from envcheck.findings import Finding, Report, Severity
from envcheck.matrix.database import load
from envcheck.matrix.profile_requirements import LIST, Wanted
from envcheck.matrix.profiles import open_profile

MATRIX = load(environ={})
NVILA = open_profile(MATRIX.folder, "nvila")
PATCHED = Finding("patch-applied", Severity.INFO, "t", observed={"deepspeed": "0.9.5", "patch": "vila-deepspeed-mics"})
OTHER_PATCH = PATCHED._replace(observed={"deepspeed": "0.9.5", "patch": "another"})
PACKAGES = {"torch": "2.3.0", "triton": "3.1.0", "deepspeed": "0.9.5"}
SOME = Environment(packages={name: Distribution(name, version) for name, version in PACKAGES.items()})


def copied_files(deep: list[Finding] | None) -> tuple[Done, list[str]]:
    outcome = hold_against(Context(SOME, MATRIX), NVILA, deep)
    (state,) = [state for step, state in outcome.steps if step.verify and step.verify.patched]
    return state, [item.id for item in outcome.findings if item.id == "profile-patch"]


@pytest.mark.parametrize(
    ("deep", "state", "ids"),
    [
        (None, Done.UNSEEN, []),
        ([], Done.NOT_DONE, ["profile-patch"]),
        ([PATCHED], Done.DONE, []),
        ([OTHER_PATCH], Done.NOT_DONE, ["profile-patch"]),
        ([PATCHED._replace(id="patch-half-applied")], Done.NOT_DONE, ["profile-patch"]),
    ],
)
def test_replaced_files_are_seen_by_the_deep_checks_alone(deep: list[Finding] | None, state: Done, ids: list[str]) -> None:
    assert copied_files(deep) == (state, ids)


@pytest.mark.parametrize(
    ("source", "kinds"),
    [
        ("", []),
        ("import check 2026-11-24 (CPU, packages from PyPI)", ["docs"]),
        ("NVlabs/VILA#217; import check 2026-11-24 (CPU, packages from PyPI)", ["issue"]),
        ("zai-org/GLM-V#224, zai-org/GLM-V#178, https://docs.vllm.ai/x/", ["issue", "issue", "docs"]),
        ("trl wheels 0.19.1 to 0.29.1 read 2026-11-24; huggingface/alignment-handbook@925acdf:scripts", ["docs", "code"]),
    ],
)
def test_sources_become_evidence_one_by_one(source: str, kinds: list[str]) -> None:
    found = evidence(source)
    assert [item.kind for item in found] == kinds
    assert all(item.ref for item in found)


CONFLICT = Finding(
    "requirement-conflict", Severity.WARNING, "`torch` wants `triton==2.3.0`, but triton is 3.1.0",
    subjects=("torch", "triton"), observed={"torch": "2.3.0", "triton": "3.1.0"},
)  # fmt: skip


def attached(*findings: Finding) -> Report:
    return attach(Report(findings=findings), hold_against(Context(SOME, MATRIX), NVILA))


def test_a_conflict_that_the_project_makes_on_purpose_is_expected() -> None:
    (finding,) = attached(CONFLICT).findings
    assert finding.severity is Severity.INFO
    assert finding.because[-1] == "expected: NVILA (VILA 2.0) puts `triton==3.1.0` in place on purpose"


@pytest.mark.parametrize(
    "other",
    [
        CONFLICT._replace(observed={"torch": "2.3.0", "triton": "3.0.0"}),
        CONFLICT._replace(subjects=("triton", "torch"), observed={"torch": "2.3.0"}),
        CONFLICT._replace(id="something-else"),
    ],
)  # fmt: skip
def test_any_other_conflict_stays(other: Finding) -> None:
    assert attached(other).findings == (other,)


def test_an_error_elsewhere_keeps_a_profile_from_being_ready() -> None:
    report = attached(CONFLICT._replace(id="wrong-gradient", severity=Severity.ERROR))
    assert report.extra["profile"]["readiness"] == Readiness.DEGRADED.value
    assert "1 error against this environment" in report.notes[-1]
    assert attached().extra["profile"]["readiness"] == Readiness.UNDECIDED.value


@pytest.mark.parametrize(
    ("name", "spec", "version", "breaks_it"),
    [
        ("torch", "==2.3.0", "2.4.1", False),  # another minor of a pin: nobody tried it
        ("torch", "==2.3.0", "1.13.1", True),  # another major
        ("transformers", "==4.46.0", "4.46.3", False),
        ("transformers", "==4.46.0", "4.57.6", True),  # projects build on its internals
        ("openai", ">=2.9.0", "1.60.0", True),  # below a stated floor
        ("numpy", "<2", "2.2.6", False),  # above a ceiling
        ("vllm", "<=0.12.0", "0.17.0", True),
        ("protobuf", "==3.20.*", "3.19.0", True),
        ("protobuf", "==3.20.*", "4.25.0", False),
        ("anything", "==1.0", "not a version", False),
    ],
)
def test_what_a_departure_means(name: str, spec: str, version: str, breaks_it: Any) -> None:
    assert breaks(Wanted(name, spec, LIST), version) is breaks_it
