"""Every profile end to end: what uv resolves for it is ready, and each departure gives the verdict it deserves."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from envcheck.checks.context import Context
from envcheck.checks.profile.hardware import check_hardware
from envcheck.checks.profile.packages import (
    INTERNALS,
    check_bounds,
    check_forbidden,
    check_missing,
    check_python,
    check_versions,
)
from envcheck.checks.profile.servers import check_servers
from envcheck.checks.profile.subject import Subject
from envcheck.checks.profile.verdict import ProfileOutcome, Readiness, area, hold_against, of_severity
from envcheck.cli.main import main
from envcheck.facts.model import Distribution, Environment, Gpu, Known
from envcheck.facts.snapshot import dumps
from envcheck.findings import Finding, Severity
from envcheck.matrix.database import Matrix, load
from envcheck.matrix.profile_requirements import Wanted, lock_markers, lock_python, pinned, wanted_packages
from envcheck.matrix.profiles import load_profiles

if TYPE_CHECKING:
    from envcheck.matrix.profile import Profile

DATA = Path(__file__).parent / "data"
SETS: dict[str, str] = tomli.loads((DATA / "profile-sets.toml").read_text())
CASES: list[dict[str, Any]] = tomli.loads((DATA / "profile-cases.toml").read_text())["case"]
MATRIX: Matrix = load(environ={})
PROFILES: dict[str, Profile] = {profile.id: profile for profile in load_profiles(MATRIX.folder)}
every_profile = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)

ORDER = (Readiness.READY, Readiness.UNDECIDED, Readiness.DEGRADED, Readiness.CANNOT_RUN)


def good_packages(profile: Profile) -> dict[str, Distribution]:
    assert profile.id in SETS, f"tests/data/profile-sets.toml has no line for {profile.id}: CONTRIBUTING.md says how to make it"
    pairs = (item.split("==") for item in SETS[profile.id].split())
    git = {step.verify.git: step.verify for step in profile.steps if step.verify and step.verify.git}
    return {
        name: Distribution(
            name, version,
            direct_url=git[name].url if name in git else "", commit=git[name].revision if name in git else "",
        )
        for name, version in pairs
    }  # fmt: skip


def wanted(profile: Profile) -> dict[str, Wanted]:
    return wanted_packages(profile, lock_markers(lock_python(profile)))


def good_gpus(profile: Profile) -> tuple[Gpu, ...]:
    least = {need.what: need.at_least for need in profile.needs if need.at_least}
    count = int(least.get("gpus", "1"))
    memory = max(float(least.get("gpu_memory_gb", "1")), float(least.get("total_gpu_memory_gb", "0")) / count)
    return (Gpu("GPU", max("8.0", least.get("compute_capability", "")), math.ceil(memory * 1024)),) * count


def good_environment(profile: Profile) -> Environment:
    facts = {"python": f"{lock_python(profile)}.11", "driver": "610.43.02"}
    return Environment(
        packages=good_packages(profile), complete=True, gpus=good_gpus(profile),
        facts={**{name: Known(value) for name, value in facts.items()}, "programs": Known(("adb", *profile.programs))},
    )  # fmt: skip


def hold(profile: Profile, environment: Environment) -> ProfileOutcome:
    return hold_against(Context(environment, MATRIX), profile)


def subject(profile: Profile, environment: Environment) -> Subject:
    return Subject(Context(environment, MATRIX), profile, wanted(profile))


def worst_of(profile: Profile, *, firm: bool) -> Readiness:
    """What a departure comes to: advisory profiles never fail."""
    return Readiness.CANNOT_RUN if firm and not profile.advisory else Readiness.DEGRADED


def without(environment: Environment, *names: str) -> Environment:
    return environment._replace(packages={key: value for key, value in environment.packages.items() if key not in names})


def with_version(environment: Environment, name: str, version: str) -> Environment:
    return environment._replace(packages={**environment.packages, name: Distribution(name, version)})


@every_profile
def test_what_a_resolver_gives_is_ready(
    profile: Profile, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    snapshot = tmp_path / "snapshot.json"
    snapshot.write_text(dumps(good_environment(profile)))
    code = main(["check", "--snapshot", str(snapshot), "--profile", profile.name, "--format", "json"])
    report = json.loads(capsys.readouterr().out)
    assert [item for item in report["findings"] if item["id"].startswith("profile-") and item["severity"] != "info"] == []
    assert (code, report["profile"]["id"], report["profile"]["readiness"]) == (0, profile.id, "ready")
    assert set(report["profile"]["areas"].values()) == {"ready"}


@every_profile
def test_a_missing_package_is_named(profile: Profile) -> None:
    good = good_environment(profile)
    for name, item in wanted(profile).items():
        firm = item.required and not item.origin.startswith("group ") and "requires" not in profile.provenance.inferred
        missing = list(check_missing(subject(profile, without(good, name))))
        assert [(found.subjects, of_severity(found.severity)) for found in missing if isinstance(found, Finding)] == [
            ((name,), worst_of(profile, firm=firm))
        ]


@every_profile
def test_an_empty_environment_cannot_run(profile: Profile) -> None:
    outcome = hold_against(Context(good_environment(profile)._replace(packages={}), MATRIX), profile, pins=False)
    named = {name for found in outcome.findings if found.id == "profile-package-missing" for name in found.subjects}
    assert named == wanted(profile).keys()
    inferred = "requires" in profile.provenance.inferred
    firm = not inferred and any(item.required and not item.origin.startswith("group ") for item in wanted(profile).values())
    assert outcome.readiness is worst_of(profile, firm=firm or profile.server == "required")


@every_profile
@pytest.mark.parametrize("step", [1, -1], ids=["newer", "older"])
def test_each_pin_off_by_a_minor_release_moves_the_verdict(profile: Profile, step: int) -> None:
    """Another minor version of a pin: not tried by anybody; of a package whose internals the project uses: it does not run."""
    good = good_environment(profile)
    for name, item in wanted(profile).items():
        pin = pinned(item.spec)
        if not pin or item.url.startswith("git+"):
            continue
        major, minor = (*Version(pin).release, 0)[:2]
        if minor + step < 0:
            continue
        outcome = hold_against(Context(with_version(good, name, f"{major}.{minor + step}"), MATRIX), profile, pins=False)
        spoken = [found for found in outcome.findings if found.id == "profile-package-version"]
        assert [found.subjects for found in spoken] == [(name,)], name
        firm = name in INTERNALS and "requires" not in profile.provenance.inferred
        assert of_severity(spoken[0].severity) is worst_of(profile, firm=firm), name
        assert ORDER.index(outcome.readiness) >= ORDER.index(of_severity(spoken[0].severity)), name
        assert outcome.areas["packages"] is outcome.readiness, name


@every_profile
def test_its_own_pins_by_themselves_are_no_reproach(profile: Profile) -> None:
    """As somebody writes them down, on a machine that fits: what else is installed is not known."""
    own = {item.name: Distribution(item.name, pinned(item.spec)) for item in wanted(profile).values() if pinned(item.spec)}
    outcome = hold_against(Context(good_environment(profile)._replace(packages=own, complete=False), MATRIX), profile, pins=False)
    assert [item.title for item in outcome.findings if item.severity > Severity.INFO] == []
    assert outcome.readiness in (Readiness.READY, Readiness.UNDECIDED)
    assert outcome.areas["hardware"] is Readiness.READY


@every_profile
def test_an_incomplete_snapshot_is_no_reproach(profile: Profile) -> None:
    known = {name: item for name, item in good_packages(profile).items() if name == "torch"}
    outcome = hold(profile, Environment(packages=known))
    assert [found.title for found in outcome.findings if found.severity > Severity.INFO] == []
    assert outcome.areas["hardware"] is (Readiness.UNDECIDED if profile.needs else Readiness.READY)


@every_profile
def test_a_version_far_below_the_list_cannot_run(profile: Profile) -> None:
    good = good_environment(profile)
    for name, item in wanted(profile).items():
        floored = pinned(item.spec) or ">" in item.spec or "==" in item.spec
        if floored and not item.url.startswith("git+") and not item.spec.startswith((">=0.0.", "==0.0.")):
            named = list(check_versions(subject(profile, with_version(good, name, "0.0.0"))))
            assert [found.subjects for found in named if isinstance(found, Finding)] == [(name,)], name


@every_profile
def test_the_wrong_python(profile: Profile) -> None:
    environment = good_environment(profile)
    found = check_python(subject(profile, environment._replace(facts={**environment.facts, "python": Known("3.7.17")})))
    firm = "python" not in profile.provenance.inferred and (not profile.python.endswith(".*") or bool(profile.python_only))
    assert area(list(found)) is worst_of(profile, firm=firm)


#: Compute capabilities in the order of their GPUs.
LADDER = ("5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")


@every_profile
def test_hardware_one_step_below_a_need(profile: Profile) -> None:
    good = good_environment(profile)
    gpus = good.gpus or ()
    for need in (need for need in profile.needs if need.at_least and need.what != "driver"):
        cards = len(gpus) if need.what == "total_gpu_memory_gb" else 1
        weaker = (
            LADDER[LADDER.index(need.at_least) - 1] if need.what == "compute_capability" and need.at_least != "5.0" else "3.7"
        )
        less = {
            "compute_capability": tuple(gpu._replace(compute_capability=weaker) for gpu in gpus), "gpus": gpus[:-1],
        }.get(need.what, tuple(gpu._replace(memory_mib=int(float(need.at_least) * 940 / cards)) for gpu in gpus))  # fmt: skip
        outcomes = check_hardware(subject(profile, good._replace(gpus=less)))
        spoken = [item for item in outcomes if isinstance(item, Finding) and any(need.why in reason for reason in item.because)]
        assert [item.severity for item in spoken] == [
            Severity.ERROR if need.firm and not profile.advisory else Severity.WARNING
        ], need.what


@every_profile
def test_a_machine_without_a_gpu(profile: Profile) -> None:
    outcomes = list(check_hardware(subject(profile, good_environment(profile)._replace(gpus=()))))
    firm = bool({"train", "serve"} & set(profile.use)) or any(need.firm for need in profile.needs)
    assert area(outcomes) is (worst_of(profile, firm=firm) if profile.needs else Readiness.READY)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_case(case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A case starts from the good environment of its profile, or from nothing (`from = "nothing"`), and changes it."""
    profile = PROFILES[case["profile"]]
    document = {"packages": {}} if case.get("from") == "nothing" else json.loads(dumps(good_environment(profile)))
    document = {**document, **case.get("facts", {})}
    document["packages"] = {**document["packages"], **case.get("packages", {})}
    document["facts"] = {**document.get("facts", {}), **case.get("more_facts", {})}
    for name in case.get("remove", []):
        del document["packages"][name]
    snapshot = tmp_path / "snapshot.json"
    snapshot.write_text(json.dumps(document))
    code = main(["check", "--snapshot", str(snapshot), "--profile", case["profile"], "--format", "json"])
    report = json.loads(capsys.readouterr().out)
    assert report["profile"]["readiness"] == case["readiness"]
    assert code == (1 if case["readiness"] == "cannot run" else case.get("code", 0))
    found = {item["id"]: item for item in report["findings"]}
    assert set(case.get("ids", [])) <= found.keys()
    assert not set(case.get("never", [])) & {name for name, item in found.items() if item["severity"] != "info"}
    text = json.dumps(report, ensure_ascii=False)
    for words in case.get("says", []):
        assert words in text


ANY_PROFILE = st.sampled_from(sorted(PROFILES))


@given(ANY_PROFILE, st.integers(0, 9), st.integers(1, 200), st.sampled_from(["7.0", "8.0", "8.9", "9.0", "12.0"]))
def test_more_of_the_same_gpu_never_makes_it_worse(name: str, count: int, memory: int, capability: str) -> None:
    profile = PROFILES[name]
    gpu = Gpu("", capability, memory * 1024)
    fewer = Environment(gpus=(gpu,) * count)
    more = Environment(gpus=(gpu._replace(memory_mib=gpu.memory_mib * 2),) * (count + 1))
    one, other = (area(list(check_hardware(subject(profile, item)))) for item in (fewer, more))
    assert ORDER.index(other) <= ORDER.index(one)


@given(ANY_PROFILE, st.sets(st.integers(0, 400)))
def test_what_is_not_listed_is_never_missing_in_an_incomplete_snapshot(name: str, dropped: set[int]) -> None:
    profile = PROFILES[name]
    kept = {key: item for number, (key, item) in enumerate(good_packages(profile).items()) if number not in dropped}
    environment = Environment(packages=kept, facts={"python": Known(f"{lock_python(profile)}.1")})
    checks = (check_python, check_missing, check_versions, check_bounds, check_forbidden, check_servers, check_hardware)
    outcomes = [item for check in checks for item in check(subject(profile, environment))]
    assert [item for item in outcomes if isinstance(item, Finding)] == []
