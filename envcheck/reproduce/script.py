"""A bash script as the commands it runs, in order, with what is known of every word. Parsed by tree-sitter, never executed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from envcheck.errors import InputError
from envcheck.reproduce.expansion import Expansion, Value, line_of, tree_of
from envcheck.reproduce.words import SHELLS, Word, errexit, nested_script, one_line, stripped

if TYPE_CHECKING:
    from tree_sitter import Node

#: Larger texts are not read: the largest setup scripts of training projects have some hundred lines.
LARGEST = 1 << 20

#: More commands than this (functions and loops are written out) are not followed.
MOST_COMMANDS = 5_000

#: Nor more parts of the script, written out, than this.
MOST_VISITS = 60_000

#: Commands after a `||` that do not pass the failure over.
ENDS = ("exit", "return", "die", "fail", "false", "kill", "break")


@dataclass(frozen=True, slots=True)
class Branch:
    """An arm of an `if` or `case` (named by the byte where that begins); other kinds of condition have arm -1."""

    start: int
    arm: int


@dataclass(frozen=True, slots=True)
class Command:
    """One simple command.

    Attributes:
        words: Name and arguments, prefixes such as `sudo` and `conda run` taken off.
        line: From 1; of the call's body where it is in a function.
        source: As written, one line.
        branches: The conditions it stands under, outermost first.
        captured: True inside `$(...)`.
        feeds: Name of the command that reads its output through a pipe, or an empty string.
        fed_by: The command before it in the pipe.
        writes: Target of `> FILE`, or an empty string.
        given: Text of a here-document or here-string.
        environment: Assignments before the command.
        subshells: The subshells that it runs in, outermost first, each by the byte where it begins; their `cd` ends with them.
        excused: Whether its failure is passed over by what follows a `||`.
    """

    words: tuple[Word, ...]
    line: int
    source: str
    branches: tuple[Branch, ...] = ()
    captured: bool = False
    feeds: str = ""
    fed_by: Command | None = None
    writes: str = ""
    given: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    subshells: tuple[int, ...] = ()
    excused: bool = False

    @property
    def name(self) -> str:
        """The program's name without its folder."""
        return self.words[0].text.rpartition("/")[2] if self.words else ""

    @property
    def arguments(self) -> tuple[Word, ...]:
        """The words after the name."""
        return self.words[1:]

    def excludes(self, other: Command) -> bool:
        """Whether the two stand in different arms of one `if` or `case`, so that at most one runs."""
        arms = {branch.start: branch.arm for branch in self.branches if branch.arm >= 0}
        return any(arms.get(item.start, item.arm) != item.arm for item in other.branches if item.arm >= 0)


@dataclass(frozen=True, slots=True)
class Unread:
    """A part of the script that was not followed."""

    line: int
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Script:
    """What a script does.

    Attributes:
        commands: In the order in which they run, functions written out where they are called.
        unread: What could not be followed.
        strict: Whether `set -e` (or `-o errexit`) stands outside every condition.
    """

    commands: tuple[Command, ...]
    unread: tuple[Unread, ...]
    strict: bool


def parse(text: str, where: str) -> Script:
    """The commands of a bash script.

    Raises:
        InputError: Empty, too large, binary, for another interpreter, or nested beyond reading.
    """
    _refuse(text, where)
    walk = Walk()
    try:
        walk.read(text)
        walk.finish()
    except RecursionError as error:
        raise InputError("the script is nested too deeply to be read", where=where) from error
    except OverflowError as error:
        raise InputError(
            "the script comes to more commands than can be followed", where=where, hints=("loops and functions are written out",)
        ) from error
    return Script(tuple(walk.commands), tuple(sorted(walk.unread, key=lambda item: item.line)), walk.strict)


def _refuse(text: str, where: str) -> None:
    if len(text) > LARGEST:
        raise InputError(f"the script is larger than {LARGEST >> 20} MiB", where=where)
    if "\0" in text:
        raise InputError("this is a binary file, not a script", where=where)
    if not text.strip():
        raise InputError("the script is empty", where=where)
    first = text.partition("\n")[0]
    if first.startswith("#!"):
        words = first[2:].split()
        names = [word.rpartition("/")[2] for word in words if not word.startswith("-")]
        name = (names[1:] or [""])[0] if names[:1] == ["env"] else (names or [""])[0]
        if name not in SHELLS:
            raise InputError(f"this is a script for `{name}`, not for bash", where=f"{where}:1")


@dataclass(slots=True)
class Walk(Expansion):
    """The walk over the syntax tree."""

    commands: list[Command] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    strict: bool = False
    functions: dict[str, tuple[Node, bytes]] = field(default_factory=dict)
    called: set[str] = field(default_factory=set)
    active: list[str] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    assigned: list[set[str]] = field(default_factory=list)
    subshells: list[int] = field(default_factory=list)
    visits: int = 0

    def read(self, text: str) -> None:
        """Parse a text and follow it."""
        before, self.source = self.source, text.encode(errors="replace")
        self.visit(tree_of(self.source))
        self.source = before

    def visit(self, node: Node) -> None:
        """Follow one node."""
        self.visits += 1
        if self.visits > MOST_VISITS:
            raise OverflowError
        method = getattr(self, f"on_{node.type}", None)
        if method is not None:
            method(node)
        elif node.type not in ("comment", "word", "heredoc_start", "heredoc_end"):
            self.children(node)

    def children(self, node: Node) -> None:
        """Follow the named children in order."""
        for child in node.named_children:
            self.visit(child)

    def finish(self) -> None:
        """Name the functions that nobody called."""
        for name, (node, source) in self.functions.items():
            if name not in self.called:
                self.lost(name, node, source)

    def lost(self, name: str, node: Node, source: bytes) -> None:
        """Note a function that nobody called."""
        before, self.source = self.source, source
        self.skip(node, f"function `{name}` is never called here")
        self.source = before

    def skip(self, node: Node, reason: str) -> None:
        """Note a part that was not followed."""
        self.unread.append(Unread(line_of(node), one_line(self.text(node)), reason))

    def on_ERROR(self, node: Node) -> None:  # noqa: N802 - the node's name
        """What the parser could not read is noted line by line; the rest inside is followed."""
        first, reason = line_of(node), "it is not bash as the parser knows it"
        followed = [child for child in node.named_children if hasattr(self, f"on_{child.type}")]
        covered = {line for child in followed for line in range(line_of(child), child.end_point[0] + 2)}
        lines = self.text(node).splitlines() or [""]
        for number, line in enumerate(lines, first):
            if (number == first or line.strip()) and number not in covered - {first}:
                self.unread.append(Unread(number, one_line(line), reason))
        self.children(node)

    def on_function_definition(self, node: Node) -> None:
        """Remember the body; it is followed where the function is called."""
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        if name is not None and body is not None:
            before = self.functions.get(self.text(name))
            if before is not None and self.text(name) not in self.called:
                self.lost(self.text(name), *before)
            self.functions[self.text(name)] = (body, self.source)
            self.called.discard(self.text(name))

    # Conditions

    def arm(self, nodes: list[Node], branch: Branch) -> None:
        """Follow nodes under a condition; what they assign is not known afterwards."""
        self.branches.append(branch)
        self.assigned.append(set())
        for node in nodes:
            self.visit(node)
        self.branches.pop()
        for name in self.assigned.pop():
            self.assign(name, None)

    def on_if_statement(self, node: Node) -> None:
        """The condition runs always; of the arms at most one."""
        body: list[Node] = []
        conditions = {child.id for child in node.children_by_field_name("condition")}
        for child in node.named_children:
            if child.id in conditions:
                self.visit(child)
            elif child.type not in ("elif_clause", "else_clause"):
                body.append(child)
        self.arm(body, Branch(node.start_byte, 0))
        clauses = [child for child in node.named_children if child.type in ("elif_clause", "else_clause")]
        for number, clause in enumerate(clauses, 1):
            self.arm(clause.named_children, Branch(node.start_byte, number))

    def on_case_statement(self, node: Node) -> None:
        """Of the items at most one runs."""
        for number, item in enumerate(child for child in node.named_children if child.type == "case_item"):
            values = {child.id for child in item.children_by_field_name("value")}
            self.arm([child for child in item.named_children if child.id not in values], Branch(node.start_byte, number))

    def on_while_statement(self, node: Node) -> None:
        """The body may run."""
        self.arm(node.named_children, Branch(node.start_byte, -1))

    def on_c_style_for_statement(self, node: Node) -> None:
        """The body may run."""
        self.arm([child for child in node.named_children if child.type == "do_group"], Branch(node.start_byte, -1))

    def on_list(self, node: Node) -> None:
        """`a && b` runs both unless something failed; `a || b` the second only in some cases."""
        left, *right = node.named_children
        start = len(self.commands)
        self.visit(left)
        if any(child.type == "||" for child in node.children):
            end = len(self.commands)
            self.arm(right, Branch(node.start_byte, -1))
            if not any(command.name in ENDS for command in self.commands[end:]):
                self.commands[start:end] = [replace(command, excused=True) for command in self.commands[start:end]]
        else:
            for child in right:
                self.visit(child)

    def on_for_statement(self, node: Node) -> None:
        """A loop over words that are known is written out."""
        name = self.text(node.named_children[0])
        body = [child for child in node.named_children if child.type == "do_group"]
        words = [word for child in node.children_by_field_name("value") for word in self.words(child)]
        if words and all(word.known and not set("*?[") & set(word.text) for word in words):
            for word in words:
                self.variables[name] = word.text
                for child in body:
                    self.visit(child)
            return
        self.assign(name, None)
        self.arm(body, Branch(node.start_byte, -1))

    def on_subshell(self, node: Node) -> None:
        """`( ... )`: what it changes of the shell ends with it."""
        before = dict(self.variables)
        self.subshells.append(node.start_byte)
        self.children(node)
        self.subshells.pop()
        self.variables = before

    # Variables

    def assign(self, name: str, value: Value) -> None:
        """Bind a variable; conditions that it is bound under remember it."""
        self.variables[name] = value
        for names in self.assigned:
            names.add(name)

    def on_variable_assignment(self, node: Node) -> None:
        """Bind the variable where its value is known."""
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        if name is None:
            return
        if value is not None and value.type == "array":
            items = [word for child in value.named_children for word in self.words(child)]
            known: Value = tuple(word.text for word in items) if all(word.known for word in items) else None
        else:
            words = self.joined([value]) if value is not None else Word("")
            known = words.text if words.known else None
        appended = any(child.type == "+=" for child in node.children)
        self.assign(self.text(name), None if appended else known)

    # Commands

    def on_command(self, node: Node) -> None:
        """One simple command."""
        self.command(node)

    def on_pipeline(self, node: Node) -> None:
        """Each command, with its neighbours in the pipe."""
        at = -1
        for child in node.named_children:
            start = len(self.commands)
            self.visit(child)
            if len(self.commands) == start:
                at = -1
                continue
            if at >= 0:
                self.commands[at] = replace(self.commands[at], feeds=self.commands[start].name)
                self.commands[start] = replace(self.commands[start], fed_by=self.commands[at])
            at = len(self.commands) - 1

    def on_redirected_statement(self, node: Node) -> None:
        """The command, with the file it writes and the text it is given."""
        start = len(self.commands)
        for child in node.named_children:
            if child.has_error or child.type not in ("file_redirect", "heredoc_redirect", "herestring_redirect"):
                self.visit(child)
        target, last = "", len(self.commands) - 1
        for child in node.named_children:
            if child.type == "file_redirect" and any(item.type in (">", ">>", "&>") for item in child.children):
                destination = child.child_by_field_name("destination")
                descriptor = child.child_by_field_name("descriptor")
                if destination is not None and (descriptor is None or self.text(descriptor) == "1"):
                    target = self.joined([destination]).text
            elif child.type == "heredoc_redirect":
                self.heredoc(child)
            elif child.type == "herestring_redirect" and len(self.commands) > start:
                self.commands[-1] = replace(self.commands[-1], given=self.text(child))
        if target and last >= start:
            self.commands[last] = replace(self.commands[last], writes=target)

    def heredoc(self, node: Node) -> None:
        """Follow what stands beside a here-document (`<<EOF | bash`, `<<EOF && ...`); its text is data."""
        for child in node.named_children:
            if child.type == "heredoc_body" and self.commands:
                self.commands[-1] = replace(self.commands[-1], given=self.text(child))
            elif child.type == "file_redirect":
                destination = child.child_by_field_name("destination")
                if destination is not None and self.commands:
                    self.commands[-1] = replace(self.commands[-1], writes=self.joined([destination]).text)
            elif child.type in ("command", "pipeline", "list"):
                self.visit(child)

    def command(self, node: Node) -> None:
        """One simple command: follow its substitutions, take prefixes off, write functions and `bash -c` out."""
        words: list[Word] = []
        environment: list[tuple[str, str]] = []
        end = -1
        for child in node.named_children:
            if child.type == "variable_assignment":
                name, value = child.child_by_field_name("name"), child.child_by_field_name("value")
                if name is not None:
                    environment.append((self.text(name), self.joined([value]).text if value is not None else ""))
            elif child.type == "command_name":
                words += [word for inner in child.named_children for word in self.words(inner)]
            elif child.type not in ("file_redirect", "herestring_redirect", "heredoc_redirect"):
                if words and child.start_byte == end:
                    words[-1] = self.rejoined(words[-1], child)
                else:
                    words += self.words(child)
            end = child.end_byte
        words = stripped(words)
        if words:
            self.run(node, words, environment)

    def run(self, node: Node, words: list[Word], environment: list[tuple[str, str]]) -> None:
        """A command with its words known: a function's body, a nested script, or the command itself."""
        name = words[0].text
        if name in self.functions and name not in self.active:
            self.call(name, words[1:])
            return
        nested = nested_script(words)
        if nested is not None:
            self.nested(node, nested)
            return
        if len(self.commands) >= MOST_COMMANDS:
            raise OverflowError
        if name == "set" and not self.branches and errexit(words[1:]):
            self.strict = True
        self.commands.append(
            Command(
                tuple(words),
                line_of(node),
                one_line(self.text(node)),
                tuple(self.branches),
                self.captured,
                environment=tuple(environment),
                subshells=tuple(self.subshells),
            )
        )

    def call(self, name: str, arguments: list[Word]) -> None:
        """A function's body, with its arguments bound."""
        self.called.add(name)
        self.active.append(name)
        saved = {key: value for key, value in self.variables.items() if key.isdigit() or key in "@*"}
        for key in saved:
            del self.variables[key]
        for number, word in enumerate(arguments, 1):
            self.variables[str(number)] = word.text if word.known else None
        everything = tuple(word.text for word in arguments) if all(word.known for word in arguments) else None
        self.variables["@"] = self.variables["*"] = everything
        before = self.source
        body, self.source = self.functions[name]
        self.visit(body)
        self.source = before
        for key in [key for key in self.variables if key.isdigit() or key in "@*"]:
            del self.variables[key]
        self.variables.update(saved)
        self.active.pop()

    def nested(self, node: Node, text: str) -> None:
        """The commands of `bash -c TEXT` or `eval TEXT`, at the line of the whole."""
        if len(self.active) > 20:  # noqa: PLR2004 - a text that runs itself
            raise RecursionError
        start = len(self.commands)
        self.active.append("bash -c")
        self.read(text)
        self.active.pop()
        for index in range(start, len(self.commands)):
            self.commands[index] = replace(self.commands[index], line=line_of(node))
