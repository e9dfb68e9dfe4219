"""Take home folders, user names and credentials out of an environment, before it leaves the machine."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from envcheck.facts.model import Absent, Known, Unreadable
from envcheck.facts.query import matters

if TYPE_CHECKING:
    from collections.abc import Callable

    from envcheck.facts.model import Distribution, Environment, Fact, MetadataProblem

#: `user:token@` or `token@` in a url: all before the last `@` of the authority.
CREDENTIALS = re.compile(r"(?<=://)[^/\s?#]*@")

#: Signed or tokened query parts of a url.
QUERY_SECRET = re.compile(r"([?&][^=&\s]*(?:token|key|secret|sig|signature|password|credential)[^=&\s]*=)[^&\s#]+", re.IGNORECASE)

#: The home folder of any user. `/root` needs none: it names nobody.
ANY_HOME = re.compile(r"(?<![\w.~-])/(home|Users)/(?!\*)[^/\s:;,'\"]+")

#: Where a path may end.
END = r"(?=$|[/\s:;,'\"`)])"


def redacted(environment: Environment, home: str | None = None) -> Environment:
    """The environment without what is private: homes as `~` and `/home/*`, urls without credentials.

    Environment variables that are not known to matter are dropped. Applying it twice is the same as once.

    Args:
        environment: What was collected.
        home: The home folder; the present user's by default.
    """
    own = os.path.expanduser("~") if home is None else home  # noqa: PTH111 - `Path.home` raises without one
    clean = cleaner(own)
    facts = {name: _fact(fact, clean) for name, fact in environment.facts.items() if _kept(name)}
    return environment._replace(
        packages={name: _distribution(package, clean) for name, package in environment.packages.items()},
        facts=facts,
        problems=tuple(_problem(problem, clean) for problem in environment.problems),
        prefix=clean(environment.prefix),
        source=clean(environment.source),
        markers={name: clean(value) for name, value in environment.markers.items()},
    )


def cleaner(home: str) -> Callable[[str], str]:
    """A function that takes private parts out of one text."""
    own = home.rstrip("/")
    pattern = re.compile(rf"(?<![\w.~-]){re.escape(own)}{END}") if own.startswith("/") else None

    def clean(text: str) -> str:
        if "/" not in text:
            return text
        shorter = pattern.sub("~", text) if pattern else text
        shorter = ANY_HOME.sub(r"/\1/*", shorter)
        return QUERY_SECRET.sub(r"\1***", CREDENTIALS.sub("", shorter)) if "://" in shorter else shorter

    return clean


def _kept(name: str) -> bool:
    return not name.startswith("env.") or matters(name.removeprefix("env."))


def _fact(fact: Fact, clean: Callable[[str], str]) -> Fact:
    if isinstance(fact, Known):
        value = clean(fact.value) if isinstance(fact.value, str) else tuple(map(clean, fact.value))
        return Known(value, clean(fact.source))
    if isinstance(fact, Absent):
        return Absent(tuple(map(clean, fact.looked_in)))
    if isinstance(fact, Unreadable):
        return Unreadable(clean(fact.source), clean(fact.reason))
    return fact


def _distribution(package: Distribution, clean: Callable[[str], str]) -> Distribution:
    requires = tuple(map(clean, package.requires))
    return package._replace(requires=requires, location=clean(package.location), direct_url=clean(package.direct_url))


def _problem(problem: MetadataProblem, clean: Callable[[str], str]) -> MetadataProblem:
    return problem._replace(path=clean(problem.path), detail=clean(problem.detail))
