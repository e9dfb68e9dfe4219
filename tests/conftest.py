from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

#: How often each property is searched for a counterexample, with new random examples each time; unset, the same ones every time.
SEARCHES = int(os.environ.get("ENVCHECK_RANDOM_TESTS") or 0)

settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60, print_blob=True)
settings.register_profile("envcheck", settings.get_profile("random"), derandomize=True)
settings.load_profile("random" if SEARCHES else "envcheck")


@pytest.fixture
def _search() -> None:
    """One of the searches that ENVCHECK_RANDOM_TESTS asks for."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if SEARCHES > 1 and is_hypothesis_test(metafunc.function):
        metafunc.fixturenames.append("_search")
        metafunc.parametrize("_search", range(1, SEARCHES + 1), indirect=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The longest tests are run when asked for: with them a run on two cores would take half an hour."""
    if item.get_closest_marker("long") and not os.environ.get("ENVCHECK_LONG_TESTS"):
        pytest.skip("ENVCHECK_LONG_TESTS is not set")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads what another run of envcheck remembered, or leaves something in the user's cache."""
    os.environ["ENVCHECK_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _no_answers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check is computed, except where answers are what is tested."""
    if "answers" not in request.keywords:
        monkeypatch.setattr("envcheck.cli.answers.cache_folder", lambda _: None)
