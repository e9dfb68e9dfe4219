"""`envcheck lock --profile`: what is asked of the resolver, what is left out, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from envcheck.cli.lock import make, read_request
from envcheck.cli.main import build_parser, main
from envcheck.matrix.database import load
from envcheck.matrix.profile import Recipe
from envcheck.matrix.profiles import load_profiles, open_profile
from envcheck.matrix.settings import UNSET
from envcheck.resolve import pylock, uv
from envcheck.resolve.lockfile import read_lock
from envcheck.resolve.profile import remarks
from tests.resolve.fakeuv import write_uv

if TYPE_CHECKING:
    from pathlib import Path

    from envcheck.matrix.profile import Profile
    from envcheck.resolve.request import Request

MATRIX = load(environ={})
PROFILES = load_profiles(MATRIX.folder)


def asked(profile: Profile, *more: str) -> Request:
    argv = ["lock", "--profile", profile.id, "--driver", "580.65", *more]
    return read_request(build_parser("lock").parse_args(argv), MATRIX, {}, profile)


def test_a_profile_becomes_a_request() -> None:
    request = asked(open_profile(MATRIX.folder, "nvila"), "tqdm<5", "--override", "numpy==1.26.3")
    assert request.python == "3.10"
    assert {"torch==2.3.0", "deepspeed==0.9.5", "setuptools<81", "tqdm<5", "triton==3.1.0"} <= set(request.requirements)
    assert not any("s2wrapper" in line or line.startswith("flash-attn") for line in request.requirements)
    assert {"httpx<0.28", "pydantic<2"} <= set(request.constraints)
    assert request.overrides == ("triton==3.1.0", "protobuf==3.20.*", "numpy==1.26.3")


def test_the_settings_of_a_profiles_scripts_are_served_each_and_what_is_told_wins(tmp_path: Path) -> None:
    profile = open_profile(MATRIX.folder, "vila-1.5")
    request = asked(profile)
    served = (request.settings, *request.others)
    assert [item.get("zero_optimization.stage") for item in served] == [2, 3]
    assert all(item.get("bf16.enabled") is True and item.deepspeed_complete for item in served)
    told = asked(profile, "--set", "gradient_accumulation_steps=4")
    assert [item.get("gradient_accumulation_steps") for item in (told.settings, *told.others)] == [4, 4]
    one = asked(profile, "--set", "zero_optimization.stage=1")
    assert [item.get("zero_optimization.stage") for item in (one.settings, *one.others)] == [1, 1]
    config = tmp_path / "ds.json"
    config.write_text('{"zero_optimization": {"stage": 3}}')
    whole = asked(profile, "--ds-config", str(config))
    assert whole.settings.get("zero_optimization.stage") == 3
    assert whole.settings.get("zero_optimization.overlap_comm") is UNSET
    assert whole.others == ()
    arguments = tmp_path / "args.json"
    arguments.write_text('{"max_grad_norm": 0.5}')
    both = asked(profile, "--ds-config", str(config), "--training-args", str(arguments))
    assert both.settings.get("max_grad_norm") == 0.5


def test_a_set_has_to_serve_every_script_of_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under ZeRO-3 alone 0.18.2 would do; a script of the profile uses ZeRO-2 with accumulation."""
    monkeypatch.chdir(tmp_path)
    known = open_profile(MATRIX.folder, "deepspeed-chat")
    scripts = tuple(
        Recipe(deepspeed={"zero_optimization": {"stage": stage}, "gradient_accumulation_steps": 4}) for stage in (3, 2)
    )
    profile = replace(known, requires=("deepspeed<0.18.3", "torch"), settings=scripts, bounds=())
    program = str(write_uv(tmp_path))
    monkeypatch.setattr(uv, "find_uv", lambda: program)
    for recipes, expected in ((scripts, "0.17.5"), (scripts[:1], "0.18.2")):
        args = build_parser("lock").parse_args(["lock", "--profile", "x", "--driver", "580.65", "--python-version", "3.11"])
        text, report = make(args, MATRIX, replace(profile, settings=recipes))
        assert report.extra["lock"]["packages"]["deepspeed"] == expected
        provenance = pylock.parse(text).provenance
        assert provenance is not None
        assert len(provenance.others) == len(recipes) - 1
        assert provenance.settings["zero_optimization.stage"] == 3


def test_source_distributions_are_built_under_the_profiles_limits() -> None:
    assert asked(open_profile(MATRIX.folder, "glm-tts")).build_constraints == ("setuptools<81",)


def test_wheels_for_a_newer_glibc_are_solved_for() -> None:
    profile = open_profile(MATRIX.folder, "verl-main-sglang")
    assert asked(profile).platform == "x86_64-manylinux_2_34"
    assert asked(profile, "--python-platform", "aarch64-unknown-linux-gnu").platform == "aarch64-unknown-linux-gnu"


def test_another_python_can_be_asked_for() -> None:
    assert asked(open_profile(MATRIX.folder, "trl-1.9"), "--python-version", "3.12").python == "3.12"


@pytest.mark.parametrize("profile", PROFILES, ids=[profile.id for profile in PROFILES])
def test_what_a_lock_leaves_out_is_told_with_what_to_do(profile: Profile) -> None:
    told = {item.id: item for item in remarks(profile)}
    if profile.lock.left_out:
        assert set(told["profile-left-out"].subjects) == {item.what for item in profile.lock.left_out}
        assert all(item.do in " ".join(told["profile-left-out"].because) for item in profile.lock.left_out)
    else:
        assert "profile-left-out" not in told
    assert ("profile-lock-note" in told) is bool(profile.lock.note)


def test_a_refused_lock_says_why_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["lock", "--profile", "kimi-k2-thinking-sft", "--format", "json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["id"] == "profile-not-lockable"
    assert "nothing of it is on a package index" in finding["because"][0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("name", ["autoglm-phone-9b-client", "hunyuanocr-1.5-transformers"])
def test_a_real_lock(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "pylock.toml"
    assert main(["lock", "--profile", name, "--driver", "580.65", "-o", str(lock)]) == 0
    capsys.readouterr()
    assert "pillow" in read_lock(str(lock)).versions()
