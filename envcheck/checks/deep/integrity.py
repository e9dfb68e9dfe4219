"""Installed files against RECORD: altered, missing, overwritten, extra, left over, installed from elsewhere."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING

from envcheck.checks.deep.direct_url import check_direct_url
from envcheck.findings import Evidence, Finding, Fix, Severity, Skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.context import Outcome
    from envcheck.checks.deep.inventory import Claim, Inventory
    from envcheck.checks.deep.target import InfoFolder

SPECIFICATION = Evidence("docs", "PyPA specifications: Recording installed projects")
UNCHECKED = Evidence("issue", "pypa/pip#4705")

#: Files named in one finding.
SHOWN = 5

#: Top-level folders that many distributions install by mistake; two of them differ without harm to a training run.
STRAY = frozenset({"benchmark", "benchmarks", "doc", "docs", "example", "examples", "scripts", "test", "tests", "tools"})

#: conda writes its own prefix into the files it links, after their RECORD was made; it keeps its own digests.
REWRITES = "conda"


def judge(found: Inventory, explained: frozenset[str] = frozenset()) -> Iterator[Outcome]:
    """What the inventory says of each distribution; files that `explained` names are somebody else's business."""
    duplicates = _duplicates(found)
    yield from _broken(found)
    gone, empty = _missing(found)
    for info, paths in empty.items():
        if info.name not in duplicates:
            yield _nothing_there(info, paths)
    for info, paths in gone.items():
        if info.name not in duplicates:
            yield _files_missing(info, paths)
    overwritten, altered = _wrong(found, explained, duplicates)
    for (loser, winner), paths in overwritten.items():
        yield _overwritten(loser, winner, paths)
    for info, paths in altered.items():
        if info.installer == REWRITES:
            yield Skip("record", f"{info.shown}: conda rewrites installed files; {len(paths)} differ from RECORD")
        else:
            yield _altered(info, paths)
    for name, infos in duplicates.items():
        yield _duplicate(found, name, infos)
    yield from _extra(found, explained)
    for info in found.records:
        yield from check_direct_url(info)


def _duplicates(found: Inventory) -> dict[str, list[InfoFolder]]:
    """Distributions with several metadata folders in one place: the files can only be those of one."""
    places: dict[tuple[str, str], list[InfoFolder]] = defaultdict(list)
    for info in found.records:
        places[info.root, info.name].append(info)
    return {name: infos for (_, name), infos in places.items() if len(infos) > 1}


def _broken(found: Inventory) -> Iterator[Outcome]:
    for info, record in found.records.items():
        if record is None:
            yield Skip("record", f"{info.shown} has no RECORD")
            continue
        problems = (f"it cannot be read: {record}",) if isinstance(record, str) else record.problems
        if problems:
            yield _finding(
                "record-broken", Severity.WARNING, f"the RECORD of {info.shown} cannot be used whole", [info],
                because=(f"{info.path}/RECORD", *_some(list(problems))),
            )  # fmt: skip
        if info in found.outside:
            yield _finding(
                "record-outside-environment", Severity.WARNING, f"the RECORD of {info.shown} names files outside the environment",
                [info], because=(f"{info.path}/RECORD", *_some(found.outside[info]), "they were not looked at"),
            )  # fmt: skip
    if found.unreadable:
        path, reason = next(iter(found.unreadable.items()))
        more = f" (and {len(found.unreadable) - 1} more)" if len(found.unreadable) > 1 else ""
        yield Skip("record", f"`{path}` cannot be read: {reason}{more}", asked=True)


def _missing(found: Inventory) -> tuple[dict[InfoFolder, list[str]], dict[InfoFolder, list[str]]]:
    """Missing files by distribution; apart those of which nothing but metadata is there."""
    gone: dict[InfoFolder, list[str]] = defaultdict(list)
    for path in found.missing:
        for claim in found.claims[path]:
            gone[claim.info].append(path)
    there = {
        claim.info
        for path, claims in found.claims.items() if os.path.lexists(path)
        for claim in claims if claim.info in gone and not path.startswith(f"{claim.info.path}/")
    }  # fmt: skip
    empty = {info: paths for info, paths in gone.items() if info not in there}
    return {info: paths for info, paths in gone.items() if info in there}, empty


def _wrong(
    found: Inventory, explained: frozenset[str], duplicates: dict[str, list[InfoFolder]],
) -> tuple[dict[tuple[InfoFolder, InfoFolder], list[str]], dict[InfoFolder, list[str]]]:  # fmt: skip
    """Files that are not what a distribution installed: by another one's hand, or by an unknown one."""
    overwritten: dict[tuple[InfoFolder, InfoFolder], list[str]] = defaultdict(list)
    altered: dict[InfoFolder, list[str]] = defaultdict(list)
    for path, losers in found.wrong.items():
        winner = _winner(found, path, losers)
        for claim in losers:
            if path in explained or claim.info.name in duplicates:
                continue
            if winner is None:
                altered[claim.info].append(path)
            elif winner.name != claim.info.name:
                overwritten[claim.info, winner].append(path)
    return overwritten, altered


def _winner(found: Inventory, path: str, losers: list[Claim]) -> InfoFolder | None:
    """The distribution whose claim to the file holds."""
    if path in found.unreadable:
        return None
    holds = [claim.info for claim in found.claims[path] if claim not in losers and claim.entry.algorithm]
    return holds[0] if holds else None


def _altered(info: InfoFolder, paths: list[str]) -> Finding:
    return _finding(
        "record-files-altered", Severity.ERROR,
        f"{_count(paths)} of {info.shown} {'is' if len(paths) == 1 else 'are'} not as installed", [info],
        because=("the digest in RECORD and that of the file differ", *_some(_below(info, paths))),
        fixes=(_reinstall(info),), symptom="Behaviour of no released version; nothing that reads versions can see it.",
    )  # fmt: skip


def _files_missing(info: InfoFolder, paths: list[str]) -> Finding:
    return _finding(
        "record-files-missing", Severity.ERROR,
        f"{_count(paths)} of {info.shown} {'is' if len(paths) == 1 else 'are'} missing", [info],
        because=("RECORD lists what is not there", *_some(_below(info, paths))),
        fixes=(_reinstall(info),), symptom="ImportError or FileNotFoundError where the file is needed.",
    )  # fmt: skip


def _nothing_there(info: InfoFolder, paths: list[str]) -> Finding:
    return _finding(
        "record-left-over", Severity.ERROR, f"{info.shown} is listed as installed, and none of its files is there", [info],
        because=(f"{info.path} is left over from an installation", *_some(_below(info, paths))),
        fixes=(_reinstall(info), Fix("do", f"delete `{info.path}` if the package is not wanted")),
        symptom="Installers count it as present; importing it fails.",
    )  # fmt: skip


def _overwritten(loser: InfoFolder, winner: InfoFolder, paths: list[str]) -> Finding:
    stray = all(_below(loser, [path])[0].partition("/")[0] in STRAY for path in paths)
    return _finding(
        "record-files-overwritten", Severity.INFO if stray else Severity.ERROR,
        f"{_count(paths)} of {loser.shown} {'is' if len(paths) == 1 else 'are'} overwritten by {winner.shown}", [loser, winner],
        because=(f"both own {'it' if len(paths) == 1 else 'them'}; what is there is that of `{winner.name}`",
                 *_some(_below(loser, paths))),
        fixes=(Fix("do", "uninstall the one that is not wanted, then reinstall the other: the first step takes files of both"),),
        symptom=f"`{loser.name}` runs on the files of `{winner.name}`: missing symbols, or the behaviour of another version.",
    )  # fmt: skip


def _duplicate(found: Inventory, name: str, infos: list[InfoFolder]) -> Finding:
    """Of several metadata folders of one name, the one that the files belong to."""
    losses = dict.fromkeys(infos, 0)
    for path, claims in found.claims.items():
        wrong = found.wrong.get(path, []) + ([*claims] if path in found.missing else [])
        for claim in wrong:
            if claim.info in losses:
                losses[claim.info] += 1
    best = min(infos, key=lambda info: losses[info])
    whole = losses[best] == 0
    reason = f"the files are those of {best.version}" if whole else f"the files are of none; nearest is {best.version}"
    return _finding(
        "record-left-over", Severity.ERROR if not whole else Severity.WARNING,
        f"`{name}` has {len(infos)} metadata folders", infos,
        because=(*(f"{info.path}: {losses[info]} files differ or are missing" for info in infos), reason),
        fixes=(Fix("do", f"uninstall `{name}` until it is gone, then install it once"),),
        symptom="Installers and programs may read the wrong version.",
    )  # fmt: skip


def _extra(found: Inventory, explained: frozenset[str]) -> Iterator[Finding]:
    """Code that nobody installed, in one finding for each package."""
    packages: dict[str, list[str]] = defaultdict(list)
    for path in found.extra:
        root = next(info.root for info in found.records if path.startswith(f"{info.root}/"))
        if path not in explained:
            packages[path[len(root) + 1 :].partition("/")[0]].append(path[len(root) + 1 :])
    for package, paths in packages.items():
        yield Finding(
            id="record-extra-code",
            severity=Severity.WARNING,
            title=f"{_count(paths)} in `{package}` {'was' if len(paths) == 1 else 'were'} installed by no distribution",
            subjects=(package,),
            because=("no RECORD lists it", *_some(paths)),
            evidence=(SPECIFICATION,),
            fixes=(Fix("do", "delete what was copied there by hand or left by another version"),),
            symptom="An import may find it instead of what was meant.",
        )


def _finding(
    name: str, severity: Severity, title: str, infos: list[InfoFolder], *, because: tuple[str, ...],
    fixes: tuple[Fix, ...] = (), symptom: str = "",
) -> Finding:  # fmt: skip
    return Finding(
        id=name, severity=severity, title=title, subjects=tuple(dict.fromkeys(info.name for info in infos)),
        observed={info.name: info.version for info in infos}, because=because, fixes=fixes, symptom=symptom,
        evidence=(SPECIFICATION, UNCHECKED),
    )  # fmt: skip


def _reinstall(info: InfoFolder) -> Fix:
    return Fix("do", f"pip install --force-reinstall --no-deps {info.name}=={info.version}")


def _count(paths: list[str]) -> str:
    return "1 file" if len(paths) == 1 else f"{len(paths)} files"


def _below(info: InfoFolder, paths: list[str]) -> list[str]:
    return [path.removeprefix(f"{info.root}/") for path in paths]


def _some(lines: list[str]) -> tuple[str, ...]:
    """The first lines, and how many more there are."""
    more = (f"and {len(lines) - SHOWN} more",) if len(lines) > SHOWN else ()
    return (*(line[:300] for line in lines[:SHOWN]), *more)
