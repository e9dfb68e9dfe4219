"""The checks, by name, in the order in which they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.checks.bitsandbytes import check_bitsandbytes
from envcheck.checks.driver import check_driver
from envcheck.checks.gpu import check_gpu_torch
from envcheck.checks.gpu_packages import check_gpu_packages
from envcheck.checks.metadata import check_metadata
from envcheck.checks.nvidia_wheels import check_nvidia_collisions, check_nvidia_pins
from envcheck.checks.pairing import check_installing_xformers, check_pairing
from envcheck.checks.python_support import check_torch_python
from envcheck.checks.requirements import check_requirements
from envcheck.checks.rules import check_rules
from envcheck.checks.toolchain import check_deepspeed_nvcc, check_host_compiler, check_toolkit_gpu
from envcheck.checks.triton import check_triton
from envcheck.checks.wheels import check_addon_wheels, check_wheel_names
from envcheck.findings import Finding, Skip

if TYPE_CHECKING:
    from envcheck.checks.context import Check, Context

CHECKS: dict[str, Check] = {
    "rules": check_rules,
    "requirements": check_requirements,
    "metadata": check_metadata,
    "bitsandbytes": check_bitsandbytes,
    "driver": check_driver,
    "gpu-torch": check_gpu_torch,
    "gpu-packages": check_gpu_packages,
    "nvidia-collisions": check_nvidia_collisions,
    "nvidia-pins": check_nvidia_pins,
    "pairing": check_pairing,
    "installing-xformers": check_installing_xformers,
    "torch-python": check_torch_python,
    "deepspeed-nvcc": check_deepspeed_nvcc,
    "host-compiler": check_host_compiler,
    "toolkit-gpu": check_toolkit_gpu,
    "triton": check_triton,
    "wheel-names": check_wheel_names,
    "addon-wheels": check_addon_wheels,
}


def run_all(context: Context) -> tuple[list[Finding], list[Skip]]:
    """Run every check; findings and skips in the order they came."""
    findings: list[Finding] = []
    skips: list[Skip] = []
    for check in CHECKS.values():
        for outcome in check(context):
            if isinstance(outcome, Finding):
                findings.append(outcome)
            else:
                skips.append(outcome)
    return findings, skips
