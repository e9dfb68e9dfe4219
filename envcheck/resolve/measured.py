"""Combinations that the probe measured good: versions to prefer before newer, unmeasured ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from envcheck.matrix.versions import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from packaging.specifiers import SpecifierSet

    from envcheck.matrix.settings import Settings
    from envcheck.resolve.nogoods import Nogood

#: The packages whose combination a record speaks of; the rest of its environment is chance.
MEASURED = ("deepspeed", "transformers", "accelerate", "torch")

#: Verdicts that say nothing against a combination.
FINE = frozenset({"equal", "skipped"})


@dataclass(frozen=True, slots=True)
class Combination:
    """A measured combination: its record's digest, the versions without build tags, and where it was run."""

    digest: str
    versions: Mapping[str, str]
    device: str


def best(
    folder: Path, wanted: Mapping[str, SpecifierSet], settings: Settings, nogoods: Sequence[Nogood],
) -> Combination | None:  # fmt: skip
    """The newest combination that was measured good under these settings, is admitted by the request and violates nothing.

    None without one, or where DeepSpeed is not asked for; newest is the one with the newest DeepSpeed.
    """
    if "deepspeed" not in wanted:
        return None
    fitting = [
        found
        for record in records(folder)
        if good_under(record, settings) and (found := combination(record)) and _admitted(found, wanted, nogoods)
    ]
    return max(fitting, key=lambda item: (_key(item.versions["deepspeed"]), item.digest), default=None)


def records(folder: Path) -> Iterator[dict[str, Any]]:
    """The records below `measured/`; a damaged line is no record."""
    for path in sorted((folder / "measured").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "deepspeed" in record.get("packages", {}):
                yield record


def combination(record: Mapping[str, Any]) -> Combination | None:
    """What a record speaks of; None where a version is not a release."""
    found = {name: plain(record["packages"][name]) for name in MEASURED if name in record["packages"]}
    versions = {name: str(item.version) for name, item in found.items() if item is not None and item.exact}
    return Combination(record["digest"], versions, record.get("device", "")) if len(versions) == len(found) else None


def good_under(record: Mapping[str, Any], settings: Settings) -> bool:
    """Whether every scenario that these settings can meet was equal to plain torch, and one was run."""
    verdicts = [item["verdict"] for item in record.get("scenarios", []) if _meets(item.get("config", {}), settings)]
    return "equal" in verdicts and FINE.issuperset(verdicts)


def _meets(config: Mapping[str, Any], settings: Settings) -> bool:
    """Whether the settings allow a scenario's configuration: same stage, same offload; an unknown stage meets 1 to 3."""
    zero = config.get("zero_optimization", {})
    stage = settings.get("zero_optimization.stage")
    if isinstance(stage, int) and not isinstance(stage, bool):
        if zero.get("stage", 0) != stage:
            return False
    elif not zero.get("stage", 0):
        return False
    offload = settings.get("zero_optimization.offload_optimizer.device")
    return ("offload_optimizer" in zero) is (isinstance(offload, str) and offload != "none")


def _admitted(found: Combination, wanted: Mapping[str, SpecifierSet], nogoods: Sequence[Nogood]) -> bool:
    if any(name in wanted and not wanted[name].contains(version) for name, version in found.versions.items()):
        return False
    return not any(nogood.violated(found.versions) for nogood in nogoods if all(t.spec != "absent" for t in nogood.terms))


def _key(version: str) -> Any:  # noqa: ANN401 - a Version
    found = plain(version)
    return found.version if found else None
