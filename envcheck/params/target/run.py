"""Looks at a model's parameters in the interpreter under test: `python run.py REQUEST.json ANSWER.jsonl`.

Stand-alone, Python 3.8. Writes one JSON line per stage, each before the next risky step, so that a crash leaves what was found.
The request: `model` (a folder or `module:function`), `checkpoint` (a folder or null), `values` (load the checkpoint and look at
values), `backward`, `low_cpu_mem` (true, false or null), `seed`.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import math
import os
import re
import sys
import traceback
import warnings
from typing import Any, Dict, Iterator, List, Optional, Tuple

#: Fresh initialisations that a parameter's scale is compared with.
DRAWS = 3

#: Elements of a large parameter that statistics are taken over.
SAMPLE = 1 << 20

#: Smallest normal numbers: what is below in nearly all elements is memory, not weights.
TINY = 1e-30


class Answer:
    """The file of JSON lines."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "a", encoding="utf-8")

    def write(self, event: str, **fields: Any) -> None:
        """Append one record."""
        self._file.write(json.dumps(plain(dict(fields, event=event))) + "\n")
        self._file.flush()

    def failed(self, stage: str, error: BaseException) -> None:
        """A stage that raised."""
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__)).splitlines()[-12:]
        self.write("failed", stage=stage, type=type(error).__name__, message=str(error)[:2000], trace=trace)


def plain(value: Any) -> Any:
    """JSON values; non-finite numbers as words."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    return value


def main(argv: List[str]) -> int:
    """Run every stage that the request asks for."""
    with open(argv[0], encoding="utf-8") as file:
        request = json.load(file)
    answer = Answer(argv[1])
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    sys.path.insert(0, os.getcwd())
    try:
        answer.write("doing", stage="import torch")
        import torch

        torch.set_num_threads(1)
        answer.write("versions", torch=torch.__version__, **_versions())
    except Exception as error:
        answer.failed("import torch", error)
        return 0
    try:
        _stages(answer, request)
    except Exception as error:
        answer.failed("the model", error)
    answer.write("done")
    return 0


def _versions() -> Dict[str, str]:
    try:
        from importlib import metadata
    except ImportError:
        return {}
    found = {}
    for name in ("transformers", "accelerate", "deepspeed", "peft", "safetensors"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _stages(answer: Answer, request: Dict[str, Any]) -> None:
    import torch

    torch.manual_seed(int(request["seed"]))
    folder = os.path.isdir(request["model"])
    if folder:
        answer.write("doing", stage="build the model on the meta device")
        skeleton = _skeleton(request["model"])
        _describe(answer, skeleton)
        if not request["values"] or not request["checkpoint"]:
            return
        answer.write("doing", stage="from_pretrained")
        model = _load(request, skeleton)
    else:
        answer.write("doing", stage="call %s" % request["model"])
        model = _call(request["model"])
        _describe(answer, model)
        if not request["values"]:
            return
    answer.write("doing", stage="read values")
    _values(answer, model, request.get("keys"))
    _ties(answer, model)
    if request["backward"]:
        answer.write("doing", stage="one forward and backward pass on a tiny input")
        _backward(answer, model)


def _skeleton(folder: str) -> Any:
    """The model of a folder's config.json without memory for its parameters."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    kind = _class_of(config)
    meta = torch.device("meta")  # type: Any  # a context manager since torch 2.0
    with meta, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind._from_config(config)


def _class_of(config: Any) -> Any:
    """The class that `architectures` names, else the causal language model of the type."""
    transformers = importlib.import_module("transformers")

    for name in getattr(config, "architectures", None) or ():
        kind = getattr(transformers, name, None)
        if kind is not None:
            return kind
    mapping = transformers.AutoModelForCausalLM._model_mapping
    return mapping[type(config)] if type(config) in mapping else transformers.AutoModel._model_mapping[type(config)]


def _load(request: Dict[str, Any], skeleton: Any) -> Any:
    options = {}  # type: Dict[str, Any]
    if request.get("low_cpu_mem") is not None:
        options["low_cpu_mem_usage"] = bool(request["low_cpu_mem"])
    config = copy.deepcopy(skeleton.config)
    return type(skeleton).from_pretrained(request["checkpoint"], config=config, ignore_mismatched_sizes=True, **options)


def _call(text: str) -> Any:
    module, _, function = text.partition(":")
    built = importlib.import_module(module)  # type: Any
    for part in function.split("."):
        built = getattr(built, part)
    model = built()
    return model[0] if isinstance(model, tuple) else model


def _describe(answer: Answer, model: Any) -> None:
    """Names, shapes, dtypes, and how the class says that it is loaded."""
    import torch

    parameters = [
        {"name": name, "shape": list(one.shape), "dtype": _dtype(one), "trainable": one.requires_grad, "device": one.device.type}
        for name, one in model.named_parameters(remove_duplicate=False)
    ]
    keys = list(model.state_dict().keys())
    kind = type(model)
    tied = getattr(model, "_tied_weights_keys", None) or ()
    answer.write(
        "model",
        type=kind.__name__,
        parameters=parameters,
        buffers=[name for name in keys if name not in {one["name"] for one in parameters}],
        prefix=str(getattr(model, "base_model_prefix", "") or ""),
        tied=list(tied),
        tie=_wants_tie(getattr(model, "config", None)),
        shared=_shared(model),
        ignore_missing=list(getattr(model, "_keys_to_ignore_on_load_missing", None) or ()),
        ignore_unexpected=list(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()),
        renames=_renames(model),
        dtype=_config_dtype(getattr(model, "config", None)),
        classes=[_class(one) for one in _pretrained(model)],
        torch=torch.__version__,
    )


def _shared(model: Any) -> List[List[str]]:
    """Groups of parameter names that are one tensor, or that the class ties (a dict from name to name since transformers 5)."""
    found = {}  # type: Dict[Any, List[str]]
    for name, one in model.named_parameters(remove_duplicate=False):
        found.setdefault(_place(one), []).append(name)
    groups = [names for names in found.values() if len(names) > 1]
    names = {name for group in found.values() for name in group}
    tie = _wants_tie(getattr(model, "config", None))
    for attribute in ("_tied_weights_keys", "all_tied_weights_keys"):
        mapping = getattr(model, attribute, None)
        if tie and isinstance(mapping, dict):
            groups += [[name, other] for name, other in mapping.items() if name in names and other in names]
    return groups


def _wants_tie(config: Any) -> bool:
    """Whether input and output embeddings are to be one; of a model with parts (LLaVA), the language model's part decides too."""
    text = getattr(config, "text_config", None)
    return all(bool(getattr(one, "tie_word_embeddings", False)) for one in (config, text if text is not None else config))


def _place(one: Any) -> Any:
    """What two names of one tensor have in common."""
    try:
        pointer = one.data_ptr() if one.numel() and one.device.type != "meta" else 0
    except Exception:
        pointer = 0
    return (str(one.device), pointer, tuple(one.shape)) if pointer else id(one)


def _config_dtype(config: Any) -> str:
    """The configuration's dtype (`torch_dtype` in older releases), or an empty string."""
    found = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    return str(found or "").replace("torch.", "")


def _renames(model: Any) -> Dict[str, str]:
    mapping = getattr(model, "_checkpoint_conversion_mapping", None) or {}
    return {str(key): str(value) for key, value in mapping.items()} if isinstance(mapping, dict) else {}


def _pretrained(model: Any) -> List[Tuple[str, Any]]:
    """The PreTrainedModel instances inside a model: place and module."""
    try:
        from transformers import PreTrainedModel
    except ImportError:
        return []
    return [(name, one) for name, one in model.named_modules() if isinstance(one, PreTrainedModel)]


def _class(place: Tuple[str, Any]) -> Dict[str, Any]:
    """What matters of one PreTrainedModel class for parameters that a checkpoint lacks."""
    name, one = place
    kind = type(one)
    own = next((base for base in kind.__mro__ if "_init_weights" in vars(base)), None)  # type: Any
    try:
        text = inspect.getsource(own._init_weights) if own is not None else ""
    except (OSError, TypeError):
        text = ""
    library = own is not None and own.__name__ == "PreTrainedModel"
    return {
        "place": name,
        "class": kind.__name__,
        "library": kind.__module__.startswith("transformers."),
        "init": "generic" if library and "initializer_range" in text else "none" if library or own is None else "own",
        "writes_data": bool(re.search(r"\.data\b", text)) and not library,
    }


def _values(answer: Answer, model: Any, keys: Optional[List[str]]) -> None:
    """Statistics of every parameter; what its module's own initialiser gives, for those that the checkpoint seems to lack."""
    owners = _owners(model)
    known = set(keys or ())
    for name, one in model.named_parameters(remove_duplicate=False):
        record = dict(_statistics(one), name=name, trainable=one.requires_grad, dtype=_dtype(one), device=one.device.type)
        absent = keys is not None and not (name in known or any(key.endswith(name) or name.endswith(key) for key in keys))
        if absent or record.get("bad") or (record.get("constant") and one.ndim > 1):
            record["fresh"] = _fresh(model, owners.get(name), one)
        answer.write("value", **record)


def _owners(model: Any) -> Dict[str, Tuple[str, Any, str]]:
    found = {}
    for place, module in model.named_modules(remove_duplicate=False):
        for key, _ in module.named_parameters(recurse=False, remove_duplicate=False):
            found["%s.%s" % (place, key) if place else key] = (place, module, key)
    return found


def _statistics(one: Any) -> Dict[str, Any]:
    """Counts and moments of a sample of a parameter's elements."""
    import torch

    if one.device.type == "meta" or not one.numel():
        return {"numel": one.numel(), "meta": one.device.type == "meta"}
    with torch.no_grad():
        flat = one.detach().reshape(-1)
        if flat.numel() > SAMPLE:
            flat = flat[:: flat.numel() // SAMPLE]
        if not flat.is_floating_point():
            return {"numel": one.numel(), "integers": True}
        values = flat.double()
        finite = values[torch.isfinite(values)]
        largest = float(finite.abs().max()) if finite.numel() else 0.0
        small = int((finite.abs() < TINY).sum() - (finite == 0).sum()) if finite.numel() else 0
        return {
            "numel": one.numel(),
            "dimensions": one.ndim,
            "looked": values.numel(),
            "not_finite": values.numel() - finite.numel(),
            "zeros": int((values == 0).sum()),
            "denormal": small,
            "largest": largest,
            "mean": float(finite.mean()) if finite.numel() else 0.0,
            "std": float(finite.std(unbiased=False)) if finite.numel() else 0.0,
            "constant": bool(finite.numel() and float(finite.min()) == float(finite.max())),
            "fill": _fill(flat),
            "bad": bool(values.numel() - finite.numel() or largest > 1e6 or small > values.numel() // 2),
        }


def _fill(flat: Any) -> float:
    """The share of elements that still hold the byte that this process's allocator fills new memory with, 0 without one.

    glibc fills with the complement of MALLOC_PERTURB_. A tensor that was cast since then holds that number, rounded.
    """
    import torch

    try:
        byte = 0xFF ^ int(os.environ.get("MALLOC_PERTURB_", ""))
    except ValueError:
        return 0.0
    raw = flat.contiguous().view(torch.uint8).reshape(flat.numel(), -1)
    number = float(torch.tensor([byte] * 4, dtype=torch.uint8).view(torch.float32)[0])
    hit = (raw == byte).all(dim=1) | ((flat.double() / number - 1).abs() < 0.02)
    return float(hit.double().mean())


def _fresh(model: Any, owner: Optional[Tuple[str, Any, str]], one: Any) -> List[Dict[str, Any]]:
    """Statistics of the parameter as the model's and the module's own initialisers set it; empty where there is none."""
    if owner is None or one.device.type == "meta":
        return []
    import torch

    found = []
    place, module, key = owner
    for draw in range(DRAWS):
        torch.manual_seed(1000 + draw)
        for initialise in _initialisers(model, place, module):
            try:
                other = copy.deepcopy(module)
                with torch.no_grad():
                    for parameter in other.parameters(recurse=False):
                        parameter.fill_(math.nan)
                initialise(other)
                record = _statistics(getattr(other, key))
            except Exception:
                continue
            if record.get("not_finite") == 0:
                found.append({key: record[key] for key in ("std", "mean", "constant", "zeros")})
    return found


def _initialisers(model: Any, place: str, module: Any) -> Iterator[Any]:
    if hasattr(module, "reset_parameters"):
        yield lambda other: other.reset_parameters()
    for above, one in reversed(_pretrained(model)):
        if above in ("", place) or place.startswith(above + "."):
            yield one._init_weights
            return


def _ties(answer: Answer, model: Any) -> None:
    """Whether input and output embeddings are one, where the configuration says so."""
    config = getattr(model, "config", None)
    if not _wants_tie(config) or not hasattr(model, "get_output_embeddings"):
        return
    try:
        out, inside = model.get_output_embeddings(), model.get_input_embeddings()
    except Exception:
        return
    if out is None or inside is None or getattr(out, "weight", None) is None:
        return
    answer.write("tie", same=out.weight is inside.weight or out.weight.data_ptr() == inside.weight.data_ptr())


def _backward(answer: Answer, model: Any) -> None:
    """Gradients of one tiny batch: first with what is trainable, then with everything, to see what is reachable."""
    import torch

    model.train()
    batch = _batch(model)
    seen = _with_images(model, batch)
    batch = seen or batch
    asked = {name: one.requires_grad for name, one in model.named_parameters()}
    try:
        loss = _loss(model, batch)
        kind = "an image and tokens" if seen else "tokens"
        answer.write("forward", loss=float(loss.detach()), needs_gradient=bool(loss.requires_grad), input=kind)
        if loss.requires_grad:
            loss.backward()
        for name, one in model.named_parameters():
            if asked[name]:
                answer.write("gradient", name=name, **_gradient(one))
            one.grad = None
    except Exception as error:
        answer.failed("backward", error)
        return
    if all(asked.values()):
        return
    try:
        for one in model.parameters():
            if one.is_floating_point():
                one.requires_grad_(True)
        _loss(model, batch).backward()
        reached = [name for name, one in model.named_parameters() if one.grad is not None and not asked[name]]
        answer.write("frozen", reached=reached)
    except Exception as error:
        answer.failed("backward with everything trainable", error)
    finally:
        for name, one in model.named_parameters():
            one.requires_grad_(asked[name])
    torch.manual_seed(0)


def _gradient(one: Any) -> Dict[str, Any]:
    import torch

    if one.grad is None:
        return {"kind": "none"}
    if not bool(torch.isfinite(one.grad).all()):
        return {"kind": "not-finite"}
    return {"kind": "zero" if float(one.grad.abs().max()) == 0 else "fine"}


def _batch(model: Any) -> Dict[str, Any]:
    """A tiny input: the model's own `dummy_inputs` method `envcheck_inputs()`, else token ids with labels."""
    import torch

    if hasattr(model, "envcheck_inputs"):
        return dict(model.envcheck_inputs())
    config = getattr(model, "config", None)
    size = int(getattr(config, "vocab_size", 0) or getattr(getattr(config, "text_config", None), "vocab_size", 0) or 32)
    ids = torch.randint(3 if size > 8 else 0, size, (2, 8), generator=torch.Generator().manual_seed(7))
    kind = type(model).__name__
    whole = kind.endswith("ForSequenceClassification")  # one label for each sample
    classes = int(getattr(config, "num_labels", 0) or 0) if kind.endswith("Classification") else 0
    labels = ids[:, 0] if whole else ids
    return {"input_ids": ids, "labels": labels % classes if classes else labels.clone()}


def _with_images(model: Any, batch: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """The batch with an image before the tokens, of a model that takes them as LLaVA does; None of any other."""
    import torch

    config = getattr(model, "config", None)
    vision = getattr(config, "vision_config", None)
    token = getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None)
    if vision is None or token is None or "labels" not in batch or hasattr(model, "envcheck_inputs"):
        return None
    try:
        size, count = int(vision.image_size), (int(vision.image_size) // int(vision.patch_size)) ** 2
    except Exception:  # it takes images in another way
        return None
    if getattr(config, "vision_feature_select_strategy", "") == "full":
        count += 1
    ids = batch["input_ids"].masked_fill(batch["input_ids"] == token, 2 if token == 1 else 1)
    pixels = torch.randn(ids.shape[0], int(getattr(vision, "num_channels", 3)), size, size)
    for places in (count, 1):  # one token for the whole image, which the model widens itself, up to transformers 4.46
        image = torch.full((ids.shape[0], places), int(token), dtype=ids.dtype)
        made = {
            "input_ids": torch.cat([ids[:, :1], image, ids[:, 1:]], dim=1),
            "labels": torch.cat([ids[:, :1], torch.full_like(image, -100), ids[:, 1:]], dim=1),
            "pixel_values": pixels.to(next(model.parameters()).dtype),
        }
        made["attention_mask"] = torch.ones_like(made["input_ids"])
        try:
            with torch.no_grad():
                _loss(model, made)
        except Exception:
            continue
        return made
    return None


def _loss(model: Any, batch: Dict[str, Any]) -> Any:
    output = model(**batch)
    if hasattr(output, "loss") and output.loss is not None:
        return output.loss
    if isinstance(output, dict) and "loss" in output:
        return output["loss"]
    first = output[0] if isinstance(output, tuple) else output
    return first if getattr(first, "ndim", 1) == 0 else first.double().pow(2).mean()


def _dtype(one: Any) -> str:
    return str(one.dtype).replace("torch.", "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
