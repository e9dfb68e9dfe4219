"""Probes that were clean: remembered by everything that could change the answer."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from envcheck import __version__
from envcheck.cache import cache_folder, digest, read_cached, write_cached
from envcheck.cli.check import read_training
from envcheck.cli.inputs import read_environment, read_text
from envcheck.facts.model import Known

if TYPE_CHECKING:
    import argparse

#: Days after which a probe is repeated all the same: a driver or a cache may have changed unseen.
DAYS = 14


class Remembered(NamedTuple):
    """The memory of one environment with one set of settings.

    Attributes:
        path: The file that says it was clean; None where there is no cache.
    """

    path: str | None

    @classmethod
    def of(cls, args: argparse.Namespace) -> Remembered:
        """Named by the packages and facts of the environment, the texts of the settings and envcheck's version."""
        environment = read_environment(args)
        parts = [__version__, *sorted(f"{one.name}=={one.version}@{one.location}" for one in environment.packages.values())]
        parts += sorted(f"{name}={fact.value}" for name, fact in environment.facts.items() if isinstance(fact, Known))
        training = read_training(args)
        config = training.name if training else ""
        parts += [read_text(name, "settings") if name else "" for name in (config, args.training_args)]
        parts += [args.training_args_cmd or "", *sorted(args.told)]
        base = cache_folder(os.environ)
        return cls(f"{base}/probe-{digest(*(part.encode() for part in parts))}.json" if base else None)

    def clean(self) -> bool:
        """Was it clean, not too long ago?"""
        try:
            when = json.loads((read_cached(self.path) if self.path else None) or b"{}")["when"]
            return 0 <= time.time() - float(when) < DAYS * 86400
        except (ValueError, KeyError, TypeError):
            return False

    def keep(self) -> None:
        """Remember that it is clean; where nothing can be written, nothing is remembered."""
        if self.path:
            write_cached(self.path, json.dumps({"when": time.time()}).encode())
