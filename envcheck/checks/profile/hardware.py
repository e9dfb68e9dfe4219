"""Hardware of a profile: GPUs by number, memory and compute capability, and the driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.version import Version

from envcheck.checks.profile.subject import evidence
from envcheck.checks.torch_build import torch_build
from envcheck.facts.model import Known
from envcheck.findings import Finding, Fix, Severity, Skip
from envcheck.matrix.versions import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.checks.context import Outcome
    from envcheck.checks.profile.subject import Subject
    from envcheck.facts.model import Gpu
    from envcheck.matrix.profile import Need

#: The driver reports less than the GB on the box, most with ECC on: an L4 of "24 GB" has 23034 MiB, 6.3 % less.
MIB_PER_GB = 1024 * 0.93


@dataclass(frozen=True, slots=True)
class Card:
    """One visible GPU as a profile sees it; what is not known is None."""

    label: str
    capability: Version | None
    memory_mib: int | None


def check_hardware(subject: Subject) -> Iterator[Outcome]:
    """Each need against the visible GPUs and the driver; what nobody could see is one skip."""
    needs = [need for need in subject.profile.needs if need.what != "driver"]
    if needs:
        yield from _gpus(subject, needs)
    yield from _driver(subject)


def _gpus(subject: Subject, needs: list[Need]) -> Iterator[Outcome]:
    if subject.environment.gpus is None or isinstance(subject.environment.fact("torch_hip"), Known):
        reason = "GPU unknown" if subject.environment.gpus is None else "AMD GPUs are not looked for"
        yield Skip("profile hardware", f"{reason}: {len(needs)} needs of {subject.profile.name} not decided")
        return
    if not subject.environment.gpus:
        yield _no_gpu(subject, needs)
        return
    gpus = subject.context.matrix.completed(subject.environment).gpus or ()
    cards = [_card(gpu) for gpu in gpus]
    for need in needs:
        outcome = _judge(subject, need, cards)
        if outcome is not None:
            yield outcome


def _card(gpu: Gpu) -> Card:
    text = gpu.compute_capability
    version = plain(text) if text else None
    label = f"{gpu.name or 'GPU'}{f' ({text})' if text else ''}{f' {gpu.memory_mib} MiB' if gpu.memory_mib else ''}"
    return Card(label, version.version if version else None, gpu.memory_mib or None)


def _no_gpu(subject: Subject, needs: list[Need]) -> Finding:
    return Finding(
        id="profile-no-gpu",
        severity=subject.severity(breaks=subject.on_gpu),
        title=f"no NVIDIA GPU is visible here; {subject.profile.name} needs one",
        subjects=("gpu",),
        observed={"gpu": "none found"},
        because=tuple(_wording(need) for need in needs),
        fixes=(Fix("do", "run it where the GPUs are, or make them visible (CUDA_VISIBLE_DEVICES, the container's GPU option)"),),
        evidence=subject.evidence,
    )


def _judge(subject: Subject, need: Need, cards: list[Card]) -> Outcome | None:
    """A finding where too few cards fulfil the need; a skip where they cannot be judged."""
    if need.what == "gpus":
        return _finding(subject, need, cards) if len(cards) < int(need.at_least) else None
    if need.what == "total_gpu_memory_gb":
        sizes = [card.memory_mib for card in cards]
        if None in sizes:
            return Skip("profile hardware", f"GPU memory unknown: {need.what} not decided")
        return _finding(subject, need, cards) if sum(filter(None, sizes)) < _mib(need) else None
    fulfilled = [_fulfils(need, card) for card in cards]
    if need.at_most and _other_build(subject, need):
        return None
    count = subject.profile.need("gpus")
    wanted = min(int(count.at_least) if count else 1, len(cards))
    if fulfilled.count(True) >= wanted:
        return None
    if fulfilled.count(True) + fulfilled.count(None) >= wanted:
        return Skip("profile hardware", f"{_words(need.what)} unknown: not decided")
    return _finding(subject, need, cards)


def _fulfils(need: Need, card: Card) -> bool | None:
    if need.what == "gpu_memory_gb":
        return None if card.memory_mib is None else card.memory_mib >= _mib(need)
    if card.capability is None:
        return None
    return card.capability >= Version(need.at_least) if need.at_least else card.capability <= Version(need.at_most)


def _other_build(subject: Subject, need: Need) -> bool:
    """Whether the installed torch is not the build that the upper limit speaks of."""
    build = torch_build(subject.context)
    return build is not None and build.cuda is not None and build.cuda != need.torch_cuda


def _mib(need: Need) -> float:
    return float(need.at_least) * MIB_PER_GB


def _finding(subject: Subject, need: Need, cards: list[Card]) -> Finding:
    build = torch_build(subject.context) if need.at_most else None
    certain = not need.at_most or (build is not None and build.told)
    return Finding(
        id={"gpus": "profile-gpu-count", "compute_capability": "profile-compute-capability"}.get(need.what, "profile-gpu-memory"),
        severity=subject.severity(breaks=need.firm and certain),
        title=f"{subject.profile.name} {'needs' if need.firm else 'is known to work with'} {_limit(need)}",
        subjects=("gpu",),
        observed={"gpu": ", ".join(card.label for card in cards)},
        because=(_wording(need),),
        certain=certain,
        fixes=_ways_out(need),
        evidence=evidence(need.source),
    )


def _ways_out(need: Need) -> tuple[Fix, ...]:
    if need.at_most:
        return (Fix("do", "take torch from an index whose build has code for this GPU"),)
    if need.what == "gpus" and not need.firm:
        return (Fix("do", "with fewer GPUs raise the gradient accumulation, or offload"),)
    return (Fix("do", f"use GPUs with {_limit(need)}" if need.what != "gpus" else f"use {_limit(need)}"),)


def _words(what: str) -> str:
    return {"compute_capability": "compute capability", "gpus": "GPUs", "driver": "driver"}.get(what, "GPU memory")


def _limit(need: Need) -> str:
    """The limit in words: `compute capability 8.9 or later`, `8 GPUs`, `80 GB on each GPU`."""
    if need.at_most:
        return f"compute capability {need.at_most} at most"
    return {
        "compute_capability": f"compute capability {need.at_least} or later",
        "gpus": f"{need.at_least} GPU{'s' if need.at_least != '1' else ''}",
        "gpu_memory_gb": f"{need.at_least} GB on each GPU",
        "total_gpu_memory_gb": f"{need.at_least} GB over all GPUs",
        "driver": f"driver {need.at_least} or later",
    }[need.what]


def _wording(need: Need) -> str:
    kind = " (inferred)" if need.inferred else ""
    return f"{_limit(need)}: {need.why}{kind}"


def _driver(subject: Subject) -> Iterator[Outcome]:
    need = subject.profile.need("driver")
    have = subject.environment.text("driver")
    version = plain(have) if have else None
    if need is None:
        return
    if version is None:
        yield Skip("profile driver", f"driver unknown: {_limit(need)} not decided")
    elif version.version < Version(need.at_least):
        yield Finding(
            id="profile-driver",
            severity=subject.severity(breaks=need.firm) if need.firm else Severity.WARNING,
            title=f"{subject.profile.name} asks for {_limit(need)}, here is {have}",
            subjects=("driver",),
            observed={"driver": have or ""},
            because=(_wording(need),),
            fixes=(Fix("fact", f"driver>={need.at_least}"),),
            evidence=evidence(need.source),
        )
