"""Would the watched packages import: every `from X import name` on the way must find its name in the installed X.

Found from source text alone. Table: `watched_imports`, the modules that a package's users import and the packages that are
followed into.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from envcheck.checks.deep.static.world import World
from envcheck.checks.rules import finding, speaking
from envcheck.facts.metadata import normalised
from envcheck.findings import Evidence, Finding, Fix, Severity, Skip

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from envcheck.checks.context import Context, Outcome
    from envcheck.checks.deep.static.namespace import Import
    from envcheck.checks.deep.target import Target

SHOWN = 4
RULE_EFFECTS = frozenset({"import-error", "crash"})


@dataclass(frozen=True, slots=True)
class Entry:
    """A module that users import: by itself, or (`lazy`) through a lazily loaded name of its package."""

    module: str
    lazy: bool = False


@dataclass(frozen=True, slots=True)
class Clash:
    """One import that fails.

    Attributes:
        importer: The module with the statement.
        file: Its file.
        line: Its line.
        module: What it imports from.
        name: The missing name; empty where the module itself is missing.
        likely: Conditions that hold as far as names tell; empty where the failure is certain.
        entry: The module whose import fails with it.
        chain: The modules from there to the importer.
    """

    importer: str
    file: str
    line: int
    module: str
    name: str
    likely: tuple[str, ...]
    entry: Entry
    chain: tuple[str, ...]

    @property
    def roots(self) -> tuple[str, str]:
        """The top-level names of both sides."""
        return self.importer.partition(".")[0], self.module.partition(".")[0]


@dataclass(slots=True)
class _Walk:
    """The walk from one entry along everything that its import imports."""

    world: World
    follow: frozenset[str]
    entry: Entry
    clashes: list[Clash] = field(default_factory=list)
    seen: dict[str, bool] = field(default_factory=dict)

    def module(self, name: str, likely: tuple[str, ...], chain: tuple[str, ...]) -> None:
        """Follow a module and the packages above it."""
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            self._one(".".join(parts[:count]), likely, chain)

    def _one(self, name: str, likely: tuple[str, ...], chain: tuple[str, ...]) -> None:
        if name.partition(".")[0] not in self.follow or (name in self.seen and self.seen[name] <= bool(likely)):
            return
        self.seen[name] = bool(likely)
        space = self.world.namespace(name)
        for item in space.imports if space else ():
            if not item.under.guards and not item.under.handled:
                self._import(item, name, (*likely, *item.under.likely), (*chain, name))

    def _import(self, item: Import, importer: str, likely: tuple[str, ...], chain: tuple[str, ...]) -> None:
        if self.world.there(item.module) is False:
            self._clash(item, importer, "", likely, chain)
            return
        self.module(item.module, likely, chain)
        for name in item.names:
            provider = self.world.provider(item.module, name)
            if provider == "":
                self._clash(item, importer, name, likely, chain)
            elif provider:
                self.module(provider, likely, chain)

    def _clash(self, item: Import, importer: str, name: str, likely: tuple[str, ...], chain: tuple[str, ...]) -> None:
        found = self.world.finder.find(importer)
        file = found.file if found else ""
        self.clashes.append(Clash(importer, file, item.line, item.module, name, likely, self.entry, chain))


def find_clashes(world: World, entries: Iterable[Entry], follow: frozenset[str]) -> list[Clash]:
    """Every failing import on the way of the entries, each place once, the first entry that meets it kept."""
    found: dict[tuple[str, int, str, str], Clash] = {}
    seen: dict[str, bool] = {}
    for entry in entries:
        if world.finder.find(entry.module) is None:
            continue
        walk = _Walk(world, follow, entry, seen=seen)
        walk.module(entry.module, (), ())
        for clash in walk.clashes:
            key = (clash.importer, clash.line, clash.module, clash.name)
            known = found.get(key)
            if known is None or (known.likely and not clash.likely):
                found[key] = clash
    return list(found.values())


def entries(world: World, table: dict[str, Any]) -> Iterator[Entry]:
    """The entries of the installed watched packages; the lazily loaded parts of those that the table names last."""
    rows = [row for row in table.get("rows", ()) if world.finder.find(row["module"])]
    for row in rows:
        yield Entry(row["module"])
    for row in rows:
        yield from (Entry(name, lazy=True) for name in row.get("lazy", ()))
        space = world.namespace(row["module"]) if row.get("lazy_parts") else None
        if space is not None:
            parts = {where for where in space.lazy_names.values() if where.startswith(f"{row['module']}.")}
            for part in sorted(parts):
                yield Entry(part, lazy=True)
                inner = world.namespace(part)
                yield from (Entry(where, lazy=True) for where in sorted(set(inner.lazy_names.values()) if inner else ()))


def check_imports(target: Target) -> Iterator[Outcome]:
    """One finding for each pair of distributions whose import fails, with every missing name."""
    table = target.context.matrix.table("watched_imports")
    interpreter = target.interpreter
    world = World(target.context.environment, target.roots, interpreter.version, interpreter.variables)
    target.say("following imports")
    clashes = find_clashes(world, entries(world, table), frozenset(table.get("follow", ())))
    groups: dict[tuple[str, str, bool, bool], list[Clash]] = defaultdict(list)
    for clash in clashes:
        if clash.entry.lazy and is_optional(world, clash):
            continue
        importer, provider = clash.roots
        groups[importer, provider, clash.entry.lazy, bool(clash.likely)].append(clash)
    for group in groups.values():
        yield _finding(target.context, group)
    if world.unread:
        file, reason = next(iter(world.unread.items()))
        more = f" (and {len(world.unread) - 1} more)" if len(world.unread) > 1 else ""
        yield Skip("imports", f"`{file}` could not be parsed by the Python that runs envcheck: {reason}{more}")


def is_optional(world: World, clash: Clash) -> bool:
    """An optional dependency of a part that is loaded on demand: not there, or what the package itself leaves out without it."""
    return world.finder.find(clash.roots[1]) is None or clash.roots[0] == clash.roots[1]


def distribution(context: Context, root: str) -> str:
    """The installed distribution that a top-level module is of, else the module's own name."""
    normal = normalised(root)
    return normal if normal in context.environment.packages else root


def _finding(context: Context, group: list[Clash]) -> Finding:
    first = group[0]
    importer, provider = (distribution(context, root) for root in first.roots)
    packages = context.environment.packages
    observed = {name: packages[name].version for name in (importer, provider) if name in packages}
    rules = _rules(context, {importer, provider}, group)
    together = Fix("do", f"install releases of `{importer}` and `{provider}` that go together")
    code = Evidence("code", f"{importer} {observed.get(importer, '')}, as installed")
    when = ", which happens when one of its names is used" if first.entry.lazy else ""
    what = f"`{first.entry.module}` does not import" if not first.likely else f"`{first.entry.module}` will hardly import"
    lacking = _lacking(first, f"`{provider}` {observed[provider]}" if provider in observed else "", len(group))
    return Finding(
        id="import-name-missing" if first.name else "import-module-missing",
        severity=Severity.ERROR if not first.likely and not first.entry.lazy else Severity.WARNING,
        title=f"{what}: {lacking}",
        subjects=tuple(dict.fromkeys((importer, provider))),
        observed=observed,
        because=tuple(_reasons(group)),
        certain=not first.likely,
        fixes=tuple(fix for rule in rules for fix in rule.fixes) or (together,),
        evidence=(*(item for rule in rules for item in rule.evidence), code),
        symptom=f"ImportError at `import {first.entry.module}`{when}",
        place=f"{first.file}:{first.line}",
    )  # fmt: skip


def _lacking(clash: Clash, provider: str, count: int) -> str:
    more = f" (and {count - 1} more)" if count > 1 else ""
    if clash.name:
        return f"`{clash.name}` is not in `{clash.module}`" + (f" of {provider}" if provider else "") + more
    return f"there is no module `{clash.module}`" + (f" in {provider}" if provider else "") + more


def _reasons(group: list[Clash]) -> Iterator[str]:
    for clash in group[:SHOWN]:
        what = f"`{clash.name}` from `{clash.module}`" if clash.name else f"`{clash.module}`"
        yield f"`{clash.importer}` line {clash.line} imports {what}, which is not there"
    if len(group) > SHOWN:
        yield f"and {len(group) - SHOWN} more"
    first = group[0]
    if len(first.chain) > 1:
        yield f"on the way: {' -> '.join(first.chain[-6:])}"
    yield from (f"only if `{condition}` holds, as it seems to" for condition in first.likely[:2])


def _rules(context: Context, packages: set[str], group: list[Clash]) -> list[Finding]:
    """The rules of the matrix about just these packages that speak of a failing import."""
    found = []
    for match in speaking(context, lambda item: item.sketch.effect in RULE_EFFECTS):
        if isinstance(match, Skip) or not set(match.rule.packages) <= packages:
            continue
        if _speaks_of(match.rule.error, group):
            found.append(finding(match, context.environment, context.settings))
    return found


def _speaks_of(error: str, group: list[Clash]) -> bool:
    return any((clash.name or clash.module) in error for clash in group)
