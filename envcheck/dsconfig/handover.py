"""Findings about keys that a file lacks when the Trainer hands it to DeepSpeed through accelerate.

accelerate replaces `auto`; of absent keys it adds only an accumulation of 1 and the precision blocks
(`DeepSpeedPlugin.__post_init__`, the same in 0.27.2, 1.1.1, 1.12.0 and 1.15.0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from envcheck.findings import Evidence, Finding, Fix, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envcheck.dsconfig.document import Document
    from envcheck.dsconfig.trainer import TrainerArguments

PLUGIN = Evidence("code", "huggingface/accelerate@v1.12.0:src/accelerate/utils/dataclasses.py")
WRAPPER = Evidence("code", "huggingface/accelerate@v1.12.0:src/accelerate/utils/deepspeed.py")


def lacking(document: Document, where: str, trainer: TrainerArguments | None) -> Iterator[Finding]:
    """What goes wrong because a key is absent; nothing where no Trainer reads the file."""
    if trainer is None:
        return
    place = f"{where}:1:1"
    if "zero_optimization" not in document.by_path:
        yield Finding(
            "ds-config-no-zero-section",
            Severity.ERROR,
            "The file has no `zero_optimization`",
            ("zero_optimization",),
            because=("accelerate stops: `Please specify the ZeRO optimization config in the DeepSpeed config.`",),
            fixes=(Fix("do", 'add `"zero_optimization": {"stage": 0}`, or the stage that is meant'),),
            evidence=(PLUGIN,),
            place=place,
        )
    steps = trainer.get("gradient_accumulation_steps")
    if "gradient_accumulation_steps" not in document.by_path and isinstance(steps, (int, float)) and steps > 1:
        yield Finding(
            "ds-config-accumulation-not-passed-on",
            Severity.WARNING,
            f"The Trainer's gradient_accumulation_steps {steps:g} does not reach DeepSpeed",
            ("gradient_accumulation_steps",),
            {"gradient_accumulation_steps": f"{steps:g}"},
            (
                "the file lacks the key, and accelerate writes 1 into it",
                "accelerate 0.27.2 and 1.1.1 then step at every micro-batch; 1.12.0 and 1.15.0 tell DeepSpeed when to step",
                "DeepSpeed's own train_batch_size is wrong in either case",
            ),
            fixes=(Fix("config", 'gradient_accumulation_steps="auto"'),),
            evidence=(PLUGIN, WRAPPER),
            place=place,
        )
