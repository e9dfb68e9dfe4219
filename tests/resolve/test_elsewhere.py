"""Add-ons that a lock holds as a source archive: what the wheel's name must say."""

from __future__ import annotations

from envcheck.checks.context import Context
from envcheck.facts.model import Environment, Known
from envcheck.matrix.database import load
from envcheck.matrix.settings import Settings
from envcheck.resolve.elsewhere import compiled_here
from envcheck.resolve.judgement import Court
from envcheck.resolve.lockfile import Artifact, Lock, LockedPackage

MATRIX = load(cache=False)
ARCHIVE = Artifact("flash_attn-2.5.8.tar.gz", "https://files.pythonhosted.org/flash_attn-2.5.8.tar.gz")
WHEEL = Artifact("flash_attn-2.5.8-py3-none-any.whl", "https://example.org/flash_attn-2.5.8-py3-none-any.whl")
PYPI = "https://files.pythonhosted.org/torch.whl"


def context(torch: str) -> Context:
    machine = Environment(facts={"python": Known("3.10"), "system": Known("Linux"), "machine": Known("x86_64")})
    court = Court(MATRIX, machine, Settings())
    return Context(court.environment({"torch": torch, "flash-attn": "2.5.8"}, {"torch": PYPI}), MATRIX)


def test_the_wheel_meant_is_named_by_its_tags() -> None:
    (found,) = compiled_here(Lock((LockedPackage("flash-attn", "2.5.8", sdist=ARCHIVE),)), context("2.3.0"))
    assert "with `torch2.3`, `cu12`, `cxx11abiFALSE`, `cp310` in its name" in found.because[1]


def test_a_wheel_and_other_packages_are_not_remarked_on() -> None:
    for package in (
        LockedPackage("flash-attn", "2.5.8", wheels=(WHEEL,), sdist=ARCHIVE),
        LockedPackage("nltk", "3.3", sdist=ARCHIVE),
    ):
        assert not list(compiled_here(Lock((package,)), context("2.3.0")))


def test_a_version_that_no_table_knows_is_said_to_be_unknown() -> None:
    (found,) = compiled_here(Lock((LockedPackage("flash-attn", "9.0", sdist=ARCHIVE),)), context("2.3.0"))
    assert "is not known" in found.because[-1]
