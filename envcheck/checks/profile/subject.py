"""What the profile checks share: the question, and how a departure becomes a finding."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from envcheck.findings import Evidence, Severity

if TYPE_CHECKING:
    from envcheck.checks.context import Context
    from envcheck.facts.model import Environment
    from envcheck.findings import Finding
    from envcheck.matrix.profile import Profile
    from envcheck.matrix.profile_requirements import Wanted


#: Where one reference ends and the next begins: `owner/repo#1, owner/repo@commit:path; https://...`.
BETWEEN = re.compile(r"[;,]\s+(?=[\w.-]+/[\w.-]+[@#]|https://)")

ISSUE = re.compile(r"[\w.-]+/[\w.-]+#\d+")


@dataclass(frozen=True, slots=True)
class Subject:
    """An environment and the profile it is held against.

    Attributes:
        context: Facts, matrix and settings.
        profile: The project's needs.
        wanted: Its packages, for this environment's markers.
        deep: What the deep checks found; None where they were not run.
    """

    context: Context
    profile: Profile
    wanted: dict[str, Wanted]
    deep: tuple[Finding, ...] | None = None

    @property
    def environment(self) -> Environment:
        """The facts."""
        return self.context.environment

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Where the profile was read."""
        return evidence(self.profile.provenance.evidence[0])

    @property
    def on_gpu(self) -> bool:
        """Whether it cannot run without a GPU: it trains or serves on one, or has a firm need."""
        needs = [need for need in self.profile.needs if need.what != "driver"]
        return bool(needs) and (bool({"train", "serve"} & set(self.profile.use)) or any(need.firm for need in needs))

    def severity(self, *, breaks: bool, inferred: bool = False) -> Severity:
        """Error where the project then cannot run; a warning for advice, inference and advisory profiles."""
        return Severity.ERROR if breaks and not inferred and not self.profile.advisory else Severity.WARNING


def evidence(source: str) -> tuple[Evidence, ...]:
    """A profile's source as evidence; references that follow each other after a comma or semicolon are told apart."""
    parts = [part.strip() for part in BETWEEN.split(source)] if source else []
    return tuple(Evidence("issue" if ISSUE.search(part) else "code" if "@" in part else "docs", part) for part in parts)
