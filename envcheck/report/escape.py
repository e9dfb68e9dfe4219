"""Make foreign text safe to show: names, versions and paths come from files that anybody may have written."""

from __future__ import annotations

import re

#: Longer texts are cut: a version of a megabyte helps nobody.
LONGEST = 600

#: Control, format (bidirectional overrides), surrogate, private-use and line-separator characters are shown as escapes.
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})

HOME = r"(?<![\w/])(?:/home|/Users|/export/home)/[^/\s`'\":;]+|(?<![\w/])/root(?=/|\b)|C:\\Users\\[^\\\s`'\"]+"
SECRETS = (
    r"\b(?:hf_[A-Za-z0-9]{8,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|pypi-[\w-]{16,}"
    r"|sk-[\w-]{16,}|xox[abp]-[\w-]{10,}|AKIA[A-Z0-9]{12,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+)"
)
ASSIGNED = r"(?i)\b([\w-]*(?:token|secret|password|passwd|api[_-]?key)[\w-]*)(\s*[=:]\s*)([^\s&,;`'\"]+)"

MARKDOWN = r"([\\`*_{}\[\]()#+!|~-])"


def visible(text: str) -> str:
    """`text` on one line, with hidden characters as escapes, cut to `LONGEST` characters."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 1]}…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(char) for char in text)


def _shown(char: str) -> str:
    import unicodedata  # noqa: PLC0415 - most text needs none

    if unicodedata.category(char) not in HIDDEN:
        return char
    code = ord(char)
    if code < 0x100:  # noqa: PLR2004 - one byte
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004 - the basic plane


def redacted(text: str) -> str:
    """`text` without home folders, user names, credentials in URLs and anything that looks like a token."""
    from envcheck.facts.redaction import CREDENTIALS  # noqa: PLC0415 - not for reports that stay here

    text = CREDENTIALS.sub("", text)
    text = re.sub(SECRETS, "[redacted]", text)
    text = re.sub(ASSIGNED, r"\1\2[redacted]", text)
    return re.sub(HOME, "~", text)


def markdown(text: str) -> str:
    """`text` as literal Markdown: nothing in it becomes markup, an HTML tag, a link or a mention."""
    literal = visible(redacted(text)).replace("@", "@\u200b")  # a zero-width space: no mention
    literal = literal.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(MARKDOWN, r"\\\1", literal)


def code_span(text: str) -> str:
    """`text` as a Markdown code span, with a fence longer than any run of backticks in it."""
    literal = visible(redacted(text)).replace("|", "\\|")
    longest = max((len(run) for run in re.findall(r"`+", literal)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest or not literal.strip() else ""
    return f"{fence}{pad}{literal}{pad}{fence}"


def prose(text: str) -> str:
    """A sentence of ours, which may hold `code` in backticks around foreign text, as Markdown."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return markdown(text)
    return "".join(code_span(part) if index % 2 else markdown(part) for index, part in enumerate(parts))
