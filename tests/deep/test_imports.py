from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tomli

from envcheck.checks.deep.imports import Entry, check_imports, find_clashes
from envcheck.checks.deep.static.world import World
from envcheck.findings import Finding, Severity, Skip
from tests.deep.trees import install, site_of, target

FOLLOW = frozenset({"app", "lib", "far"})
CASES = tomli.loads(Path(__file__).with_name("guards.toml").read_text())["case"]
KEYS = {"name", "app", "files", "python", "certain", "likely"}


def world_of(case: dict[str, Any], tmp_path: Path) -> World:
    files = {"app/__init__.py": case["app"], **case.get("files", {})}
    library = {"lib/__init__.py": "def old(): ...\n", **{path: text for path, text in files.items() if path.startswith("lib/")}}
    site = site_of(tmp_path)
    install(site, "lib", "2.0", library)
    version = "class Version: ...\nclass InvalidVersion(ValueError): ...\ndef parse(text): ...\n"
    install(site, "packaging", "26.3", {"packaging/__init__.py": "", "packaging/version.py": version})
    install(site, "app", "1.0", {path: text for path, text in files.items() if path not in library})
    there = target(site)
    return World(there.context.environment, there.roots, case.get("python", "3.11.7"))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_guard(case: dict[str, Any], tmp_path: Path) -> None:
    assert case.keys() <= KEYS
    clashes = find_clashes(world_of(case, tmp_path), [Entry("app")], FOLLOW)
    named = {True: set[str](), False: set[str]()}
    for clash in clashes:
        named[bool(clash.likely)].add(clash.name or clash.module)
    assert named[False] == set(case.get("certain", []))
    assert named[True] == set(case.get("likely", []))


def test_unreadable_syntax_is_said(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    install(site, "deepspeed", "0.1", {"deepspeed/__init__.py": "match = = 1\n"})
    (said,) = check_imports(target(site))
    assert isinstance(said, Skip)
    assert "deepspeed/__init__.py" in said.reason


def test_a_clash_in_a_finding(tmp_path: Path) -> None:
    """DeepSpeed 0.14.0 on a torch that lost `log`, cut down; the matrix's rule gives the way out."""
    site = site_of(tmp_path)
    server = "torch/distributed/elastic/agent/server"
    folders = [server[: found.start()] for found in re.finditer("/", server)] + [server]
    torch = {f"{folder}/__init__.py": "" for folder in folders} | {f"{server}/api.py": "class RunResult: ...\n"}
    install(site, "torch", "2.13.0", torch)
    agent = "from torch.distributed.elastic.agent.server.api import log, RunResult\n"
    install(site, "deepspeed", "0.14.0", {"deepspeed/__init__.py": "from .agent import *\n", "deepspeed/agent.py": agent})
    (found,) = check_imports(target(site))
    assert isinstance(found, Finding)
    assert (found.id, found.severity, found.certain) == ("import-name-missing", Severity.ERROR, True)
    assert found.subjects == ("deepspeed", "torch")
    assert "`log`" in found.title
    assert found.place.endswith("deepspeed/agent.py:1")
    assert any(fix.change.startswith("deepspeed>=0.14") for fix in found.fixes)


def test_a_part_that_is_loaded_on_demand_is_a_warning(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    lazy = (
        'import sys\nclass _LazyModule: ...\n_import_structure = {"dpo": ["DPO"], "extra": ["E"]}\n'
        "sys.modules[__name__] = _LazyModule(__name__, __file__, _import_structure)\n"
    )
    files = {"trl/__init__.py": lazy, "trl/dpo.py": "from transformers import gone\n", "trl/extra.py": "import not_installed\n"}
    install(site, "trl", "0.9.6", files)
    install(site, "transformers", "5.0.0", {"transformers/__init__.py": ""})
    (found,) = check_imports(target(site))
    assert isinstance(found, Finding)
    assert (found.severity, found.subjects) == (Severity.WARNING, ("trl", "transformers"))
    assert "`trl.dpo`" in found.title
