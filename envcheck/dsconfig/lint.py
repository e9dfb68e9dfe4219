"""Findings about one DeepSpeed document: its text, its keys, its values and its batch arithmetic.

What holds between keys, or hangs on package versions, is in `matrices/rules/`; this module looks at one key at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.version import Version

from envcheck.dsconfig.document import Document, Entry, Place, parse
from envcheck.dsconfig.keys import KeyTable, current, json_text, version_of
from envcheck.dsconfig.values import AUTO, value_problems
from envcheck.findings import Evidence, Finding, Fix, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

READER = Evidence("code", "deepspeedai/DeepSpeed@v0.19.5:deepspeed/runtime/config.py")
LOADER = Evidence("code", "huggingface/accelerate@v1.12.0:src/accelerate/utils/deepspeed.py")
MODEL = Evidence("code", "deepspeedai/DeepSpeed@v0.19.5:deepspeed/runtime/config_utils.py")

#: Problems of the text that change a value's meaning where nothing stops; the others stop one reader or the other.
TITLES = {
    "comment": "The file has comments",
    "trailing-comma": "The file has a trailing comma",
    "single-quotes": "The file has a string in single quotes",
    "unquoted-key": "A key is not quoted",
    "unquoted-text": "A text is not quoted",
    "foreign-word": "A constant is not written as JSON writes it",
    "not-finite": "A number is not finite",
    "number": "A number is not written as JSON writes it",
    "missing-comma": "A comma is missing",
    "escape": "A string has an escape that JSON does not have",
}


@dataclass(frozen=True, slots=True)
class Linter:
    """What one lint knows.

    Attributes:
        document: The parsed file.
        where: Its name, for places.
        table: The key table.
        version: The installed DeepSpeed, or None.
        trainer: Whether the transformers Trainer reads the file; None where nobody said.
        world_size: Number of ranks, or None.
    """

    document: Document
    where: str
    table: KeyTable
    version: Version | None
    trainer: bool | None = None
    world_size: int | None = None

    def at(self, place: Place) -> str:
        """`file:line:column`."""
        return f"{self.where}:{place.line}:{place.column}"

    def findings(self) -> Iterator[Finding]:
        """Everything there is to say."""
        yield from self.text()
        if not self.document.usable:
            return
        for entry in self.document.duplicates:
            yield self.duplicate(entry)
        for entry in self.document.entries():
            yield from self.key(entry)
        yield from self.optimizer()
        yield from self.scheduler()
        yield from self.batch()
        yield from self.stage3_only()

    def text(self) -> Iterator[Finding]:
        """What strict JSON refuses; one finding for each kind, at its first place."""
        seen: dict[str, int] = {}
        for problem in self.document.problems:
            seen[problem.kind] = seen.get(problem.kind, 0) + 1
        for problem in self.document.problems:
            count = seen.pop(problem.kind, 0)
            if problem.fatal:
                yield Finding(
                    "ds-config-not-json",
                    Severity.ERROR,
                    f"The DeepSpeed config is not JSON: {problem.message}",
                    place=self.at(problem.place),
                    because=(problem.message,),
                    evidence=(LOADER,),
                )
            elif count:
                more = f" ({count} times)" if count > 1 else ""
                yield Finding(
                    f"ds-config-{problem.kind}",
                    Severity.ERROR if self.trainer else Severity.WARNING,
                    f"{TITLES[problem.kind]}{more}",
                    place=self.at(problem.place),
                    because=(
                        f"{problem.message}; transformers and accelerate read the file as strict JSON and stop here",
                        "DeepSpeed itself reads it with hjson, which is more tolerant",
                    ),
                    fixes=(Fix("do", "write strict JSON (`envcheck config --fix` does)"),),
                    evidence=(LOADER, READER),
                )

    def duplicate(self, entry: Entry) -> Finding:
        """A key that its object already has."""
        first = next(item for item in self.document.entries() if item.path == entry.path)
        return Finding(
            "ds-config-duplicate-key",
            Severity.ERROR,
            f"The key `{entry.path}` is given twice",
            (entry.path,),
            {entry.path: f"{shown(first)}, then {shown(entry)}"},
            (
                f"it is first given on line {first.place.line}",
                "DeepSpeed refuses duplicate keys; transformers and accelerate silently take the last one",
            ),
            fixes=(Fix("do", f"delete one of the two `{entry.key}`"),),
            evidence=(MODEL, LOADER),
            place=self.at(entry.place),
        )

    def key(self, entry: Entry) -> Iterator[Finding]:
        """Unknown, too new, removed or deprecated keys, and their values."""
        section = entry.path.rpartition(".")[0]
        known = self.table.get(entry.path)
        if known is None:
            if section and self.table.is_open(section):
                yield from self.value(entry)
            elif not section or self.section_known(section):
                yield self.unknown(entry, section)
            return
        if self.version is not None:
            if known.since and self.version < Version(known.since):
                yield self.wrong_release(entry, section, f"DeepSpeed reads it since {known.since}")
                return
            if known.removed and self.version >= Version(known.removed):
                text = f"DeepSpeed removed it in {known.removed}" + (
                    f": {known.refused}" if known.refused else ""
                )
                yield self.wrong_release(entry, section, text, refused=bool(known.refused))
                return
        elif known.refused:
            yield Finding(
                "ds-config-removed-later",
                Severity.INFO,
                f"`{entry.path}` is refused by DeepSpeed {known.removed} and later",
                (entry.path,),
                {entry.path: shown(entry)},
                (known.refused,),
                certain=False,
                evidence=(READER,),
                place=self.at(entry.place),
            )
        if known.deprecated and (self.version is None or self.version >= Version(known.deprecated)):
            yield Finding(
                "ds-config-deprecated-key",
                Severity.WARNING,
                f"`{entry.path}` is deprecated",
                (entry.path,),
                {entry.path: shown(entry)},
                (f"use `{known.instead}` instead",) if known.instead else (),
                fixes=(Fix("do", f"write `{known.instead}` instead of `{entry.key}`"),)
                if known.instead
                else (),
                evidence=(MODEL,),
                place=self.at(entry.place),
            )
        if known.alias and known.alias in self.document.index:
            yield self.both_names(entry, self.document.index[known.alias])
        yield from self.value(entry)

    def both_names(self, entry: Entry, other: Entry) -> Finding:
        """A key given under both of its names."""
        return Finding(
            "ds-config-both-names",
            Severity.ERROR,
            f"`{entry.path}` and `{other.key}` are the same key",
            (entry.path, other.path),
            {entry.path: shown(entry), other.path: shown(other)},
            (f"`{other.key}` is on line {other.place.line}", "DeepSpeed refuses the second name as unknown"),
            fixes=(Fix("do", f"remove `{entry.key}`"),),
            evidence=(ZERO,),
            place=self.at(entry.place),
        )

    def section_known(self, section: str) -> bool:
        """Whether a section is known at all: below an unknown one, one finding is enough."""
        return self.table.get(section) is not None and self.table.has_keys(current(section))

    def unknown(self, entry: Entry, section: str) -> Finding:
        """A key that no listed release reads."""
        nearest = self.table.nearest(entry.path)
        refuses = self.table.refuses(section, self.version) if section else False
        remark = entry.key.startswith(("_", "//", "#")) or entry.key.lower() in (
            "comment",
            "comments",
            "note",
            "description",
        )
        where = f"`{section}`" if section else "the top level"
        if refuses:
            text, severity = f"DeepSpeed refuses unknown keys in {where} and stops", Severity.ERROR
        elif refuses is None:
            since = self.table.strict[current(section)]
            text = f"from DeepSpeed {since} on, {where} refuses unknown keys; before, they are ignored silently"
            severity = Severity.WARNING
        else:
            text = f"DeepSpeed ignores unknown keys at {where} silently: the setting has no effect"
            severity = Severity.ERROR if nearest else Severity.WARNING
        if remark and not refuses:
            severity = Severity.INFO
        return Finding(
            "ds-config-unknown-key",
            severity,
            f"DeepSpeed has no key `{entry.path}`",
            (entry.path,),
            {entry.path: shown(entry)},
            (text, *((f"the nearest known key is `{nearest}`",) if nearest else ())),
            certain=refuses is not None,
            fixes=(Fix("do", f"write `{nearest}`" if nearest else f"remove `{entry.path}`"),),
            evidence=(MODEL if section else READER,),
            place=self.at(entry.place),
        )

    def wrong_release(self, entry: Entry, section: str, text: str, *, refused: bool = False) -> Finding:
        """A key that the installed DeepSpeed does not read."""
        stops = refused or bool(section and self.table.refuses(section, self.version))
        new = "since" in text
        return Finding(
            "ds-config-key-too-new" if new else "ds-config-key-removed",
            Severity.ERROR if stops else Severity.WARNING,
            f"DeepSpeed {self.version} does not {'know' if new else 'read'} `{entry.path}`",
            (entry.path, "deepspeed"),
            {entry.path: shown(entry), "deepspeed": str(self.version)},
            (text, "it stops at the key" if stops else "it ignores the key silently"),
            fixes=(Fix("do", f"remove `{entry.path}`"),),
            evidence=(READER,),
            place=self.at(entry.place),
        )

    def value(self, entry: Entry) -> Iterator[Finding]:
        """What is wrong with the value of a key."""
        section = entry.path.rpartition(".")[0]
        strict = bool(section) and self.table.refuses(section, self.version) is not False
        pydantic2 = self.version is None or self.version >= Version(self.table.pydantic2)
        known = self.table.get(entry.path)
        limited = known.bounds_since if known else ""
        bounded = not limited or (None if self.version is None else self.version >= Version(limited))
        for problem in value_problems(
            known, entry, strict=strict, pydantic2=pydantic2, trainer=self.trainer, bounded=bounded
        ):
            yield Finding(
                problem.id,
                problem.severity,
                problem.title,
                (entry.path,),
                {entry.path: shown(entry)},
                problem.because,
                certain=problem.certain,
                fixes=tuple(Fix("config", f"{entry.path}={change}") for change in problem.change),
                evidence=(MODEL if strict else READER,),
                place=self.at(entry.place),
            )

    def optimizer(self) -> Iterator[Finding]:
        """An optimizer that neither DeepSpeed nor torch has."""
        entry = self.document.index.get("optimizer.type")
        name = entry.value.plain if entry else None
        if entry is None or not isinstance(name, str) or name == AUTO:
            return
        made = self.table.optimizers.get(name.lower())
        if made is not None:
            yield from self.made(entry, name, made)
        elif name not in TORCH_OPTIMIZERS:
            yield self.no_such(
                entry,
                name,
                [*TORCH_OPTIMIZERS, "OneBitAdam", "OneBitLamb", "ZeroOneAdam", "Lamb", "Lion", "Muon"],
                "torch.optim",
            )

    def scheduler(self) -> Iterator[Finding]:
        """A scheduler that neither DeepSpeed nor torch has, and parameters that a DeepSpeed scheduler does not take."""
        entry = self.document.index.get("scheduler.type")
        name = entry.value.plain if entry else None
        if entry is None or not isinstance(name, str) or name == AUTO:
            return
        made = self.table.schedulers.get(name)
        if made is None:
            if name not in TORCH_SCHEDULERS:
                yield self.no_such(
                    entry, name, [*self.table.schedulers, *TORCH_SCHEDULERS], "torch.optim.lr_scheduler"
                )
            return
        yield from self.made(entry, name, made)
        given = [item for item in self.document.entries() if item.path.startswith("scheduler.params.")]
        for item in given:
            if item.key not in made["params"] and item.key != "last_batch_iteration":
                yield self.parameter(item, name, list(made["params"]))
        missing = [
            word
            for word, default in made["params"].items()
            if not default and word not in {item.key for item in given}
        ]
        if missing:
            yield Finding(
                "ds-config-scheduler-parameter-missing",
                Severity.ERROR,
                f"{name} needs `scheduler.params.{missing[0]}`",
                tuple(f"scheduler.params.{word}" for word in missing),
                {"scheduler.type": name},
                ("DeepSpeed makes the scheduler from these parameters and stops without it",),
                fixes=(Fix("config", f'scheduler.params.{missing[0]}="auto"'),),
                evidence=(SCHEDULES,),
                place=self.at(entry.place),
            )

    def parameter(self, item: Entry, name: str, known: list[str]) -> Finding:
        """A parameter that a scheduler does not take."""
        from difflib import get_close_matches  # noqa: PLC0415 - only where something is wrong

        close = get_close_matches(item.key, known, 1)
        return Finding(
            "ds-config-scheduler-parameter",
            Severity.ERROR,
            f"{name} takes no parameter `{item.key}`",
            (item.path, "scheduler.type"),
            {item.path: shown(item), "scheduler.type": name},
            (
                "DeepSpeed hands the parameters to the scheduler, which stops at one it does not know",
                f"it takes {', '.join(known)}",
            ),
            fixes=(Fix("do", f"write `{close[0]}`" if close else f"remove `{item.key}`"),),
            evidence=(SCHEDULES,),
            place=self.at(item.place),
        )

    def made(self, entry: Entry, name: str, made: dict[str, str]) -> Iterator[Finding]:
        """Something DeepSpeed makes, in releases that do not have it."""
        since, removed = made.get("since", ""), made.get("removed", "")
        if self.version is None or not (
            (since and self.version < Version(since)) or (removed and self.version >= Version(removed))
        ):
            return
        text = (
            f"it is there since {since}"
            if since and self.version < Version(since)
            else f"it was removed in {removed}"
        )
        yield Finding(
            "ds-config-not-in-release",
            Severity.ERROR,
            f"DeepSpeed {self.version} has no {name}",
            (entry.path, "deepspeed"),
            {entry.path: name, "deepspeed": str(self.version)},
            (text,),
            evidence=(READER,),
            place=self.at(entry.place),
        )

    def no_such(self, entry: Entry, name: str, known: list[str], home: str) -> Finding:
        """A type that nobody has."""
        from difflib import get_close_matches  # noqa: PLC0415 - only where something is wrong

        lower = {item.lower(): item for item in known}
        close = get_close_matches(name.lower(), list(lower), 1)
        return Finding(
            "ds-config-unknown-type",
            Severity.ERROR,
            f"Neither DeepSpeed nor `{home}` has `{name}`",
            (entry.path,),
            {entry.path: name},
            (
                f"DeepSpeed looks for other names in `{home}` and stops where there is none",
                *((f"the nearest known name is `{lower[close[0]]}`",) if close else ()),
            ),
            fixes=(Fix("config", f"{entry.path}={lower[close[0]]}"),) if close else (),
            evidence=(READER,),
            place=self.at(entry.place),
        )

    def batch(self) -> Iterator[Finding]:
        """train_batch_size = micro-batch x accumulation x world size."""
        names = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
        entries = [self.document.index.get(name) for name in names]
        numbers = [_whole(entry) for entry in entries]
        total, micro, steps = numbers
        place = self.at(next((entry.place for entry in entries if entry), START))
        if entries[0] is None and entries[1] is None and self.trainer is False:
            yield Finding(
                "ds-config-no-batch-size",
                Severity.ERROR,
                "Neither train_batch_size nor train_micro_batch_size_per_gpu is given",
                names[:2],
                because=("DeepSpeed needs one of them; only the Trainer and accelerate fill it in",),
                evidence=(READER,),
                place=self.at(START),
            )
        if total is None:
            return
        known = (micro or 1) * (steps or 1) * (self.world_size or 1)
        whole = micro is not None and steps is not None and self.world_size is not None
        if total != known if whole else total % known:
            parts = [
                f"{text} {value}"
                for text, value in (
                    ("micro-batch", micro),
                    ("accumulation", steps),
                    ("world size", self.world_size),
                )
                if value
            ]
            yield Finding(
                "ds-config-batch-arithmetic",
                Severity.ERROR,
                "train_batch_size is not micro-batch x accumulation x world size",
                (*names, "world_size"),
                {name: str(value) for name, value in zip(names, numbers, strict=True) if value is not None},
                (
                    f"train_batch_size {total} {'is not' if whole else 'is not a multiple of'} {' x '.join(parts)} = {known}",
                    "DeepSpeed checks this and stops",
                ),
                fixes=(Fix("config", f"train_batch_size={known}"),) if whole else (),
                evidence=(READER,),
                place=place,
            )

    def stage3_only(self) -> Iterator[Finding]:
        """Keys that only ZeRO-3 reads, under another stage."""
        stage = self.document.index.get("zero_optimization.stage")
        if stage is None or stage.value.plain not in (0, 1, 2) or isinstance(stage.value.plain, bool):
            return
        found = [
            item
            for item in self.document.entries()
            if item.path in STAGE3 or item.path.startswith("zero_optimization.stage3_")
        ]
        if found:
            names = tuple(item.path for item in found)
            yield Finding(
                "ds-config-stage3-only-key",
                Severity.INFO,
                f"Keys of ZeRO-3 under stage {stage.value.plain} have no effect",
                (*names, stage.path),
                {item.path: shown(item) for item in found},
                (f"{', '.join(f'`{item.key}` (line {item.place.line})' for item in found)}",),
                evidence=(ZERO,),
                place=self.at(found[0].place),
            )


SCHEDULES = Evidence("code", "deepspeedai/DeepSpeed@v0.19.5:deepspeed/runtime/lr_schedules.py")
ZERO = Evidence("code", "deepspeedai/DeepSpeed@v0.19.5:deepspeed/runtime/zero/config.py")
STAGE3 = {
    f"zero_optimization.{name}"
    for name in (
        "offload_param",
        "zero_hpz_partition_size",
        "zero_quantized_weights",
        "gather_16bit_weights_on_model_save",
    )
}
TORCH_OPTIMIZERS = (
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "Adamax",
    "AdamW",
    "ASGD",
    "LBFGS",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
    "SparseAdam",
)
TORCH_SCHEDULERS = (
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
)
START = Place(1, 1, 0)


def _whole(entry: Entry | None) -> int | None:
    """A positive whole number, or None."""
    value = entry.value.plain if entry else None
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or value != value  # noqa: PLR0124 - only NaN differs from itself
        or value in (float("inf"), float("-inf"))
    ):
        return None
    return int(value) if value == int(value) and value > 0 else None


def shown(entry: Entry) -> str:
    """An entry's value for a report."""
    return "{...}" if entry.value.entries is not None else json_text(entry.value.plain)


def lint_document(
    text: str,
    where: str,
    deepspeed_version: str | None = None,
    *,
    table: KeyTable | None = None,
    trainer: bool | None = None,
    world_size: int | None = None,
) -> list[Finding]:
    """Every finding about one DeepSpeed config.

    Args:
        text: Its text; anything at all.
        where: Its name, for places.
        deepspeed_version: The installed DeepSpeed, where known.
        table: The key table; the default matrix's where left out.
        trainer: Whether the transformers Trainer reads the file; None where nobody said.
        world_size: Number of ranks, where known.
    """
    return lint_parsed(
        parse(text),
        where,
        deepspeed_version,
        table or default_table(),
        trainer=trainer,
        world_size=world_size,
    )


def lint_parsed(
    document: Document,
    where: str,
    deepspeed_version: str | None,
    table: KeyTable,
    *,
    trainer: bool | None = None,
    world_size: int | None = None,
) -> list[Finding]:
    """As `lint_document`, for a document that is parsed already."""
    version = version_of(deepspeed_version) if deepspeed_version else None
    return list(Linter(document, where, table, version, trainer, world_size).findings())


def default_table() -> KeyTable:
    """The key table of the default matrix."""
    from envcheck.matrix.database import load  # noqa: PLC0415 - callers usually have a matrix

    return KeyTable.from_data(load().table("deepspeed_keys"))
