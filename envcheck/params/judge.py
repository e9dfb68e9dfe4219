"""What names, values and gradients of a model's parameters come to. Pure: records in, findings out."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import TYPE_CHECKING, Any

from envcheck.findings import Evidence, Finding, Fix, Severity
from envcheck.params.compare import groups

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from envcheck.params.ask import Answer
    from envcheck.params.checkpoint import Checkpoint
    from envcheck.params.compare import Comparison
    from envcheck.params.stored import Apart

#: So much of a parameter still holds the allocator's fill: then nobody wrote it.
UNWRITTEN = 0.5

#: No weight that trains is larger; garbage mostly is. The scale of a fresh parameter may differ so much from its initialiser's.
HUGE, APART = 1e4, 30.0

#: A share of denormal or all but denormal numbers that only memory has.
DENORMAL = 0.5

#: The format's names of the dtypes that a model is trained in, and so large a share of the elements is the checkpoint's dtype.
STORED, MOSTLY = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}, 0.9

#: Names and groups shown.
SHOWN = 4

INIT_ISSUE = Evidence("issue", "huggingface/transformers#35437")

INITIALISE = (
    Fix("do", "initialise the parameters explicitly after from_pretrained (under ZeRO-3 inside GatheredParameters, on rank 0)"),
    Fix("do", "define `_init_weights` for every added layer type and bare Parameter, and call post_init()"),
    Fix("do", "build the added modules outside from_pretrained and load the old weights non-strictly"),
)


def many(count: int, what: str = "parameter") -> str:
    """`1 parameter`, `4 parameters`."""
    return f"{count} {what}" + ("" if count == 1 else "s")


def listing(names: Sequence[str]) -> str:
    """Names as a report shows them: by group where there are many."""
    if len(names) <= SHOWN:
        return ", ".join(f"`{name}`" for name in names)
    parts = [f"`{group}.*` ({len(found)})" for group, found in groups(names).items()]
    return ", ".join(parts[:SHOWN]) + (f" and {len(parts) - SHOWN} more groups" if len(parts) > SHOWN else "")


def broken(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Files of the checkpoint that are missing, truncated or contradict each other."""
    if checkpoint.problems:
        yield Finding(
            "params-checkpoint-broken", Severity.ERROR, "The checkpoint's files are damaged or incomplete", ("checkpoint",),
            because=tuple(checkpoint.problems[:20]), fixes=(Fix("do", "download or save the named files again"),),
        )  # fmt: skip


def names(comparison: Comparison, checkpoint: Checkpoint, answer: Answer) -> Iterator[Finding]:
    """Missing, unexpected and mismatched names; what is missing is only worth knowing where its values were seen to be sound."""
    model = answer.model or {"parameters": []}
    parameters = {one["name"] for one in model["parameters"]}
    missing = [name for name in comparison.missing if name in parameters]
    if missing and not comparison.loaded:
        yield Finding(
            "params-nothing-loaded", Severity.ERROR, "No parameter of the model is in the checkpoint", ("checkpoint",),
            because=(f"the model has {listing(missing)}", f"the checkpoint has {listing(list(checkpoint.tensors))}"),
            fixes=(Fix("do", "give the checkpoint of this model, or the class that it was saved from"),),
        )  # fmt: skip
        return
    if missing:
        sound = all(_sound(answer.values.get(name)) for name in missing)
        words = (
            "loaded here, without DeepSpeed, their values are such as their initialisers give"
            if sound
            else ("they train from what from_pretrained leaves in them, which it calls newly initialized in any case")
        )
        yield Finding(
            "params-missing", Severity.INFO if sound else Severity.WARNING,
            f"Not in the checkpoint: {many(len(missing))}", ("checkpoint",), because=(listing(missing), words),
            evidence=(INIT_ISSUE, Evidence("issue", "NVlabs/VILA#82")), fixes=INITIALISE[:1],
        )  # fmt: skip
    dropped = used_components(comparison, checkpoint)
    if dropped:
        yield Finding(
            "params-unexpected", Severity.WARNING, f"No place in the model: {many(len(dropped), 'tensor')} of the checkpoint",
            ("checkpoint",), because=(listing(dropped), "from_pretrained drops them"),
            fixes=(Fix("do", "use the class that saved them, or rename the parameters"),),
        )  # fmt: skip
    others = comparison.mismatched
    if others:
        shown = [f"`{name}`: the model has {list(mine)}, the checkpoint {list(theirs)}" for name, mine, theirs in others]
        yield Finding(
            "params-shape-mismatch", Severity.ERROR, f"Another shape in the checkpoint: {many(len(others))}",
            ("checkpoint",), because=tuple(shown[:SHOWN]),
            fixes=(Fix("do", "use the config.json that belongs to the checkpoint"),),
        )  # fmt: skip


def _sound(one: Mapping[str, Any] | None) -> bool:
    """Whether a parameter that the checkpoint lacks was seen to hold what an initialiser gives."""
    if one is None or one.get("meta") or one.get("not_finite") or one.get("fill", 0.0) > UNWRITTEN:
        return False
    return not suspicion(one, absent=True)


def used_components(comparison: Comparison, checkpoint: Checkpoint) -> tuple[str, ...]:
    """The unexpected names but for those of subfolders of which the model loads nothing: they are something else's."""
    loaded = set(comparison.loaded.values())
    foreign = [f"{name}." for name in checkpoint.components if not any(key.startswith(f"{name}.") for key in loaded)]
    return tuple(name for name in comparison.unexpected if not name.startswith(tuple(foreign)))


def values(answer: Answer, missing: Iterable[str]) -> Iterator[Finding]:
    """Uninitialised, non-finite and suspicious values."""
    absent = set(missing)
    unwritten = [name for name, one in answer.values.items() if one.get("meta") or one.get("fill", 0.0) > UNWRITTEN]
    if unwritten:
        meta = sum(bool(answer.values[name].get("meta")) for name in unwritten)
        why = [listing(unwritten)]
        if meta < len(unwritten):
            why.append("they still hold the byte that the allocator filled fresh memory with for this check")
        if meta:
            why.append(
                f"{'all' if meta == len(unwritten) else meta} of them are still on the meta device: they have no memory at all"
            )
        yield Finding(
            "params-uninitialised", Severity.ERROR, f"Memory that nobody initialised in {many(len(unwritten))}",
            ("transformers",), because=tuple(why), fixes=INITIALISE,
            evidence=(INIT_ISSUE, Evidence("issue", "NVlabs/VILA#82")),
            symptom="loss NaN (logged as 0.0) from the first step, or training from random garbage; differs from run to run",
        )  # fmt: skip
    rest = {name: one for name, one in answer.values.items() if name not in set(unwritten)}
    bad = [name for name, one in rest.items() if one.get("not_finite")]
    if bad:
        yield Finding(
            "params-not-finite", Severity.ERROR, f"NaN or Inf in {many(len(bad))}", ("checkpoint",),
            because=(listing(bad), *(_count(name, rest[name], absent) for name in bad[:SHOWN])),
            symptom="loss NaN (logged as 0.0) from the first step",
            fixes=(Fix("do", "save or convert the checkpoint again; initialise what it lacks"),),
        )  # fmt: skip
    odd = [(name, word) for name, one in rest.items() if (word := suspicion(one, absent=name in absent))]
    if odd:
        yield Finding(
            "params-suspicious", Severity.WARNING, f"Values that no initialiser gives in {many(len(odd))}",
            ("checkpoint",), because=tuple(f"`{name}`: {word}" for name, word in odd[: 2 * SHOWN]),
            fixes=INITIALISE[:1], certain=False,
        )  # fmt: skip


def _count(name: str, one: Mapping[str, Any], absent: set[str]) -> str:
    where = ", not in the checkpoint" if name in absent else ""
    return f"`{name}`: {one['not_finite']} of {one['looked']} elements looked at{where}"


def suspicion(one: Mapping[str, Any], *, absent: bool) -> str:
    """What is odd about a parameter's values, or an empty string; a loaded one is only odd where no training ends.

    Args:
        one: The worker's statistics, with `fresh` (what the module's own initialisers give) where that was tried.
        absent: The checkpoint lacks it.
    """
    if "std" not in one or one.get("not_finite"):
        return ""
    if one["largest"] > HUGE:
        return f"values up to {one['largest']:.3g}"
    if one["denormal"] > DENORMAL * one["looked"]:
        return f"{one['denormal']} of {one['looked']} elements are below 1e-30"
    if not absent or one.get("dimensions", 2) < 2:  # noqa: PLR2004 - biases and norms are constant by rule
        return ""
    fresh = one.get("fresh") or []
    if one["constant"]:
        if any(draw["constant"] for draw in fresh) or not fresh:
            return ""
        return f"all elements are {one['mean']:.3g}; its initialiser gives a deviation of {fresh[0]['std']:.3g}"
    wanted = [draw["std"] for draw in fresh if draw["std"] > 0]
    if wanted and not any(1 / APART < one["std"] / std < APART for std in wanted):
        return f"standard deviation {one['std']:.3g}; its initialiser gives {min(wanted):.3g} to {max(wanted):.3g}"
    return ""


def gradients(answer: Answer, missing: Iterable[str]) -> Iterator[Finding]:
    """What one backward pass reaches; frozen parameters; a loss that is not finite."""
    model = answer.model or {"parameters": []}
    trainable = [one["name"] for one in model["parameters"] if one["trainable"]]
    frozen = {one["name"] for one in model["parameters"]} - set(trainable)
    if not trainable:
        yield Finding(
            "params-nothing-trainable", Severity.ERROR, "No parameter is trainable", ("requires_grad",),
            because=(f"all {len(frozen)} parameters have requires_grad=False",),
            fixes=(Fix("do", "set requires_grad before the optimizer or DeepSpeed is built"),),
        )  # fmt: skip
    stuck = sorted(set(missing) & frozen)
    if stuck and trainable:
        yield Finding(
            "params-missing-and-frozen", Severity.WARNING, f"Neither in the checkpoint nor trainable: {many(len(stuck))}",
            ("requires_grad",), because=(listing(stuck), "they stay as they were initialised"),
            fixes=(Fix("do", "set requires_grad on them before the optimizer or DeepSpeed is built"),),
        )  # fmt: skip
    if answer.forward is not None and str(answer.forward["loss"]) in ("nan", "inf", "-inf"):
        yield Finding(
            "params-loss-not-finite", Severity.ERROR, "The loss of a tiny input is not finite, without DeepSpeed", ("loss",),
            observed={"loss": str(answer.forward["loss"])}, because=("one forward pass on random tokens",),
        )  # fmt: skip
    yield from _unreached(answer, trainable)


def _unreached(answer: Answer, trainable: Sequence[str]) -> Iterator[Finding]:
    shown = (answer.forward or {}).get("input", "tokens")
    without = [name for name, kind in answer.gradients.items() if kind == "none"]
    if without:
        all_of_them = len(without) == len(answer.gradients)
        yield Finding(
            "params-unreachable", Severity.ERROR if all_of_them else Severity.WARNING,
            f"{len(without)} of {len(trainable)} trainable parameters get no gradient from the loss", ("requires_grad",),
            because=(listing(without), f"one backward pass on a tiny input of {shown}, without DeepSpeed"),
            fixes=(
                Fix("do", "use them in forward for every batch, or freeze them"),
                Fix("do", f"if only other inputs than {shown} reach them, let the model have a method `envcheck_inputs()`"),
            ),
            certain=all_of_them,
        )  # fmt: skip
    bad = [name for name, kind in answer.gradients.items() if kind == "not-finite"]
    if bad:
        yield Finding(
            "params-gradient-not-finite", Severity.ERROR, f"A gradient with NaN or Inf in {many(len(bad))}", ("loss",),
            because=(listing(bad), f"one backward pass on a tiny input of {shown}, without DeepSpeed"),
        )  # fmt: skip
    if answer.reached:
        yield Finding(
            "params-frozen", Severity.INFO, f"Frozen although the loss depends on them: {many(len(answer.reached))}",
            ("requires_grad",), because=(listing(answer.reached), "as it should be where you tune only a part"),
        )  # fmt: skip


def ties_and_dtypes(answer: Answer) -> Iterator[Finding]:
    """Tied weights that are not one, and trainable parameters of several floating dtypes."""
    if answer.tied is False:
        yield Finding(
            "params-tie-broken", Severity.WARNING, "Input and output embeddings are two, although the configuration ties them",
            ("tie_word_embeddings",), because=("they would train apart from each other",),
            fixes=(Fix("do", "call model.tie_weights() after loading, and before the optimizer or DeepSpeed is built"),),
        )  # fmt: skip
    kinds: dict[str, list[str]] = {}
    for name, one in answer.values.items():
        if one["trainable"] and "float" in one["dtype"]:
            kinds.setdefault(one["dtype"], []).append(name)
    if len(kinds) > 1:
        shown = [f"{dtype}: {listing(found)}" for dtype, found in sorted(kinds.items(), key=lambda item: -len(item[1]))]
        yield Finding(
            "params-dtype-mix", Severity.WARNING, "Trainable parameters have several dtypes", ("dtype",), because=tuple(shown),
            fixes=(Fix("do", "cast the added modules to the model's dtype, or train all in fp32 with bf16 autocast"),),
        )  # fmt: skip


def stored_apart(pairs: Sequence[Apart], answer: Answer) -> Iterator[Finding]:
    """Weights that the model ties and the checkpoint stores twice with other values."""
    if not pairs:
        return
    outcome = (
        "the model that was looked at has two embeddings, although the configuration ties them"
        if answer.tied is False
        else "from_pretrained keeps one and drops the other (seen with transformers 4.57.6), or does not tie them (5.24.0)"
    )
    shown = [f"`{one.name}` and `{one.other}` first differ in row {one.row}" for one in pairs[:SHOWN]]
    yield Finding(
        "params-tied-differ", Severity.WARNING, f"Tied weights are stored twice with other values: {many(len(pairs), 'pair')}",
        ("checkpoint",), because=(*shown, outcome),
        fixes=(
            Fix("do", "if both are meant, set tie_word_embeddings to false in config.json"),
            Fix("do", "if one is stale, remove it from the checkpoint (save again from the tied model)"),
        ),
    )  # fmt: skip


def stored_dtype(checkpoint: Checkpoint, answer: Answer) -> Iterator[Finding]:
    """A checkpoint of one dtype whose configuration names another; what is mixed or quantised says nothing.

    Source: seen with transformers 4.57.6 (float32, whatever is stored or configured) and 5.24.0 (what is configured).
    """
    sizes: Counter[str] = Counter()
    for one in checkpoint.tensors.values():
        sizes[one.dtype] += prod(one.shape or ())
    said = str((answer.model or {}).get("dtype", ""))
    kind, count = sizes.most_common(1)[0] if sizes else ("", 0)
    stored = STORED.get(kind)
    if stored is None or said not in STORED.values() or said == stored or count < MOSTLY * sizes.total():
        return
    release = f"transformers {answer.versions.get('transformers', '')}".strip()
    loaded = Counter(str(one["dtype"]) for one in answer.values.values() if "float" in one.get("dtype", ""))
    outcome = (
        f"{release}: from_pretrained without dtype made {loaded.most_common(1)[0][0]} of them here"
        if loaded
        else "from_pretrained without dtype makes float32 of them (seen with transformers 4.57.6) or obeys config.json (5.24.0)"
    )
    yield Finding(
        "params-stored-dtype", Severity.INFO, f"The weights are stored as {stored}, and config.json says {said}", ("dtype",),
        because=(outcome, '`dtype` (`torch_dtype` in older releases) decides; "auto" takes what config.json says'),
    )  # fmt: skip
