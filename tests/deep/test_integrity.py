from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envcheck.checks.deep import hashing, integrity
from envcheck.checks.deep.inventory import take_inventory
from envcheck.checks.deep.record import parse_record
from envcheck.findings import Finding, Severity, Skip
from tests.deep.trees import digest, install, site_of, target

if TYPE_CHECKING:
    from pathlib import Path

    from envcheck.checks.context import Outcome


def judged(site: Path) -> list[Outcome]:
    return list(integrity.judge(take_inventory(target(site))))


def one(site: Path) -> Finding:
    (found,) = judged(site)
    assert isinstance(found, Finding)
    return found


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = site_of(tmp_path)
    data = b"\0" * 4000
    files: dict[str, str | bytes] = {"package/__init__.py": "A = 1\n", "package/sub/data.bin": data, "../../../bin/go": "#!\n"}
    install(folder, "pack-age", "1.0", files)
    install(folder, "other", "2.0+cpu", {"other.py": "B = 2\n"})
    return folder


def test_what_installers_leave_is_clean(site: Path) -> None:
    cache = site / "package" / "__pycache__"
    cache.mkdir()
    (cache / "__init__.cpython-311.pyc").write_bytes(b"byte code")
    record = site / "pack_age-1.0.dist-info" / "RECORD"
    record.write_text(record.read_text() + "package/__pycache__/gone.cpython-310.pyc,,\npack_age-1.0.dist-info/REQUESTED,,\n")
    assert judged(site) == []


@pytest.mark.parametrize("content", [b"A = 2\n", b"A = 1\n\n", b""], ids=["same size", "longer", "empty"])
def test_a_changed_file(site: Path, content: bytes) -> None:
    (site / "package" / "__init__.py").write_bytes(content)
    found = one(site)
    assert (found.id, found.severity, found.subjects) == ("record-files-altered", Severity.ERROR, ("pack-age",))
    assert "package/__init__.py" in found.because


def test_a_deleted_file(site: Path) -> None:
    (site / "package" / "sub" / "data.bin").unlink()
    found = one(site)
    assert (found.id, found.subjects) == ("record-files-missing", ("pack-age",))
    assert "package/sub/data.bin" in found.because


def test_a_script_outside_site_packages_counts(site: Path) -> None:
    (site.parent.parent.parent / "bin" / "go").unlink()
    assert one(site).id == "record-files-missing"


def test_a_folder_in_place_of_a_file(site: Path) -> None:
    (site / "other.py").unlink()
    (site / "other.py").mkdir()
    assert one(site).id == "record-files-altered"


def test_only_metadata_left(site: Path) -> None:
    (site / "other.py").unlink()
    found = one(site)
    assert (found.id, found.subjects) == ("record-left-over", ("other",))


def test_a_named_pipe_is_not_waited_for(site: Path) -> None:
    (site / "other.py").unlink()
    os.mkfifo(site / "other.py")
    assert one(site).id == "record-files-altered"


def test_overwritten_by_another_distribution(site: Path) -> None:
    install(site, "package-cu13", "3.0", {"package/__init__.py": "A = 3\n"})
    found = one(site)
    assert (found.id, found.severity) == ("record-files-overwritten", Severity.ERROR)
    assert found.subjects == ("pack-age", "package-cu13")


def test_a_shared_file_with_equal_content_is_no_finding(site: Path) -> None:
    install(site, "package-more", "1.0", {"package/__init__.py": "A = 1\n"})
    assert judged(site) == []


def test_folders_that_many_install_by_mistake_are_info(site: Path) -> None:
    install(site, "third", "1.0", {"tests/__init__.py": "", "third.py": ""})
    install(site, "fourth", "1.0", {"tests/__init__.py": "x = 1\n", "fourth.py": ""})
    assert one(site).severity is Severity.INFO


def test_code_that_nobody_installed(site: Path) -> None:
    (site / "package" / "added").mkdir()
    (site / "package" / "added" / "model.py").write_text("")
    (site / "package" / "notes.txt").write_text("")
    found = one(site)
    assert (found.id, found.severity) == ("record-extra-code", Severity.WARNING)
    assert "package/added/model.py" in found.because


def test_two_metadata_folders_of_one_name(site: Path) -> None:
    stale = install(site, "other", "1.9", {"other.py": "B = 1\n"})
    (site / "other.py").write_text("B = 2\n")
    found = one(site)
    assert found.id == "record-left-over"
    assert "the files are those of 2.0+cpu" in found.because
    assert any(line.startswith(str(stale)) for line in found.because)


def test_conda_rewrites_files(site: Path) -> None:
    (site / "pack_age-1.0.dist-info" / "INSTALLER").write_text("conda")
    (site / "package" / "__init__.py").write_text("prefix\n")
    (found,) = judged(site)
    assert isinstance(found, Skip)
    assert not found.asked


def test_no_record_is_said_and_is_no_finding(site: Path) -> None:
    (site / "pack_age-1.0.dist-info" / "RECORD").unlink()
    (found,) = judged(site)
    assert isinstance(found, Skip)


HOSTILE = {
    "absolute": "/etc/passwd,sha256=AAAA,1\n",
    "above": "../../../../../../../../etc/passwd,sha256=AAAA,1\n",
    "hidden above": "package/../../../../../../../../../etc/shadow,sha256=AAAA,1\n",
}


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE.keys())
def test_paths_outside_the_environment_are_named_and_not_read(site: Path, line: str) -> None:
    record = site / "other-2.0+cpu.dist-info" / "RECORD"
    record.write_text(record.read_text() + line)
    assert one(site).id == "record-outside-environment"


JUNK = {
    "binary": b"\x7fELF\0\0\0\1",
    "not utf-8": b"other.py,sha256=\xff\xfe,1\n",
    "columns": b"other.py,sha256=abc,1,2,3\nno comma at all\n",
    "digest": b"other.py,sha256=***,1\n",
    "size": b"other.py,,many\n",
    "quote": b'"other.py' + b"x" * 200_000,
}


@pytest.mark.parametrize("content", JUNK.values(), ids=JUNK.keys())
def test_a_broken_record_is_a_warning(site: Path, content: bytes) -> None:
    (site / "other-2.0+cpu.dist-info" / "RECORD").write_bytes(content)
    found = one(site)
    assert (found.id, found.severity) == ("record-broken", Severity.WARNING)


def test_a_huge_record_is_not_read(site: Path) -> None:
    with (site / "other-2.0+cpu.dist-info" / "RECORD").open("wb") as stream:
        stream.truncate(1 << 30)
    assert one(site).id == "record-broken"


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_not_called_clean(site: Path) -> None:
    (site / "other.py").chmod(0)
    (found,) = judged(site)
    assert isinstance(found, Skip)
    assert found.asked


URLS = {
    "wheel of another version": ({"url": "https://u:p@host/other-1.0-py3-none-any.whl", "archive_info": {}}, Severity.ERROR),
    "wheel of another project": ({"url": "file:///gone/thing-2.0-py3-none-any.whl", "archive_info": {}}, Severity.ERROR),
    "source tree gone": ({"url": "file:///no/such/tree", "dir_info": {"editable": True}}, Severity.ERROR),
}


@pytest.mark.parametrize(("document", "severity"), URLS.values(), ids=URLS.keys())
def test_a_direct_url_that_cannot_be_right(site: Path, document: dict[str, object], severity: Severity) -> None:
    (site / "other-2.0+cpu.dist-info" / "direct_url.json").write_text(json.dumps(document))
    found = one(site)
    assert (found.id, found.severity) == ("direct-url-differs", severity)
    assert "u:p" not in str(found)


RIGHT = [
    {"url": "https://host/other-2.0%2Bcpu-py3-none-any.whl", "archive_info": {}},
    {"url": "https://github.com/someone/other.git", "vcs_info": {"vcs": "git", "commit_id": "0" * 40}},
    {"url": "file:///no/such/tree", "dir_info": {}},
    {"url": 7},
]


@pytest.mark.parametrize("document", RIGHT)
def test_a_direct_url_that_can_be_right(site: Path, document: dict[str, object]) -> None:
    (site / "other-2.0+cpu.dist-info" / "direct_url.json").write_text(json.dumps(document))
    assert judged(site) == []


def test_an_archive_that_changed_since(site: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "other-2.0-py3-none-any.whl"
    wheel.write_bytes(b"new")
    document = {"url": wheel.as_uri(), "archive_info": {"hashes": {"sha256": "0" * 64}}}
    (site / "other-2.0+cpu.dist-info" / "direct_url.json").write_text(json.dumps(document))
    assert one(site).severity is Severity.WARNING


def test_large_work_is_shared_by_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "SMALL", 0)
    monkeypatch.setattr(hashing, "_cores", lambda: 3)
    contents = [b"x" * size for size in (0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20)]
    files = []
    for number, content in enumerate(contents):
        path = tmp_path / f"a file\n{number}"
        path.write_bytes(content)
        files.append(hashing.Wanted(str(path), "sha256", len(content)))
    files.append(hashing.Wanted(str(tmp_path / "gone"), "sha512", 0))
    said: list[str] = []
    *found, gone = hashing.digests(files, said.append)
    assert [f"sha256={item}" for item in found] == [parse_hex(digest(content)) for content in contents]
    assert gone.startswith("!")
    assert said


def parse_hex(recorded: str) -> str:
    (entry,) = parse_record(f"x,{recorded},\n".encode()).entries
    return f"{entry.algorithm}={entry.digest}"


@given(st.lists(st.integers(0, 1 << 30)), st.integers(1, 9))
def test_every_file_is_in_exactly_one_share(sizes: list[int], count: int) -> None:
    shares = hashing.share_out([hashing.Wanted("", "sha256", size) for size in sizes], count)
    assert sorted(number for share in shares for number in share) == list(range(len(sizes)))


@given(st.binary(max_size=300))
def test_any_bytes_make_a_record_or_a_problem(content: bytes) -> None:
    record = parse_record(content)
    assert all(entry.path for entry in record.entries)
