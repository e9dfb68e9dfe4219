"""The tables themselves: their form, and that they agree with one another."""

from __future__ import annotations

from typing import Any

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from envcheck.checks.nvidia_wheels import split_pin
from envcheck.checks.pairing import check_pairing
from envcheck.checks.torch_build import cuda_of_tag, minor_of
from envcheck.checks.wheels import built_for
from envcheck.facts.model import Distribution, Environment, Gpu
from envcheck.matrix.versions import satisfies
from tests.checks.tables import matrix, run, table

#: The tables that checks read; other files of the folder have their own form and tests.
NAMES = (
    "bitsandbytes", "causal_conv1d", "compute_capability", "cuda_driver", "deepspeed_cuda_minor",
    "flash_attn", "gpu", "host_compiler", "mamba_ssm", "nvidia_wheel_collisions",
    "symbol", "torch", "torch_arch", "torch_compile_python", "torch_cuda_arch_list",
    "torch_pairing", "triton", "vllm", "xformers",
)  # fmt: skip
SPECIFIERS = {"versions", "torch", "triton", "python", "deepspeed", "loads", "complete", "requires_python"}
#: Keys that are specifier sets in some tables and versions in others.
PLAIN_TORCH = {"torch_pairing"}


def arrays(document: dict[str, Any]) -> list[dict[str, Any]]:
    found = [value for value in document.values() if isinstance(value, list)]
    return [row for rows in found for row in rows if isinstance(row, dict)]


@pytest.mark.parametrize("name", NAMES)
def test_a_table_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    head = table(name)["table"]
    assert head["name"] == name
    assert head["title"]
    assert head["sources"]
    assert str(head["reviewed"]) >= "2026-11-24"
    assert table(name)["rows"]


@pytest.mark.parametrize("name", NAMES)
def test_every_specifier_of_a_table_can_be_read(name: str) -> None:
    for row in arrays(table(name)):
        for key in SPECIFIERS & set(row):
            if not (key == "torch" and name in PLAIN_TORCH and "package" not in row):
                SpecifierSet(row[key])
        for line in row.get("pins", ()):
            package, spec = split_pin(line)
            assert package.replace("-", "").isalnum()
            assert len(SpecifierSet(spec)) >= 1


@pytest.mark.parametrize(("name", "key"), [
    ("torch", "version"), ("xformers", "version"), ("vllm", "version"), ("torch_pairing", "torch"), ("host_compiler", "toolkit"),
    ("cuda_driver", "toolkit"), ("compute_capability", "cc"), ("triton", "version"),
])  # fmt: skip
def test_rows_are_in_order_without_repeats(name: str, key: str) -> None:
    versions = [Version(row[key]) for row in table(name)["rows"]]
    assert versions == sorted(set(versions))


def test_every_published_build_has_an_architecture_list() -> None:
    for row in table("torch")["rows"]:
        for tag in row["builds"]:
            if (row["version"], tag) == ("2.11.0", "cu129"):
                continue  # never read; the table says so
            fitting = [
                arch for arch in table("torch_arch")["rows"]
                if arch["build"] == tag and arch["machine"] == "x86_64" and satisfies(row["version"], arch["torch"])
            ]  # fmt: skip
            assert len(fitting) == 1, (row["version"], tag)


def test_every_cuda_of_a_build_has_a_driver_floor() -> None:
    majors = {row["major"] for row in table("cuda_driver")["majors"]}
    for row in table("torch")["rows"]:
        assert row["pypi_build"] in row["builds"]
        assert {Version(cuda_of_tag(tag) or "0").major for tag in row["builds"]} <= majors


def test_driver_floors_agree_with_the_toolkits() -> None:
    floors = {row["major"]: Version(row["driver_min"]) for row in table("cuda_driver")["majors"]}
    for row in table("cuda_driver")["rows"]:
        if "driver_min" in row and row["toolkit"] != "11.0.3":  # 11.0 came before the compatible drivers of its major
            assert Version(row["driver_min"]) >= floors[Version(row["toolkit"]).major]


def test_every_torch_has_its_companions() -> None:
    assert {row["torch"] for row in table("torch_pairing")["rows"]} >= {row["version"] for row in table("torch")["rows"]}


@pytest.mark.parametrize("name", ["torchvision", "torchaudio"])
def test_a_companion_is_accepted_exactly_with_the_torch_minors_of_the_table(name: str) -> None:
    entries = table("torch_pairing")["rows"]
    opened = [row for row in table("torch_pairing")["open"] if row["package"] == name]
    for one in entries:
        for other in entries:
            fits = minor_of(one["torch"]) == minor_of(other["torch"])
            loose = any(satisfies(other[name], row["versions"]) and satisfies(one["torch"], row["torch"]) for row in opened)
            same = [row["torch"] for row in entries if row[name] == other[name]]
            shared = minor_of(one["torch"]) in map(minor_of, same)
            findings, _ = run(check_pairing, {"packages": {"torch": one["torch"], name: other[name]}})
            assert bool(findings) is not (fits or loose or shared), (one["torch"], other[name])


@pytest.mark.parametrize("name", ["xformers", "vllm"])
def test_a_pinned_package_is_accepted_exactly_with_its_torch(name: str) -> None:
    for row in table(name)["rows"]:
        for torch in table("torch")["rows"]:
            findings, _ = run(check_pairing, {"packages": {"torch": torch["version"], name: row["version"]}})
            assert bool(findings) is not satisfies(torch["version"], row.get("loads", row["torch"]))


@pytest.mark.parametrize(("name", "version", "torch", "cuda", "abi", "python", "glibc"), [
    ("flash_attn-2.5.8+cu122torch2.3cxx11abiFALSE-cp310-cp310-linux_x86_64.whl", "2.5.8", "2.3", "12", "false", "3.10", ""),
    ("flash_attn-2.8.3%2Bcu12torch2.10cxx11abiTRUE-cp312-cp312-linux_x86_64.whl", "2.8.3", "2.10", "12", "true", "3.12", ""),
    ("flash_attn-2.8.3+cu128torch2.10-cp312-cp312-linux_x86_64.whl", "2.8.3", "2.10", "12", "", "3.12", ""),
    ("mamba_ssm-2.2.2+cu118torch2.1cxx11abiFALSE-cp38-cp38-linux_x86_64.whl", "2.2.2", "2.1", "11", "false", "3.8", ""),
    ("vllm-0.8.5-cp38-abi3-manylinux1_x86_64.whl", "0.8.5", "", "", "", "", ""),
    ("torchvision-0.29.2-py3-none-manylinux_2_28_x86_64.whl", "0.29.2", "", "", "", "", "2.28"),
    ("", "2.8.3+cu12torch2.6cxx11abifalse", "2.6", "12", "false", "", ""),
])  # fmt: skip
def test_what_a_wheel_was_built_for(name: str, version: str, torch: str, cuda: str, abi: str, python: str, glibc: str) -> None:
    found = built_for(Distribution("x", version, direct_url=f"https://host/path/{name}" if name else ""))
    assert found is not None
    assert (found.torch, found.cuda_major, found.abi, found.python, found.glibc) == (torch, cuda, abi, python, glibc)


@pytest.mark.parametrize(("url", "version"), [
    ("", "2.8.3"), ("", "0.0.28+cu121"), ("https://host/flash_attn-2.8.3.tar.gz", "2.8.3"),
    ("file:///src/flash-attention", "2.8.3"), ("git+https://host/xformers.git", "0.0.28+abc123"),
])  # fmt: skip
def test_what_says_nothing_of_its_build(url: str, version: str) -> None:
    assert built_for(Distribution("x", version, direct_url=url)) is None


@pytest.mark.parametrize(("name", "capability", "product_class"), [
    ("NVIDIA A100-SXM4-80GB", "8.0", "datacenter"), ("Tesla V100-SXM2-32GB", "7.0", "datacenter"),
    ("NVIDIA GeForce RTX 4090", "8.9", "geforce"), ("NVIDIA GeForce RTX 4090 Laptop GPU", "8.9", "geforce"),
    ("NVIDIA RTX 6000 Ada Generation", "8.9", "workstation"), ("Quadro RTX 6000", "7.5", "workstation"),
    ("NVIDIA GeForce GTX 1080 Ti", "6.1", "geforce"), ("NVIDIA L40S", "8.9", "datacenter"),
    ("NVIDIA H100 80GB HBM3", "9.0", "datacenter"), ("NVIDIA A10G", "8.6", "datacenter"),
    ("NVIDIA GeForce GTX 980", "", "geforce"), ("Quadro P6000", "", "workstation"), ("NVIDIA A1000 Laptop GPU", "", ""),
    ("", "", ""),
])  # fmt: skip
def test_what_a_gpu_name_tells(name: str, capability: str, product_class: str) -> None:
    seen = matrix().completed(Environment(gpus=(Gpu(name),))).gpus
    assert seen == (Gpu(name, capability, product_class=product_class),)


def test_what_is_known_of_a_gpu_wins_over_its_name() -> None:
    known = Environment(gpus=(Gpu("NVIDIA A100", "9.9", product_class="geforce"),))
    assert matrix().completed(known).gpus == known.gpus
