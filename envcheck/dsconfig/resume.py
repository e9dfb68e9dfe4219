"""What the checkpoint that a run resumes from says of the environment that saved it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The random states that the Trainer saves hold numpy's, pickled under the name that its module has.
STATES = "rng_state"

#: Bytes of a file that are read; the name stands in the pickle, which comes first.
HEAD = 1 << 16

#: The usage word of the rule about resuming under another numpy.
ACROSS = "resume-across-numpy-major"


def words(arguments: Mapping[str, Any], versions: Mapping[str, str]) -> frozenset[str]:
    """Usage words that follow from the checkpoint named by `resume_from_checkpoint`; none where it is not here.

    Args:
        arguments: The Trainer's arguments.
        versions: Installed versions by package name.
    """
    folder = arguments.get("resume_from_checkpoint")
    installed = versions.get("numpy", "").partition(".")[0]
    saved = saved_under(folder) if isinstance(folder, str) and installed else ""
    return frozenset({ACROSS}) if saved and saved != installed else frozenset()


def saved_under(folder: str) -> str:
    """The major version of numpy that saved a Trainer's checkpoint, from its random states; empty where they do not say."""
    try:
        names = sorted(
            name
            for name in os.listdir(folder)  # noqa: PTH208 - as below
            if name.startswith(STATES) and name.endswith(".pth")
        )
        for name in names[:1]:
            with open(os.path.join(folder, name), "rb") as stream:  # noqa: PTH118, PTH123 - pathlib is slow to import
                head = stream.read(HEAD)
            return "2" if b"numpy._core" in head else "1" if b"numpy.core" in head else ""
    except (OSError, ValueError):
        pass
    return ""
