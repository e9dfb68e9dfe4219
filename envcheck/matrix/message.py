"""Error messages: what a line of a traceback means. Data of `signatures/*.toml` (`[[message]]`), parsed and matched. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from envcheck.findings import Severity
from envcheck.matrix.parse import IDENTIFIER, Mistakes, parse_evidence, parse_list, parse_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envcheck.findings import Evidence

SEVERITIES = {"error": Severity.ERROR, "warning": Severity.WARNING, "info": Severity.INFO}

KEYS = {"id", "title", "severity", "pattern", "means", "do", "subjects", "evidence"}

#: Names that the reader of the log adds to those of the pattern's groups.
GIVEN = frozenset({"importer", "top"})

QUOTES = "'\"`"


@dataclass(frozen=True, slots=True)
class Message:
    """A family of error messages.

    Attributes:
        id: Kebab-case name.
        title: One line; `{group}` stands for a group of the pattern, `{importer}` for the package whose code failed, `{top}` for
            the package of the group `module`.
        severity: How bad it is where training did not go on.
        pattern: What is searched in the message.
        means: One sentence, with the same places.
        do: What to do next, likeliest first, likewise.
        subjects: Packages and facts it is about, likewise.
        evidence: Where that is known from.
        file: The file it stands in.
    """

    id: str
    title: str
    severity: Severity
    pattern: re.Pattern[str]
    means: str
    do: tuple[str, ...]
    subjects: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    file: str = ""


def parse_message(item: Any, file: str, here: Mistakes) -> Message | None:  # noqa: ANN401 - TOML values
    """One `[[message]]`; None where it is no table or has no pattern; every mistake goes to `here`."""
    if not isinstance(item, dict):
        here.add("must be a table")
        return None
    here = here.at(str(item.get("id", "")))
    for key in sorted(item.keys() - KEYS):
        here.add(f"unknown key `{key}`")
    for key in sorted(KEYS - {"subjects"}):
        if not item.get(key):
            here.add(f"`{key}` is missing")
    if not IDENTIFIER.fullmatch(str(item.get("id", ""))):
        here.add("`id` must be kebab-case")
    if item.get("severity") not in SEVERITIES:
        here.add(f"`severity` must be one of {', '.join(SEVERITIES)}")
    try:
        pattern = re.compile(parse_text(item, "pattern", here))
    except re.error as error:
        here.add(f"`pattern`: {error}")
        return None
    found = Message(
        parse_text(item, "id", here), parse_text(item, "title", here),
        SEVERITIES.get(str(item.get("severity")), Severity.INFO), pattern, parse_text(item, "means", here),
        do=tuple(parse_list(item, "do", here, _sentence)), subjects=tuple(parse_list(item, "subjects", here, _sentence)),
        evidence=tuple(parse_list(item, "evidence", here, parse_evidence)), file=file,
    )  # fmt: skip
    for text in (found.title, found.means, *found.do, *found.subjects):
        for name in set(re.findall(r"\{(\w+)\}", text)) - GIVEN - pattern.groupindex.keys():
            here.add(f"`{{{name}}}` is no group of the pattern")
    return found


def _sentence(item: Any, here: Mistakes) -> str | None:  # noqa: ANN401 - TOML values
    if not isinstance(item, str) or not item.strip():
        here.add("must be a text")
        return None
    return item


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with its places filled in."""
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], ""), text)


def knows(fragment: str, text: str) -> bool:
    """Whether a rule's fragment of a message is in the message; white space and quotes do not count.

    A fragment that ends with a quote ends with a whole word: `attribute 'train'` is not in `attribute 'trainer'`.
    """
    wanted = _plain(fragment)
    if not wanted:
        return False
    end = r"(?!\w)" if fragment.rstrip()[-1:] in QUOTES else ""
    return re.search(re.escape(wanted) + end, _plain(text)) is not None


def _plain(text: str) -> str:
    return re.sub(rf"[\s{QUOTES}]+", " ", text).strip()
