from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from envcheck.errors import ExitCode, InputError
from envcheck.facts.collect import collect
from envcheck.facts.model import (
    Absent,
    Distribution,
    Environment,
    Fact,
    Gpu,
    Known,
    MetadataProblem,
    Unreadable,
)
from envcheck.facts.redaction import cleaner, redacted
from envcheck.facts.snapshot import SCHEMA, dumps, load, to_json
from envcheck.matrix.conditions import fact_holds

#: Every fact that `when.facts` may name.
VOCABULARY_FILE = Path(__file__).parents[2] / "matrices" / "vocabulary.toml"
VOCABULARY: dict[str, dict[str, str]] = tomli.loads(VOCABULARY_FILE.read_text())["fact"]

DESIGN_EXAMPLE = {
    "schema": "envcheck.snapshot/1", "complete": False, "python": "3.10.14",
    "platform": {"system": "Linux", "machine": "x86_64", "glibc": "2.35", "gcc": "11.4.0"},
    "packages": {"torch": "2.3.0+cu121", "deepspeed": "0.9.5"},
    "driver": "535.104.05", "driver_cuda": "12.2", "cuda_toolkit": "12.1", "torch_cuda": "12.1",
    "torch_cxx11_abi": False,
    "gpus": [{"name": "NVIDIA A100-SXM4-80GB", "compute_capability": "8.0", "memory_mib": 81920}],
}  # fmt: skip


def read(**fields: Any) -> Environment:
    return load(json.dumps(fields), "given.json")


def mistakes(text: str) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        load(text, "given.json")
    assert caught.value.exit_code is ExitCode.USAGE
    return caught.value.problems


# ---- hand-written


def test_the_example_of_the_design() -> None:
    environment = load(json.dumps(DESIGN_EXAMPLE), "x")
    values = {name: fact.value for name, fact in environment.facts.items() if isinstance(fact, Known)}
    assert values == {
        "python": "3.10.14", "system": "Linux", "machine": "x86_64", "glibc": "2.35", "gcc": "11.4.0",
        "driver": "535.104.05", "driver_cuda": "12.2", "cuda_toolkit": "12.1", "torch_cuda": "12.1",
        "torch_cxx11_abi": "false",
    }  # fmt: skip
    assert environment.gpus == (Gpu("NVIDIA A100-SXM4-80GB", "8.0", 81920),)
    assert not environment.complete


def test_the_smallest_one_leaves_everything_else_open() -> None:
    environment = read(packages={"deepspeed": "0.17.6"})
    assert environment.packages == {"deepspeed": Distribution("deepspeed", "0.17.6")}
    assert environment.facts == {}
    assert environment.gpus is None
    assert not environment.complete


def test_an_empty_object_is_a_snapshot() -> None:
    assert read() == Environment()


def test_names_in_any_spelling() -> None:
    assert set(read(packages={"Flash_Attn": "2.5", "ruamel.yaml": "1"}).packages) == {"flash-attn", "ruamel-yaml"}


def test_a_package_as_an_object() -> None:
    given_object = {"version": "1", "requires": ["b>=2"], "editable": True, "extras": ["x"], "later": {"field": 1}}
    package = read(packages={"a": given_object}).packages["a"]
    assert package == Distribution("a", "1", requires=("b>=2",), editable=True, extras=("x",))


def test_null_is_looked_for_and_absent() -> None:
    environment = read(driver=None, gpus=None, facts={"libcuda": None})
    assert environment.facts == {"driver": Absent(), "libcuda": Absent()}
    assert environment.gpus == ()


def test_facts_by_name() -> None:
    environment = read(facts={"conda": "yes", "nccl_file": True, "conda_packages": ["mkl"], "ram_gib": 64})
    values = {name: fact.value for name, fact in environment.facts.items() if isinstance(fact, Known)}
    assert values == {"conda": "yes", "nccl_file": "true", "conda_packages": ("mkl",), "ram_gib": "64"}


@pytest.mark.parametrize("name", VOCABULARY)
def test_every_fact_that_a_rule_may_use_can_be_given(name: str) -> None:
    kind = VOCABULARY[name]["kind"]
    value, condition = {"version": ("12.1", ">=12"), "word": ("yes", "yes"), "list": (["a"], "contains a")}[kind]
    environment = read(facts={name: value})
    assert fact_holds(environment, kind, name, condition) is True
    assert fact_holds(read(facts={name: None}), kind, name, "absent") is True
    assert fact_holds(read(), kind, name, condition) is None


@pytest.mark.parametrize(
    ("field", "name", "condition"),
    [
        ({"name": "NVIDIA A100"}, "gpu.name", "*A100*"),
        ({"compute_capability": "8.0"}, "gpu.compute_capability", "==8.0"),
        ({"compute_capability": "8.0"}, "gpu.vendor", "nvidia"),
        ({"memory_mib": 81920}, "gpu.memory_mib", ">=80000"),
        ({"class": "jetson"}, "gpu.class", "jetson"),
        ({}, "gpu.count", "==1"),
    ],
)
def test_every_fact_of_a_gpu_can_be_given(field: dict[str, object], name: str, condition: str) -> None:
    assert fact_holds(read(gpus=[field]), VOCABULARY[name]["kind"], name, condition) is True


def test_local_tags_say_the_cuda_builds() -> None:
    facts = read(packages={"torch": "2.3.0+cu121", "torchvision": "0.18.0+cpu", "torchaudio": "2.3.0"}).facts
    assert facts["torch_cuda"] == Known("12.1", "torch version 2.3.0+cu121")
    assert isinstance(facts["torchvision_cuda"], Absent)
    assert "torchaudio_cuda" not in facts


def test_what_is_given_counts_before_a_local_tag() -> None:
    assert read(packages={"torch": "2.3.0+cu121"}, torch_cuda="11.8").facts["torch_cuda"] == Known("11.8")


def test_fields_that_nobody_knows_are_passed_over() -> None:
    assert read(later={"a": [1]}, platform={"kernel": "6.1"}, gpus=[{"name": "T4", "fan": 3}]).gpus == (Gpu("T4"),)


def test_a_byte_order_mark_is_passed_over() -> None:
    assert load("\ufeff{}", "x") == Environment()


# ---- wrong ones


def test_every_mistake_at_once_each_with_its_path() -> None:
    document = {
        "complete": "yes", "python": 3.1, "packages": {"a b": "1", "Torch": "1", "torch": 2, "x": {"requires": [1]}},
        "gpus": [{"memory_mib": True, "compute_capability": "8"}, 7], "facts": {"gcc": "1"}, "platform": {"gcc": {}},
        "problems": [{"kind": "odd"}], "markers": {"os_name": 1}, "unreadable": {"driver": 1}, "source": [],
    }  # fmt: skip
    found = mistakes(json.dumps(document))
    paths = {problem.split(": ")[0] for problem in found}
    assert paths == {
        "complete", "python", 'packages."a b"', "packages.torch", "packages.x", "packages.x.requires[0]", "source",
        "gpus[0].memory_mib", "gpus[0].compute_capability", "gpus[1]", "facts.gcc", "platform.gcc", "problems[0].kind",
        "markers.os_name", "unreadable.driver",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"driver": "1", "driver": "2"}', "driver: is given twice"),
        ('{"packages": {"a": "1", "a": "1"}}', "packages.a: is given twice"),
        ('{"driver": 535.104}', 'driver: must be in quotes: `"535.104"`'),
        ('{"gpus": [{"memory_mib": -1}]}', "gpus[0].memory_mib: must not be negative"),
        ('{"packages": {"a": "' + "1" * 300 + '"}}', "packages.a: a version of 300 characters"),
        ('{"packages": {"Torch": "1", "torch": "2"}}', "packages.torch: is the same distribution as `Torch`"),
        ('{"packages": []}', "packages: must be an object, not a list"),
        ('{"facts": {"gcc": "1"}, "unreadable": {"gcc": {}}}', "unreadable.gcc: has a value too"),
    ],
)
def test_single_mistakes(text: str, path: str) -> None:
    assert mistakes(text) == (path,)


def test_very_many_mistakes_are_counted_not_listed() -> None:
    found = mistakes(json.dumps({"packages": {f"p{number}": 1 for number in range(500)}}))
    assert len(found) == 51
    assert found[-1] == "and 450 more"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"), (" \n", "is empty"), ("{", "is not JSON"), ('{"packages": {"torch": "2.3', "is not JSON"),
        ("[]", "must be a JSON object"), ("3", "must be a JSON object"), ("\x00\x01\x7fELF", "is not JSON"),
        ('{"a": NaN}', "`NaN` is not JSON"), ('{"a": -Infinity}', "`-Infinity` is not JSON"),
        ("[" * 200000, "nested too deeply"), ('{"a":' * 200000, "nested too deeply"),
        ('{"a": ' + "9" * 10000 + "}", "not usable JSON"),
        ('{"schema": "envcheck.snapshot/2", "packages": 3}', "`envcheck.snapshot/2`, which this version"),
        ('{"schema": "envcheck.report/1"}', "`schema` must be"), ('{"schema": null}', "`schema` must be"),
    ],
)  # fmt: skip
def test_texts_that_are_no_snapshot(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(text, "given.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("given.json")


def test_a_future_schema_says_which_one_is_understood() -> None:
    with pytest.raises(InputError) as caught:
        load('{"schema": "envcheck.snapshot/2"}', "x")
    assert any(SCHEMA in hint for hint in caught.value.hints)


def test_a_gigantic_text_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envcheck.facts.document.LARGEST", 10)
    with pytest.raises(InputError, match="larger than"):
        load("{" * 11, "x")


def test_keys_of_a_hostile_snapshot_are_escaped_in_messages() -> None:
    assert mistakes('{"packages": {"a\\u001b[31m": "1"}}') == ('packages."a\\u001b[31m": is not the name of a distribution',)


@given(st.text(max_size=60))
def test_any_text_gives_an_environment_or_an_input_error(text: str) -> None:
    with contextlib.suppress(InputError):
        load(text, "x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["schema", "complete", "python", "platform", "packages", "driver", "torch_cuda", "torch_cxx11_abi", "gpus", "facts",
     "sources", "unreadable", "problems", "markers", "prefix", "source"]
)  # fmt: skip


@given(st.dictionaries(KEYS, JSON | st.dictionaries(st.text(max_size=5), JSON, max_size=3), max_size=6))
def test_any_fields_give_an_environment_or_an_input_error(document: dict[str, Any]) -> None:
    with contextlib.suppress(InputError):
        load(json.dumps(document), "x")


# ---- written ones

WORD = st.text(max_size=12).filter(lambda text: "/" not in text)
NAME = st.from_regex(r"\A[a-z0-9]{1,6}(-[a-z0-9]{1,4})?\Z")
FACT = st.one_of(
    st.builds(Known, st.one_of(WORD.filter(lambda text: text not in ("true", "false")), st.tuples(WORD, WORD)), WORD),
    st.builds(Absent, st.lists(WORD, max_size=2).map(tuple)),
    st.builds(Unreadable, WORD, WORD),
)
FACT_NAME = st.sampled_from(
    ["python", "driver", "cuda_toolkit", "torch_cuda", "torchvision_cuda", "torchaudio_cuda", "glibc", "gcc", "system",
     "libcuda", "env", "env.CUDA_HOME", "env.DS_X", "conda_packages", "new_fact"]
)  # fmt: skip


@st.composite
def environments(draw: st.DrawFn) -> Environment:
    packages = {
        name: Distribution(
            name, draw(WORD), requires=tuple(draw(st.lists(WORD, max_size=2))), requires_python=draw(WORD),
            location=draw(WORD), direct_url=draw(WORD), installer=draw(WORD), editable=draw(st.booleans()),
            extras=tuple(draw(st.lists(WORD, max_size=2))),
        )
        for name in draw(st.lists(NAME.filter(lambda text: not text.startswith("torch")), max_size=3))
    }  # fmt: skip
    facts: dict[str, Fact] = draw(st.dictionaries(FACT_NAME, FACT, max_size=6))
    gpu = st.builds(Gpu, WORD, st.sampled_from(["", "8.0", "12.1"]), st.integers(0, 1 << 20))
    problem = st.builds(MetadataProblem, st.sampled_from(["duplicate", "broken", "leftover"]), WORD, WORD, WORD)
    return Environment(
        packages=packages, complete=draw(st.booleans()), facts=facts,
        gpus=draw(st.none() | st.lists(gpu, max_size=2).map(tuple)),
        problems=tuple(draw(st.lists(problem, max_size=2))), prefix=draw(WORD), source=draw(WORD),
        markers=draw(st.dictionaries(NAME, WORD, max_size=2)),
    )  # fmt: skip


@given(environments())
def test_what_is_written_reads_back_equal(environment: Environment) -> None:
    assert load(dumps(environment), "x") == environment


@given(environments())
def test_written_twice_is_written_once(environment: Environment) -> None:
    assert dumps(load(dumps(environment), "x")) == dumps(environment)


def test_our_own_environment_reads_back_as_its_redacted_self() -> None:
    environment = collect()
    again = load(dumps(environment), "x")
    assert again == redacted(environment)
    assert again.packages["pytest"].requires == environment.packages["pytest"].requires


def test_a_written_snapshot_says_each_fact_once_and_where_it_was_read() -> None:
    facts: dict[str, Fact] = {
        "driver": Known("535.1", "NVML"), "gcc": Absent(("CXX", "PATH")), "libcuda": Unreadable("/lib", "no version"),
        "torch_cxx11_abi": Known("true", "libc10.so"),
    }  # fmt: skip
    document = to_json(Environment(facts=facts, complete=True))
    assert document == {
        "schema": SCHEMA, "complete": True, "driver": "535.1", "torch_cxx11_abi": True, "platform": {"gcc": None},
        "sources": {"driver": "NVML", "gcc": ["CXX", "PATH"], "torch_cxx11_abi": "libc10.so"},
        "unreadable": {"libcuda": {"source": "/lib", "reason": "no version"}},
    }  # fmt: skip


# ---- nothing private

HOME = "/home/some.body"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{HOME}/venv/lib", "~/venv/lib"), (HOME, "~"), (f"/a:{HOME}/x:{HOME}", "/a:~/x:~"),
        (f"{HOME}2/x", "/home/*/x"), ("/home/other/x", "/home/*/x"), ("/Users/jo/x", "/Users/*/x"),
        (f"file://{HOME}/src", "file://~/src"), ("/opt/home/x", "/opt/home/x"),
        ("https://user:secret@e.org/x", "https://e.org/x"), ("git+https://ghp_x@github.com/o/r", "git+https://github.com/o/r"),
        ("https://e.org/w.whl?X-Signature=abc&a=1#egg=w", "https://e.org/w.whl?X-Signature=***&a=1#egg=w"),
        ("plain", "plain"),
    ],
)  # fmt: skip
def test_private_parts_of_a_text(text: str, expected: str) -> None:
    assert cleaner(HOME)(text) == expected


def test_a_home_with_a_space() -> None:
    assert cleaner("/Users/Jo Doe")("/Users/Jo Doe/x:/usr") == "~/x:/usr"


@pytest.mark.parametrize("home", ["", "/", "~"])
def test_without_a_real_home_nothing_is_taken_for_it(home: str) -> None:
    assert cleaner(home)("/usr/lib/x") == "/usr/lib/x"


@given(st.text(alphabet=st.sampled_from(list("/home:@?&=ab~*. ")), max_size=40))
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    clean = cleaner(HOME)
    assert clean(clean(text)) == clean(text)


def test_no_home_no_user_no_secret_in_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", HOME)
    url = "https://some.body:hunter2@e.org/foo.whl"
    environment = Environment(
        packages={"foo": Distribution("foo", "1", location=f"{HOME}/v", direct_url=url, requires=(f"bar @ {url}",))},
        facts={
            "python": Known("3.10", f"{HOME}/v/bin/python"), "env.LD_LIBRARY_PATH": Known(f"{HOME}/lib"),
            "env.HF_TOKEN": Known("hunter2"), "gcc": Unreadable(f"{HOME}/gcc", f"cannot run {HOME}/gcc"),
            "libcuda": Absent((f"{HOME}/lib",)), "ld_shadows": Known((f"{HOME}/lib/x",)),
        },
        problems=(MetadataProblem("broken", "foo", f"{HOME}/v/foo", f"the other is {HOME}/w"),),
        prefix=f"{HOME}/v", source=f"{HOME}/v/bin/python", markers={"platform_version": f"built in {HOME}"},
    )  # fmt: skip
    text = dumps(environment)
    assert "some.body" not in text
    assert "hunter2" not in text
    assert load(text, "x") == redacted(environment)
