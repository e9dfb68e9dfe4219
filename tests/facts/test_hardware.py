"""Compiler, toolkit, driver, GPUs, libraries: parsers over texts, and collectors over machines made of files."""

from __future__ import annotations

import struct
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from envcheck.facts.compiler import compiler_facts, read_version
from envcheck.facts.driver import driver_state, fabric, kernel_module, read_module
from envcheck.facts.gpu import Device, NotSeenError, amd_count, from_proc, read_information, visible
from envcheck.facts.libraries import HEADER_SIZE, MAGIC, cached_path, find_library, versioned
from envcheck.facts.model import Absent, Gpu, Known, Unreadable
from envcheck.facts.nvidia_smi import ask_nvidia_smi, read_header, read_table
from envcheck.facts.nvml import ask_nvml
from envcheck.facts.toolkit import from_header, from_json, from_nvcc, from_text, toolkit_facts
from tests.facts.machines import data, machine_of, prints, program

PROC_VERSION = "/proc/driver/nvidia/version"


# ---- compiler


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("gcc-debian-12.txt", "12.2.0"), ("gcc-el7.txt", "4.8.5"), ("gcc-conda.txt", "12.3.0"),
        ("gcc-ubuntu-22.04.txt", "11.4.0"),
    ],
)  # fmt: skip
def test_gcc_versions(name: str, version: str) -> None:
    assert read_version(data(name), "g++") == Known(version, "g++")


def test_clang_is_no_gcc() -> None:
    assert isinstance(read_version(data("clang-14.txt"), "c++"), Absent)


def test_cxx_comes_before_path(tmp_path: Path) -> None:
    program(tmp_path, "/bin/c++", prints(data("gcc-debian-12.txt")))
    program(tmp_path, "/tools/g++", prints(data("gcc-conda.txt")))
    machine = machine_of(tmp_path, CXX="/tools/g++ -O2")
    assert compiler_facts(machine)["gcc"] == Known("12.3.0", "CXX=/tools/g++")


def test_cxx_that_is_not_there_is_unreadable_and_not_another_compiler(tmp_path: Path) -> None:
    program(tmp_path, "/bin/c++", prints(data("gcc-debian-12.txt")))
    assert isinstance(compiler_facts(machine_of(tmp_path, CXX="/tools/none"))["gcc"], Unreadable)


def test_no_compiler_is_absent_and_says_where_it_was_looked_for(tmp_path: Path) -> None:
    fact = compiler_facts(machine_of(tmp_path))["gcc"]
    assert isinstance(fact, Absent)
    assert "g++ on PATH" in fact.looked_in


def test_a_failing_compiler_is_unreadable(tmp_path: Path) -> None:
    program(tmp_path, "/bin/g++", "exit 3")
    fact = compiler_facts(machine_of(tmp_path))["gcc"]
    assert isinstance(fact, Unreadable)
    assert "exit 3" in fact.reason


# ---- toolkit


def test_toolkit_texts() -> None:
    assert from_json(data("cuda-version-12.1.json")) == "12.1"
    assert from_json('{"cuda": {"version": "11.8.20220929"}}') == "11.8"
    assert from_text("CUDA Version 10.2.89\n") == "10.2"
    assert from_header("#ifndef X\n#define CUDA_VERSION 13000\n") == "13.0"
    assert from_header("#define CUDA_VERSION 12080\n") == "12.8"
    assert (from_nvcc(data("nvcc-13.0.txt")), from_nvcc(data("nvcc-10.1.txt"))) == ("13.0", "10.1")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cuda": 1}', '{"cuda": {"version": 12}}', "[" * 100000])
def test_no_release_in_a_wrong_version_json(text: str) -> None:
    assert from_json(text) is None


def test_cuda_home_decides_even_without_nvcc(tmp_path: Path) -> None:
    files = {"/usr/local/cuda/bin/nvcc": "", "/usr/local/cuda/version.txt": "CUDA Version 10.2.89"}
    fact = toolkit_facts(machine_of(tmp_path, files, CUDA_HOME="/tools/cuda"))["cuda_toolkit"]
    assert fact == Absent(("CUDA_HOME=/tools/cuda (no bin/nvcc)",))


def test_a_version_file_is_read_before_nvcc_is_run(tmp_path: Path) -> None:
    program(tmp_path, "/tools/cuda/bin/nvcc", f"touch {tmp_path}/ran")
    machine = machine_of(tmp_path, {"/tools/cuda/version.json": data("cuda-version-12.1.json")}, CUDA_PATH="/tools/cuda")
    assert toolkit_facts(machine)["cuda_toolkit"] == Known("12.1", "CUDA_PATH=/tools/cuda, version.json")
    assert not (tmp_path / "ran").exists()


def test_nvcc_on_path_is_run_where_no_file_says_its_release(tmp_path: Path) -> None:
    program(tmp_path, "/bin/nvcc", prints(data("nvcc-10.1.txt")))
    assert toolkit_facts(machine_of(tmp_path))["cuda_toolkit"] == Known("10.1", "/bin/nvcc, `nvcc --version`")


def test_of_several_usual_folders_the_newest_counts(tmp_path: Path) -> None:
    files = {}
    for release in ("9.2", "12.4", "11.8"):
        files[f"/usr/local/cuda-{release}/bin/nvcc"] = ""
        files[f"/usr/local/cuda-{release}/version.txt"] = f"CUDA Version {release}.1"
    fact = toolkit_facts(machine_of(tmp_path, files))["cuda_toolkit"]
    assert isinstance(fact, Known)
    assert fact.value == "12.4"


def test_a_conda_toolkit_is_found_by_the_prefix(tmp_path: Path) -> None:
    files = {"/env/bin/nvcc": "", "/env/include/cuda.h": "#define CUDA_VERSION 12010\n"}
    fact = toolkit_facts(machine_of(tmp_path, files), "/env")["cuda_toolkit"]
    assert fact == Known("12.1", "/env, include/cuda.h")


def test_a_folder_without_nvcc_is_no_toolkit(tmp_path: Path) -> None:
    files = {"/usr/local/cuda/version.json": data("cuda-version-12.1.json")}
    assert isinstance(toolkit_facts(machine_of(tmp_path, files))["cuda_toolkit"], Absent)


# ---- libraries


def cache(*entries: tuple[str, str, int]) -> bytes:
    """A loader cache with entries of name, path and architecture flags."""
    start = HEADER_SIZE + 24 * len(entries)
    table, strings = b"", b""
    for name, path, flags in entries:
        key = start + len(strings)
        strings += name.encode() + b"\0"
        table += struct.pack("=iIIIQ", flags, key, start + len(strings), 0, 0)
        strings += path.encode() + b"\0"
    return MAGIC + struct.pack("=II", len(entries), len(strings)) + bytes(HEADER_SIZE - 28) + table + strings


def test_the_loader_cache_is_read_for_the_right_architecture() -> None:
    content = cache(("libcuda.so.1", "/lib32/libcuda.so.1", 0x0003), ("libcuda.so.1", "/lib/libcuda.so.1", 0x0303))
    assert cached_path(content, "libcuda.so.1", 0x0300) == "/lib/libcuda.so.1"
    assert cached_path(b"ld.so-1.7.0" + content, "libcuda.so.1", 0x0300) == "/lib/libcuda.so.1"
    assert cached_path(content, "libcuda.so", 0x0300) is None


@pytest.mark.parametrize("content", [b"", b"glibc-ld.so.cache1.1", cache(("a", "b", 0x303))[:60], b"\xff" * 200])
def test_a_broken_cache_finds_nothing(content: bytes) -> None:
    assert cached_path(content, "libcuda.so.1", 0x0300) is None


@pytest.mark.skipif(sys.platform != "linux", reason="the loader cache is glibc's")
def test_the_real_cache_knows_the_c_library() -> None:
    path = Path("/etc/ld.so.cache")
    if not path.exists():
        pytest.skip("no loader cache")
    found = cached_path(path.read_bytes(), "libc.so.6", None)
    assert found is not None
    assert Path(found).exists()


def test_ld_library_path_comes_before_the_cache(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "/etc/ld.so.cache": cache(("libcuda.so.1", "/lib/libcuda.so.1", 0x303)),
        "/lib/libcuda.so.1": "", "/tools/compat/libcuda.so.1": "",
    }  # fmt: skip
    machine = machine_of(tmp_path, files, LD_LIBRARY_PATH="/none:/tools/compat/")
    assert find_library(machine, "libcuda.so.1", "x86_64") == "/tools/compat/libcuda.so.1"
    assert find_library(machine, "libcuda.so.1", "x86_64", variables=False) == "/lib/libcuda.so.1"


def test_a_driver_library_has_its_version_in_its_real_name(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, {"/lib/libcuda.so.535.104.05": "", "/wsl/libcuda.so.1.1": ""})
    (tmp_path / "lib/libcuda.so.1").symlink_to("libcuda.so.535.104.05")
    assert versioned(machine, "libcuda.so.1", "/lib/libcuda.so.1") == Known("535.104.05", "/lib/libcuda.so.535.104.05")
    assert isinstance(versioned(machine, "libcuda.so.1", "/wsl/libcuda.so.1.1"), Unreadable)
    assert isinstance(versioned(machine, "libcuda.so.1", None), Absent)


# ---- kernel module, nvidia-smi, NVML


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("proc-version-proprietary.txt", ("535.104.05", "proprietary")),
        ("proc-version-open.txt", ("565.57.01", "open")),
        ("proc-version-open-undated.txt", ("525.89.02", "open")),
    ],
)
def test_kernel_module_versions(name: str, expected: tuple[str, str]) -> None:
    assert read_module(data(name)) == expected


def test_the_module_version_in_sys_is_the_second_choice(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, {"/sys/module/nvidia/version": "550.54.15\n"})
    facts = kernel_module(machine)
    assert facts["kernel_module"] == Known("550.54.15", "/sys/module/nvidia/version")
    assert isinstance(facts["kernel_module_flavour"], Unreadable)


def test_a_version_file_of_another_form_is_unreadable(tmp_path: Path) -> None:
    assert isinstance(kernel_module(machine_of(tmp_path, {PROC_VERSION: "?"}))["kernel_module"], Unreadable)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nvidia-smi-570.txt", ("570.86.15", "12.8")), ("nvidia-smi-520.txt", ("520.61.05", "11.8")),
        ("nvidia-smi-610.txt", ("610.43.02", "13.3")), ("nvidia-smi-331.txt", ("331.79", "")),
        ("nvidia-smi-no-libcuda.txt", ("570.86.15", "")), ("nvidia-smi-mismatch.txt", ("", "")),
    ],
)  # fmt: skip
def test_headers_of_nvidia_smi(name: str, expected: tuple[str, str]) -> None:
    assert read_header(data(name)) == expected


def test_tables_of_nvidia_smi() -> None:
    first, second = read_table(data("query-gpu.csv"), capability=True)
    assert first.gpu == Gpu("NVIDIA TITAN V", "7.0", 12066)
    assert second == Device("GPU-90c1b7de-22a4-1f63-8e0f-47c5f0a9d3ee", Gpu("NVIDIA RTX 5880 Ada Generation", "8.9", 49140))
    assert read_table(data("query-gpu-470.csv"), capability=False)[0].gpu == Gpu("GeForce RTX 2080", "", 7979)
    assert read_table(data("query-gpu-unified.csv"), capability=True)[0].gpu == Gpu("NVIDIA GB10", "12.1", 0)


def test_an_old_nvidia_smi_is_asked_again_without_the_capability(tmp_path: Path) -> None:
    refuse = 'echo "Field \\"compute_cap\\" is not a valid field to query."; exit 2'
    table, header = prints(data("query-gpu-470.csv")), prints(data("nvidia-smi-520.txt"))
    script = f'case "$*" in\n*compute_cap*) {refuse};;\n*query-gpu*)\n{table}\n;;\n*)\n{header}\n;;\nesac'
    program(tmp_path, "/bin/nvidia-smi", script)
    seen = ask_nvidia_smi(machine_of(tmp_path))
    assert seen.driver == "520.61.05"
    assert seen.devices is not None
    assert [device.gpu.name for device in seen.devices] == ["GeForce RTX 2080"]


def test_the_complaint_of_nvidia_smi_is_the_reason(tmp_path: Path) -> None:
    program(tmp_path, "/bin/nvidia-smi", prints(data("nvidia-smi-mismatch.txt")) + "\nexit 18")
    with pytest.raises(NotSeenError, match="Driver/library version mismatch"):
        ask_nvidia_smi(machine_of(tmp_path))


class FakeNvml(types.ModuleType):
    """The part of pynvml that is used, with one whole GPU and one that fell off the bus."""

    class NVMLError(Exception):
        pass

    def __init__(self, fails: str = "") -> None:
        super().__init__("pynvml")
        self.fails = fails

    def nvmlInit(self) -> None:  # noqa: N802
        if self.fails:
            raise self.NVMLError(self.fails)

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass

    def nvmlSystemGetDriverVersion(self) -> bytes:  # noqa: N802
        return b"535.104.05"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:  # noqa: N802
        return 12020

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index:
            raise self.NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetName(self, _: int) -> str:  # noqa: N802
        return "NVIDIA A100-SXM4-80GB"

    def nvmlDeviceGetUUID(self, _: int) -> str:  # noqa: N802
        return "GPU-1"

    def nvmlDeviceGetCudaComputeCapability(self, _: int) -> tuple[int, int]:  # noqa: N802
        return 8, 0

    def nvmlDeviceGetMemoryInfo(self, _: int) -> Any:  # noqa: N802
        return types.SimpleNamespace(total=81920 << 20)


def test_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    seen = ask_nvml()
    assert (seen.driver, seen.driver_cuda) == ("535.104.05", "12.2")
    assert seen.devices == (Device("GPU-1", Gpu("NVIDIA A100-SXM4-80GB", "8.0", 81920)), Device("", Gpu()))


def test_nvml_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml("NVML Shared Library Not Found"))
    with pytest.raises(NotSeenError, match="Shared Library"):
        ask_nvml()


def no_nvml() -> None:
    raise NotSeenError("NVML: none here")


# ---- the whole driver


def test_no_driver_is_absent_with_no_gpus(tmp_path: Path) -> None:
    state = driver_state(machine_of(tmp_path), "x86_64")
    assert state.gpus == ()
    assert isinstance(state.facts["driver"], Absent)
    assert isinstance(state.facts["libcuda"], Absent)


def test_amd_gpus_leave_the_list_open(tmp_path: Path) -> None:
    nodes = "/sys/class/kfd/kfd/topology/nodes"
    files = {f"{nodes}/0/properties": "cpu_cores_count 64\nsimd_count 0\n", f"{nodes}/1/properties": "simd_count 304\n"}
    machine = machine_of(tmp_path, files)
    assert amd_count(machine) == 1
    state = driver_state(machine, "x86_64")
    assert state.gpus is None
    assert state.facts["gpu.vendor"] == Known("amd", "/sys/class/kfd")


def test_nvml_answers_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    machine = machine_of(tmp_path, {PROC_VERSION: data("proc-version-proprietary.txt")}, CUDA_VISIBLE_DEVICES="0")
    state = driver_state(machine, "x86_64")
    assert state.facts["driver"] == Known("535.104.05", PROC_VERSION)
    assert state.facts["driver_cuda"] == Known("12.2", "NVML")
    assert isinstance(state.facts["nvswitch"], Known)


def test_a_container_without_gpus_has_a_driver_and_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envcheck.facts.nvml.ask_nvml", no_nvml)
    files = {
        PROC_VERSION: data("proc-version-proprietary.txt"),
        "/proc/driver/nvidia/gpus/0000:07:00.0/information": data("proc-gpu-information.txt"),
    }
    state = driver_state(machine_of(tmp_path, files), "x86_64")
    assert state.gpus == ()
    assert isinstance(state.facts["driver"], Known)
    unread = state.facts["driver_cuda"]
    assert isinstance(unread, Unreadable)
    assert "NVML: none here; nvidia-smi is not on PATH" in unread.reason


def test_device_nodes_make_the_kernel_module_s_list_count(tmp_path: Path) -> None:
    files = {
        "/proc/driver/nvidia/gpus/0000:07:00.0/information": data("proc-gpu-information.txt"),
        "/dev/nvidia0": "",
    }
    devices = from_proc(machine_of(tmp_path, files))
    assert devices is not None
    assert [device.gpu for device in devices] == [Gpu("NVIDIA A100-SXM4-80GB")]


def test_without_device_minors_the_list_is_not_known(tmp_path: Path) -> None:
    path = "/proc/driver/nvidia/gpus/0000:04:00.0/information"
    assert read_information(data("proc-gpu-information-old.txt"))[0] == ""
    assert from_proc(machine_of(tmp_path, {path: data("proc-gpu-information-old.txt")})) is None


def test_a_compat_library_is_told_from_the_driver_s_own(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, {"/usr/local/cuda/compat/libcuda.so.1": ""}, LD_LIBRARY_PATH="/usr/local/cuda/compat")
    assert driver_state(machine, "x86_64").facts["cuda_compat"] == Known("yes", "/usr/local/cuda/compat/libcuda.so.1")


def test_the_fabric_manager_counts_only_beside_an_nvswitch(tmp_path: Path) -> None:
    assert isinstance(fabric(machine_of(tmp_path))["fabricmanager"], Absent)
    program(tmp_path, "/bin/nv-fabricmanager", "echo 'Fabric Manager version is : 535.104.05'")
    machine = machine_of(tmp_path, {"/dev/nvidia-nvswitchctl": "", "/proc/77/comm": "bash\n"})
    facts = fabric(machine)
    assert facts["fabricmanager"] == Known("stopped", "/proc")
    assert facts["fabricmanager_version"] == Known("535.104.05", "/bin/nv-fabricmanager")
    machine_of(tmp_path, {"/proc/88/comm": "nv-fabricmanage\n"})
    assert fabric(machine)["fabricmanager"] == Known("running", "process 88")


def test_inside_a_container_a_fabric_manager_cannot_be_called_stopped(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, {"/dev/nvidia-nvswitchctl": "", "/.dockerenv": ""})
    assert isinstance(fabric(machine)["fabricmanager"], Unreadable)


# ---- visible devices

A100 = Gpu("NVIDIA A100", "8.0", 81920)
T4 = Gpu("Tesla T4", "7.5", 15360)
SAME = [Device("GPU-aaaa1", A100), Device("GPU-aaaa2", A100), Device("GPU-bbbb3", A100)]
MIXED = [Device("GPU-t4", T4), Device("GPU-a100", A100)]


@pytest.mark.parametrize(
    ("wanted", "count"),
    [("0", 1), ("0,2", 2), ("", 0), ("-1", 0), ("0,-1,1", 1), ("9,0", 0), ("NoDevFiles", 0), (" 1 , 0 ", 2),
     ("GPU-bbbb", 1), ("GPU-aaaa", 0), ("GPU-AAAA1,GPU-bbbb3", 2), ("1,", 1), ("0,0", None), ("MIG-abc", None),
     ("\u00b2", 0), ("99999999999999999999", 0)],
)  # fmt: skip
def test_visible_devices(wanted: str, count: int | None) -> None:
    gpus = visible(SAME, {"CUDA_VISIBLE_DEVICES": wanted})
    assert (None if gpus is None else len(gpus)) == count


def test_all_devices_are_visible_where_the_variable_is_not_set() -> None:
    assert visible(MIXED, {}) == (T4, A100)


def test_an_index_among_different_gpus_needs_the_pci_order() -> None:
    assert visible(MIXED, {"CUDA_VISIBLE_DEVICES": "0"}) is None
    assert visible(MIXED, {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}) == (T4,)
    assert visible(MIXED, {"CUDA_VISIBLE_DEVICES": "GPU-a100"}) == (A100,)
    assert visible(MIXED, {"CUDA_VISIBLE_DEVICES": "1,0"}) is not None
