"""loss 0.0 and lr 0.0 have several causes; each is told from the others."""

from __future__ import annotations

from typing import Any

from envcheck.probe import trainerlog

Record = dict[str, Any]


def step(number: int, **more: Any) -> Record:
    return {"event": "step", "step": number, "losses": [4.1, 4.2], **more}


def explain(steps: list[Record], logs: list[Record], more: list[Record] | None = None) -> str:
    lines = [{"event": "log", "step": number, **log} for number, log in enumerate(logs)]
    records = trainerlog.attach([(0, one) for one in [*steps, *lines, *(more or [])]])
    return "\n".join(trainerlog.explain(records, [one for _, one in records if one["event"] == "step"]))


def test_a_loss_of_zero_that_was_a_nan() -> None:
    text = explain([step(0, losses=["nan", "nan"])], [{"logs": {"loss": 0.0}}])
    assert "NaN or Inf that `logging_nan_inf_filter` took out" in text


def test_a_loss_of_zero_that_the_model_did_not_return() -> None:
    assert "although the model returned 4.1" in explain([step(0)], [{"logs": {"loss": 0.0}}])


def test_a_rate_of_zero_for_skipped_steps() -> None:
    steps = [step(0, overflow=True, expected_lr=0.5), step(1)]
    assert "skipped the step on overflow" in explain(steps, [{"logs": {"loss": 4.0, "learning_rate": 0.0}}])


def test_a_rate_of_zero_before_warm_up() -> None:
    steps = [step(0, expected_lr=0.0), step(1)]
    assert "warm-up has not started" in explain(
        steps, [{"logs": {"loss": 4.0, "learning_rate": 0.0}, "types": {"learning_rate": "float"}}]
    )


def test_an_integer_rate_is_a_schedule_that_deepspeed_never_stepped() -> None:
    steps = [step(0, expected_lr=1.0), step(1)]
    text = explain(steps, [{"logs": {"loss": 4.0, "learning_rate": 0}, "types": {"learning_rate": "int"}}])
    assert "DeepSpeed owns the schedule" in text


def test_parameters_before_a_cut_graph() -> None:
    plain = {"event": "plain", "loss": 4.0, "without_gradient": ["projector.0.weight"], "count": 2}
    text = explain([step(0)], [], [plain])
    assert "2 trainable parameters get no gradient in plain torch either (`projector.0.weight`)" in text
    assert "enable_input_require_grads" in text


def test_a_healthy_log_says_nothing() -> None:
    logs = [{"logs": {"loss": 4.1, "learning_rate": 1.0}}, {"logs": {"loss": 4.0, "learning_rate": 0.5}}]
    assert explain([step(0, expected_lr=1.0), step(1, expected_lr=0.5)], logs) == ""
