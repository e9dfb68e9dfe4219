"""Write `matrices/tables/deepspeed_keys.toml` from the sources of DeepSpeed releases.

Refresh it after a DeepSpeed release with a clone of DeepSpeed that has its tags, and source distributions for what has no tag:

    git clone https://github.com/deepspeedai/DeepSpeed
    pip download --no-deps --no-binary :all: deepspeed==0.19.8 -d sdists
    python tools/deepspeed_keys.py --git DeepSpeed --sdists sdists > matrices/tables/deepspeed_keys.toml
    python tools/deepspeed_keys.py --names matrices/tables/deepspeed_keys.toml > envcheck/matrix/deepspeed_names.py

Nothing of DeepSpeed is imported: config classes, getters and constants are read from their syntax trees.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli
from packaging.version import Version

FIRST = Version("0.9.0")
Reader = Callable[[str], str]

#: Files whose classes and constants are read; those that a release lacks are passed over.
FILES = tuple(
    f"deepspeed/{name}.py"
    for name in (
        "runtime/constants",
        "runtime/config",
        "runtime/config_utils",
        "runtime/lr_schedules",
        "runtime/compiler",
        "runtime/precision_config",
        "runtime/fp16/loss_scaler",
        "runtime/zero/config",
        "runtime/zero/offload_config",
        "runtime/zero/leaf_module_config",
        "runtime/zenflow/zenflow_config",
        "runtime/activation_checkpointing/config",
        "runtime/swap_tensor/constants",
        "runtime/swap_tensor/aio_config",
        "runtime/model_checkpointing/constants",
        "runtime/model_checkpointing/config",
        "runtime/tensor_parallel/config",
        "comm/constants",
        "comm/config",
        "monitor/constants",
        "monitor/config",
        "compile/constants",
        "compile/config",
        "profiling/constants",
        "profiling/config",
        "utils/config",
        "datastates/config",
        "autotuning/constants",
        "elasticity/constants",
        "compression/constants",
        "nebula/constants",
        "runtime/data_pipeline/constants",
    )
)

#: Section -> the class that reads it.
CLASSES = {
    "zero_optimization": "DeepSpeedZeroConfig",
    "fp16": "DeepSpeedFP16Config",
    "bf16": "DeepSpeedBF16Config",
    "hybrid_engine": "HybridEngineConfig",
    "comms_logger": "CommsLoggerConfig",
    "tensorboard": "TensorBoardConfig",
    "wandb": "WandbConfig",
    "csv_monitor": "CSVConfig",
    "comet": "CometConfig",
    "compile": "CompileConfig",
    "timers.throughput": "DeepSpeedThroughputTimerConfig",
    "tensor_parallel": "TPTrainingConfig",
}

#: Names of function arguments and locals that hold a section.
HOLDERS = {
    "param_dict": "",
    "ds_config": "",
    "act_chkpt_config_dict": "activation_checkpointing",
    "aio_dict": "aio",
    "flops_profiler_dict": "flops_profiler",
    "checkpoint_params": "checkpoint",
    "checkpoint_dict": "checkpoint",
    "par_write_params": "checkpoint.parallel_write",
    "writer_dict": "checkpoint.writer",
    "data_types_params": "data_types",
    "fp16_dict": "fp16",
}

#: Sections whose content DeepSpeed passes on unread, or reads too freely to list.
OPEN = {
    "optimizer.params",
    "scheduler.params",
    "pipeline",
    "data_efficiency",
    "autotuning",
    "elasticity",
    "nebula",
    "compression_training",
    "sparse_attention",
    "quantize_training",
    "eigenvalue",
    "progressive_layer_drop",
    "amp",
    "curriculum_learning",
    "weight_quantization",
    "expert_parallel",
    "datastates_ckpt",
}

#: Keys that no getter names by a constant: key -> (file, text that is there while DeepSpeed reads the key).
LITERAL = {
    "optimizer": ("runtime/config", "OPTIMIZER"),
    "optimizer.type": ("runtime/config", "get_optimizer_name"),
    "optimizer.params": ("runtime/config", "get_optimizer_params"),
    "optimizer.legacy_fusion": ("runtime/config", "LEGACY_FUSION"),
    "scheduler": ("runtime/config", "SCHEDULER"),
    "scheduler.type": ("runtime/config", "get_scheduler_name"),
    "scheduler.params": ("runtime/config", "get_scheduler_params"),
    "pipeline": ("runtime/config", '"pipeline"'),
    "elasticity": ("elasticity/constants", "ELASTICITY = 'elasticity'"),
    "compression_training": ("compression/constants", "compression_training"),
    "nebula": ("nebula/constants", "NEBULA"),
    "autotuning": ("autotuning/constants", "autotuning"),
    "data_efficiency": ("runtime/data_pipeline/constants", "DATA_EFFICIENCY"),
    "weight_quantization": ("runtime/config", "'weight_quantization'"),
    "expert_parallel": ("runtime/config", 'EXPERT_PARALLEL = "expert_parallel"'),
    "sequence_parallel_size": ("runtime/config", "sequence_parallel_size"),
    "bfloat16": ("runtime/constants", '"bfloat16"'),
    "sparse_attention": ("runtime/constants", '"sparse_attention"'),
    "curriculum_learning": ("runtime/config", "get_curriculum_params_legacy"),
    "datastates_ckpt": ("datastates/config", "datastates_ckpt"),
    "eigenvalue": ("runtime/config", "get_eigenvalue_enabled"),
    "progressive_layer_drop": ("runtime/config", "get_pld_enabled"),
    "amp": ("runtime/config", "get_amp_enabled"),
    "timers": ("utils/config", "timers"),
    "activation_checkpointing": ("runtime/activation_checkpointing/config", "ACT_CHKPT"),
    "aio": ("runtime/swap_tensor/constants", '"aio"'),
    "flops_profiler": ("profiling/constants", "flops_profiler"),
    "torch_autocast": ("runtime/constants", '"torch_autocast"'),
    "fp16": ("runtime/constants", "FP16"),
    "bf16": ("runtime/constants", "BFLOAT16"),
    "checkpoint": ("runtime/constants", "CHECKPOINT"),
    "checkpoint.parallel_write": ("runtime/constants", "CHECKPOINT_PARALLEL_WRITE"),
    "data_types": ("runtime/constants", "DATA_TYPES"),
    "torch_autocast.dtype": ("runtime/constants", "TORCH_AUTOCAST_DTYPE"),
    "torch_autocast.lower_precision_safe_modules": ("runtime/constants", "LOWER_PRECISION_SAFE_MODULES"),
    "train_micro_batch_size_per_gpu": ("runtime/constants", "TRAIN_MICRO_BATCH_SIZE_PER_GPU"),
}

#: What the sources leave to their users: the type behind a default of None or 0, and allowed words.
INTEGER = {
    "allgather_size",
    "fp16.min_loss_scale",
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "steps_per_print",
    "vocabulary_size",
    "fp16.initial_scale_power",
    "fp16.loss_scale_window",
    "fp16.hysteresis",
    "sequence_parallel_size",
    "zero_optimization.zenflow.select_interval",
    "zero_optimization.zenflow.update_interval",
}
NUMBER = {"gradient_clipping", "gradient_predivide_factor", "fp16.loss_scale"}
TEXT = {
    "communication_data_type",
    "seq_parallel_communication_data_type",
    "checkpoint.tag_validation",
    "checkpoint.writer.type",
    "checkpoint.writer.data_parallel",
    "torch_autocast.dtype",
    "data_types.grad_accum_dtype",
    "data_types.param_dtype",
    "data_types.buffer_dtype",
}
ANY_TYPE = {"flops_profiler.output_file"}
LIST = {
    "comms_logger.prof_ops",
    "torch_autocast.lower_precision_safe_modules",
    "data_types.keep_in_fp32_modules",
    "tensor_parallel.injection_policy_tuple",
}
#: Fields that take a Python object only.
PYTHON = {"tensor_parallel.dtype"}
DTYPES = ["fp32", "fp16", "bf16", "float32", "float16", "bfloat16"]
ALLOWED = {
    "communication_data_type": ["fp16", "fp32", "bf16", "bfp16"],
    "seq_parallel_communication_data_type": ["fp16", "fp32", "bf16", "bfp16"],
    "checkpoint.tag_validation": ["Ignore", "Warn", "Fail"],
    "checkpoint.writer.type": ["MOCK", "PYTHON", "FAST"],
    "checkpoint.writer.data_parallel": ["REPLICA", "SOCKET", "MACHINE"],
    "data_types.grad_accum_dtype": DTYPES,
    "torch_autocast.dtype": DTYPES,
    "gradient_allreduce_op": ["mean", "sum"],
    "zero_optimization.zenflow.select_strategy": ["auto", "step", "epoch"],
}

#: Least values that a validator checks and no field declares: key -> (file, text that is there while it does, least).
LEAST = {
    "fp16.loss_scale": ("runtime/precision_config", "fp16.loss_scale must be >= 0", 0),
    "zero_optimization.zenflow.update_interval": ("runtime/zenflow/zenflow_config", "self.update_interval < 1", 1),
}

#: Null where the class and the reader around it disagree: key -> whether it is taken.
NULL = {"checkpoint": False, "zero_optimization.leaf_module": True}

#: Keys whose default DeepSpeed works out: in validators of its config classes, the constructor of DeepSpeedConfig, the engine
#: (`communication_data_type`, `get_data_types`: the releases named are the first tags with that code).
COMPUTED = {
    "zero_optimization.overlap_comm": "true under stage 3, else false",
    "train_batch_size": "micro-batch x accumulation x world size",
    "train_micro_batch_size_per_gpu": "train_batch_size / world size / accumulation",
    "gradient_accumulation_steps": "train_batch_size / micro-batch / world size; 1 where one of the two is absent",
    "communication_data_type": "fp16 under fp16, bf16 under bf16 (before 0.9.2 fp32), else fp32",
    "data_types.grad_accum_dtype": "fp16 under fp16, bf16 under bf16 (before 0.17.6 fp32 without ZeRO), else fp32",
    "wall_clock_breakdown": "true where flops_profiler.enabled is, else false",
}


@dataclass
class Key:
    """One key in one release."""

    type: str = "any"
    default: str = ""
    nullable: bool = False
    allowed: list[Any] = field(default_factory=list)
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    alias: str = ""
    computed: str = ""
    deprecated: bool = False
    instead: str = ""
    means: str = ""


@dataclass
class Release:
    """What one release's sources hold."""

    trees: dict[str, ast.Module]
    texts: dict[str, str]
    constants: dict[str, Any] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    aliases: dict[str, ast.expr] = field(default_factory=dict)


def read_release(read: Reader) -> Release:
    """Parse the files of a release, collect constants and classes."""
    texts = {name: text for name in FILES if (text := read(name))}
    release = Release({name: ast.parse(text) for name, text in texts.items()}, texts)
    for tree in release.trees.values():
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                known, value = evaluate(node.value, release.constants)
                if known:
                    release.constants[node.targets[0].id] = value
                elif isinstance(node.value, ast.Attribute):
                    release.aliases[node.targets[0].id] = node.value
            elif isinstance(node, ast.ClassDef):
                release.classes[node.name] = node
    return release


def evaluate(node: ast.expr | None, constants: dict[str, Any]) -> tuple[bool, Any]:
    """The value of a constant expression: literals, constants, `pp_int(x)`, `sys.maxsize` and products."""
    if node is None:
        return False, None
    if isinstance(node, ast.Name):
        return node.id in constants, constants.get(node.id)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "pp_int":
        known, value = evaluate(node.args[0], constants)
        return known, int(value) if known else None
    if isinstance(node, ast.Attribute) and node.attr == "maxsize":
        return True, sys.maxsize
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        (one, left), (two, right) = evaluate(node.left, constants), evaluate(node.right, constants)
        return (True, left * right) if one and two else (False, None)
    try:
        return True, ast.literal_eval(node)
    except (ValueError, TypeError):
        return False, None


def keys_of(release: Release) -> tuple[dict[str, Key], dict[str, str], set[str]]:
    """Keys, removed keys with DeepSpeed's own message, and the sections that refuse unknown keys."""
    found: dict[str, Key] = {}
    strict: set[str] = set()
    for name, tree in release.trees.items():
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.Module)):
                found.update(getter_keys(function, release))
    for key, (name, text) in LITERAL.items():
        if text in release.texts.get(f"deepspeed/{name}.py", ""):
            found.setdefault(key, Key(type="str" if key.endswith(".type") else "any"))
    for section, class_name in CLASSES.items():
        if class_name in release.classes:
            found = {key: item for key, item in found.items() if key != section and not key.startswith(f"{section}.")}
            add_class(section, release.classes[class_name], release, found, strict)
    for key in [*found]:
        while key := key.rpartition(".")[0]:
            found.setdefault(key, Key())
    removed = removed_keys(release)
    for key in [*found]:
        if key in removed or any(key.startswith(f"{name}.") for name in removed):
            del found[key]
        elif section := next((name for name in OPEN if key.startswith(f"{name}.")), ""):
            del found[key]
            found.setdefault(section, Key())
    for key, item in found.items():
        given = {"int": INTEGER, "float": NUMBER, "any": ANY_TYPE, "list": LIST, "str": TEXT, "python": PYTHON}
        item.type = next((word for word, names in given.items() if key in names), item.type)
        item.allowed = item.allowed or ALLOWED.get(key, [])
        item.computed = COMPUTED.get(key, "")
        item.nullable = NULL.get(key, item.nullable)
        if key in LEAST and LEAST[key][1] in release.texts.get(f"deepspeed/{LEAST[key][0]}.py", ""):
            item.least = LEAST[key][2]
        if key in OPEN or any(other.startswith(f"{key}.") for other in found):
            item.type = "object"
    return found, removed, strict


def removed_keys(release: Release) -> dict[str, str]:
    """Keys that a release refuses by name, with its message."""
    config = release.trees.get("deepspeed/runtime/config.py", ast.Module([], []))
    found: dict[str, str] = {}
    for node in config.body:
        name = node.targets[0].id if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) else ""
        if name in ("_REMOVED_TOP_LEVEL_CONFIG_KEYS", "_REMOVED_ZERO_CONFIG_KEYS") and isinstance(node, ast.Assign):
            prefix = "zero_optimization." if "ZERO" in name else ""
            table = node.value
            assert isinstance(table, ast.Dict)
            for key, value in zip(table.keys, table.values, strict=True):
                found[prefix + str(ast.literal_eval(key))] = sentence(joined(value))  # type: ignore[arg-type]
    return found


def joined(node: ast.expr) -> str:
    """The literal parts of a text; formatted parts are dropped."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
    return str(getattr(node, "value", ""))


def getter_keys(function: ast.FunctionDef | ast.Module, release: Release) -> dict[str, Key]:
    """Keys that `get_scalar_param(section, NAME, DEFAULT)`, `section.get(NAME)` and `NAME in section` read."""
    found: dict[str, Key] = {}
    scope = local_names(function) if isinstance(function, ast.FunctionDef) else {}
    for node in ast.walk(function):
        section, name, default = None, None, None
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "get_scalar_param"
            and len(node.args) > 1
        ):
            section, name = where(node.args[0], scope, release), node.args[1]
            default = node.args[2] if len(node.args) > 2 else None  # noqa: PLR2004 - section, name, default
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
            section, name = where(node.func.value, scope, release), node.args[0]
            default = node.args[1] if len(node.args) > 1 else None
        if section is None or name is None:
            continue
        if isinstance(name, ast.Name) and name.id in scope:
            name = scope[name.id]
        if isinstance(default, ast.Name) and default.id in scope:
            default = scope[default.id]
        known, text = evaluate(name, release.constants)
        if known and isinstance(text, str) and text:
            has, value = evaluate(member(default, release), release.constants)
            found[f"{section}.{text}" if section else text] = Key(
                type=type_of(value) if has else "any",
                default=json.dumps(value) if has and plain(value) else "",
                nullable=has and value is None,
            )
    return found


def member(node: ast.expr | None, release: Release) -> ast.expr | None:
    """What a class attribute such as `ValidationMode.WARN` stands for; any other expression as it is."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in release.classes:
        for item in release.classes[node.value.id].body:
            if isinstance(item, ast.Assign) and getattr(item.targets[0], "id", "") == node.attr:
                return item.value
    if isinstance(node, ast.Name) and isinstance(found := release.aliases.get(node.id), ast.Attribute):
        return member(found, release)
    return node


def local_names(function: ast.FunctionDef) -> dict[str, ast.expr]:
    """Arguments by their defaults, loop names by the first thing looped over."""
    arguments = function.args.args
    defaults = function.args.defaults
    names = {item.arg: value for item, value in zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True)}
    for node in ast.walk(function):
        if isinstance(node, ast.For) and isinstance(node.target, ast.Name) and isinstance(node.iter, ast.List):
            names[node.target.id] = node.iter.elts[0]
    return names


def where(node: ast.expr, scope: dict[str, ast.expr], release: Release) -> str | None:
    """The dotted section that an expression holds, or None."""
    if isinstance(node, ast.Attribute) and node.attr == "_param_dict":
        return ""
    if isinstance(node, ast.Name):
        return HOLDERS.get(node.id)
    inner: ast.expr | None = None
    if isinstance(node, ast.Subscript):
        inner, name = node.value, node.slice
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        inner, name = node.func.value, node.args[0]
    if inner is None:
        return None
    base = where(inner, scope, release)
    name = scope.get(name.id, name) if isinstance(name, ast.Name) else name
    known, text = evaluate(name, release.constants)
    return None if base is None or not known else f"{base}.{text}".lstrip(".")


def type_of(value: object) -> str:
    """The type word of a default."""
    if isinstance(value, bool):
        return "bool"
    return {"int": "int", "float": "float", "str": "str", "list": "list", "dict": "object"}.get(type(value).__name__, "any")


def plain(value: object) -> bool:
    """Whether JSON can say it."""
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def add_class(section: str, node: ast.ClassDef, release: Release, found: dict[str, Key], strict: set[str]) -> None:
    """The fields of a config class and of the classes it nests."""
    strict.add(section)
    found.setdefault(section, Key()).type = "object"
    body = node.body
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in release.classes and base.id != "DeepSpeedConfigModel":
            body = [*release.classes[base.id].body, *body]
    for index, item in enumerate(body):
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        key = field_key(item, release)
        follower = body[index + 1] if index + 1 < len(body) else None
        if isinstance(follower, ast.Expr) and isinstance(follower.value, ast.Constant):
            key.means = sentence(str(follower.value.value))
        name = f"{section}.{item.target.id}"
        nested = next((word for word in names_in(item.annotation) if is_model(word, release)), "")
        if key.alias:
            alias = key.alias
            found[f"{section}.{alias}"], key.alias = key, ""
            found[name] = Key(**{**vars(key), "alias": f"{section}.{alias}"})
        else:
            found[name] = key
        if nested:
            add_class(name, release.classes[nested], release, found, strict)


def is_model(name: str, release: Release) -> bool:
    """Whether a class is a config model (not an enum)."""
    node = release.classes.get(name)
    return node is not None and any("Config" in ast.unparse(base) or "BaseModel" in ast.unparse(base) for base in node.bases)


def names_in(node: ast.expr) -> Iterator[str]:
    """Every name in an annotation."""
    return (part.id for part in ast.walk(node) if isinstance(part, ast.Name))


def field_key(item: ast.AnnAssign, release: Release) -> Key:
    """Type, default, bounds, alias and deprecation of one field."""
    key = Key()
    annotation(item.annotation, key, release)
    value = item.value
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "Field":
        options = {word.arg: word.value for word in value.keywords if word.arg}
        extra = options.get("json_schema_extra")
        if isinstance(extra, ast.Dict):
            options.update(
                {str(ast.literal_eval(name)): item for name, item in zip(extra.keys, extra.values, strict=True) if name}
            )
        read = {name: evaluate(node, release.constants)[1] for name, node in options.items()}
        key.least, key.above, key.most, key.below = (read.get(word) for word in ("ge", "gt", "le", "lt"))
        key.alias = read.get("alias") or ""
        key.deprecated = bool(read.get("deprecated"))
        key.instead = str(read.get("new_param") or "") if key.deprecated else ""
        value = value.args[0] if value.args else options.get("default")
    known, default = evaluate(value, release.constants)
    if known and plain(default):
        key.default = json.dumps(default)
        key.nullable = key.nullable or default is None
    return key


def annotation(node: ast.expr, key: Key, release: Release) -> None:
    """Fill type, nullability and allowed values from an annotation."""
    text = ast.unparse(node)
    if text.startswith(("Optional[", "Union[")):
        key.nullable = text.startswith("Optional[") or "None" in text
    if "Literal[" in text:
        key.type = "str"
        key.allowed = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and part.value is not None]
        return
    for name in names_in(node):
        if name in release.classes and not is_model(name, release) and "Enum" in ast.unparse(release.classes[name]):
            members = [item.value for item in release.classes[name].body if isinstance(item, ast.Assign)]
            values = [value for known, value in (evaluate(member, {}) for member in members) if known]
            key.allowed = list(dict.fromkeys(values))
            key.type = "int" if all(isinstance(value, int) for value in values) else "str"
            return
        if is_model(name, release):
            key.type = "object"
            return
        word = {
            "bool": "bool",
            "int": "int",
            "float": "float",
            "str": "str",
            "Path": "str",
            "list": "list",
            "List": "list",
            "dict": "object",
            "Dict": "object",
        }.get(name)
        if word and not text.startswith("Union["):
            key.type = word
            return


def sentence(text: str) -> str:
    """The first sentence of a docstring on one line, without reST roles."""
    flat = re.sub(r":any:`([^`]*)`", r"`\1`", " ".join(text.replace("``", "`").split()))
    return re.split(r"(?<=[a-z`)])\. ", flat)[0].rstrip(". ")[:240]


def git_readers(folder: Path) -> Iterator[tuple[str, Reader]]:
    """Every release tag of a clone."""
    listed = subprocess.run(["git", "-C", str(folder), "tag"], check=True, capture_output=True, text=True).stdout.split()
    for tag in listed:
        if re.fullmatch(r"v\d+\.\d+\.\d+", tag) and Version(tag) >= FIRST:
            yield tag[1:], lambda path, tag=tag: _git_show(folder, f"{tag}:{path}")  # type: ignore[misc]


def _git_show(folder: Path, name: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), "show", name], check=False, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


def sdist_readers(folder: Path) -> Iterator[tuple[str, Reader]]:
    """Every source distribution in a folder."""
    for path in sorted(folder.glob("deepspeed-*.tar.gz")):
        root = path.name.removesuffix(".tar.gz")
        with tarfile.open(path) as archive:
            members = {item.name.removeprefix(f"{root}/"): item for item in archive.getmembers()}
            texts = {name: archive.extractfile(members[name]).read().decode() for name in FILES if name in members}  # type: ignore[union-attr]
        yield root.removeprefix("deepspeed-"), lambda name, texts=texts: texts.get(name, "")  # type: ignore[misc]


def schedulers(release: Release) -> dict[str, dict[str, str]]:
    """Scheduler -> parameter -> default as JSON (an empty text where it must be given)."""
    known: dict[str, dict[str, str]] = {}
    for name in release.constants.get("VALID_LR_SCHEDULES") or _names(release, "VALID_LR_SCHEDULES"):
        parameters: dict[str, str] = {}
        for item in release.classes[name].body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                arguments = item.args.args[2:]
                defaults: list[ast.expr | None] = [None] * (len(arguments) - len(item.args.defaults)) + [*item.args.defaults]
                for argument, default in zip(arguments, defaults, strict=True):
                    known_default, value = evaluate(default, release.constants)
                    parameters[argument.arg] = json.dumps(value) if known_default else ""
        known[name] = parameters
    return known


def optimizers(release: Release) -> list[str]:
    """The optimizers that DeepSpeed makes itself, in lower case."""
    return _names(release, "DEEPSPEED_OPTIMIZERS")


def _names(release: Release, constant: str) -> list[str]:
    """The values of a module-level list of constant names."""
    for tree in release.trees.values():
        for node in tree.body:
            if (
                isinstance(node, ast.Assign)
                and getattr(node.targets[0], "id", "") == constant
                and isinstance(node.value, ast.List)
            ):
                return [str(evaluate(item, release.constants)[1]) for item in node.value.elts]
    return []


def span(versions: list[str], releases: list[str]) -> Iterator[tuple[str, str]]:
    """`since` and `removed` of something seen in `versions`."""
    if versions[0] != releases[0]:
        yield "since", versions[0]
    if versions[-1] != releases[-1]:
        yield "removed", releases[releases.index(versions[-1]) + 1]


def span_text(versions: list[str], releases: list[str]) -> str:
    """`since` and `removed` as entries of an inline table."""
    return ", ".join(f"{word} = {json.dumps(value)}" for word, value in span(versions, releases))


def table(readers: dict[str, Reader]) -> str:
    """The TOML text over all releases."""
    releases = sorted(readers, key=Version)
    seen: dict[str, list[tuple[str, Key]]] = {}
    refused: dict[str, str] = {}
    strict: dict[str, str] = {}
    pydantic = ""
    schedules: dict[str, list[str]] = {}
    parameters: dict[str, dict[str, str]] = {}
    made: dict[str, list[str]] = {}
    for version in releases:
        release = read_release(readers[version])
        keys, removed, closed = keys_of(release)
        if not pydantic and "ConfigDict" in release.texts["deepspeed/runtime/config_utils.py"]:
            pydantic = version
        for name, given in schedulers(release).items():
            schedules.setdefault(name, []).append(version)
            parameters.setdefault(name, {}).update(given)
        for name in optimizers(release):
            made.setdefault(name, []).append(version)
        for name, key in keys.items():
            seen.setdefault(name, []).append((version, key))
        for name in closed:
            strict.setdefault(name, version)
        refused.update({name: text for name, text in removed.items() if name in seen})
    lines = [
        "# Generated by tools/deepspeed_keys.py from DeepSpeed's own sources (Apache-2.0); do not edit, refresh (see there).",
        "# since: first release that reads the key (left out: the first one listed). removed: first that does not.",
        "# absent: first release of a time without it, and first with it again. computed: how DeepSpeed works out the default.",
        "# bounds_before: the bounds in the releases before `bounds_since`.",
        "# `means` is the first sentence of DeepSpeed's own description of the key.",
        "",
        f"releases = {json.dumps(releases)}",
        "# First release whose config classes are pydantic 2's: a fractional float for an integer is refused, not cut off.",
        f"pydantic2 = {json.dumps(pydantic)}",
        "",
        "# Sections that refuse unknown keys, and since when; elsewhere DeepSpeed ignores them silently.",
        "[strict]",
        *(f"{json.dumps(name)} = {json.dumps(version)}" for name, version in sorted(strict.items())),
        "",
        "# Sections whose keys are not listed.",
        f"[open]\nsections = {json.dumps(sorted(OPEN))}",
        "",
        "# Optimizers that DeepSpeed makes itself.",
        "[optimizer]",
        *(f"{json.dumps(name)} = {{ {span_text(versions, releases)} }}" for name, versions in sorted(made.items())),
        "",
        "# Schedulers and their parameters with defaults as JSON (empty: must be given).",
        *(
            line
            for name in sorted(schedules)
            for line in (
                f"[scheduler.{name}]",
                *(f"{part} = {json.dumps(value)}" for part, value in span(schedules[name], releases)),
                f"params = {{ {', '.join(f'{item} = {json.dumps(text)}' for item, text in parameters[name].items() if item != 'last_batch_iteration')} }}",  # noqa: E501 - one line of TOML
                "",
            )
        ),
        "[key]",
    ]
    lines += [f"{json.dumps(name)} = {{ {', '.join(facts(name, seen[name], releases, refused))} }}" for name in sorted(seen)]
    return "\n".join(lines) + "\n"


def facts(name: str, spans: list[tuple[str, Key]], releases: list[str], refused: dict[str, str]) -> Iterator[str]:
    """The entries of one key's inline table."""
    key = spans[-1][1]
    yield f"type = {json.dumps(key.type)}"
    if key.default:
        yield f"default = {json.dumps(key.default)}"
    if key.computed:
        yield f"computed = {json.dumps(key.computed)}"
    changes = [(version, item.default) for version, item in spans if item.default]
    steps = [step for index, step in enumerate(changes) if not index or changes[index - 1][1] != step[1]]
    if len(steps) > 1:
        yield f"defaults = {json.dumps([list(step) for step in steps])}"
    for word, value in (
        ("nullable", key.nullable),
        ("alias", key.alias),
        ("allowed", key.allowed),
        ("least", key.least),
        ("above", key.above),
        ("most", key.most),
        ("below", key.below),
    ):
        if value or (value == 0 and value is not False):
            yield f"{word} = {json.dumps(value)}"
    limits = [(version, (item.least, item.above, item.most, item.below)) for version, item in spans]
    tightened = next((version for version, limit in limits if limit == limits[-1][1]), "")
    if tightened != spans[0][0] and limits[-1][1] != (None,) * 4:
        yield f"bounds_since = {json.dumps(tightened)}"
        before = limits[[version for version, _ in limits].index(tightened) - 1][1]
        if before != (None,) * 4:
            named = zip(("least", "above", "most", "below"), before, strict=True)
            yield f"bounds_before = {{ {', '.join(f'{word} = {value}' for word, value in named if value is not None)} }}"
    if spans[0][0] != releases[0]:
        yield f"since = {json.dumps(spans[0][0])}"
    places = [releases.index(version) for version, _ in spans]
    for one, other in itertools.pairwise(places):
        if other != one + 1:
            yield f"absent = {json.dumps([releases[one + 1], releases[other]])}"
    if spans[-1][0] != releases[-1]:
        yield f"removed = {json.dumps(releases[releases.index(spans[-1][0]) + 1])}"
    if name in refused:
        yield f"refused = {json.dumps(refused[name])}"
    if key.deprecated:
        yield f"deprecated = {json.dumps(next(version for version, item in spans if item.deprecated))}"
    if key.instead:
        yield f"instead = {json.dumps(key.instead)}"
    means = next((item.means for _, item in reversed(spans) if item.means), "")
    if means:
        yield f"means = {json.dumps(means)}"


NAMES = '''"""The top-level keys of the DeepSpeed key table, for code that must not read it (`deepspeed_keys.py --names`)."""

from __future__ import annotations

TOP_LEVEL = frozenset({{
{lines}
}})  # fmt: skip
'''


def names(text: str) -> str:
    """The module that holds the top-level keys of the table."""
    keys = sorted(key for key in tomli.loads(text)["key"] if "." not in key)
    return NAMES.format(lines="\n".join(f'    "{key}",' for key in keys))


def main() -> None:
    """Read the releases named on the command line and print the table, or print the names of a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--git", type=Path, help="a clone of DeepSpeed with its tags")
    parser.add_argument("--sdists", type=Path, help="a folder of deepspeed-*.tar.gz")
    parser.add_argument("--names", type=Path, help="the table, to print the module of its top-level keys")
    args = parser.parse_args()
    if args.names:
        sys.stdout.write(names(args.names.read_text(encoding="utf-8")))
        return
    readers = dict(git_readers(args.git)) if args.git else {}
    if args.sdists:
        readers.update(sdist_readers(args.sdists))
    if not readers:
        parser.error("name --git, --sdists or both")
    sys.stdout.write(table(readers))


if __name__ == "__main__":
    main()
