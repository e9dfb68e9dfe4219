"""Names of a model against those of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from envcheck.params.checkpoint import Checkpoint, Tensor
from envcheck.params.compare import compare, groups


def model(shapes: dict[str, list[int]], **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "parameters": [{"name": name, "shape": shape} for name, shape in shapes.items()], "buffers": [], "prefix": "model",
        "tied": [], "tie": False, "ignore_missing": [], "ignore_unexpected": [], "renames": {},
    }  # fmt: skip
    return found | more


def checkpoint(shapes: dict[str, tuple[int, ...]]) -> Checkpoint:
    return Checkpoint(Path(), {name: Tensor(name, "f", "BF16", shape) for name, shape in shapes.items()})


def test_missing_unexpected_and_mismatched() -> None:
    found = compare(model({"a": [1], "b": [2], "c": [3]}), checkpoint({"a": (1,), "b": (9,), "d": (4,)}))
    assert (found.missing, found.unexpected, found.mismatched) == (("c",), ("d",), (("b", (2,), (9,)),))


def test_the_base_models_prefix_is_added_or_taken_away() -> None:
    bare: dict[str, tuple[int, ...]] = {"layer.weight": (1,)}
    whole: dict[str, tuple[int, ...]] = {"model.layer.weight": (1,)}
    assert compare(model({"layer.weight": [1]}), checkpoint(whole)).loaded == {"layer.weight": "model.layer.weight"}
    assert compare(model({"model.layer.weight": [1]}), checkpoint(bare)).loaded == {"model.layer.weight": "layer.weight"}


def test_a_tied_head_is_not_missing_and_an_untied_one_is() -> None:
    shapes = {"model.embed.weight": [8, 2], "lm_head.weight": [8, 2]}
    stored = checkpoint({"model.embed.weight": (8, 2)})
    assert compare(model(shapes, tied=["lm_head.weight"], tie=True), stored).missing == ()
    assert compare(model(shapes, tied=["lm_head.weight"], tie=False), stored).missing == ("lm_head.weight",)


def test_what_the_class_ignores_and_renames() -> None:
    stored = checkpoint({"old.weight": (1,), "rotary.inv_freq": (1,)})
    found = compare(
        model({"new.weight": [1], "extra.position_ids": [1]}, renames={"^old": "new"}, ignore_missing=["position_ids"],
              ignore_unexpected=["inv_freq", "["]), stored,
    )  # fmt: skip
    assert (found.missing, found.unexpected) == ((), ())
    assert found.loaded == {"new.weight": "old.weight"}


def test_pickled_checkpoints_have_no_shapes_to_compare() -> None:
    stored = Checkpoint(Path(), {"a": Tensor("a", "f")})
    assert compare(model({"a": [1]}), stored).mismatched == ()


def test_groups() -> None:
    assert groups(["a.b.c", "a.b.d", "a.x", "y"]) == {"a.b": ["a.b.c", "a.b.d"], "a": ["a.x"], "y": ["y"]}
