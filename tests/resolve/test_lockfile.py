"""Lock files: what is written is read back, real files of uv are understood, bad input is named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.pylock import Pylock

from envcheck.errors import InputError, UsageError
from envcheck.resolve import pinned, pylock
from envcheck.resolve.lockfile import Artifact, Lock, LockedPackage, lock_text, read_lock
from envcheck.resolve.provenance import Provenance, Shaping

if TYPE_CHECKING:
    from collections.abc import Callable

REAL = Path(__file__).parents[1] / "data" / "resolve" / "pylock-uv-0.13.toml"

TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=12)
NAMES = st.from_regex(r"[a-z][a-z0-9]{0,6}(-[a-z0-9]{1,4})?", fullmatch=True)
HASHES = st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), min_size=1, max_size=2, unique=True)
SETTINGS = st.dictionaries(NAMES, st.booleans() | st.integers(-9, 9) | TEXTS, max_size=2)
PROVENANCES = st.builds(
    Provenance,
    requirements=st.lists(TEXTS, max_size=2).map(tuple), python=st.just("3.11"), platform=st.just("linux"),
    facts=st.dictionaries(NAMES, TEXTS, max_size=2), settings=SETTINGS, matrix=st.just("abc"),
    rules=st.lists(st.builds(Shaping, NAMES, TEXTS, TEXTS), max_size=2).map(tuple),
    waived=st.dictionaries(NAMES, TEXTS, max_size=2),
)  # fmt: skip


def package(name: str, version: str, hashes: list[str]) -> LockedPackage:
    names = [f"{name.replace('-', '_')}-{version}-{number}-py3-none-any.whl" for number in range(len(hashes))]
    files = [Artifact(file, f"https://example.org/{file}", {"sha256": text}) for file, text in zip(names, hashes, strict=True)]
    return LockedPackage(name, version, 'sys_platform == "linux"', tuple(files), because=("asked for",))


LOCKS = st.builds(
    lambda table, provenance: Lock(tuple(package(*item) for item in table), "==3.11.*", provenance),
    st.dictionaries(NAMES, st.tuples(st.sampled_from(["1.0", "2.3.0+cu121", "1!2rc1"]), HASHES), min_size=1, max_size=4).map(
        lambda table: [(name, *table[name]) for name in sorted(table)]
    ),
    PROVENANCES,
)


def essence(lock: Lock) -> list[tuple[str, str, str, tuple[str, ...]]]:
    return [(item.name, item.version, item.marker, item.hashes) for item in lock.packages]


@settings(max_examples=40)
@given(LOCKS)
def test_a_written_pylock_is_read_back_and_written_alike(lock: Lock) -> None:
    text = pylock.render(lock)
    again = pylock.parse(text)
    assert essence(again) == essence(lock)
    assert again.provenance == lock.provenance
    assert again.requires_python == lock.requires_python
    bare = [line for line in text.split("\n") if not line.startswith("#")]
    assert pylock.render(again).split("\n") == bare


@settings(max_examples=40)
@given(LOCKS)
def test_written_requirements_are_read_back(lock: Lock) -> None:
    again = pinned.parse(pinned.render(lock))
    assert [item[:2] for item in essence(again)] == [item[:2] for item in essence(lock)]
    assert [item.hashes for item in again.packages] == [item.hashes for item in lock.packages]
    assert again.provenance == lock.provenance


def test_a_real_lock_of_uv_keeps_everything() -> None:
    lock = pylock.parse(REAL.read_text())
    assert lock.created_by == "uv"
    assert lock.provenance is None
    assert [(item.name, item.version, item.direct.rpartition("/")[2]) for item in lock.packages] == [
        ("colorama", "0.4.6", ""), ("idna", "3.10", ""), ("six", "1.17.0", "six-1.17.0-py2.py3-none-any.whl"),
    ]  # fmt: skip
    assert lock.packages[0].marker == "sys_platform == 'linux'"
    assert [file.name for file in lock.packages[1].wheels] == ["idna-3.10-py3-none-any.whl"]
    import tomli  # noqa: PLC0415

    written = tomli.loads(pylock.render(lock))
    assert written["packages"] == tomli.loads(REAL.read_text())["packages"]
    Pylock.from_dict(written)


def test_requirements_name_a_direct_reference_and_every_hash() -> None:
    lines = pinned.render(pylock.parse(REAL.read_text())).splitlines()
    assert lines[0] == "colorama==0.4.6 ; sys_platform == 'linux' \\"
    assert lines[-2].startswith("six @ https://")
    assert sum("--hash=sha256:" in line for line in lines) == 5


def test_requirements_cannot_hold_what_has_no_hash() -> None:
    lock = Lock((LockedPackage("x", "1", direct="git+https://example.org/x@abc"),))
    with pytest.raises(UsageError, match="no hash exists for `x @ git"):
        pinned.render(lock)


def test_reasons_stand_above_their_package() -> None:
    lock = Lock((package("a", "1", ["0" * 64]), package("b", "1", ["1" * 64])))
    lines = pylock.render(lock).split("\n")
    assert [lines[number - 1] for number, line in enumerate(lines) if line == "[[packages]]"] == ["# asked for"] * 2


@pytest.mark.parametrize(
    ("parse", "text", "says"),
    [
        (pylock.parse, "lock-version = ", "not a PEP 751 lock"),
        (pylock.parse, 'lock-version = "1.0"', "created-by"),
        (pylock.parse, 'lock-version = "7.0"\ncreated-by = "x"\npackages = []', "not a PEP 751 lock"),
        (pylock.parse, 'lock-version = "1.0"\ncreated-by = "x"\npackages = [1]', "not a PEP 751 lock"),
        (pylock.parse, 'lock-version = "1.0"\ncreated-by = "x"\npackages = []\n[tool]\nenvcheck = 1', "`tool.envcheck` is not"),
        (pylock.parse, 'lock-version="1.0"\ncreated-by="x"\npackages=[]\n[tool.envcheck]\nschema="envcheck.lock/1"', "damaged"),
        (pinned.parse, "torch>=2\nnumpy", "line 1: `torch>=2` is not pinned"),
        (pinned.parse, "torch==2.*", "not pinned"),
        (pinned.parse, "a b c", "is not a requirement"),
        (pinned.parse, "", "no pinned requirement"),
        (pinned.parse, "#: x = [\ntorch==2", "damaged"),
    ],
)
def test_bad_locks_are_named(parse: Callable[[str], Lock], text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert says in str(caught.value)


def test_files(tmp_path: Path) -> None:
    lock = Lock((package("a", "1", ["0" * 64]),))
    for name in ("pylock.toml", "requirements.txt"):
        (tmp_path / name).write_text(lock_text(lock, name), encoding="utf-8")
        assert essence(read_lock(str(tmp_path / name))) == essence(lock)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pylock.toml", "requirements.txt"]
    with pytest.raises(InputError, match="cannot read the lock"):
        read_lock(str(tmp_path / "absent.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        read_lock(str(tmp_path / "binary.toml"))
