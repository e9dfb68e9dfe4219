"""The arguments of a command, split into options, their values, and the rest."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from envcheck.reproduce.words import Word

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Options of `pip install` and `uv pip install` that take a value (pip 26, uv 0.13; `--help` of both).
VALUED = frozenset({
    "-r", "--requirement", "--requirements", "-c", "--constraint", "--constraints", "-e", "--editable", "-i", "--index-url",
    "--extra-index-url", "-f", "--find-links", "-t", "--target", "--prefix", "--root", "--python", "-p", "--platform",
    "--python-platform", "--python-version", "--implementation", "--abi", "--upgrade-strategy", "--global-option",
    "--build-option", "--install-option", "-C", "--config-settings", "--config-setting", "--no-binary", "--only-binary",
    "--progress-bar", "--report", "--src", "--cache-dir", "--proxy", "--retries", "--timeout", "--exists-action",
    "--trusted-host", "--allow-insecure-host", "--cert", "--client-cert", "--log", "--root-user-action", "--keyring-provider",
    "--use-feature", "--use-deprecated", "--index", "--default-index", "--index-strategy", "--torch-backend", "--override",
    "--overrides", "-b", "--build-constraint", "--build-constraints", "--link-mode", "--exclude-newer",
    "--exclude-newer-package", "--resolution", "--prerelease", "--refresh-package", "--reinstall-package",
    "--no-build-isolation-package", "--extra", "--group", "-P", "--upgrade-package", "--color", "--directory", "--project",
    "--config-file", "--fork-strategy",
})  # fmt: skip

#: Options of conda that take a value.
CONDA_VALUED = frozenset({
    "-n", "--name", "-p", "--prefix", "-c", "--channel", "-f", "--file", "--solver", "--platform", "--subdir",
})  # fmt: skip

#: Options of curl and wget that take a value; curl's `-O` takes none.
DOWNLOAD_VALUED = frozenset({
    "-o", "-O", "--output", "--output-document", "-H", "--header", "-P", "--directory-prefix", "-d", "-X", "-m", "-T",
    "--retry", "--max-time", "--connect-timeout", "-A", "-u", "-t", "--tries", "--output-dir",
})  # fmt: skip


@dataclass(slots=True)
class Options:
    """The arguments of a command, split by what they are."""

    plain: list[Word] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)
    values: list[tuple[str, Word]] = field(default_factory=list)

    def of(self, *names: str) -> tuple[Word, ...]:
        """The values of the options called so."""
        return tuple(word for name, word in self.values if name in names)


def split_options(words: Iterable[Word], valued: frozenset[str]) -> Options:
    """Split arguments; `valued` are the options that take a value, after a blank, an `=`, or (short ones) at once."""
    found, rest = Options(), list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.text.partition("=")
        if not word.text.startswith("-") or word.text == "-":
            found.plain.append(word)
        elif word.text in valued:
            found.values.append((word.text, rest.pop(0) if rest else Word("")))
        elif equals and name.startswith("--"):
            found.values.append((name, replace(word, text=value)))
        elif word.text[:2] in valued and not word.text.startswith("--"):
            found.values.append((word.text[:2], replace(word, text=word.text[2:])))
        elif word.text.startswith("--") or len(word.text) == 2:  # noqa: PLR2004 - one dash and one letter
            found.flags.add(word.text)
        else:
            _short(word, rest, valued, found)
    return found


def _short(word: Word, rest: list[Word], valued: frozenset[str], found: Options) -> None:
    """`-qUr FILE`: letters, of which the last may take a value."""
    for index, letter in enumerate(word.text[1:], 1):
        if f"-{letter}" in valued:
            value = word.text[index + 1 :]
            found.values.append((f"-{letter}", replace(word, text=value) if value else rest.pop(0) if rest else Word("")))
            return
        found.flags.add(f"-{letter}")
