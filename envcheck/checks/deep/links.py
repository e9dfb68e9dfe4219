"""Compiled extensions against the libraries that are really there: every symbol one wants must be given by another.

From the ELF tables alone; nothing is loaded. Table: `symbol` (what a missing symbol says of the torch it was built for).
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from envcheck.checks.deep.loader import DRIVER, Loader
from envcheck.checks.deep.symbols import causes, demangled
from envcheck.facts.model import Known
from envcheck.findings import Evidence, Finding, Fix, Severity, Skip

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from envcheck.checks.context import Outcome
    from envcheck.checks.deep.target import InfoFolder, Target
    from envcheck.facts.model import Fact

TORCH = re.compile(r"lib(?:torch|c10|shm|caffe2)\w*\.so")
CUDA = re.compile(r"lib(?:cudart|cublas(?:Lt)?|cufft|curand|cusolver|cusparse(?:Lt)?|cudnn\w*|nccl|nvJitLink|nvrtc|cupti)\.so")
LIBRARY = re.compile(r"\.so(?:\.\d+)*$")
TAG = re.compile(r"\.(?:cpython-(\d+)|abi3|pypy\d*)[\w-]*\.so$")

#: What a symbol of the GPU driver begins with.
DRIVER_SYMBOL = re.compile(r"(?:cu[A-Z]|nvml[A-Z]|hsa_|ze[A-Z])")

MANUAL = Evidence("docs", "ld.so(8); System V ABI, Dynamic Linking")
SHOWN = 4


@dataclass(slots=True)
class Broken:
    """What keeps the extensions of one distribution from being loaded."""

    files: list[str] = field(default_factory=list)
    symbols: set[str] = field(default_factory=set)
    libraries: set[str] = field(default_factory=set)
    torch: bool = False


def check_links(target: Target, owners: dict[str, InfoFolder]) -> tuple[list[Outcome], dict[str, Fact]]:
    """Findings and skips for each distribution with extensions; and the facts `extension.*` that rules can speak of.

    Args:
        target: The environment.
        owners: The distribution that owns each installed file.
    """
    loader = Loader(target)
    libraries = [path for path in owners if LIBRARY.search(path)]
    beside: dict[str, dict[str, str]] = defaultdict(dict)
    for path in libraries:
        beside[owners[path].name][os.path.basename(path)] = path  # noqa: PTH119 - pathlib is slow
    given = _given_to_all(loader)
    broken: dict[str, Broken] = defaultdict(Broken)
    needed: set[str] = set()
    unjudged: dict[str, set[str]] = defaultdict(set)
    for number, path in enumerate(libraries):
        if not number % 50:
            target.say(f"linking extensions: {number} of {len(libraries)}")
        info = owners[path]
        kind = _kind(loader, path, info, target)
        if kind:
            _link(loader, path, kind == "torch", beside[info.name], given, broken[info.name], unjudged)
            elf = loader.elf(path)
            needed |= set(elf.needed) if elf and kind == "torch" and info.name != "torch" else set()
    infos = {owners[path].name: owners[path] for path in libraries}
    outcomes: list[Outcome] = [_finding(target, infos[name], item) for name, item in broken.items() if item.files]
    outcomes += _skips(unjudged)
    return outcomes, _facts(broken, needed)


def _given_to_all(loader: Loader) -> frozenset[str]:
    """The symbols of the interpreter and of torch's libraries, which are there before any extension is loaded."""
    given = set(loader.interpreter_symbols())
    for path in loader.first.values():
        elf = loader.elf(os.path.realpath(path)) if TORCH.match(os.path.basename(path)) else None  # noqa: PTH119
        given |= elf.given if elf else set()
    return frozenset(given)


def _kind(loader: Loader, path: str, info: InfoFolder, target: Target) -> str:
    """`torch` for what is linked with torch, `python` for another extension module; else empty: loaded at will, or not at all."""
    name = os.path.basename(path)  # noqa: PTH119
    tag = TAG.search(name)
    if tag and tag[1] and tag[1] != "".join(target.interpreter.version.split(".")[:2]):
        return ""
    elf = loader.elf(path)
    if elf is None:
        return ""
    if any(TORCH.match(item) for item in elf.needed) or (info.name == "torch" and TORCH.match(name)):
        return "torch"
    return "python" if tag or any(item.startswith("PyInit_") for item in elf.given) else ""


def _link(
    loader: Loader, path: str, torch: bool, beside: dict[str, str], given: frozenset[str], broken: Broken,
    unjudged: dict[str, set[str]],
) -> None:  # fmt: skip
    """Note in `broken` what the extension misses, or in `unjudged` what keeps it from being judged."""
    loaded, missing = loader.closure(path, beside)
    absent = {name for name in missing if not DRIVER.match(name)}
    ours = {name for name in absent if torch and (TORCH.match(name) or CUDA.match(name))}
    foreign = absent - ours
    symbols = _unresolved(loader, path, loaded, given, beside)
    if missing:
        symbols = {name for name in symbols if not DRIVER_SYMBOL.match(name)}
    if foreign or (ours and not symbols):
        for name in foreign:
            unjudged[name].add(path)
        symbols = {name for name in symbols if torch and _of_torch(name)}
    if ours or symbols:
        broken.files.append(path)
        broken.symbols |= symbols
        broken.libraries |= ours
        broken.torch |= torch


def _unresolved(loader: Loader, path: str, loaded: list[str], given: frozenset[str], beside: dict[str, str]) -> set[str]:
    elf = loader.elf(path)
    open_symbols = set(elf.wanted if elf else ()) - given
    for other in (*loaded, *beside.values()):
        if not open_symbols:
            break
        elf = loader.elf(other)
        open_symbols -= elf.given if elf else frozenset()
    return open_symbols


def _of_torch(symbol: str) -> bool:
    return symbol.startswith("_Z") and any(part in symbol for part in ("3c10", "2at", "5torch", "6caffe2"))


def _finding(target: Target, info: InfoFolder, item: Broken) -> Finding:
    torch = target.context.environment.packages.get("torch")
    files = [path.removeprefix(f"{info.root}/") for path in sorted(item.files)]
    because = [f"`{files[0]}`" + (f" and {len(files) - 1} more" if len(files) > 1 else "")]
    if item.libraries:
        because.append(f"needs {', '.join(f'`{name}`' for name in sorted(item.libraries))}, which is not in this environment")
    names = sorted(item.symbols, key=lambda name: (not _of_torch(name), len(name), name))
    because += [f"no library here gives `{text}`" for text in demangled(names[:SHOWN])]
    if len(names) > SHOWN:
        because.append(f"and {len(names) - SHOWN} more symbols")
    found = causes(target.context, item.symbols, item.libraries, torch.version if torch and item.torch else "")
    subjects = (info.name, "torch") if item.torch and torch and info.name != "torch" else (info.name,)
    certain = item.torch
    return Finding(
        id="extension-undefined-symbol" if item.symbols else "extension-library-missing",
        severity=Severity.ERROR if certain else Severity.WARNING,
        title=f"{info.shown}: {_count(files)} compiled for other libraries than those installed",
        subjects=subjects,
        observed={name: target.context.environment.packages[name].version for name in subjects},
        because=(*because, *found.reasons),
        certain=certain,
        fixes=(Fix("do", f"install the build of `{info.name}` that is made for the installed torch, or build it here"),)
        if item.torch else (Fix("do", f"pip install --force-reinstall --no-deps {info.name}=={info.version}"),),
        evidence=(*found.evidence, MANUAL),
        symptom="`undefined symbol` or `cannot open shared object file` when the extension is loaded; some packages "
        "catch that and go on without their operators.",
    )  # fmt: skip


def _count(files: list[str]) -> str:
    return "an extension is" if len(files) == 1 else f"{len(files)} extensions are"


def _skips(unjudged: dict[str, set[str]]) -> Iterator[Skip]:
    if unjudged:
        names = sorted(unjudged)
        count = len(set().union(*unjudged.values()))
        yield Skip("links", f"{count} extensions want libraries of the system that are not here ({', '.join(names[:SHOWN])})")


def _with_missing_library(symbol: str, item: Broken) -> bool:
    """Whether the symbol is missing because torch's CUDA libraries are, and so says nothing of torch's version."""
    return "4cuda" in symbol and any("cuda" in name for name in item.libraries)


def _facts(broken: dict[str, Broken], needed: Iterable[str]) -> dict[str, Fact]:
    """The facts that the matrix has rules for."""
    undefined = {name for item in broken.values() if item.torch for name in item.symbols if not _with_missing_library(name, item)}
    source = "ELF tables of the installed extensions"
    facts: dict[str, Fact] = {
        "extension.undefined": Known(tuple(sorted(undefined)), source),
        "extension.needed": Known(tuple(sorted(needed)), source),
    }
    old = any("ESs" in name or "RKSs" in name for name in undefined)
    new = any("NSt7__cxx11" in name for name in undefined)
    if old != new:
        facts["extension.cxx11_abi"] = Known("true" if new else "false", source)
    return facts
