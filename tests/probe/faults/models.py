"""Models whose training goes wrong without any fault of DeepSpeed's; for `--model models:NAME`, in the target interpreter."""

from __future__ import annotations

from typing import Any

import torch
from probe_worker import models  # type: ignore[import-not-found]


def nan_projector() -> Any:
    """A projector whose weights were never initialised, as `from_pretrained` leaves new ones in several releases."""
    model = models.build("llama-projector", 1)
    with torch.no_grad():
        model.projector[2].weight.fill_(float("nan"))
    return model


def all_frozen() -> Any:
    """Nothing to train."""
    model = models.build("llama", 1)
    models.freeze(model)
    return model


def cut_by_checkpointing() -> Any:
    """The head and one matrix inside a checkpointed layer are trained, and the layer's input requires no gradient."""
    model = models.build("llama", 1)
    models.freeze(model.model)
    model.model.layers[0].mlp.down_proj.weight.requires_grad_(True)
    return model
