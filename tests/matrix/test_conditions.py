from __future__ import annotations

import pytest

from envcheck.facts.model import Absent, Distribution, Environment, Gpu, Known
from envcheck.matrix.conditions import comparison_holds, fact_holds, package_holds, setting_holds
from envcheck.matrix.database import load
from envcheck.matrix.deepspeed_names import TOP_LEVEL
from envcheck.matrix.rule import Comparison, SettingCondition
from envcheck.matrix.settings import TRAINER_WORDS, UNSAID, UNSET, Settings, combine, is_deepspeed_key


def environment(**packages: str) -> Environment:
    return Environment(packages={name: Distribution(name, text) for name, text in packages.items()}, complete=True)


@pytest.mark.parametrize(
    ("version", "spec", "holds"),
    [
        ("2.6.0", "==2.6.0", True),
        ("2.6.0+cu124", "==2.6.0", True),
        ("2.6.0+cu124", "<=2.6.0", True),
        ("2.6.0+cu124", ">2.6.0", False),
        ("2.5.0a0+e000.nv24.08", ">=2.5", True),
        ("2.5.0a0+e000.nv24.08", "<2.5", False),
        ("0.18.3.dev0", "==0.18.3", True),
        ("0.40.1.post1", "<=0.40.1", False),
        ("not a version", ">=1", None),
        ("9" * 5000, ">=1", None),
        ("1.0", "*", True),
        ("1.0", "absent", False),
    ],
)
def test_versions(version: str, spec: str, holds: bool | None) -> None:
    assert package_holds(environment(torch=version), "torch", spec) is holds


def test_a_package_nobody_listed_is_unknown_unless_the_list_is_complete() -> None:
    assert package_holds(Environment(), "torch", ">=1") is None
    assert package_holds(Environment(), "torch", "absent") is None
    assert package_holds(Environment(complete=True), "torch", ">=1") is False
    assert package_holds(Environment(complete=True), "torch", "absent") is True


@pytest.mark.parametrize(
    ("value", "operator", "operand", "holds"),
    [
        (2, "equals", 2, True),
        ("2", "equals", 2, True),
        (2.0, "equals", 2, True),
        (True, "equals", 1, False),
        ("True", "equals", True, True),
        ("BF16", "equals", "bf16", True),
        (3, "in", [1, 2], False),
        (3, "not_in", [1, 2], True),
        (3, "not", 3, False),
        (4, "above", 1, True),
        (1, "above", 1, False),
        (1, "at_least", 1, True),
        (0.5, "below", 1, True),
        ("many", "above", 1, None),
        (True, "above", 0, None),
        (None, "equals", None, True),
        (0, "set", True, True),
        (0, "set", False, False),
        (UNSET, "set", False, True),
        (UNSET, "equals", 2, False),
        ("auto", "equals", 2, None),
    ],
)
def test_settings(value: object, operator: str, operand: object, holds: bool | None) -> None:
    condition = SettingCondition("zero_optimization.stage", operator, operand)
    assert setting_holds(Settings(values={"zero_optimization.stage": value}), condition) is holds


def test_flags_of_unset_and_unknown_keys() -> None:
    condition = SettingCondition("fp16.enabled", "equals", operand=True, or_unset=True, or_unknown=True)
    assert setting_holds(Settings(values={"fp16.enabled": UNSET}), condition) is True
    assert setting_holds(Settings(), condition) is True
    assert setting_holds(Settings(), SettingCondition("fp16.enabled", "equals", operand=True)) is None


def test_a_whole_deepspeed_file_makes_its_missing_keys_unset() -> None:
    settings = combine({"zero_optimization": {"stage": 2}}, None, {}, frozenset())
    assert settings.get("zero_optimization.stage") == 2
    assert settings.get("gradient_clipping") is UNSET
    assert setting_holds(settings, SettingCondition("max_grad_norm", "above", 0)) is None


def test_auto_takes_the_trainers_value() -> None:
    config = {"gradient_accumulation_steps": "auto", "bf16": {"enabled": "auto"}, "gradient_clipping": "auto"}
    settings = combine(config, {"gradient_accumulation_steps": 8, "bf16": True}, {}, frozenset())
    assert settings.get("gradient_accumulation_steps") == 8
    assert settings.get("bf16.enabled") is True
    assert setting_holds(settings, SettingCondition("gradient_clipping", "above", 0)) is None


def test_told_settings_win_over_both_files() -> None:
    key = "gradient_accumulation_steps"
    settings = combine({key: 2}, {key: 3}, {key: 4}, frozenset())
    assert settings.get("gradient_accumulation_steps") == 4


@pytest.mark.parametrize(
    ("kind", "value", "condition", "holds"),
    [
        ("version", "535.104.05", "<580", True),
        ("version", "12.1", ">=12.0,<13", True),
        ("version", "odd", ">=12.0", None),
        ("word", "Linux", "linux", True),
        ("word", "conda", "pypi|conda", True),
        ("word", "conda", "!pypi|conda", False),
        ("word", "NVIDIA GeForce RTX 4090", "*RTX 40*", True),
        ("list", ("torch", "numpy"), "contains numpy", True),
        ("list", ("torch",), "lacks numpy", True),
        ("list", ("torchvision", "pytorch"), "contains torch", False),
        ("list", ("torchvision",), "lacks torch", True),
        ("list", ("torch", "torchvision"), "contains jax|torch", True),
        ("list", ("flash_attn-2.7.3-cp310.whl",), "contains flash_attn-*", True),
        ("list", ("flash_attn-2.7.3-cp310.whl",), "contains flash_attn", False),
        ("list", (), "contains *", False),
        ("list", ("[a-z]",), "contains [a-z]", True),
        ("list", ("a",), "contains [a-z]*", False),
        ("list", ("[a-z]?",), "contains [a-z]*", True),
        ("word", "GeForce?", "geforce?", True),
        ("list", "torch", "contains torch", True),
        ("version", "12.1", "absent", False),
        ("version", "12.1", "present", True),
    ],
)
def test_facts(kind: str, value: str | tuple[str, ...], condition: str, holds: bool | None) -> None:
    assert fact_holds(Environment(facts={"x": Known(value)}), kind, "x", condition) is holds


def test_a_fact_nobody_looked_for_is_unknown_and_one_not_found_is_absent() -> None:
    assert fact_holds(Environment(), "version", "driver", "<580") is None
    missing = Environment(facts={"driver": Absent(("/proc",))})
    assert fact_holds(missing, "version", "driver", "<580") is False
    assert fact_holds(missing, "version", "driver", "absent") is True


def test_an_environment_variable_is_absent_only_where_somebody_looked() -> None:
    assert fact_holds(Environment(), "word", "env.NCCL_P2P_DISABLE", "absent") is None
    looked = Environment(facts={"env": Known("read")})
    assert fact_holds(looked, "word", "env.NCCL_P2P_DISABLE", "absent") is True


def test_a_gpu_condition_holds_when_any_gpu_fulfils_it() -> None:
    two = Environment(gpus=(Gpu("a", "8.0", 1), Gpu("b", "6.1", 1)))
    assert fact_holds(two, "version", "gpu.compute_capability", "<7.0") is True
    assert fact_holds(two, "version", "gpu.compute_capability", "<6.0") is False
    assert fact_holds(two, "version", "gpu.count", ">=2") is True
    assert fact_holds(Environment(gpus=(Gpu("a"),)), "version", "gpu.compute_capability", "<7") is None
    assert fact_holds(Environment(gpus=()), "version", "gpu.compute_capability", "<7") is False


@pytest.mark.parametrize(
    ("gpu", "vendor"),
    [
        (Gpu("NVIDIA Graphics Device"), "nvidia"),
        (Gpu("", "8.0"), "nvidia"),
        (Gpu("GeForce GTX 980", product_class="geforce"), "nvidia"),
        (Gpu("AMD Instinct MI300X"), None),
        (Gpu(), None),
    ],
)
def test_the_vendor_of_a_gpu(gpu: Gpu, vendor: str | None) -> None:
    assert fact_holds(Environment(gpus=(gpu,)), "word", "gpu.vendor", "nvidia") is (True if vendor else None)
    told = Environment(gpus=(gpu,), facts={"gpu.vendor": Known("amd")})
    assert fact_holds(told, "word", "gpu.vendor", "amd") is True


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("cuda_toolkit.major != torch_cuda.major", True),
        ("cuda_toolkit > torch_cuda", True),
        ("package:torch.local == package:torchvision.local", False),
        ("driver > torch_cuda", None),
    ],
)
def test_comparisons(text: str, holds: bool | None) -> None:
    facts = Environment(
        packages={"torch": Distribution("torch", "2.1+cu121"), "torchvision": Distribution("torchvision", "0.16+cpu")},
        facts={"cuda_toolkit": Known("13.0"), "torch_cuda": Known("12.1")},
    )
    left, operator, right = text.split()
    assert comparison_holds(facts, Comparison(left, operator, right)) is holds


def test_the_keys_of_deepspeed_are_those_of_the_key_table() -> None:
    table = load().table("deepspeed_keys")["key"]
    assert {key for key in table if "." not in key} == TOP_LEVEL
    assert {key for key in table if not is_deepspeed_key(key)} == TRAINER_WORDS


def test_a_file_without_a_key_of_deepspeeds_says_that_it_is_not_set() -> None:
    file, arguments = combine({"zero_optimization": {}}, None, {}, frozenset()), combine(None, {}, {}, frozenset())
    for key in ("gradient_allreduce_op", "torch_autocast", "torch_autocast.enabled"):
        assert file.get(key) is UNSET
        assert arguments.get(key) is UNSAID
        assert combine(None, {}, {key: "told"}, frozenset()).get(key) == "told"
    for key in ("bf16", "learning_rate"):
        assert file.get(key) is UNSAID
        assert arguments.get(key) is UNSET


def test_a_section_of_deepspeeds_does_not_hide_the_argument_of_its_name() -> None:
    both = combine({"fp16": {"enabled": "auto"}}, {"fp16": True}, {}, frozenset())
    assert both.get("fp16") is True
    assert both.get("fp16.enabled") is True
    assert combine({"fp16": {"enabled": True}}, None, {}, frozenset()).get("fp16") is UNSAID
