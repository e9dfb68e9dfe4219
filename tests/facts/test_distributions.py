from __future__ import annotations

import errno
import json
import os
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envcheck.facts.distributions import Installed, read_installed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def put(folder: Path, stem: str, text: str | bytes | None = None, **files: str) -> Path:
    """A dist-info folder `stem`, with a METADATA made from its name unless one is given."""
    info = folder / f"{stem}.dist-info"
    info.mkdir(parents=True)
    name, _, version = stem.partition("-")
    content = f"Name: {name}\nVersion: {version}\n" if text is None else text
    (info / "METADATA").write_bytes(content.encode() if isinstance(content, str) else content)
    for file, inside in files.items():
        (info / file.replace("__", ".")).write_text(inside, encoding="utf-8")
    return info


def kinds(installed: Installed) -> list[tuple[str, str]]:
    return [(problem.kind, problem.name) for problem in installed.problems]


def test_names_are_normalised_and_fields_read(tmp_path: Path) -> None:
    text = "Name: Flash_Attn\nVersion: 2.5\nRequires-Python: >=3.7\nRequires-Dist: torch\nProvides-Extra: dev\n"
    put(tmp_path, "flash_attn-2.5", text)
    found = read_installed([str(tmp_path)]).packages["flash-attn"]
    assert (found.version, found.requires, found.requires_python) == ("2.5", ("torch",), ">=3.7")
    assert (found.extras, found.location) == (("dev",), str(tmp_path))


def test_the_first_folder_hides_later_ones_without_a_problem(tmp_path: Path) -> None:
    put(tmp_path / "a", "foo-1")
    put(tmp_path / "b", "Foo-2")
    installed = read_installed([str(tmp_path / "a"), str(tmp_path / "b")])
    assert installed.packages["foo"].version == "1"
    assert installed.problems == ()


def test_one_folder_under_two_names_is_read_once(tmp_path: Path) -> None:
    put(tmp_path / "lib", "foo-1")
    (tmp_path / "lib64").symlink_to("lib")
    put(tmp_path / "lib", "bar-1", "")
    installed = read_installed([str(tmp_path / "lib"), str(tmp_path / "lib64"), str(tmp_path / "lib")])
    assert kinds(installed) == [("broken", "bar")]


def test_two_metadata_folders_of_one_name_in_one_folder_are_a_duplicate(tmp_path: Path) -> None:
    put(tmp_path, "foo_bar-1")
    second = put(tmp_path, "foo.bar-2", "Name: foo-bar\nVersion: 2\n")
    installed = read_installed([str(tmp_path)])
    assert kinds(installed) == [("duplicate", "foo-bar")]
    assert str(second) in installed.problems[0].path + installed.problems[0].detail


def test_a_whole_folder_counts_before_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "foo-1.dist-info").mkdir()
    (tmp_path / "foo").mkdir()
    put(tmp_path, "foo-2")
    installed = read_installed([str(tmp_path)])
    assert installed.packages["foo"].version == "2"
    assert kinds(installed) == [("broken", "foo")]


@pytest.mark.parametrize(
    ("text", "detail"),
    [("", "no `Name` and no `Version`"), ("Name: foo\n", "no `Version`"), ("Version: 1\n", "no `Name`")],
)
def test_missing_fields_are_broken_and_the_folder_name_helps_out(tmp_path: Path, text: str, detail: str) -> None:
    put(tmp_path, "foo-1", text)
    installed = read_installed([str(tmp_path)])
    assert kinds(installed) == [("broken", "foo")]
    assert detail in installed.problems[0].detail
    assert installed.packages["foo"].version == "1"


def test_a_metadata_folder_without_metadata_and_package_is_broken_and_not_installed(tmp_path: Path) -> None:
    (tmp_path / "gone-1.dist-info").mkdir()
    installed = read_installed([str(tmp_path)])
    assert installed.packages == {}
    assert kinds(installed) == [("broken", "gone")]


def test_a_metadata_folder_without_metadata_beside_its_package_is_installed(tmp_path: Path) -> None:
    (tmp_path / "here_too-1.5.dist-info").mkdir()
    (tmp_path / "here_too").mkdir()
    assert read_installed([str(tmp_path)]).packages["here-too"].version == "1.5"


#: What may lie where METADATA should be. Each fails for root as well, whom no permission stops.
UNREADABLE: dict[str, Callable[[Path], object]] = {
    "a folder": lambda path: path.mkdir(),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("gone"),
    "a named pipe": os.mkfifo,
    "an input/output error": lambda path: path.symlink_to("/proc/self/mem"),
    "bytes that are no text": lambda path: path.write_bytes(b"\xff\xfe\x00\x01" * 4096),
    "zeros without end": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("make", UNREADABLE.values(), ids=UNREADABLE)
def test_metadata_that_cannot_be_read_is_broken(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = put(tmp_path, "foo-1") / "METADATA"
    path.unlink()
    make(path)
    put(tmp_path, "bar-2")
    (tmp_path / "foo.py").touch()
    installed = read_installed([str(tmp_path)])
    assert kinds(installed) == [("broken", "foo")]
    assert {name: item.version for name, item in installed.packages.items()} == {"foo": "1", "bar": "2"}


def test_metadata_without_permission_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "foo-1") / "METADATA"
    (tmp_path / "foo.py").touch()
    really = os.open

    def refused(name: str, flags: int) -> int:
        if name == str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        return really(name, flags)

    path.chmod(0)
    monkeypatch.setattr(os, "open", refused)  # for root, whom the mode does not stop
    installed = read_installed([str(tmp_path)])
    assert kinds(installed) == [("broken", "foo")]
    assert "Permission denied" in installed.problems[0].detail
    assert installed.packages["foo"].version == "1"


def test_a_metadata_folder_that_links_to_itself_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "foo-1.dist-info").symlink_to("foo-1.dist-info")
    put(tmp_path, "bar-2")
    assert set(read_installed([str(tmp_path)]).packages) == {"bar"}


def test_a_half_removed_package_is_one_leftover_and_not_installed(tmp_path: Path) -> None:
    put(tmp_path, "~umpy-1.26", "Name: numpy\nVersion: 1.26\n")
    (tmp_path / "~umpy").mkdir()
    (tmp_path / "~umpy.libs.txt").touch()
    installed = read_installed([str(tmp_path)])
    assert installed.packages == {}
    assert kinds(installed) == [("leftover", "numpy")]
    assert "~umpy, ~umpy-1.26.dist-info" in installed.problems[0].detail


def test_a_half_removed_package_without_metadata_is_called_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "~orch").mkdir()
    assert kinds(read_installed([str(tmp_path)])) == [("leftover", "~orch")]


def test_direct_url_and_editable(tmp_path: Path) -> None:
    url = json.dumps({"url": "file:///src/foo", "dir_info": {"editable": True}})
    put(tmp_path, "foo-1", direct_url__json=url)
    put(tmp_path, "bar-1", direct_url__json=json.dumps({"url": "https://e.org/bar.whl", "archive_info": {}}))
    packages = read_installed([str(tmp_path)]).packages
    assert (packages["foo"].direct_url, packages["foo"].editable) == ("file:///src/foo", True)
    assert (packages["bar"].direct_url, packages["bar"].editable) == ("https://e.org/bar.whl", False)


def test_the_commit_of_a_git_install(tmp_path: Path) -> None:
    info = {"url": "https://e.org/foo.git", "vcs_info": {"vcs": "git", "commit_id": "82a06db"}}
    put(tmp_path, "foo-1", direct_url__json=json.dumps(info))
    put(tmp_path, "bar-1", direct_url__json=json.dumps({"url": "https://e.org/bar.git", "vcs_info": 3}))
    packages = read_installed([str(tmp_path)]).packages
    assert (packages["foo"].direct_url, packages["foo"].commit) == ("https://e.org/foo.git", "82a06db")
    assert packages["bar"].commit == ""


@pytest.mark.parametrize("content", ["", "[]", "{", '{"url": 1', '{"dir_info": {}}', "[" * 20000])
def test_a_wrong_direct_url_is_a_problem_and_no_more(tmp_path: Path, content: str) -> None:
    put(tmp_path, "foo-1", direct_url__json=content)
    installed = read_installed([str(tmp_path)])
    assert installed.packages["foo"].direct_url == ""
    assert kinds(installed) == [("broken", "foo")]


@pytest.mark.parametrize("hook", ["foo-bar.egg-link", "__editable__.foo_bar-1.pth"])
def test_links_and_hooks_of_setuptools_mean_editable(tmp_path: Path, hook: str) -> None:
    put(tmp_path, "foo_bar-1")
    (tmp_path / hook).touch()
    assert read_installed([str(tmp_path)]).packages["foo-bar"].editable


def test_egg_info_with_requirements_in_a_file_of_its_own(tmp_path: Path) -> None:
    info = tmp_path / "old.egg-info"
    info.mkdir()
    (info / "PKG-INFO").write_text("Name: old\nVersion: 0.1\n", encoding="utf-8")
    (info / "requires.txt").write_text("six>=1\n\n[dev]\npytest\n", encoding="utf-8")
    assert read_installed([str(tmp_path)]).packages["old"].requires == ("six>=1", 'pytest; extra == "dev"')


def test_an_egg_info_file(tmp_path: Path) -> None:
    (tmp_path / "ancient-0.2-py3.8.egg-info").write_text("Name: ancient\nVersion: 0.2\n", encoding="utf-8")
    assert read_installed([str(tmp_path)]).packages["ancient"].version == "0.2"


def test_an_unzipped_egg_on_the_path(tmp_path: Path) -> None:
    info = tmp_path / "spam-3.1-py3.10.egg" / "EGG-INFO"
    info.mkdir(parents=True)
    (info / "PKG-INFO").write_text("Name: spam\nVersion: 3.1\n", encoding="utf-8")
    assert read_installed([str(info.parent)]).packages["spam"].version == "3.1"


def test_a_zip_archive_on_the_path(tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("foo-4.dist-info/METADATA", "Name: foo\nVersion: 4\nRequires-Dist: bar\n")
    assert read_installed([str(path)]).packages["foo"].requires == ("bar",)


def test_places_that_are_not_there_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "no.zip").write_bytes(b"PK\x03\x04 not an archive")
    places = ["", "/nowhere/at/all", str(tmp_path / "no.zip"), "a\0b"]
    assert read_installed(places) == Installed({}, ())


def test_a_name_that_is_none_gives_the_name_of_the_folder(tmp_path: Path) -> None:
    put(tmp_path, "foo-1", "Name: ../../etc\x1b[31m\nVersion: 1\n")
    installed = read_installed([str(tmp_path)])
    assert set(installed.packages) == {"foo"}
    assert kinds(installed) == [("broken", "foo")]


def test_neither_folder_nor_metadata_with_a_name_is_not_installed(tmp_path: Path) -> None:
    put(tmp_path, "a b-1", "Name: <script>\nVersion: 1\n")
    installed = read_installed([str(tmp_path)])
    assert installed.packages == {}
    assert [problem.kind for problem in installed.problems] == ["broken"]


@given(st.binary(max_size=300))
def test_any_metadata_bytes_give_a_distribution_or_a_problem(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("site")
    put(folder, "foo-1", content)
    installed = read_installed([str(folder)])
    assert len(installed.packages) == 1
    assert [kind for kind, _ in kinds(installed)] in ([], ["broken"])
