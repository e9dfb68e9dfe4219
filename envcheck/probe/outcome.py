"""From what the ranks left behind to one result per scenario: judged, crashed, hung, or not run and why. Pure."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from envcheck.probe import compare, trainerlog
from envcheck.probe.attribution import Kind
from envcheck.probe.compare import Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from envcheck.probe.launch import RankEnd, RunLog
    from envcheck.probe.spec import Scenario

Record = dict[str, Any]

#: Why a scenario of that dtype was not run.
NO_DTYPE = "this device or DeepSpeed does not do {}"

#: (pattern over "Type: message", why the scenario could not be run). These are lacks of the machine, not faults of the training.
COULD_NOT = (
    (r"FileNotFoundError.*numactl", "this DeepSpeed wants the program `numactl`, which is not here"),
    (
        r"view.*(in-?place|inplace)|(in-?place|inplace).*view",
        "this DeepSpeed cannot step on this device: its gradient hook modifies a view in place",
    ),
    (r"[Tt]ype fp16 is not supported|fp16 is not supported|FP16.*not support", NO_DTYPE.format("fp16")),
    (r"[Tt]ype bf16 is not supported|bf16 is not supported|BFloat16.*not support", NO_DTYPE.format("bf16")),
    (
        r"Error building extension|Ninja is required|CUDA_HOME|Unable to JIT load|No such file or directory: '(gcc|g\+\+|c\+\+)'",
        "an op could not be compiled",
    ),
    (r"intel_extension_for_pytorch|oneccl", "this DeepSpeed wants Intel's extension for the CPU"),
    (r"not implemented for|NotImplementedError|has not been implemented", "not implemented on this device"),
    (r"Offload.*not supported|does not support.*offload", "this DeepSpeed does not offload here"),
)

OUT_OF_MEMORY = re.compile(r"out of memory|MemoryError|can't allocate memory|Cannot allocate memory", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A probe run.

    Attributes:
        results: One per scenario, in order.
        failure: Why nothing could be examined, or an empty string.
        killed: True when a rank was killed from outside or ran out of memory: exit code 4.
        packages: Distributions of the target interpreter, normalised name -> version.
        python: Its version.
        device: What the ranks ran on, or an empty string.
        changes: What the worker changed of the environment, one sentence each.
        imports: Seconds of each import on rank 0.
        seconds: Wall time of everything.
    """

    results: tuple[Result, ...]
    failure: str = ""
    killed: bool = False
    packages: dict[str, str] | None = None
    python: str = ""
    device: str = ""
    changes: tuple[str, ...] = ()
    imports: dict[str, float] | None = None
    seconds: float = 0.0


def outcome(scenarios: Sequence[Scenario], ranks: int, log: RunLog) -> Outcome:
    """Judge everything that ran and name everything that did not."""
    failure = _general_failure(log)
    results = tuple(_result(one, ranks, log, failure) for one in scenarios)
    own = [one for rank, one in log.records if rank == 0]
    versions: Record = next((one for one in own if one["event"] == "versions"), {})
    ran = any(result.looked for result in results)
    return Outcome(
        results,
        failure="" if ran else failure or _reasons(results) or "no scenario could be run",
        killed=any(is_kill(result) for result in results) or (not ran and _killed_early(log)),
        packages=versions.get("packages"),
        python=str(versions.get("python", "")),
        device=next((str(one["device"]) for one in own if one["event"] == "device"), ""),
        changes=tuple(dict.fromkeys(str(one["change"]) for one in own if one["event"] == "change")),
        imports={str(one["name"]): float(one["seconds"]) for one in own if one["event"] == "imported"},
        seconds=log.seconds,
    )


def _reasons(results: Sequence[Result]) -> str:
    """Why each scenario was skipped, every reason once."""
    return "; ".join(dict.fromkeys(one.text.removeprefix("skipped: ") for one in results))


def _general_failure(log: RunLog) -> str:
    """What kept the ranks from their first scenario."""
    for _, one in log.records:
        if one["event"] == "failed" and not one["scenario"]:
            return _early_text(one, _last_stage(log, one))
    for ends in log.ends:
        for rank, end in enumerate(ends):
            if end.status not in (None, 0) and not end.scenario:
                return f"rank {rank}: {end.outcome} in `{end.last}`{_said(end)}"
    if "" in log.hung:
        return f"no answer within the deadline: {log.hung['']}"
    return "the deadline passed" if log.deadline else ""


def _last_stage(log: RunLog, failed: Record) -> str:
    stages = [one["stage"] for _, one in log.records if one["event"] == "doing" and one["time"] <= failed["time"]]
    return str(stages[-1]) if stages else "start"


def _early_text(failed: Record, stage: str) -> str:
    if failed["type"] == "NoDeviceError":
        return str(failed["message"])
    what = f"{failed['type']}: {failed['message'].splitlines()[0] if failed['message'] else ''}"
    if failed["type"] in ("ImportError", "ModuleNotFoundError") or stage.startswith("import"):
        name = stage.removeprefix("import ")
        return f"`{name}` cannot be imported in the target environment: {what}"
    return f"{what} (in `{stage}`)"


def _said(end: RankEnd) -> str:
    return "".join(f", {line}" for line in _printed(end))


def _printed(end: RankEnd) -> list[str]:
    lines = [line.strip() for line in end.output.splitlines() if line.strip()]
    return [f"last printed: {lines[-1][:300]}"] if lines else []


def _killed_early(log: RunLog) -> bool:
    return any(end.status == -signal.SIGKILL for ends in log.ends for end in ends)


def is_kill(result: Result) -> bool:
    """A rank was killed from outside or ran out of memory."""
    return result.kind is Kind.CRASHED and ("SIGKILL" in result.text or "out of memory" in result.text)


def _result(scenario: Scenario, ranks: int, log: RunLog, failure: str) -> Result:
    if scenario.id in log.hung:
        return Result(scenario, Kind.HUNG, f"hung: {log.hung[scenario.id]}", notes=_stacks(log, scenario.id))
    died = _died(scenario, log)
    if died:
        return died
    records = [(rank, one) for rank, one in log.records if one["scenario"] == scenario.id]
    failing, failed = next((pair for pair in records if pair[1]["event"] == "failed"), (0, None))
    if failed:
        stages = [str(one["stage"]) for rank, one in records if rank == failing and one["event"] == "doing"]
        if scenario.own_model and stages[-1:] == ["build model"]:
            return Result(scenario, Kind.SKIPPED, f"skipped: `--model {scenario.model}` made no model: {_what(failed)}")
        found = _failed(scenario, failed)
        return replace(found, notes=(*found.notes, *trainerlog.cut(records)))
    finished = {rank for rank, one in records if one["event"] == "end"}
    if len(finished) < ranks:
        reason = failure or ("the deadline passed before it" if log.deadline else "the ranks ended before it")
        return Result(scenario, Kind.SKIPPED, f"skipped: {reason}")
    return compare.compare(scenario, ranks, records)


def _died(scenario: Scenario, log: RunLog) -> Result | None:
    """A rank that ended by a signal, or left without a word, in this scenario."""
    for ends in log.ends:
        for rank, end in enumerate(ends):
            if end.scenario == scenario.id and end.status not in (None, 0, 75):
                reason = " (killed from outside, or for lack of memory)" if end.status == -signal.SIGKILL else ""
                text = f"crashed: rank {rank} ended by {end.outcome} in `{end.last}`{reason}"
                return Result(scenario, Kind.CRASHED, text, notes=(*_printed(end), *_top(end.trace)))
    return None


def _failed(scenario: Scenario, failed: Record) -> Result:
    what = _what(failed)
    for pattern, reason in COULD_NOT:
        if re.search(pattern, what):
            return Result(scenario, Kind.SKIPPED, f"skipped: {reason}", notes=(what,))
    if OUT_OF_MEMORY.search(what):
        return Result(scenario, Kind.CRASHED, f"crashed: out of memory ({what})")
    place = next((line.strip() for line in reversed(failed.get("trace", [])) if line.strip().startswith("File ")), "")
    return Result(scenario, Kind.CRASHED, f"crashed: {what}", notes=(f"raised at {_short(place)}",) if place else ())


def _what(failed: Record) -> str:
    return f"{failed['type']}: {' '.join(str(failed['message']).split())[:300]}"


def _short(place: str) -> str:
    """The place of a traceback line without the folder of the environment."""
    found = re.search(r"site-packages/(.*?)\", line (\d+), in (.*)", place)
    return f"{found[1]}:{found[2]} in {found[3]}" if found else re.sub(r"\"[^\"]*/", '"', place)


def _stacks(log: RunLog, scenario: str) -> tuple[str, ...]:
    found = [end for ends in log.ends for end in ends if end.scenario == scenario and end.status is None]
    return tuple(line for end in found for line in _top(end.trace))


def _top(trace: str) -> list[str]:
    """The innermost frames of the last dumped stack, as `deepspeed/comm/torch.py:123 in all_reduce`."""
    frames = re.findall(r"File \"(.*?)\", line (\d+) in (\S+)", trace[max(0, trace.rfind("Current thread")) :])
    return (
        [f"innermost frames: {' < '.join(f'{_module(path)}:{line} in {name}' for path, line, name in frames[:4])}"]
        if frames
        else []
    )


def _module(path: str) -> str:
    return path.rsplit("site-packages/", maxsplit=1)[-1] if "site-packages/" in path else path.rsplit("/", 1)[-1]
