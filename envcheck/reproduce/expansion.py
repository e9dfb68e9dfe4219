"""What the words of a script become, as far as the script itself decides it; and the syntax tree that they stand in."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from envcheck.reproduce.words import Word, one_line, unescaped

if TYPE_CHECKING:
    from tree_sitter import Node

#: Stands for the folder that a `$(python -c ...)` asks the interpreter for.
SITE = "<site-packages>"
ASKS_FOR_SITE = re.compile(r"getsitepackages|get_python_lib|sysconfig|purelib|platlib|\.__path__|\.__file__|pip\S* show|usersite")

#: Each byte as the parser gets it: itself, or a letter where it is no ASCII.
HIDDEN = bytes(range(0x80)) + b"x" * 0x80

#: A variable's value: a text, the items of an array, or None where it is not known.
Value = str | tuple[str, ...] | None


@dataclass(slots=True)
class Expansion(ABC):
    """A script's text and its variables as they stand."""

    variables: dict[str, Value] = field(default_factory=dict)
    captured: bool = False
    source: bytes = b""

    @abstractmethod
    def children(self, node: Node) -> None:
        """Follow the named children in order: those of a substitution are commands of their own."""

    def text(self, node: Node) -> str:
        """The source of a node."""
        return self.source[node.start_byte : node.end_byte].decode(errors="replace")

    def words(self, node: Node) -> list[Word]:
        """The words that one node of a command becomes; an unquoted variable may be several."""
        if node.type in ("simple_expansion", "expansion"):
            value = self.value(node)
            if isinstance(value, tuple):
                return [Word(item) for item in value]
            return [Word(item) for item in value.split()] if value is not None else [Word(self.text(node), known=False)]
        if node.type == "string" and len(node.named_children) == 1 and node.named_children[0].type == "expansion":
            value = self.value(node.named_children[0])
            if isinstance(value, tuple):
                return [Word(item) for item in value]
        return [self.joined([node])]

    def joined(self, nodes: list[Node]) -> Word:
        """The text of nodes that form one word."""
        parts = [self.part(node) for node in nodes]
        return Word("".join(part.text for part in parts), all(part.known for part in parts))

    def part(self, node: Node) -> Word:
        """The text of one node inside a word."""
        kind = node.type
        if kind in ("simple_expansion", "expansion"):
            value = self.value(node)
            if value is None:
                return Word(self.text(node), known=False)
            return Word(value if isinstance(value, str) else " ".join(value))
        if kind == "command_substitution":
            return self.substitution(node)
        if kind == "process_substitution":
            self.substitution(node)
            return Word(self.text(node), known=False)
        if kind == "raw_string":
            return Word(self.text(node)[1:-1])
        if kind in ("string", "concatenation", "command_name"):
            return self.spelled(node)
        if kind in ("arithmetic_expansion", "brace_expression"):
            return Word(self.text(node), known=False)
        text = self.text(node)
        return Word(re.sub(r"\\(.)", r"\1", text.replace("\\\n", ""), flags=re.DOTALL) if kind == "word" else text)

    def spelled(self, node: Node) -> Word:
        """A string or concatenation: the texts between its children count too, since the parser gives blanks no node."""
        source = self.source[node.start_byte : node.end_byte]
        pieces: list[Word] = []
        at = node.start_byte
        for child in [*node.named_children, None]:
            until = child.start_byte if child is not None else node.end_byte
            gap = source[at - node.start_byte : until - node.start_byte].decode(errors="replace")
            pieces.append(Word(gap.strip('"') if node.type == "string" else gap))
            if child is not None:
                pieces.append(Word(unescaped(self.text(child))) if child.type == "string_content" else self.part(child))
                at = child.end_byte
        return Word("".join(piece.text for piece in pieces), all(piece.known for piece in pieces))

    def substitution(self, node: Node) -> Word:
        """`$(...)`: its commands are followed; only the question for site-packages has a known answer."""
        before, self.captured = self.captured, True
        self.children(node)
        self.captured = before
        source = self.text(node)
        return Word(SITE) if ASKS_FOR_SITE.search(source) else Word(one_line(source), known=False)

    def value(self, node: Node) -> Value:
        """What an expansion gives, or None where that is not known; `${NAME:-default}` gives the default."""
        inner = node.named_children
        if not inner:
            return self.variables.get(self.text(node).strip("${}"))
        first = inner[0]
        if first.type == "subscript":
            name = first.child_by_field_name("name")
            index = first.child_by_field_name("index")
            whole = index is not None and self.text(index) in ("@", "*")
            return self.variables.get(self.text(name)) if name is not None and whole and len(inner) == 1 else None
        found = self.variables.get(self.text(first))
        operators = {child.type for child in node.children}
        if len(inner) == 1 and operators <= {"${", "$", "}", first.type}:
            return found
        if operators & {":-", "-"}:
            if found:
                return found
            rest = self.joined(inner[1:])
            told = self.text(first).isdigit() and not rest.text  # `${1:-}`: what the caller gives matters, and is not known
            return rest.text if rest.known and not told and self.text(first) not in self.variables else None
        return None

    def rejoined(self, word: Word, node: Node) -> Word:
        """One word that the parser took for two: it cuts `$1==$2` before the last digit."""
        if word.text.endswith("$") and self.text(node).isdigit():
            value = self.variables.get(self.text(node))
            known = isinstance(value, str)
            return Word(word.text[:-1] + (str(value) if known else f"${self.text(node)}"), known and word.known)
        return Word(word.text + self.joined([node]).text, known=False)


def tree_of(source: bytes) -> Node:
    """The syntax tree of a script.

    The grammar's scanner looks characters up in tables made for single bytes (`isdigit` behind a brace) and crashes on
    large code points; what is not ASCII is therefore hidden from it. Texts are taken from the source by their offsets.
    """
    import tree_sitter_bash  # noqa: PLC0415 - only with `setup lint`
    from tree_sitter import Language, Parser  # noqa: PLC0415 - likewise

    hidden = source.translate(HIDDEN)
    return Parser(Language(tree_sitter_bash.language())).parse(hidden).root_node


def line_of(node: Node) -> int:
    """The line a node begins on, from 1."""
    return int(node.start_point[0]) + 1
