"""Read the commands of a script as steps."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from envcheck.reproduce.installed_files import touches_site_packages
from envcheck.reproduce.options import CONDA_VALUED, DOWNLOAD_VALUED, VALUED, Options, split_options
from envcheck.reproduce.steps import (
    Clone,
    Download,
    Harmless,
    Install,
    MakeEnvironment,
    NotUnderstood,
    Remove,
    Step,
    System,
)
from envcheck.reproduce.wanted import Kind, Wanted, read, read_conda
from envcheck.reproduce.words import Word, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from envcheck.reproduce.script import Command, Script

#: Commands that change no Python environment, whatever their arguments are.
HARMLESS = frozenset({
    ":", ".", "[", "[[", "alias", "awk", "basename", "bc", "break", "cat", "cd", "chmod", "chown", "clear", "command",
    "continue", "cut", "date", "declare", "df", "dirname", "du", "echo", "exit", "export", "expr", "false", "file", "find",
    "free", "getconf", "getopts", "grep", "egrep", "fgrep", "hash", "head", "hostname", "id", "install_name_tool", "jobs",
    "kill", "ldconfig", "let", "local", "ln", "ls", "lscpu", "lspci", "mkdir", "mktemp", "module", "nproc", "nvcc",
    "nvidia-smi", "popd", "printenv", "printf", "ps", "pushd", "pwd", "read", "readlink", "readonly", "realpath", "return",
    "rm", "rmdir", "sed", "seq", "set", "shift", "shopt", "sleep", "sort", "source", "stat", "tail", "tar", "tee", "test",
    "touch", "tr", "trap", "true", "type", "typeset", "ulimit", "umask", "uname", "uniq", "unset", "unzip", "wait", "wc",
    "which", "whoami", "xargs", "gunzip", "gzip", "sha256sum", "sha512sum", "md5sum", "shasum", "column", "ldd", "tput",
    "reset", "logger", "timeout", "git-lfs", "nvitop", "envcheck", "shellcheck", "deactivate",
})  # fmt: skip

#: Of those, the ones that run what they are given.
CARRIERS = frozenset({"xargs", "find", "timeout", "trap", "."}) | {"source"}

PYTHON = re.compile(r"(?:python|pypy)(?:\d+(?:\.\d+)*)?$")
PIP = re.compile(r"pip(?:\d+(?:\.\d+)*)?$")
CONDA = ("conda", "mamba", "micromamba")
INSTALLS = re.compile(r"(?:^|[\s;&|/])(?:pip[\d.]*|uv|(?:micro)?mamba|conda)(?:\s|$)")
SYSTEM = ("apt-get", "apt", "yum", "dnf", "apk", "brew", "zypper", "pacman", "snap", "aptitude")

#: Actions of pip that change nothing.
PIP_ASKS = frozenset({
    "list", "freeze", "show", "check", "config", "cache", "index", "debug", "inspect", "help", "tree", "hash", "",
})  # fmt: skip

#: Actions of conda that change no package.
CONDA_ASKS = frozenset({
    "activate", "deactivate", "info", "list", "config", "init", "clean", "search", "env list", "env", "shell",
    "shell.bash", "shell.posix", "shell.zsh", "--version", "tos", "",
})  # fmt: skip

INDEXES = frozenset({"-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--index", "--default-index"})


@dataclass(slots=True)
class Reading:
    """The commands of a script being read; `folder` follows `cd` where its target is known."""

    steps: list[Step] = field(default_factory=list)
    folder: str | None = ""
    stack: list[str | None] = field(default_factory=list)
    outer: list[tuple[int, str | None]] = field(default_factory=list)

    def add(self, command: Command) -> None:
        """Read one command; at the end of a subshell the folder is again the one before it."""
        while self.outer and self.outer[-1][0] not in command.subshells:
            self.folder = self.outer.pop()[1]
        for begin in command.subshells[len(self.outer) :]:
            self.outer.append((begin, self.folder))
        self.steps.append(self.step(command))

    def step(self, command: Command) -> Step:
        """What one command means."""
        if not command.words or not command.words[0].known:
            return NotUnderstood(command, "what is run depends on what the script was told")
        name = command.name
        if command.captured and (PYTHON.match(name) or name in (*CONDA, "pip", "git", "uv")) and _asks_only(command):
            return Harmless(command)
        touched = touches_site_packages(command)
        if touched is not None:
            return replace(touched, folder=self.folder)
        for matches, reader in READERS:
            if matches(name):
                return reader(self, command)
        return _other(command)

    def move(self, command: Command) -> Step:
        """`cd`, `pushd`, `popd`."""
        if command.name == "pushd":
            self.stack.append(self.folder)
        if command.name == "popd":
            self.folder = self.stack.pop() if self.stack else None
            return Harmless(command)
        target = next((word for word in command.arguments if not word.text.startswith("-") or word.text == "-"), None)
        if target is None or not target.known or target.text.startswith(("/", "~", "-")) or command.branches:
            own = target is not None and re.search(r"dirname|BASH_SOURCE|SCRIPT_DIR", target.text)
            self.folder = "" if own else None
        elif self.folder is not None:
            self.folder = posixpath.normpath(posixpath.join(self.folder, target.text)).removeprefix("./")
            self.folder = "" if self.folder == "." else self.folder
        return Harmless(command)

    def pip(self, command: Command, words: tuple[Word, ...] | None = None, tool: str = "pip") -> Step:
        """`pip ACTION ...`."""
        options = split_options(command.arguments if words is None else words, VALUED)
        action = options.plain[0].text if options.plain else ""
        rest = options.plain[1:]
        if action in ("install", "add", "sync", "download", "wheel"):
            return self.install(command, tool, options, rest, action)
        if action in ("uninstall", "remove"):
            return Remove(command, tuple(word.text for word in rest))
        if action in PIP_ASKS:
            return Harmless(command)
        return NotUnderstood(command, f"`{tool} {action}` is not known")

    def install(self, command: Command, tool: str, options: Options, rest: list[Word], action: str) -> Step:
        """`pip install ...`, `uv pip install ...`, `uv pip sync ...`."""
        if action in ("download", "wheel"):
            return Harmless(command)
        wanted = [read(word.text, known=word.known) for word in rest]
        wanted += [read(word.text, known=word.known) for word in options.of("-e", "--editable")]
        files = [word.text for word in options.of("-r", "--requirement", "--requirements")]
        if action == "sync":
            files += [word.text for word in rest]
            wanted = []
        if options.of("-e", "--editable"):
            options.flags.add("--editable")
        return Install(
            command,
            tool,
            tuple(_extras(wanted, options)),
            tuple(files),
            tuple(word.text for word in options.of("-c", "--constraint", "--constraints")),
            tuple(word.text for name, word in options.values if name in INDEXES),
            frozenset(options.flags),
            locked="--require-hashes" in options.flags,
            folder=self.folder,
            extras=tuple(word.text for word in options.of("--extra")),
        )

    def uv(self, command: Command) -> Step:
        """`uv ...`."""
        words = command.arguments
        action = words[0].text if words else ""
        if action == "pip":
            return self.pip(command, words[1:], "uv")
        if action == "venv":
            return MakeEnvironment(
                command, "uv", _version_in(split_options(words[1:], VALUED | {"--prompt"}).of("-p", "--python"))
            )
        if action == "add":
            return self.pip(command, words, "uv")
        if action == "sync":
            flags = frozenset(word.text for word in words[1:] if word.text.startswith("-"))
            locked = bool(flags & {"--locked", "--frozen"})
            here = (Wanted("uv sync", Kind.LOCAL, url="."),) if not locked else ()
            return Install(command, "uv sync", here, files=("uv.lock",), flags=flags, locked=locked, folder=self.folder)
        if action in ("lock", "export", "tree", "cache", "--version", "version", "self", "help", "init", "build", "python"):
            return Harmless(command)
        return NotUnderstood(command, f"`uv {action}` is not known")

    def python(self, command: Command) -> Step:
        """`python -m pip ...`, `python -m venv ...`, `python -c ...`, `python FILE`."""
        words = command.arguments
        texts = [word.text for word in words]
        while texts[:1] and re.fullmatch(r"-[IEsSuBbdivq]+", texts[0]) and "m" not in texts[0]:
            words, texts = words[1:], texts[1:]
        if texts[:2] == ["-m", "pip"]:
            return self.pip(command, words[2:])
        if texts[:2] in (["-m", "uv"], ["-muv"]):
            return self.uv(replace(command, words=words[1:]))
        if texts[:2] in (["-m", "venv"], ["-m", "virtualenv"]):
            return MakeEnvironment(command, texts[1], _version_of_name(command.name))
        if texts in ([], ["-"]) and (command.given or command.fed_by is not None):
            known = bool(command.given) and not CHANGES.search(command.given)
            return Harmless(command) if known else NotUnderstood(command, "it runs a Python program from standard input")
        if texts[:2] == ["-m", "ensurepip"] or not texts or texts[0] in ("-V", "--version", "-h"):
            return Harmless(command)
        if texts[0] == "-c" and not CHANGES.search(" ".join(texts)):
            return Harmless(command)
        if texts[0].endswith("setup.py") and set(texts[1:]) & {"install", "develop"}:
            flags = frozenset({"--editable"} if "develop" in texts else set())
            return Install(
                command,
                "setup.py",
                (Wanted(texts[0], Kind.LOCAL, url=posixpath.dirname(texts[0]) or "."),),
                flags=flags,
                folder=self.folder,
            )
        return NotUnderstood(command, "a Python program of the script's own is run")

    def virtualenv(self, command: Command) -> Step:
        """`virtualenv -p PYTHON DIR`."""
        chosen = split_options(command.arguments, frozenset({"-p", "--python"})).of("-p", "--python")
        return MakeEnvironment(command, "virtualenv", _version_in(chosen))

    def conda(self, command: Command) -> Step:
        """`conda create|install|env ...`."""
        words = command.arguments
        action = words[0].text if words else ""
        if action == "env":
            action = f"env {words[1].text}" if len(words) > 1 else "env"
            words = words[1:]
        options = split_options(words[1:], CONDA_VALUED)
        wanted = tuple(read_conda(word.text, known=word.known) for word in options.plain)
        channels = tuple(word.text for word in options.of("-c", "--channel"))
        files = tuple(word.text for word in options.of("-f", "--file"))
        if action in ("create", "install", "update", "upgrade", "env create", "env update"):
            if action.startswith("env") and not files:
                files = ("environment.yml",)
            wanted = () if action.startswith("env") else wanted
            return Install(
                command,
                f"conda {action}" if action.endswith("create") else "conda",
                wanted,
                files,
                indexes=channels,
                flags=frozenset(options.flags | ({"-U"} if action.startswith("up") else set())),
                folder=self.folder,
            )
        if action in ("remove", "uninstall", "env remove"):
            return Remove(command, tuple(word.text for word in options.plain))
        if action in CONDA_ASKS:
            return Harmless(command)
        return NotUnderstood(command, f"`{command.name} {action}` is not known")

    def git(self, command: Command) -> Step:
        """`git clone`, and the checkout that says which commit of it."""
        options = split_options(
            command.arguments, frozenset({"-b", "--branch", "--depth", "-C", "-c", "-j", "--jobs", "-o", "--origin"})
        )
        texts = [word.text for word in options.plain]
        action = texts[0] if texts else ""
        if action == "clone" and len(texts) > 1:
            branch = options.of("-b", "--branch")
            name = texts[2] if len(texts) > 2 else re.sub(r"\.git$", "", texts[1].rstrip("/")).rpartition("/")[2]  # noqa: PLR2004
            return Clone(command, texts[1], name, branch[0].text if branch else "")
        if action in ("checkout", "reset", "switch") and len(texts) > 1:
            self.pin_clone(options, texts[-1])
            return Harmless(command)
        if action == "submodule" or action in ("apply", "am"):
            return NotUnderstood(command, f"`git {action}` changes the source tree")
        return Harmless(command)

    def pin_clone(self, options: Options, ref: str) -> None:
        """Give the clone that a `git checkout` speaks of its ref: the one whose folder we are in, else the last."""
        inside = options.of("-C")
        folder = inside[0].text if inside else self.folder or ""
        clones = [index for index, step in enumerate(self.steps) if isinstance(step, Clone)]
        fitting = [
            index for index in clones if folder and folder.rpartition("/")[2] == getattr(self.steps[index], "folder", None)
        ]
        for index in (fitting or clones)[-1:]:
            step = self.steps[index]
            if isinstance(step, Clone):
                self.steps[index] = replace(step, ref=ref)

    def download(self, command: Command) -> Step:
        """`curl` and `wget`."""
        options = split_options(command.arguments, DOWNLOAD_VALUED - ({"-O"} if command.name == "curl" else set()))
        urls = [word.text for word in options.plain if "://" in word.text or not word.known] or [
            word.text for word in options.plain
        ]
        if not urls:
            return Harmless(command)
        named = options.of("-o", "--output", "--output-document", *(("-O",) if command.name == "wget" else ()))
        file = named[0].text if named and named[0].text != "-" else command.writes
        runs = command.feeds if command.feeds in RUNNERS else ""
        return Download(command, urls[0], file or ("" if command.feeds else urls[0].rpartition("/")[2]), runs=runs)

    def system(self, command: Command) -> Step:
        """`apt-get install ...` and its like."""
        options = split_options(command.arguments, frozenset({"-t", "-o", "-c"}))
        texts = [word.text for word in options.plain]
        if texts[:1] in (["install"], ["add"]):
            return System(command, command.name, tuple(texts[1:]))
        return Harmless(command)


CHANGES = re.compile(r"subprocess|os\.system|pip|urlretrieve|urlopen|download|shutil|write|open\(")
HOOKS = re.compile(
    r"(conda|mamba|micromamba)\S* (shell\S* hook|shell hook)|ssh-agent|dircolors|pyenv (virtualenv-)?init|direnv hook"
)
RUNNERS = frozenset({"sh", "bash", "python", "python3", "sudo", "zsh"})


def _asks_only(command: Command) -> bool:
    """Whether a captured command only asks for something."""
    texts = [word.text for word in command.arguments]
    return not set(texts[:3]) & {"install", "create", "clone", "sync"}


def _extras(wanted: list[Wanted], options: Options) -> list[Wanted]:
    """`--extra NAME` and `--all-extras` of uv speak of the local projects named."""
    extras = tuple(word.text for word in options.of("--extra"))
    return [replace(item, extras=(*item.extras, *extras)) if item.kind is Kind.LOCAL and extras else item for item in wanted]


def _version_in(words: tuple[Word, ...]) -> str:
    found = re.search(r"(\d+\.\d+(?:\.\d+)?)", words[0].text) if words and words[0].known else None
    return found[1] if found else ""


def _version_of_name(name: str) -> str:
    found = re.search(r"(\d+\.\d+)$", name)
    return found[1] if found else ""


#: Commands that write where their last word says.
COPIERS = frozenset({"cp", "mv", "rsync", "install"})


def _copied(command: Command) -> Step:
    """A copy, or an edit in place: harmless where all of its targets are known, since none is in site-packages."""
    if all(word.known for word in command.arguments):
        return Harmless(command)
    return NotUnderstood(command, "where it writes is not known")


def _other(command: Command) -> Step:
    in_place = command.name == "sed" and any(re.match(r"-\w*i|--in-place", word.text) for word in command.arguments)
    if command.name in COPIERS or in_place:
        return _copied(command)
    if command.name == "eval" and HOOKS.search(command.source):
        return Harmless(command)
    if command.name in CARRIERS and command.name in ("source", "."):
        return _sourced(command)
    if command.name in CARRIERS and any(INSTALLS.search(word.text) for word in command.arguments):
        return NotUnderstood(command, f"`{command.name}` runs what it is given")
    if command.name in HARMLESS or re.fullmatch(r"[A-Za-z_]\w*=.*", command.words[0].text):
        return Harmless(command)
    if command.fed_by is not None and command.name in RUNNERS:
        return NotUnderstood(command, f"what it runs comes from `{command.fed_by.name}` through a pipe")
    return NotUnderstood(command, f"what `{one_line(command.name, 40)}` does is not known")


def _sourced(command: Command) -> Step:
    """`source FILE`: activation scripts and shell profiles change no package; others are scripts of their own."""
    target = command.arguments[0].text if command.arguments else ""
    if re.search(r"activate|conda\.sh|mamba\.sh|\.bashrc|\.profile|\.bash_profile|/etc/|\.env$|env$|setvars|deactivate", target):
        return Harmless(command)
    return NotUnderstood(command, "another script is read in")


def _is(*names: str) -> Callable[[str], bool]:
    return lambda name: name in names


READERS: tuple[tuple[Callable[[str], bool], Callable[[Reading, Command], Step]], ...] = (
    (_is("cd", "pushd", "popd"), Reading.move),
    (lambda name: bool(PIP.match(name)), Reading.pip),
    (_is("uv"), Reading.uv),
    (lambda name: bool(PYTHON.match(name)), Reading.python),
    (_is(*CONDA), Reading.conda),
    (_is("virtualenv"), Reading.virtualenv),
    (_is("git"), Reading.git),
    (_is("curl", "wget", "aria2c"), Reading.download),
    (_is(*SYSTEM), Reading.system),
)


def read_steps(script: Script) -> list[Step]:
    """Every command of the script as a step; downloads that a checksum is compared for know it."""
    reading = Reading()
    for command in script.commands:
        reading.add(command)
    return list(_with_digests(reading.steps))


CHECKSUMS = ("sha256sum", "sha512sum", "shasum", "sha384sum")


def _with_digests(steps: list[Step]) -> Iterable[Step]:
    checks = [step.command for step in steps if step.command.name in CHECKSUMS and _compares(step.command)]
    for step in steps:
        if isinstance(step, Download) and step.file:
            base = step.file.rpartition("/")[2]
            digest = any(base in _told(check) for check in checks)
            yield replace(step, digest=digest)
        else:
            yield step


def _compares(command: Command) -> bool:
    return any(word.text in ("-c", "--check") or re.fullmatch(r"-[a-z]*c[a-z]*", word.text) for word in command.arguments)


def _told(command: Command) -> str:
    """What a checksum command is told to compare: its arguments, and what an `echo` feeds it."""
    fed = command.fed_by.source if command.fed_by is not None else ""
    return f"{command.source} {fed} {command.given}"
