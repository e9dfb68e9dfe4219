"""What one DeepSpeed key does: type, default, history and known trouble."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from envcheck.dsconfig.keys import json_text, version_of
from envcheck.dsconfig.values import FILLED_BEFORE_5, FILLED_BY_ACCELERATE, FILLED_BY_TRAINER, own

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from envcheck.dsconfig.keys import Key, KeyTable
    from envcheck.matrix.rule import Rule


def facts(key: Key, table: KeyTable, rules: Iterable[Rule]) -> dict[str, Any]:
    """Everything known of a key, as plain data."""
    section = key.name.rpartition(".")[0]
    return {
        "key": key.name,
        "means": key.means,
        "type": key.type,
        "nullable": key.nullable,
        "default": key.default,
        "computed": key.computed,
        "defaults": [list(step) for step in key.defaults],
        "allowed": list(key.allowed),
        "bounds": bounds(key),
        "bounds_history": history(key),
        "written": key.alias,
        "since": key.since or f"{table.releases[0]} or earlier",
        "absent": list(key.absent),
        "removed": key.removed,
        "refused": key.refused,
        "deprecated": key.deprecated,
        "instead": key.instead,
        "unknown_neighbours": neighbours(section, table),
        "auto": auto(key),
        "trouble": [
            {"id": rule.id, "title": rule.title, "status": rule.status, "packages": dict(rule.packages)}
            for rule in rules
            if rule.status != "good" and any(item.key == key.name for item in rule.settings)
        ],
    }


def bounds(key: Key) -> str:
    """Bounds in words."""
    parts = [
        f"{word} {value:g}"
        for word, value in (("at least", key.least), ("above", key.above), ("at most", key.most), ("below", key.below))
        if value is not None
    ]
    return ", ".join(parts)


def history(key: Key) -> str:
    """Since when the bounds hold, and what was before."""
    if not key.bounds_since:
        return ""
    before = bounds(key.bounds_at(version_of("0"))[0])
    return f"since {key.bounds_since}, before {before or 'unbounded'}"


def neighbours(section: str, table: KeyTable) -> str:
    """What DeepSpeed does with an unknown key beside this one."""
    since = table.strict.get(section)
    if since is None:
        return "ignored silently"
    return "refused" if since == table.releases[0] else f"refused since {since}, before ignored silently"


def auto(key: Key) -> str:
    """Who replaces `auto`."""
    name = key.name
    if own(key, name):
        return "a value of DeepSpeed's own; under the Trainer accelerate stops at it"
    if name in FILLED_BY_TRAINER:
        before = " of transformers before 5.0.0" if name in FILLED_BEFORE_5 else ""
        return f"filled in by the Trainer{before}"
    return "filled in by accelerate" if name in FILLED_BY_ACCELERATE else "nobody replaces it"


def value_lines(data: dict[str, Any]) -> Iterator[str]:
    """Type, bounds, values and default."""
    yield f"  type       {data['type']}{' or null' if data['nullable'] else ''}{': ' + data['bounds'] if data['bounds'] else ''}"
    if data["bounds_history"]:
        yield f"  bounds     {data['bounds_history']}"
    if data["allowed"]:
        yield f"  values     {', '.join(json_text(item) for item in data['allowed'])}"
    if data["computed"]:
        yield f"  default    computed: {data['computed']}"
    elif data["default"]:
        yield f"  default    {data['default']}"
    if data["defaults"]:
        yield f"  history    {', '.join(f'{value} from {since}' for since, value in data['defaults'])}"


def lines(data: dict[str, Any]) -> Iterator[str]:
    """The facts as text."""
    yield data["key"]
    if data["means"]:
        yield f"  does       {data['means']}"
    yield from value_lines(data)
    if data["written"]:
        yield f"  write      {data['written']}"
    yield f"  since      DeepSpeed {data['since']}"
    if data["absent"]:
        yield f"  absent     from {data['absent'][0]} on, back in {data['absent'][1]}"
    for word in ("removed", "refused", "deprecated", "instead"):
        if data[word]:
            yield f"  {word:10} {data[word]}"
    yield f"  auto       {data['auto']}"
    yield f"  neighbours an unknown key beside it is {data['unknown_neighbours']}"
    for item in data["trouble"]:
        where = ", ".join(f"{name} {spec}" for name, spec in item["packages"].items())
        yield f"  trouble    {item['title']} [{item['id']}]{' (' + where + ')' if where else ''}"
