from __future__ import annotations

import contextlib
import shlex

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from envcheck.errors import InputError
from envcheck.reproduce.script import Script, parse


def lines(text: str) -> list[str]:
    return [" ".join(word.text for word in command.words) for command in parse(text, "s.sh").commands]


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("pip install 'a b' \"c d\" e\\ f", ["pip install a b c d e f"]),
        ("V=2.3.0\npip install torch==$V", ["pip install torch==2.3.0"]),
        ('V=2.3.0\npip install "torch==${V}"', ["pip install torch==2.3.0"]),
        ("pip install torch==${V:-2.1.2}", ["pip install torch==2.1.2"]),
        ("pip install torch==$V", ["pip install torch==$V"]),
        ("if x; then V=1; else V=2; fi\npip install a==$V", ["x", "pip install a==$V"]),
        ("if x; then V=1; pip install a==$V; fi", ["x", "pip install a==1"]),
        ('P=(a b)\npip install "${P[@]}" c', ["pip install a b c"]),
        ("P='a b'\npip install $P", ["pip install a b"]),
        ("for p in a b; do pip install $p; done", ["pip install a", "pip install b"]),
        ("f() { pip install $1==$2; }\nf a 1\nf b 2", ["pip install a==1", "pip install b==2"]),
        ("f() { f; }\nf", ["f"]),
        ("bash -c 'pip install a; pip install b'", ["pip install a", "pip install b"]),
        ("sudo -H env X=1 pip install a", ["pip install a"]),
        ("conda run -n x --no-capture-output pip install a", ["pip install a"]),
        ("FOO=1 pip install a | tee log", ["pip install a", "tee log"]),
        (
            "S=$(python -c 'import site; print(site.getsitepackages()[0])')\ncp a $S/x",
            ["python -c import site; print(site.getsitepackages()[0])", "cp a <site-packages>/x"],
        ),
        ("pip install \\\n  a \\\n  b", ["pip install a b"]),
        ("cat <<EOF > f\npip install not-run\nEOF\npip install run", ["cat", "pip install run"]),
        ("a && b || c", ["a", "b", "c"]),
        ("eval 'f() { pip install é; }'\nf", ["pip install é"]),
        ("(cd x; pip install a)", ["cd x", "pip install a"]),
    ],
)
def test_the_words_of_each_command_are_known_as_far_as_the_script_says_them(text: str, commands: list[str]) -> None:
    assert lines(text) == commands


def test_commands_of_two_arms_exclude_each_other() -> None:
    script = parse("if a; then pip install x; else pip install y; fi\npip install z", "s.sh")
    _, first, second, third = script.commands
    assert first.excludes(second)
    assert second.excludes(first)
    assert not first.excludes(third)
    assert first.line == second.line == 1
    assert third.line == 2


@pytest.mark.parametrize(
    ("text", "strict"),
    [
        ("set -e", True),
        ("set -euo pipefail", True),
        ("set -o errexit", True),
        ("set -x", False),
        ("if a; then set -e; fi", False),
    ],
)
def test_strict_mode_counts_outside_conditions(text: str, strict: bool) -> None:
    assert parse(text, "s.sh").strict is strict


def test_what_is_not_followed_is_named() -> None:
    script = parse("unused() { pip install a; }\nif then fi )\n", "s.sh")
    assert any("never called" in item.reason for item in script.unread)
    assert any("not bash" in item.reason for item in script.unread)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("#!/usr/bin/env python3\nprint(1)\n", "`python3`"),
        ("#!/bin/zsh -e\n", "`zsh`"),
        ("a\0b", "binary"),
        ("x" * (2 << 20), "larger than"),
        ("$(" * 5000 + ")" * 5000, "nested too deeply"),
        ("".join(f"f{n + 1}() {{ f{n}; f{n}; }}\n" for n in range(40)) + "f0() { a; }\nf40\n", "more commands than"),
        ("".join(f"f{n + 1}() {{ f{n}; f{n}; }}\n" for n in range(40)) + "f0() { A=1; }\nf40\n", "more commands than"),
        ("for a in 1 2 3 4 5 6 7 8 9 0; do " * 6 + "x; " + "done; " * 6, "more commands than"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(text, "s.sh")


@given(st.text())
@example("n\U00031acd²{\U000f4136\n")
@example("39\x1e\x13R\U0003b558O\r{\U000f379f5")
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        assert isinstance(parse(text, "s.sh"), Script)


@given(
    st.lists(st.text(st.characters(exclude_characters="\0\n\r", exclude_categories=["Cs"]), min_size=1, max_size=12), max_size=6)
)
def test_quoted_words_are_read_back_whole(words: list[str]) -> None:
    script = parse("pip install " + " ".join(shlex.quote(word) for word in words), "s.sh")
    assert [word.text for word in script.commands[0].words] == ["pip", "install", *words]
    assert all(word.known for word in script.commands[0].words)
