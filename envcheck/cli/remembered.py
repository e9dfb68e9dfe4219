"""Probes that were clean: remembered by everything that could change the answer."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from envcheck import __version__
from envcheck.cache import cache_folder
from envcheck.cli.inputs import read_environment, read_text
from envcheck.errors import UsageError
from envcheck.facts.model import Known
from envcheck.files import write_whole

if TYPE_CHECKING:
    import argparse

#: Days after which a probe is repeated all the same: a driver or a cache may have changed unseen.
DAYS = 14


@dataclass(frozen=True, slots=True)
class Remembered:
    """The memory of one environment with one set of settings.

    Attributes:
        path: The file that says it was clean; None where there is no cache.
    """

    path: Path | None

    @classmethod
    def of(cls, args: argparse.Namespace) -> Remembered:
        """Named by the packages and facts of the environment, the texts of the settings and envcheck's version."""
        environment = read_environment(args)
        parts = [__version__, *sorted(f"{one.name}=={one.version}@{one.location}" for one in environment.packages.values())]
        parts += sorted(f"{name}={fact.value}" for name, fact in environment.facts.items() if isinstance(fact, Known))
        parts += [read_text(name, "settings") if name else "" for name in (args.ds_config, args.training_args)]
        parts.append(args.training_args_cmd or "")
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
        home = cache_folder(os.environ)
        return cls(None if home is None else Path(home, "probes", f"{digest}.json"))

    def clean(self) -> bool:
        """Was it clean, not too long ago?"""
        if self.path is None:
            return False
        try:
            when = json.loads(self.path.read_text(encoding="utf-8"))["when"]
            return 0 <= time.time() - float(when) < DAYS * 86400
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def keep(self) -> None:
        """Remember that it is clean; where nothing can be written, nothing is remembered."""
        if self.path is None:
            return
        with contextlib.suppress(OSError, UsageError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(str(self.path), json.dumps({"when": time.time()}), "memory of a clean probe")
