"""Read a snapshot: every mistake at once, each with the path to its key; unknown fields are passed over."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from envcheck.errors import InputError
from envcheck.facts.document import Fields, Reader, parse
from envcheck.facts.metadata import LONGEST_VALUE, is_name, normalised
from envcheck.facts.model import Absent, Distribution, Environment, Gpu, Known, MetadataProblem, Unreadable
from envcheck.facts.torch_build import from_local_tag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.facts.model import Fact

FORMAT = "envcheck.snapshot"
SCHEMA = f"{FORMAT}/1"

#: Facts with a place of their own at the top level, and below `platform`; all others are in `facts`.
FIELDS = ("python", "driver", "driver_cuda", "cuda_toolkit", "torch_cuda", "torch_cxx11_abi")
PLATFORM_FIELDS = ("system", "machine", "glibc", "gcc")

#: More mistakes than this are counted, not listed.
MOST_PROBLEMS = 50

PROBLEM_KINDS = ("duplicate", "broken", "leftover")


def load(text: str, where: str) -> Environment:
    """The environment that a snapshot describes.

    Args:
        text: The JSON text.
        where: File name for messages.

    Raises:
        InputError: Not JSON, another format or version, or wrong fields; `problems` holds every mistake.
    """
    document = parse(text, where)
    _check_schema(document, where)
    reader = Reader()
    environment = _environment(document, reader)
    if reader.mistakes:
        count = len(reader.mistakes)
        more = (f"and {count - MOST_PROBLEMS} more",) if count > MOST_PROBLEMS else ()
        raise InputError(
            f"the snapshot has {count} mistake{'s' if count > 1 else ''}", where=where,
            problems=(*reader.mistakes[:MOST_PROBLEMS], *more),
            hints=("`envcheck snapshot` writes one to compare with",),
        )  # fmt: skip
    return environment


def _check_schema(document: Fields, where: str) -> None:
    """Refuse another format or version at once: its fields may mean something else."""
    schema = document.get("schema", SCHEMA)
    if schema == SCHEMA:
        return
    hints: tuple[str, ...] = (f"this envcheck reads `{SCHEMA}`",)
    if isinstance(schema, str) and re.fullmatch(rf"{re.escape(FORMAT)}/\d{{1,9}}", schema):
        message = f"the snapshot has the schema `{schema}`, which this version does not understand"
        hints = (*hints, "update envcheck, or write the snapshot with this version")
    else:
        message = f"`schema` must be `{SCHEMA}`, not {json.dumps(schema)[:80]}"
    raise InputError(message, where=where, hints=hints)


def _environment(document: Fields, reader: Reader) -> Environment:
    for key in document.twice:
        reader.at(key).wrong("is given twice")
    packages = _packages(document, reader)
    facts = _facts(document, reader)
    return Environment(
        packages=packages,
        complete=_flag(document, "complete", reader),
        facts={**_derived(packages, facts), **facts},
        gpus=_gpus(document, reader),
        problems=tuple(_problems(document, reader)),
        prefix=reader.at("prefix").text(document.get("prefix", "")),
        source=reader.at("source").text(document.get("source", "")),
        markers={key: here.text(value) for key, value, here in reader.at("markers").items(document.get("markers", {}))},
    )


def _flag(document: dict[str, Any], key: str, reader: Reader) -> bool:
    value = document.get(key, False)
    return bool(reader.at(key).expect(value, bool, "true or false") and value)


def _packages(document: Fields, reader: Reader) -> dict[str, Distribution]:
    packages: dict[str, Distribution] = {}
    spelled: dict[str, str] = {}
    for key, value, here in reader.at("packages").items(document.get("packages", {})):
        if not is_name(key):
            here.wrong("is not the name of a distribution")
            continue
        name = normalised(key)
        if name in packages:
            here.wrong(f"is the same distribution as `{spelled[name]}`")
        spelled[name] = key
        packages[name] = _package(name, value, here)
    return packages


def _package(name: str, value: Any, here: Reader) -> Distribution:  # noqa: ANN401 - JSON
    if isinstance(value, str):
        return Distribution(name, _version(value, here))
    given = {key: (item, below) for key, item, below in here.items(value, "a version text or an object with `version`")}
    if isinstance(value, dict) and "version" not in given:
        here.wrong("has no `version`")

    def text(key: str) -> str:
        return given[key][1].text(given[key][0]) if key in given else ""

    def texts(key: str) -> tuple[str, ...]:
        return given[key][1].texts(given[key][0]) if key in given else ()

    return Distribution(
        name=name,
        version=_version(text("version"), here.at("version")),
        requires=texts("requires"),
        requires_python=text("requires_python"),
        location=text("location"),
        direct_url=text("direct_url"),
        commit=text("commit"),
        installer=text("installer"),
        editable=_flag(value, "editable", here) if isinstance(value, dict) else False,
        extras=texts("extras"),
    )


def _version(value: str, here: Reader) -> str:
    """A version need not be PEP 440, but nothing real is longer than this."""
    if len(value) > LONGEST_VALUE:
        here.wrong(f"a version of {len(value)} characters")
    return value[:LONGEST_VALUE]


def _facts(document: Fields, reader: Reader) -> dict[str, Fact]:
    sources = {key: item for key, item, _ in reader.at("sources").items(document.get("sources", {}))}
    facts: dict[str, Fact] = {}
    for name, value, here in _fact_values(document, reader):
        if name in facts:
            here.wrong("is given twice, here and at its own place")
        facts[name] = _fact(value, sources.get(name), here)
    for name, value, here in reader.at("unreadable").items(document.get("unreadable", {})):
        if name in facts:
            here.wrong("has a value too")
        parts = {key: below.text(item) for key, item, below in here.items(value) if key in ("source", "reason")}
        facts[name] = Unreadable(parts.get("source", ""), parts.get("reason", ""))
    return facts


def _fact_values(document: Fields, reader: Reader) -> Iterator[tuple[str, Any, Reader]]:
    """Every fact with its place, wherever the snapshot has it."""
    for name in FIELDS:
        if name in document:
            yield name, document[name], reader.at(name)
    for key, value, here in reader.at("platform").items(document.get("platform", {})):
        if key in PLATFORM_FIELDS:
            yield key, value, here
    yield from reader.at("facts").items(document.get("facts", {}))


def _fact(value: Any, source: Any, here: Reader) -> Fact:  # noqa: ANN401 - JSON
    """A text, a boolean, a list of texts; null for "looked for and absent".

    A fraction is refused: it has lost digits (`12.10` reads as 12.1).
    """
    if value is None:
        looked_in = tuple(item for item in source if isinstance(item, str)) if isinstance(source, list) else ()
        return Absent(looked_in)
    where = source if isinstance(source, str) else ""
    if isinstance(value, bool):
        return Known("true" if value else "false", where)
    if isinstance(value, list):
        return Known(here.texts(value), where)
    if isinstance(value, int):
        return Known(str(value), where)
    if isinstance(value, float):
        here.wrong(f'must be in quotes: `"{value}"`')
        return Absent()
    return Known(here.text(value, "a text, true, false, null or a list of texts"), where)


def _derived(packages: dict[str, Distribution], facts: dict[str, Fact]) -> dict[str, Fact]:
    """The CUDA builds that local version tags give away, where the snapshot does not say them."""
    found: dict[str, Fact] = {}
    for name in ("torch", "torchvision", "torchaudio"):
        fact = from_local_tag(packages[name].version, name) if name in packages else None
        if fact is not None and f"{name}_cuda" not in facts:
            found[f"{name}_cuda"] = fact
    return found


def _gpus(document: Fields, reader: Reader) -> tuple[Gpu, ...] | None:
    """None where the snapshot does not say; `null` is "looked, and there is none"."""
    if "gpus" not in document:
        return None
    here = reader.at("gpus")
    value = document["gpus"]
    if value is None:
        return ()
    if not here.expect(value, list, "a list of GPUs"):
        return None
    return tuple(_gpu(item, here.at(number)) for number, item in enumerate(value))


def _gpu(value: Any, here: Reader) -> Gpu:  # noqa: ANN401 - JSON
    given = {key: (item, below) for key, item, below in here.items(value)}

    def text(key: str) -> str:
        return given[key][1].text(given[key][0], "a text in quotes") if key in given else ""

    capability = text("compute_capability")
    if capability and not re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}", capability):
        here.at("compute_capability").wrong("must look like `8.0`")
    memory, below = given.get("memory_mib", (0, here))
    if below.expect(memory, int, "a whole number of MiB") and memory < 0:
        below.wrong("must not be negative")
    size = memory if isinstance(memory, int) else 0
    return Gpu(name=text("name"), compute_capability=capability, memory_mib=size, product_class=text("class"))


def _problems(document: Fields, reader: Reader) -> Iterator[MetadataProblem]:
    here = reader.at("problems")
    value = document.get("problems", [])
    if not here.expect(value, list, "a list"):
        return
    for number, item in enumerate(value):
        below = here.at(number)
        parts = {key: place.text(part) for key, part, place in below.items(item) if key in ("kind", "name", "path", "detail")}
        if parts.get("kind") not in PROBLEM_KINDS:
            below.at("kind").wrong(f"must be one of {', '.join(PROBLEM_KINDS)}")
        yield MetadataProblem(parts.get("kind", ""), parts.get("name", ""), parts.get("path", ""), parts.get("detail", ""))
