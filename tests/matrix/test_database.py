from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from envcheck.errors import InputError
from envcheck.facts.model import Distribution, Environment
from envcheck.matrix.database import load
from tests.matrix.rules import GOOD, folder, parsed

if TYPE_CHECKING:
    from pathlib import Path


def cached(tmp_path: Path) -> dict[str, str]:
    return {"ENVCHECK_CACHE": str(tmp_path / "cache")}


def test_rules_survive_the_cache(tmp_path: Path) -> None:
    place = folder(tmp_path / "m", GOOD)
    first = load(str(place), cached(tmp_path))
    second = load(str(place), cached(tmp_path))
    assert len(list((tmp_path / "cache").iterdir())) == 1
    expected = [rule._replace(file="rules/t.toml") for rule in parsed(GOOD)]
    assert list(first.rules()) == list(second.rules()) == expected


def test_a_changed_file_is_seen(tmp_path: Path) -> None:
    place = folder(tmp_path / "m", GOOD)
    before = load(str(place), cached(tmp_path)).digest
    time.sleep(0.01)
    (place / "rules" / "t.toml").write_text(GOOD.replace('title = "a"', 'title = "b"'))
    after = load(str(place), cached(tmp_path))
    assert after.digest != before
    assert [rule.title for rule in after.rules()] == ["b"]


@pytest.mark.parametrize("damage", [b"", b"{}", b"\x00\xff", b'{"length": 5}\nabc', b"[1"])
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, damage: bytes) -> None:
    place = folder(tmp_path / "m", GOOD)
    load(str(place), cached(tmp_path))
    (store,) = (tmp_path / "cache").iterdir()
    store.write_bytes(damage)
    assert len(load(str(place), cached(tmp_path))) == 1
    assert store.read_bytes() != damage


def test_a_cut_off_cache_is_rebuilt(tmp_path: Path) -> None:
    place = folder(tmp_path / "m", GOOD)
    load(str(place), cached(tmp_path))
    (store,) = (tmp_path / "cache").iterdir()
    store.write_bytes(store.read_bytes()[:-20])
    assert [rule.id for rule in load(str(place), cached(tmp_path)).rules()] == ["deepspeed-a"]


def test_a_cache_that_goes_while_it_is_used_is_made_again(tmp_path: Path) -> None:
    place = folder(tmp_path / "m", GOOD, pairs={"row": [{"a": 1}]})
    expected = list(load(str(place), cached(tmp_path)).rules())
    matrix = load(str(place), cached(tmp_path))
    (store,) = (tmp_path / "cache").iterdir()
    store.unlink()
    assert list(matrix.rules()) == expected
    assert matrix.table("pairs") == {"row": [{"a": 1}]}


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "/proc/nowhere"}, {"XDG_CACHE_HOME": "/dev/null"}])
def test_no_home_or_a_read_only_one_is_no_error(tmp_path: Path, environ: dict[str, str]) -> None:
    assert len(load(str(folder(tmp_path, GOOD)), environ)) == 1


def test_candidates_are_the_rules_no_package_rules_out(tmp_path: Path) -> None:
    other = GOOD.replace("deepspeed-a", "torch-a").replace("{ deepspeed", "{ torch")
    matrix = load(str(folder(tmp_path, GOOD + other)), {})
    found = matrix.candidates(Environment(packages={"torch": Distribution("torch", "1.5")}, complete=True))
    assert [rule.id for rule in found] == ["torch-a"]


def test_only_good_rules_are_read_as_known_good(tmp_path: Path) -> None:
    good = GOOD.replace("deepspeed-a", "set").replace('"bad"', '"good"').replace('"wrong-gradient"', '"none"')
    matrix = load(str(folder(tmp_path, GOOD + good)), {})
    assert [rule.id for rule in matrix.good()] == ["set"]


def test_tables_are_read_by_name(tmp_path: Path) -> None:
    matrix = load(str(folder(tmp_path, GOOD, pairs={"row": [{"a": 1}]})), {})
    assert matrix.table("pairs") == {"row": [{"a": 1}]}
    assert matrix.table("nothing") == {}


def test_every_mistake_of_every_file_is_reported(tmp_path: Path) -> None:
    place = folder(tmp_path, GOOD.replace('"bad"', '"worse"'))
    (place / "rules" / "u.toml").write_text("= broken")
    (place / "rules" / "v.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError) as caught:
        load(str(place), {})
    text = str(caught.value)
    assert all(name in text for name in ("rules/t.toml", "rules/u.toml", "rules/v.toml"))


def test_a_taken_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the id is taken"):
        load(str(folder(tmp_path, GOOD + GOOD)), {})


def test_a_folder_without_rules_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no matrix found"):
        load(str(tmp_path), {})


def test_the_cache_keeps_only_a_few_files(tmp_path: Path) -> None:
    place = folder(tmp_path / "m", GOOD)
    for number in range(12):
        (place / "rules" / "t.toml").write_text(GOOD + f"\n# {number}")
        os.utime(place / "rules" / "t.toml", ns=(number, number))
        load(str(place), cached(tmp_path))
    assert len(list((tmp_path / "cache").iterdir())) <= 8
