from __future__ import annotations

import email
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envcheck.facts.metadata import FIRST_READ, is_name, normalised, read_headers, scan

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = b"""Metadata-Version: 2.1
Name: Foo.Bar
Version: 1.2
Requires-Python: >=3.8
Provides-Extra: fast
Requires-Dist: torch>=2
Requires-Dist: numpy; extra == "fast"

Requires-Dist: of-the-description
"""


def test_fields_of_a_plain_file() -> None:
    headers = scan(PLAIN)
    assert (headers.name, headers.version, headers.requires_python) == ("Foo.Bar", "1.2", ">=3.8")
    assert headers.requires == ("torch>=2", 'numpy; extra == "fast"')
    assert headers.extras == ("fast",)


def test_line_ends_of_windows_change_nothing() -> None:
    assert scan(PLAIN.replace(b"\n", b"\r\n")) == scan(PLAIN)


def test_a_byte_order_mark_changes_nothing() -> None:
    assert scan(b"\xef\xbb\xbf" + PLAIN) == scan(PLAIN)


def test_continuation_lines_belong_to_their_field() -> None:
    headers = scan(b"Name: foo\nDescription: x\n        Requires-Dist: not-one\nRequires-Dist: a\n  >=1\n")
    assert headers.requires == ("a >=1",)


def test_the_first_name_and_version_count() -> None:
    headers = scan(b"Name: a\nName: b\nVersion: 1\nVersion: 2\n")
    assert (headers.name, headers.version) == ("a", "1")


def test_bytes_that_are_not_utf8_do_not_hide_the_rest() -> None:
    assert scan(b"Author: J\xf6rg\nName: foo\nVersion: 1\n").name == "foo"


def test_a_header_longer_than_the_first_read_is_read_to_its_end(tmp_path: Path) -> None:
    lines = b"".join(b"Requires-Dist: package-%d\n" % number for number in range(2000))
    path = tmp_path / "METADATA"
    path.write_bytes(b"Name: foo\n" + lines + b"Version: 9\n\nbody\n")
    assert path.stat().st_size > FIRST_READ
    headers = read_headers(str(path))
    assert headers.version == "9"
    assert len(headers.requires) == 2000


@pytest.mark.parametrize("name", ["a", "A1", "foo_bar", "foo.bar-baz", "0x"])
def test_names(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "a b", "../etc", "a\n", "\u212aa", "a" * 201, "<b>"])
def test_no_names(name: str) -> None:
    assert not is_name(name)


@given(st.text(max_size=30))
def test_normalising_twice_is_normalising_once(name: str) -> None:
    assert normalised(normalised(name)) == normalised(name)


@given(st.binary(max_size=400))
def test_any_bytes_scan(content: bytes) -> None:
    headers = scan(content)
    assert len(headers.name) <= 200


FIELD_NAMES = ["Name", "Version", "Requires-Dist", "Provides-Extra", "Author"]
WORD = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9 ;<>=.,'\"()-]{0,30}\Z")


@given(
    st.lists(st.tuples(st.sampled_from(FIELD_NAMES), WORD), max_size=12),
    st.sampled_from(["", "\nRequires-Dist: body\n"]),
)  # fmt: skip
def test_the_scan_agrees_with_the_mail_parser(fields: list[tuple[str, str]], body: str) -> None:
    text = "".join(f"{key}: {value}\n" for key, value in fields) + body
    message = email.message_from_string(text)
    headers = scan(text.encode())
    assert headers.name == (message["Name"] or "").strip()
    assert headers.version == (message["Version"] or "").strip()
    assert headers.requires == tuple(value.strip() for value in message.get_all("Requires-Dist", []))
    assert headers.extras == tuple(value.strip() for value in message.get_all("Provides-Extra", []))
