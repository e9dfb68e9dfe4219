"""One rank: import, meet the others, run the scenarios one after another, say everything to the journal."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import signal
import sys
import time
from typing import Any, Dict, List

from .journal import Journal

#: Exit status that asks the orchestrator to go on in fresh processes: the ranks may no longer be in step.
RESTART = 75

#: Exit status after an import that failed.
NO_IMPORT = 76

#: Seconds that a rank waits for the others' word at the end of a scenario that failed here.
AGREE_SECONDS = 8.0


class NoDeviceError(RuntimeError):
    """The device that was asked for is not there."""


class Context:
    """What a scenario needs: rank, world size, device, journal, scratch folder."""

    def __init__(self, request: Dict[str, Any], rank: int, journal: Journal) -> None:
        self.rank = rank
        self.world_size = int(request["world_size"])
        self.device = str(request["device"])
        self.scratch = str(request["scratch"])
        self.journal = journal

    def move(self, batch: Dict[str, Any]) -> Dict[str, Any]:
        """The batch on this rank's device."""
        if self.device == "cpu":
            return batch
        return {key: value.to(self.device) for key, value in batch.items()}


def main(argv: List[str]) -> int:
    """Run this rank; returns the exit status."""
    die_with_parent()
    gc.disable()  # looking through what imports leave costs a tenth of them; engines are collected when they are disposed of
    request_path, rank_text, journal_path = argv
    with open(request_path, encoding="utf-8") as file:  # noqa: PTH123 - stand-alone
        request = json.load(file)
    rank = int(rank_text)
    trace = open(journal_path + ".trace", "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for faulthandler
    faulthandler.enable(trace)
    faulthandler.register(signal.SIGUSR1, trace)
    journal = Journal(journal_path, rank)
    context = Context(request, rank, journal)
    try:
        _import_all(context, request)
        store = _meet(context, request)
    except Exception as error:  # noqa: BLE001 - whatever an import or a rendezvous raises is this rank's answer
        journal.failed(error)
        return NO_IMPORT
    return _scenarios(context, request, store)


def die_with_parent() -> None:
    """Have Linux kill this rank when the probe itself is killed, so that nothing is left running (prctl, PR_SET_PDEATHSIG)."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def _import_all(context: Context, request: Dict[str, Any]) -> None:
    """Import what the scenarios need and say how long each took; a request for the imports alone ends there."""
    needed = ["torch", "deepspeed"]
    if any(item["path"] == "trainer" or item["model"].startswith("llama") for item in request["scenarios"]):
        needed.append("transformers")
    for name in needed:
        context.journal.doing(f"import {name}")
        begin = time.time()
        module = __import__(name)
        if name == "torch":
            _choose_device(context)
        if name == "transformers":
            _ = module.Trainer
        context.journal.write("imported", name=name, seconds=round(time.time() - begin, 3))
    context.journal.write("versions", packages=_versions(), python=sys.version.split()[0])


def _choose_device(context: Context) -> None:
    """Settle `auto` and tell DeepSpeed, which asks when it is imported."""
    import torch

    context.journal.doing("check the device")
    seen = torch.cuda.is_available()
    if context.device == "cuda" and not seen:
        raise NoDeviceError("a GPU was asked for and torch sees none (torch.cuda.is_available() is false)")
    if context.device == "auto":
        context.device = "cuda" if seen else "cpu"
    if context.device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"


def _device_words(device: str, backend: str) -> str:
    import torch

    name = f" ({torch.cuda.get_device_name()})" if device.startswith("cuda") else ""
    return f"{device}{name}, {backend}"


def _versions() -> Dict[str, str]:
    from importlib import metadata

    found = {}  # type: Dict[str, str]
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(str(name).lower().replace("_", "-"), str(distribution.version))
    return found


def _meet(context: Context, request: Dict[str, Any]) -> Any:  # noqa: ANN401 - a torch store
    """Join the process group over a file: no port is needed, so none can be taken."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    if request.get("scenarios"):
        _without_shared_memory_op(context)
        _without_compiled_muon(context, request)
    context.journal.doing("join the process group")
    store = dist.FileStore(request["rendezvous"], context.world_size)
    backend = "gloo"
    if context.device == "cuda":
        backend = "nccl" if torch.cuda.device_count() >= context.world_size else "gloo"
        torch.cuda.set_device(context.rank % torch.cuda.device_count())
        context.device = f"cuda:{torch.cuda.current_device()}"
    if backend == "gloo" and request.get("scenarios"):
        _wait_for_every_gather(context)
    context.journal.write("device", device=_device_words(context.device, backend))
    dist.init_process_group(backend, store=store, rank=context.rank, world_size=context.world_size)
    import deepspeed

    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False)
    return dist.PrefixStore("probe", store)


def _without_shared_memory_op(context: Context) -> None:
    """Keep DeepSpeed from compiling `deepspeed_shm_comm`, which takes minutes; it then uses torch.distributed."""
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    build = accelerator.create_op_builder
    if getattr(accelerator, "_name", "") != "cpu":
        return

    def create(name: str) -> Any:  # noqa: ANN401 - an op builder or None
        return None if name == "ShareMemCommBuilder" else build(name)

    accelerator.create_op_builder = create
    context.journal.write("change", change="the op deepspeed_shm_comm is not built; collectives go through torch.distributed")


def _wait_for_every_gather(context: Context) -> None:
    """Have DeepSpeed's asynchronous all-gathers end before they return.

    Before 0.19.8 ZeRO-3 starts one for each parameter and waits for the last alone. NCCL runs them in order; gloo does not, and a
    parameter may be read before it is there.
    """
    import deepspeed.comm

    for name in ("all_gather", "all_gather_into_tensor"):
        function = getattr(deepspeed.comm, name, None)
        if function is not None:
            setattr(deepspeed.comm, name, _waiting(function))
    context.journal.write("change", change="all-gathers over gloo are waited for one by one (DeepSpeed waits for the last alone)")


def _waiting(function: Any) -> Any:  # noqa: ANN401 - a collective
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - its own
        handle = function(*args, **kwargs)
        if hasattr(handle, "wait"):
            handle.wait()
        return handle

    return call


def _without_compiled_muon(context: Context, request: Dict[str, Any]) -> None:
    """Import DeepSpeed's Muon with `torch.compile` switched off, unless a scenario uses it.

    DeepSpeed imports it at its first start only to list its optimizers; its decorators load the whole compiler, which costs as
    much as all scenarios.
    """
    import torch

    kinds = [(item["config"].get("optimizer") or {}).get("type", "") for item in request["scenarios"]]
    if any(str(kind).lower() == "muon" for kind in kinds) or not hasattr(torch, "compile"):
        return
    real = torch.compile
    torch.compile = lambda function=None, **_: function or (lambda given: given)
    try:
        import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
    except ImportError:
        return  # a release without Muon, or with it elsewhere
    finally:
        torch.compile = real
    context.journal.write("change", change="DeepSpeed's Muon optimizer, which no scenario uses, is imported uncompiled")


def _scenarios(context: Context, request: Dict[str, Any], store: Any) -> int:  # noqa: ANN401
    from . import engine

    gc.freeze()
    for scenario in request["scenarios"]:
        context.journal.scenario = scenario["id"]
        context.journal.write("begin")
        problem = ""
        try:
            if scenario["path"] == "trainer":
                from . import trainer

                trainer.run(context, scenario)
            else:
                engine.run(context, scenario)
        except Exception as error:  # noqa: BLE001 - the answer of this scenario
            context.journal.failed(error)
            problem = f"{type(error).__name__}: {error}"
        context.journal.write("end", ok=not problem)
        if not _agree(context, store, scenario["id"], problem):
            context.journal.doing("leave: the ranks are no longer in step")
            _leave(RESTART)
    context.journal.scenario = ""
    context.journal.write("done")
    _leave(0)
    return 0


def _agree(context: Context, store: Any, scenario: str, problem: str) -> bool:  # noqa: ANN401
    """True when every rank ended the scenario in the same way; a failed rank waits only shortly for the others."""
    store.set(f"{scenario}/{context.rank}", "failed" if problem else "fine")
    deadline = time.time() + AGREE_SECONDS
    for other in range(context.world_size):
        while not store.check([f"{scenario}/{other}"]):
            if problem and time.time() > deadline:
                return False
            time.sleep(0.002)
        if (store.get(f"{scenario}/{other}") == b"failed") != bool(problem):
            return False
    return True


def _leave(status: int) -> None:
    """End at once: destructors of process groups and engines may block or crash, and have nothing left to say."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
