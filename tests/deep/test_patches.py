from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from envcheck.checks.deep import integrity, patches
from envcheck.checks.deep.inventory import take_inventory
from envcheck.errors import InputError
from envcheck.findings import Evidence, Finding, Severity
from envcheck.matrix.patches import Patch, load_patches
from tests.deep.trees import install, site_of, target

if TYPE_CHECKING:
    from collections.abc import Mapping

MATRICES = Path(__file__).parents[2] / "matrices"
NEW = {"net/a.py": "patched a", "net/b.py": "patched b", "net/gemma/c.py": "added c"}
OLD = {"net/__init__.py": "", "net/a.py": "a", "net/b.py": "b"}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


PATCH = Patch(
    id="p", title="somebody's patch", target="net", versions="==4.36.2", expected_by={"app": "==1.0"}, note="it packs",
    files={path: (sha(text),) for path, text in NEW.items()}, evidence=(Evidence("code", "some/where@1"),),
)  # fmt: skip


def found(tmp_path: Path, version: str, copied: Mapping[str, str], *, app: bool = False) -> list[tuple[str, Severity]]:
    return [(item.id, item.severity) for item in findings(tmp_path, version, copied, app=app)]


def findings(
    tmp_path: Path, version: str, copied: Mapping[str, str], *, app: bool = False, known: tuple[Patch, ...] = (PATCH,)
) -> list[Finding]:
    site = site_of(tmp_path)
    install(site, "net", version, OLD)
    if app:
        install(site, "app", "1.0", {"app.py": ""})
    for path, text in copied.items():
        (site / path).parent.mkdir(exist_ok=True)
        (site / path).write_text(text)
    there = target(site)
    inventory = take_inventory(there)
    seen = patches.sightings(known, there.context.environment, inventory)
    every = [*integrity.judge(inventory, patches.explained(seen)), *patches.judge(seen, there.context.environment)]
    return [item for item in every if isinstance(item, Finding)]


def test_applied_to_its_version(tmp_path: Path) -> None:
    assert found(tmp_path, "4.36.2", NEW, app=True) == [("patch-applied", Severity.INFO)]


def test_applied_to_another_version(tmp_path: Path) -> None:
    assert found(tmp_path, "4.37.2", NEW) == [("patch-on-wrong-version", Severity.ERROR)]


def test_missing_where_the_project_needs_it(tmp_path: Path) -> None:
    assert found(tmp_path, "4.36.2", {}, app=True) == [("patch-missing", Severity.ERROR)]


def test_missing_says_which_other_state_of_the_project_may_be_wanted(tmp_path: Path) -> None:
    older = replace(PATCH, id="older", title="the older patch", files={"net/a.py": PATCH.files["net/a.py"]})
    other_release = replace(PATCH, id="other", title="the patch for another release", versions="==4.37.2")
    (missing,) = findings(tmp_path, "4.36.2", {}, app=True, known=(older, PATCH, other_release))
    assert "somebody's patch" in missing.title
    assert missing.because[-1] == "or, in another state of that project, the older patch"


def test_what_stays_when_the_release_is_installed_again(tmp_path: Path) -> None:
    (remains,) = findings(tmp_path, "4.36.2", {"net/gemma/c.py": NEW["net/gemma/c.py"]}, app=True)
    assert (remains.id, remains.severity) == ("patch-half-applied", Severity.ERROR)
    assert "installed again" in remains.because[-1]
    (half,) = findings(tmp_path / "half", "4.36.2", {"net/a.py": NEW["net/a.py"]})
    assert "installed again" not in " ".join(half.because)


def test_not_expected_without_the_project(tmp_path: Path) -> None:
    assert found(tmp_path, "4.36.2", {}) == []


def test_half_applied(tmp_path: Path) -> None:
    assert found(tmp_path, "4.36.2", {"net/a.py": NEW["net/a.py"]}) == [("patch-half-applied", Severity.ERROR)]


def test_recognised_by_the_set_of_files(tmp_path: Path) -> None:
    copied = {path: f"{text}, later" for path, text in NEW.items()}
    assert found(tmp_path, "4.36.2", copied) == [("patch-of-unknown-content", Severity.WARNING)]


def test_another_change_beside_the_patch_is_still_named(tmp_path: Path) -> None:
    assert ("record-files-altered", Severity.ERROR) in found(tmp_path, "4.36.2", {**NEW, "net/__init__.py": "x"})


def test_the_shipped_patches_can_be_read() -> None:
    names = [patch.id for patch in load_patches(MATRICES)]
    assert {"vila-15-transformers", "longvila-transformers", "vila-deepspeed-mics"} <= set(names)


GOOD = """
[[patch]]
id = "x"
title = "x"
target = "net"
versions = "==1"
expected_by = {}
note = "n"
evidence = [{ kind = "code", ref = "r" }]
reviewed = 2026-11-24
[patch.files]
"net/a.py" = ["%s"]
""" % ("0" * 64)
WRONG = {
    "syntax": "[[patch]",
    "other table": "[patches]\n",
    "key missing": GOOD.replace('note = "n"\n', ""),
    "key unknown": GOOD.replace("note =", "remark ="),
    "specifier": GOOD.replace('"==1"', '"one"'),
    "path above": GOOD.replace("net/a.py", "../a.py"),
    "digest": GOOD.replace("0" * 64, "0" * 63),
    "evidence": GOOD.replace('kind = "code"', 'kind = "rumour"'),
    "twice": GOOD + GOOD,
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG.keys())
def test_mistakes_in_a_patch_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "patches").mkdir()
    (tmp_path / "patches" / "x.toml").write_text(GOOD)
    assert [patch.id for patch in load_patches(tmp_path)] == ["x"]
    (tmp_path / "patches" / "x.toml").write_text(text)
    with pytest.raises(InputError):
        load_patches(tmp_path)
