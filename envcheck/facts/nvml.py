"""Driver and GPUs through NVML, by NVIDIA's own binding; imported only where a driver seems to be there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from envcheck.facts.gpu import Device, NotSeenError, Seen
from envcheck.facts.model import Gpu
from envcheck.facts.toolkit import cuda_release

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = "NVML"


def ask_nvml() -> Seen:
    """What NVML says.

    Raises:
        NotSeenError: No binding; or the library cannot be loaded, or does not fit the driver.
    """
    try:
        import pynvml  # noqa: PLC0415 - large, and most machines have no driver
    except ImportError as error:
        raise NotSeenError("nvidia-ml-py is not installed") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NotSeenError(f"NVML: {error}") from error
    try:
        return _ask(pynvml)
    finally:
        _said(pynvml, pynvml.nvmlShutdown)


def _ask(pynvml: Any) -> Seen:  # noqa: ANN401 - a module without types
    number = _said(pynvml, pynvml.nvmlSystemGetCudaDriverVersion_v2)
    count = _said(pynvml, pynvml.nvmlDeviceGetCount)
    return Seen(
        SOURCE,
        driver=_text(_said(pynvml, pynvml.nvmlSystemGetDriverVersion)),
        driver_cuda=cuda_release(number) if number else "",
        devices=None if count is None else tuple(_device(pynvml, index) for index in range(count)),
    )


def _device(pynvml: Any, index: int) -> Device:  # noqa: ANN401 - as above
    """One device; a GPU that fell off the bus keeps its place in the order, with nothing known about it."""
    handle = _said(pynvml, pynvml.nvmlDeviceGetHandleByIndex, index)
    if handle is None:
        return Device("", Gpu())
    capability = _said(pynvml, pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    memory = _said(pynvml, pynvml.nvmlDeviceGetMemoryInfo, handle)
    gpu = Gpu(
        name=_text(_said(pynvml, pynvml.nvmlDeviceGetName, handle)),
        compute_capability="{}.{}".format(*capability) if capability else "",
        memory_mib=int(memory.total) >> 20 if memory else 0,
    )
    return Device(_text(_said(pynvml, pynvml.nvmlDeviceGetUUID, handle)), gpu)


def _said(pynvml: Any, function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - as above
    try:
        return function(*arguments)
    except pynvml.NVMLError:
        return None


def _text(value: str | bytes | None) -> str:
    """Older releases of the binding give bytes."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value or ""
