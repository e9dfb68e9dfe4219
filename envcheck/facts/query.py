"""Describe the interpreter that runs this text: standard library only, Python 3.8 syntax.

Run as `python -c TEXT ANSWER`, it writes one JSON object to the file ANSWER; standard output is not used,
because a `sitecustomize` or a `.pth` file of the environment may print there. Imported, it describes our own
interpreter.
"""

from __future__ import annotations

import sys

#: Environment variables that change what training does, by name ...
NAMES = frozenset({
    "CC", "CFLAGS", "CONDA_PREFIX", "CUBLAS_WORKSPACE_CONFIG", "CUDACXX", "CUDAHOSTCXX", "CXX", "CXXFLAGS",
    "LDFLAGS", "LD_LIBRARY_PATH", "LD_PRELOAD", "LIBRARY_PATH", "MAX_JOBS", "MKL_THREADING_LAYER",
    "NVCC_APPEND_FLAGS", "NVCC_PREPEND_FLAGS",
    "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_TF32_OVERRIDE", "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS", "PYTHONHOME", "PYTHONNOUSERSITE", "PYTHONPATH", "ROCR_VISIBLE_DEVICES", "VIRTUAL_ENV",
})  # fmt: skip

#: ... and by prefix.
PREFIXES = (
    "ACCELERATE_", "CUDA_", "CUDNN_", "DEEPSPEED_", "DS_", "FLASH_ATTENTION_", "FSDP_", "GLOO_", "HIP_",
    "NCCL_", "PYTORCH_", "TORCHINDUCTOR_", "TORCH_", "TRITON_", "XFORMERS_",
)  # fmt: skip

#: A variable with one of these words in its name is never taken.
SECRET = ("AUTH", "CREDENTIAL", "KEY", "PASS", "SECRET", "TOKEN")

#: `platform.python_implementation()` for `sys.implementation.name`, without importing platform.
IMPLEMENTATIONS = {"cpython": "CPython", "pypy": "PyPy", "graalpy": "GraalVM"}


def matters(name: str) -> bool:
    """Whether training depends on this environment variable, and it is no secret by its name."""
    return (name in NAMES or name.startswith(PREFIXES)) and not any(word in name.upper() for word in SECRET)


def describe() -> dict[str, object]:
    """Version, prefixes, `sys.path`, user site, marker values, C library and variables, as plain data."""
    import os  # noqa: PLC0415 - not before `main` has taken the current folder off sys.path

    return {
        "executable": sys.executable or "",
        "version": sys.version.split()[0].rstrip("+"),
        "prefix": sys.prefix,
        "base_prefix": getattr(sys, "base_prefix", sys.prefix),
        "path": [str(entry) for entry in sys.path],
        "user_site": _user_site(),
        "markers": _markers(),
        "glibc": _glibc(),
        "variables": {name: value for name, value in os.environ.items() if matters(name)},
    }


def _user_site() -> str:
    """The user's site-packages where this interpreter uses it, else an empty string."""
    site = sys.modules.get("site")
    if site is None or not site.ENABLE_USER_SITE:
        return ""
    return str(site.USER_SITE or "")


def _glibc() -> str:
    """`2.35`, or an empty string where the C library is another one."""
    import os  # noqa: PLC0415 - as above

    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (AttributeError, OSError, ValueError):
        return ""
    return version.strip() if name == "glibc" else ""


def _markers() -> dict[str, str]:
    """The environment markers of PEP 508, but for `extra`."""
    import os  # noqa: PLC0415 - as above

    full = sys.version.split()[0]
    system, release, version, machine = _uname()
    return {
        "implementation_name": sys.implementation.name,
        "implementation_version": _implementation_version(),
        "os_name": os.name,
        "platform_machine": machine,
        "platform_python_implementation": IMPLEMENTATIONS.get(sys.implementation.name, sys.implementation.name),
        "platform_release": release,
        "platform_system": system,
        "platform_version": version,
        "python_full_version": full.rstrip("+"),
        "python_version": "{}.{}".format(*sys.version_info[:2]),
        "sys_platform": sys.platform,
    }


def _uname() -> tuple[str, str, str, str]:
    import os  # noqa: PLC0415 - as above

    if hasattr(os, "uname"):
        name = os.uname()
        return name.sysname, name.release, name.version, name.machine
    import platform  # noqa: PLC0415 - slow, and only needed on Windows

    return platform.system(), platform.release(), platform.version(), platform.machine()


def _implementation_version() -> str:
    info = sys.implementation.version
    level = "" if info.releaselevel == "final" else info.releaselevel[0] + str(info.serial)
    return f"{info.major}.{info.minor}.{info.micro}{level}"


def main() -> None:
    """Write the description of this interpreter to the file named by the first argument."""
    if sys.path and not sys.path[0]:
        del sys.path[0]  # `-c` puts the current folder first, which is no part of the environment
    import json  # noqa: PLC0415 - only now: a `json.py` of the current folder must not be taken for it

    with open(sys.argv[1], "w", encoding="ascii") as stream:  # noqa: PTH123 - pathlib is slow to import
        json.dump(describe(), stream)


if __name__ == "__main__":
    main()
