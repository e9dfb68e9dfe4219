"""What torch, torchvision and torchaudio were built for, from their files; none of them is imported."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from envcheck.facts.model import Absent, Known, Unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envcheck.facts.machine import Machine
    from envcheck.facts.model import Distribution, Fact

TORCH_FACTS = ("torch_cuda", "torch_hip", "torch_cxx11_abi", "torch_git_version", "torch_source")

#: Both spellings of one function that libc10.so exports: with and without `std::__cxx11::string`.
NEW_ABI = b"torchCheckFailEPKcS2_jRKNSt7__cxx11"
OLD_ABI = b"torchCheckFailEPKcS2_jRKSs"

LIBRARY_LIMIT = 16 << 20


def torch_facts(packages: Mapping[str, Distribution], machine: Machine, conda_packages: Fact) -> dict[str, Fact]:
    """The facts of `TORCH_FACTS`, `torchvision_cuda` and `torchaudio_cuda`."""
    facts = {f"{name}_cuda": _companion(packages.get(name), machine, name) for name in ("torchvision", "torchaudio")}
    torch = packages.get("torch")
    if torch is None:
        return {**facts, **dict.fromkeys(TORCH_FACTS, Absent(("installed distributions: torch",)))}
    folder = _folder(torch, machine, "torch")
    facts["torch_source"] = _source(torch, conda_packages)
    facts["torch_cxx11_abi"] = _abi(machine, folder)
    text = machine.text(f"{folder}/version.py")
    if text is None:
        return {**facts, **_without_version_file(torch, f"{folder}/version.py")}
    facts["torch_cuda"] = _build_value(text, "cuda", f"{folder}/version.py")
    facts["torch_hip"] = _build_value(text, "hip", f"{folder}/version.py")
    facts["torch_git_version"] = _build_value(text, "git_version", f"{folder}/version.py")
    return facts


def _folder(package: Distribution, machine: Machine, module: str) -> str:
    """The package's folder: next to its metadata, or in the source tree of an editable install."""
    beside = f"{package.location}/{module}"
    source = package.direct_url.removeprefix("file://") if package.editable else ""
    return f"{source}/{module}" if source.startswith("/") and not machine.exists(beside) else beside


def _without_version_file(torch: Distribution, path: str) -> dict[str, Fact]:
    missing = Unreadable(path, "no such file")
    return {
        "torch_cuda": from_local_tag(torch.version, "torch") or missing,
        "torch_hip": missing,
        "torch_git_version": missing,
    }


def _build_value(text: str, name: str, source: str) -> Fact:
    found = version_value(text, name)
    if found is None:
        return Unreadable(source, f"no `{name}` in it")
    return Known(found, source) if found else Absent((f"{source}: `{name}` is None",))


def version_value(text: str, name: str) -> str | None:
    """The text that a version.py assigns to `name`; empty for None, None where it assigns nothing plain.

    Lines look like `cuda = '11.3'` or `cuda: Optional[str] = None`, by release.
    """
    found = re.search(rf"^{name}[ \t]*(?::[^=\n]+)?=[ \t]*(?:None|['\"]([^'\"\n]*)['\"])[ \t]*\r?$", text, re.MULTILINE)
    return None if found is None else (found[1] or "")


def from_local_tag(version: str, name: str) -> Fact | None:
    """The CUDA version in a local tag: `2.3.0+cu121` is 12.1, `+cpu` has none; None without such a tag."""
    _, _, local = version.partition("+")
    source = f"{name} version {version}"
    found = re.match(r"cu(\d{1,2})(\d)(?![0-9])", local)
    if found:
        return Known(f"{found[1]}.{found[2]}", source)
    return Absent((source,)) if re.match(r"(?:cpu|rocm|xpu)", local) else None


def _companion(package: Distribution | None, machine: Machine, name: str) -> Fact:
    """`torchvision_cuda` or `torchaudio_cuda`: PyPI's wheels hide the local tag in version.py."""
    if package is None:
        return Absent((f"installed distributions: {name}",))
    tagged = from_local_tag(package.version, name)
    if tagged is not None:
        return tagged
    path = f"{_folder(package, machine, name)}/version.py"
    inside = version_value(machine.text(path) or "", "__version__") or ""
    fact = from_local_tag(inside, name)
    if fact is None:
        return Unreadable(path, "its version has no local tag such as `+cu121`")
    return Known(fact.value, path) if isinstance(fact, Known) else Absent((path,))


def _abi(machine: Machine, folder: str) -> Fact:
    """`true` or `false`; older builds say it in TorchConfig.cmake, 2.13 only by the names in libc10.so."""
    config = f"{folder}/share/cmake/Torch/TorchConfig.cmake"
    found = re.search(r"_GLIBCXX_USE_CXX11_ABI=([01])", machine.text(config) or "")
    if found:
        return Known("true" if found[1] == "1" else "false", config)
    library = f"{folder}/lib/libc10.so"
    content = machine.read(library, LIBRARY_LIMIT)
    if content is None:
        return Unreadable(folder, "neither TorchConfig.cmake nor libc10.so says which C++ ABI it was built with")
    new, old = NEW_ABI in content, OLD_ABI in content
    if new == old:
        return Unreadable(library, "its symbols do not say which C++ ABI it was built with")
    return Known("true" if new else "false", f"{library}, exported symbols")


def _source(torch: Distribution, conda_packages: Fact) -> Fact:
    """Where this torch comes from; installers do not record the index, so the local tag has to say it."""
    local = torch.version.partition("+")[2]
    url = torch.direct_url
    if re.search(r"(?:^|\.)nv", local):
        return Known("ngc", f"torch version {torch.version}")
    if torch.installer == "conda":
        return Known("conda", "INSTALLER")
    if not torch.installer and isinstance(conda_packages, Known) and "pytorch" in conda_packages.value:
        return Known("conda", conda_packages.source)
    if torch.editable or re.match(r"git|\w*unknown", local) or url.endswith((".git", "/")):
        return Known("source", "direct_url.json" if url else f"torch version {torch.version}")
    if "download.pytorch.org" in url or re.match(r"cu\d|cpu|rocm|xpu", local):
        return Known("pytorch-index", "direct_url.json" if url else f"torch version {torch.version}")
    if url:
        return Unreadable("direct_url.json", "installed from a file that does not say who built it")
    return Known("pypi", f"no local tag in {torch.version}, no direct_url.json")
