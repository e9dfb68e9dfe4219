"""torch's build, system facts and variables, over files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from envcheck.facts.interpreter import Interpreter
from envcheck.facts.machine import Machine
from envcheck.facts.model import Absent, Distribution, Known, Unreadable
from envcheck.facts.query import matters
from envcheck.facts.system import system_facts
from envcheck.facts.torch_build import from_local_tag, torch_facts, version_value
from envcheck.facts.variables import nccl_fact, path_facts, variable_facts
from tests.facts.machines import machine_of

if TYPE_CHECKING:
    from pathlib import Path

SITE = "/env/lib/python3.10/site-packages"
NO_CONDA = Known((), "no conda-meta")
OLD_ABI = b"\0_ZN3c106detail14torchCheckFailEPKcS2_jRKSs\0"
NEW_ABI = b"\0_ZN3c106detail14torchCheckFailEPKcS2_jRKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE\0"


def interpreter(**variables: str) -> Interpreter:
    markers = {"platform_system": "Linux", "platform_machine": "x86_64"}
    return Interpreter("/env/bin/python", "3.10.14", "/env", "/usr", (SITE,), "", markers, "2.35", variables)


def torch(version: str, *, url: str = "", installer: str = "", editable: bool = False) -> dict[str, Distribution]:
    package = Distribution("torch", version, location=SITE, direct_url=url, installer=installer, editable=editable)
    return {"torch": package}


# ---- torch


@pytest.mark.parametrize(
    ("line", "value"),
    [("cuda = '11.3'", "11.3"), ("cuda: Optional[str] = '12.1'", "12.1"), ("cuda: str | None = None", ""),
     ('cuda = "12.4"\r', "12.4"), ("cuda = _check()", None), ("xcuda = '1'", None)],
)  # fmt: skip
def test_values_in_version_py(line: str, value: str | None) -> None:
    assert version_value(f"__version__ = '2'\n{line}\nhip = None\n", "cuda") == value


@pytest.mark.parametrize(
    ("version", "value"),
    [("2.3.0+cu121", "12.1"), ("2.0.1+cu118", "11.8"), ("2.9.0+cu130", "13.0"), ("1.7.0+cu92", "9.2"),
     ("2.7.0+cu128.post1", "12.8")],
)  # fmt: skip
def test_local_tags_of_cuda_builds(version: str, value: str) -> None:
    assert from_local_tag(version, "torch") == Known(value, f"torch version {version}")


def test_local_tags_of_other_builds() -> None:
    assert isinstance(from_local_tag("2.3.0+cpu", "torch"), Absent)
    assert isinstance(from_local_tag("2.3.0+rocm6.0", "torch"), Absent)
    assert from_local_tag("2.3.0", "torch") is None
    assert from_local_tag("2.3.0+cu", "torch") is None


def test_torch_of_pypi(tmp_path: Path) -> None:
    version = "__version__ = '2.3.0+cu121'\ncuda: Optional[str] = '12.1'\ngit_version = '97ff'\nhip: Optional[str] = None\n"
    config = 'set(TORCH_CXX_FLAGS "-D_GLIBCXX_USE_CXX11_ABI=0")'
    files = {f"{SITE}/torch/version.py": version, f"{SITE}/torch/share/cmake/Torch/TorchConfig.cmake": config}
    facts = torch_facts(torch("2.3.0", installer="pip"), machine_of(tmp_path, files), NO_CONDA)
    values = {name: fact.value for name, fact in facts.items() if isinstance(fact, Known)}
    assert values == {
        "torch_cuda": "12.1", "torch_git_version": "97ff", "torch_cxx11_abi": "false", "torch_source": "pypi",
    }  # fmt: skip
    assert isinstance(facts["torch_hip"], Absent)


@pytest.mark.parametrize(("symbols", "value"), [(OLD_ABI, "false"), (NEW_ABI, "true")])
def test_the_abi_by_exported_symbols(tmp_path: Path, symbols: bytes, value: str) -> None:
    machine = machine_of(tmp_path, {f"{SITE}/torch/lib/libc10.so": b"\x7fELF" + symbols})
    fact = torch_facts(torch("2.13.0"), machine, NO_CONDA)["torch_cxx11_abi"]
    assert isinstance(fact, Known)
    assert fact.value == value


@pytest.mark.parametrize("content", [b"", OLD_ABI + NEW_ABI])
def test_an_abi_that_the_symbols_do_not_say_is_unreadable(tmp_path: Path, content: bytes) -> None:
    machine = machine_of(tmp_path, {f"{SITE}/torch/lib/libc10.so": content})
    assert isinstance(torch_facts(torch("2.13.0"), machine, NO_CONDA)["torch_cxx11_abi"], Unreadable)


def test_without_its_files_torch_s_local_tag_says_the_cuda_build(tmp_path: Path) -> None:
    facts = torch_facts(torch("2.3.0+cu118"), machine_of(tmp_path), NO_CONDA)
    assert facts["torch_cuda"] == Known("11.8", "torch version 2.3.0+cu118")
    assert isinstance(torch_facts(torch("2.3.0"), machine_of(tmp_path), NO_CONDA)["torch_cuda"], Unreadable)


@pytest.mark.parametrize(
    ("packages", "source"),
    [
        (torch("2.3.0", installer="uv"), "pypi"), (torch("2.3.0+cu121", installer="pip"), "pytorch-index"),
        (torch("2.3.0+cpu"), "pytorch-index"), (torch("2.5.0a0+e000ebd.nv24.10"), "ngc"),
        (torch("2.3.0", installer="conda"), "conda"), (torch("2.6.0a0+git1a2b3c"), "source"),
        (torch("2.6.0", url="file:///src/pytorch", editable=True), "source"),
        (torch("2.6.0", url="https://download.pytorch.org/whl/torch-2.6.0.whl"), "pytorch-index"),
    ],
)  # fmt: skip
def test_where_torch_comes_from(tmp_path: Path, packages: dict[str, Distribution], source: str) -> None:
    fact = torch_facts(packages, machine_of(tmp_path), NO_CONDA)["torch_source"]
    assert isinstance(fact, Known)
    assert fact.value == source


def test_a_conda_package_without_installer_is_conda_s(tmp_path: Path) -> None:
    conda = Known(("numpy", "pytorch"), "/env/conda-meta")
    fact = torch_facts(torch("2.3.0"), machine_of(tmp_path), conda)["torch_source"]
    assert fact == Known("conda", "/env/conda-meta")


def test_companions_say_their_build_in_version_py(tmp_path: Path) -> None:
    packages = {name: Distribution(name, "0.18.0", location=SITE) for name in ("torchvision", "torchaudio")}
    files = {f"{SITE}/torchvision/version.py": "__version__ = '0.18.0+cu121'\n"}
    facts = torch_facts(packages, machine_of(tmp_path, files), NO_CONDA)
    assert facts["torchvision_cuda"] == Known("12.1", f"{SITE}/torchvision/version.py")
    assert isinstance(facts["torchaudio_cuda"], Unreadable)
    assert isinstance(facts["torch_cuda"], Absent)


# ---- system


def test_the_c_plus_plus_library_s_version_is_in_its_file_name(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, {"/usr/lib64/libstdc++.so.6.0.30": "", "/proc/meminfo": "MemTotal: 131072000 kB\n"})
    (tmp_path / "usr/lib64/libstdc++.so.6").symlink_to("libstdc++.so.6.0.30")
    facts = system_facts(interpreter(), machine)
    assert facts["libstdcxx"] == Known("3.4.30", "/usr/lib64/libstdc++.so.6.0.30")
    assert facts["ram_gib"] == Known("125.0", "/proc/meminfo")
    assert facts["venv"] == Known("yes", "sys.prefix and sys.base_prefix")
    assert facts["glibc"] == Known("2.35", "confstr CS_GNU_LIBC_VERSION")


def test_conda_by_its_own_records(tmp_path: Path) -> None:
    names = ("history", "numpy-1.26.4-py310_0.json", "py-opencv-4.6-h1.json", "odd.json")
    machine = machine_of(tmp_path, {f"/usr/conda-meta/{name}": "" for name in names})
    facts = system_facts(interpreter(), machine)
    assert facts["conda"] == Known("yes", "/usr/conda-meta")
    assert facts["conda_packages"] == Known(("numpy", "py-opencv"), "/usr/conda-meta")


# ---- variables


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR", "NCCL_P2P_DISABLE", "LD_LIBRARY_PATH"])
def test_variables_that_matter(name: str) -> None:
    assert matters(name)


@pytest.mark.parametrize("name", ["HOME", "USER", "HF_TOKEN", "DS_API_KEY", "NCCL_SECRET_X", "TORCH_PASSWORD", "PATH"])
def test_variables_that_are_not_taken(name: str) -> None:
    assert not matters(name)


def test_variables_become_facts_and_the_environment_counts_as_read() -> None:
    facts = variable_facts(interpreter(DS_ACCELERATOR="cpu"))
    assert facts == {
        "env": Known("read", "process environment"),
        "env.DS_ACCELERATOR": Known("cpu", "process environment"),
    }


def test_what_ld_library_path_brings_in(tmp_path: Path) -> None:
    files = {
        "/cuda/lib64/libcublasLt.so.12": "", "/cuda/lib64/stubs/libcuda.so": "", "/other/libz.so.1": "",
        f"{SITE}/nvidia/cublas/lib/libcublasLt.so.12": "", f"{SITE}/nvidia/cublas/lib/libcublas.so.12": "",
    }  # fmt: skip
    machine = machine_of(tmp_path, files, LD_LIBRARY_PATH="/cuda/lib64:/cuda/lib64/stubs:/other:relative")
    facts = path_facts(interpreter(), machine)
    assert facts["ld_library_path_cuda"] == Known("yes", "LD_LIBRARY_PATH: /cuda/lib64")
    assert facts["ld_library_path_stubs"] == Known("yes", "LD_LIBRARY_PATH: /cuda/lib64/stubs")
    shadows = facts["ld_shadows"]
    assert isinstance(shadows, Known)
    assert shadows.value == ("libcublasLt.so.12",)


def test_ld_library_path_with_the_wheel_s_own_folder_shadows_nothing(tmp_path: Path) -> None:
    folder = f"{SITE}/nvidia/cublas/lib"
    machine = machine_of(tmp_path, {f"{folder}/libcublas.so.12": ""}, LD_LIBRARY_PATH=folder)
    assert path_facts(interpreter(), machine)["ld_shadows"] == Known((), "LD_LIBRARY_PATH and site-packages/nvidia/*/lib")


@pytest.mark.parametrize(
    ("value", "answer"),
    [("", "no"), ("/src", "no"), (f"/src:{SITE}", "no"), ("/old/lib/python3.9/site-packages", "yes"),
     ("/usr/lib/python3/dist-packages/", "yes")],
)  # fmt: skip
def test_pythonpath_with_another_environment(tmp_path: Path, value: str, answer: str) -> None:
    fact = path_facts(interpreter(PYTHONPATH=value), machine_of(tmp_path))["pythonpath_site_packages"]
    assert isinstance(fact, Known)
    assert fact.value == answer


def test_the_nccl_file(tmp_path: Path) -> None:
    assert isinstance(nccl_fact(machine_of(tmp_path), None), Absent)
    assert nccl_fact(machine_of(tmp_path), SITE) == Known("no", f"{SITE}/nvidia/*/lib/libnccl.so.2")
    path = f"{SITE}/nvidia/nccl/lib/libnccl.so.2"
    assert nccl_fact(machine_of(tmp_path, {path: ""}), SITE) == Known("yes", path)


def test_a_machine_s_list_variable_is_split_and_cleaned() -> None:
    machine = Machine({"X": "/a/:;/b;rel::/a"})
    assert machine.folders("X") == ["/a", "/b"]
