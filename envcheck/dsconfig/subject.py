"""What a lint is about: one document, and what is known of its surroundings."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from envcheck.dsconfig.keys import json_text
from envcheck.findings import Evidence

if TYPE_CHECKING:
    from packaging.version import Version

    from envcheck.dsconfig.document import Document, Entry, Place
    from envcheck.dsconfig.keys import KeyTable

#: Where DeepSpeed and accelerate read what the findings speak of.
READER = Evidence("code", "deepspeedai/DeepSpeed@v0.19.5:deepspeed/runtime/config.py")
LOADER = Evidence("code", "huggingface/accelerate@v1.12.0:src/accelerate/utils/deepspeed.py")
MODEL = Evidence("code", "deepspeedai/DeepSpeed@v0.19.5:deepspeed/runtime/config_utils.py")
SCHEDULES = Evidence("code", "deepspeedai/DeepSpeed@v0.19.5:deepspeed/runtime/lr_schedules.py")
ZERO = Evidence("code", "deepspeedai/DeepSpeed@v0.19.5:deepspeed/runtime/zero/config.py")


class Subject(NamedTuple):
    """What one lint knows.

    Attributes:
        document: The parsed file.
        where: Its name, for places.
        table: The key table.
        version: The installed DeepSpeed, or None.
        trainer: Whether the transformers Trainer reads the file; None where nobody said.
        world_size: Number of ranks, or None.
        five: Whether transformers is 5.0.0 or later.
    """

    document: Document
    where: str
    table: KeyTable
    version: Version | None
    trainer: bool | None = None
    world_size: int | None = None
    five: bool = False

    def at(self, place: Place) -> str:
        """`file:line:column`."""
        return f"{self.where}:{place.line}:{place.column}"


def shown(entry: Entry) -> str:
    """An entry's value for a report."""
    return "{...}" if entry.value.entries is not None else json_text(entry.value.plain)
