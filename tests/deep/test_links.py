from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from envcheck.checks.deep.elf import NotElfError, read_elf
from envcheck.checks.deep.inventory import take_inventory
from envcheck.checks.deep.links import check_links
from envcheck.errors import ToolError
from envcheck.facts.model import Known
from envcheck.findings import Finding, Severity, Skip
from tests.deep.elves import shared_object
from tests.deep.trees import install, site_of, target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envcheck.checks.context import Outcome
    from envcheck.facts.model import Fact

GET_DEVICE = "_ZN3c104cuda9SetDeviceEa"
TORCH = {
    "torch/lib/libc10.so": shared_object(soname="libc10.so", gives=["_ZN3c105ErrorC2Ev"]),
    "torch/lib/libtorch_cpu.so": shared_object(soname="libtorch_cpu.so", needed=["libc10.so"], gives=["_ZN2at4addE"]),
    "torch/lib/libtorch.so": shared_object(soname="libtorch.so", needed=["libtorch_cpu.so"], runpath="$ORIGIN"),
}


def linked(
    tmp_path: Path, files: Mapping[str, bytes], torch: Mapping[str, bytes] = TORCH,
) -> tuple[list[Outcome], dict[str, Fact]]:  # fmt: skip
    site = site_of(tmp_path)
    install(site, "torch", "2.13.0", torch)
    install(site, "ext", "1.0", files)
    (site.parent.parent.parent / "bin").mkdir(exist_ok=True)
    (site.parent.parent.parent / "bin" / "python").write_bytes(shared_object(gives=["PyList_New"]))
    there = target(site)
    found = take_inventory(there)
    return check_links(there, {path: claims[0].info for path, claims in found.claims.items()})


def extension(**tables: Any) -> dict[str, bytes]:
    return {"ext/_C.so": shared_object(gives=["PyInit__C"], **tables)}


CLEAN = {
    "everything is given": extension(needed=["libtorch.so"], wants=["_ZN2at4addE", "PyList_New"]),
    "found through another library": extension(needed=["libtorch.so"], wants=["_ZN3c105ErrorC2Ev"]),
    "weak symbols may be missing": extension(needed=["libtorch.so"], wants_weakly=["__gmon_start__", "anything"]),
    "the driver's library may be missing": extension(needed=["libtorch.so", "libcuda.so.1"], wants=["cuMemAlloc_v2"]),
    "own library beside it": {
        **extension(needed=["libtorch.so", "libown-1234.so.2"], runpath="$ORIGIN/../ext.libs", wants=["own"]),
        "ext.libs/libown-1234.so.2": shared_object(gives=["own"]),
    },
    "own library found by rpath": {
        **extension(needed=["libown.so"], rpath="${ORIGIN}/lib", wants=["own"]),
        "ext/lib/libown.so": shared_object(gives=["own"]),
    },
    "own library loaded by the package": {
        **extension(needed=["libtorch.so"], wants=["own"]),
        "ext/lib/libown.so": shared_object(gives=["own"]),
    },
    "for another Python": {"ext/_C.cpython-36m-x86_64-linux-gnu.so": shared_object(needed=["libtorch.so"], wants=["gone"])},
    "loaded at will": {"ext/libext_cuda118.so": shared_object(needed=["libcudart.so.11.0"], wants=["cudaMalloc"])},
    "no ELF file": {"ext/_C.so": b"PyInit__C"},
    "a linker script": {"ext/libx.so": b"GROUP ( /lib/libx.so.1 )"},
}


@pytest.mark.parametrize("files", CLEAN.values(), ids=CLEAN.keys())
def test_no_finding(tmp_path: Path, files: dict[str, bytes]) -> None:
    assert linked(tmp_path, files)[0] == []


def one(tmp_path: Path, files: Mapping[str, bytes], torch: Mapping[str, bytes] = TORCH) -> Finding:
    (found,) = linked(tmp_path, files, torch)[0]
    assert isinstance(found, Finding)
    return found


def test_a_symbol_that_this_torch_does_not_have(tmp_path: Path) -> None:
    found = one(tmp_path, extension(needed=["libtorch.so"], wants=["_ZN2at4addE", GET_DEVICE]))
    assert (found.id, found.severity, found.certain) == ("extension-undefined-symbol", Severity.ERROR, True)
    assert found.subjects == ("ext", "torch")
    assert any("SetDevice" in line for line in found.because)
    assert any("builds for torch >=2.3,<2.8" in line for line in found.because)


def test_a_symbol_that_is_there_but_hidden(tmp_path: Path) -> None:
    torch = {**TORCH, "torch/lib/libc10.so": shared_object(soname="libc10.so", hides=["_ZN3c105ErrorC2Ev"])}
    assert one(tmp_path, extension(needed=["libc10.so"], wants=["_ZN3c105ErrorC2Ev"]), torch).subjects == ("ext", "torch")


def test_a_cuda_build_beside_a_cpu_torch(tmp_path: Path) -> None:
    found = one(tmp_path, extension(needed=["libtorch.so", "libc10_cuda.so"]))
    assert found.id == "extension-library-missing"
    assert any("`libc10_cuda.so`" in line for line in found.because)


def test_torchs_own_libraries_are_linked_too(tmp_path: Path) -> None:
    torch = {**TORCH, "torch/lib/libtorch_cuda.so": shared_object(needed=["libnccl.so.2"], wants=["ncclCommResume"])}
    torch["nvidia/nccl/lib/libnccl.so.2"] = shared_object(gives=["ncclInit"])
    found = one(tmp_path, {}, torch)
    assert found.subjects == ("torch",)
    assert any("ncclCommResume" in line for line in found.because)


def test_an_extension_without_torch_is_a_warning(tmp_path: Path) -> None:
    found = one(tmp_path, extension(wants=["nobody_has_this"]))
    assert (found.severity, found.certain, found.subjects) == (Severity.WARNING, False, ("ext",))


def test_a_missing_library_of_the_system_is_said_and_no_finding(tmp_path: Path) -> None:
    (found,) = linked(tmp_path, extension(needed=["libGL-none.so.1"], wants=["glFlush"]))[0]
    assert isinstance(found, Skip)


def test_facts_for_the_rules(tmp_path: Path) -> None:
    facts = linked(tmp_path, extension(needed=["libtorch.so"], wants=[GET_DEVICE, "_ZN3c105ErrorC2ENS_14SourceLocationESs"]))[1]
    undefined = facts["extension.undefined"]
    assert isinstance(undefined, Known)
    assert GET_DEVICE in undefined.value
    assert facts["extension.cxx11_abi"] == Known("false", undefined.source)
    vocabulary = tomli.loads((Path(__file__).parents[2] / "matrices" / "vocabulary.toml").read_text())["fact"]
    assert {name for name, entry in vocabulary.items() if entry["from"] == "deep"} == facts.keys()


def test_symbols_of_a_missing_library_say_nothing_of_the_version(tmp_path: Path) -> None:
    files = extension(needed=["libtorch.so", "libc10_cuda.so"], wants=[GET_DEVICE, "_ZN2at4goneE"])
    assert linked(tmp_path, files)[1]["extension.undefined"] == Known(("_ZN2at4goneE",), "ELF tables of the installed extensions")


def test_without_a_demangler_names_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ToolError("cannot run `c++filt`")

    monkeypatch.setattr("envcheck.process.run", refuse)
    found = one(tmp_path, extension(needed=["libtorch.so"], wants=[GET_DEVICE]))
    assert any(GET_DEVICE in line for line in found.because)


@given(st.data())
def test_damaged_files_are_refused_and_never_crash(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = bytearray(shared_object(soname="x", needed=["liba.so"], wants=["a"], gives=["b"]))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(4, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("elf") / "x.so"
    path.write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    with contextlib.suppress(NotElfError):
        read_elf(str(path))


@pytest.mark.parametrize("place", [1 << 48, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("tag", [struct.pack("<qQ", 1, 1), struct.pack("<qQ", 14, 9)], ids=["DT_NEEDED", "DT_SONAME"])
def test_a_name_at_a_place_that_no_file_has_is_damage(tag: bytes, place: int, tmp_path: Path) -> None:
    """Seeking there is an OSError of the system (EINVAL), or a ValueError of Python."""
    whole = shared_object(needed=["liba.so"], soname="x")
    assert whole.count(tag) == 1
    (tmp_path / "x.so").write_bytes(whole.replace(tag, tag[:8] + struct.pack("<Q", place)))
    with pytest.raises(NotElfError):
        read_elf(str(tmp_path / "x.so"))
