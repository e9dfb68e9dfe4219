"""Commands that change files inside site-packages, where no version check sees it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from envcheck.reproduce.expansion import SITE
from envcheck.reproduce.steps import TouchSitePackages

if TYPE_CHECKING:
    from envcheck.reproduce.script import Command

#: Commands that write where their arguments say, and what they do there.
WRITERS = {
    "cp": "copies",
    "rsync": "copies",
    "mv": "moves",
    "install": "copies",
    "ln": "links",
    "tar": "unpacks",
    "unzip": "unpacks",
}

#: Commands that change the files they name.
EDITORS = {
    "rm": "removes",
    "sed": "edits",
    "patch": "patches",
    "tee": "writes",
    "touch": "writes",
    "chmod": "changes",
    "truncate": "cuts",
}


def _in_site(text: str) -> bool:
    return SITE in text or "site-packages" in text or "dist-packages" in text


def touches_site_packages(command: Command) -> TouchSitePackages | None:
    """A command that changes files inside site-packages."""
    name = command.name
    plain = [word.text for word in command.arguments if not word.text.startswith("-")]
    if _in_site(command.writes):
        return TouchSitePackages(command, "writes", command.writes)
    if name in WRITERS and plain:
        target = (
            next((word.text for word in command.arguments if _in_site(word.text)), "") if name in ("tar", "unzip") else plain[-1]
        )
        return TouchSitePackages(command, WRITERS[name], target, tuple(plain[:-1])) if _in_site(target) else None
    if name in EDITORS and (name != "sed" or any(re.match(r"-\w*i|--in-place", word.text) for word in command.arguments)):
        inside = [word.text for word in command.arguments if _in_site(word.text)]
        return TouchSitePackages(command, EDITORS[name], inside[0]) if inside else None
    return None
