"""The tiny models and their data. Everything follows from a seed, so that every rank and the reference agree."""

from __future__ import annotations

import importlib
from typing import Any, Dict

import torch
from torch import nn

VOCABULARY = 37
WIDTH = 12
TOKENS = 6

Batch = Dict[str, Any]


class Mlp(nn.Module):
    """Embedding, four square layers of one shape, a norm and a head; returns the loss, or (loss, logits).

    Args:
        outputs: Return the logits too, as every Hugging Face model does.
        tied: Share the head's weight with the embedding.
    """

    def __init__(self, outputs: bool = False, tied: bool = False) -> None:
        super().__init__()
        self.outputs = outputs
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=not tied)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> Any:  # noqa: ANN401 - loss or tuple
        """Shapes: input_ids (batch, tokens), labels (batch, tokens); -100 in labels is ignored."""
        hidden = self.embedding(input_ids).mean(dim=1)
        for layer in self.layers:
            hidden = hidden + torch.tanh(layer(hidden))
        logits = self.head(self.norm(hidden))
        loss = nn.functional.cross_entropy(logits, labels[:, -1])
        return (loss, logits) if self.outputs else loss


class WithProjector(nn.Module):
    """A causal language model, frozen, with a projector before it that is trained alone, as vision models do."""

    def __init__(self, language_model: nn.Module, width: int) -> None:
        super().__init__()
        self.config = language_model.config
        self.language_model = language_model
        self.projector = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor, **more: Any) -> Any:  # noqa: ANN401
        """Embed, project, run the language model on the result."""
        hidden = self.projector(self.language_model.get_input_embeddings()(input_ids))
        return self.language_model(inputs_embeds=hidden, labels=labels, **more)

    def gradient_checkpointing_enable(self, **options: Any) -> None:  # noqa: ANN401 - the model's own options
        """Hand the Trainer's request on."""
        self.language_model.gradient_checkpointing_enable(**options)


def tiny_llama(tied: bool) -> nn.Module:
    """A random Llama of one layer, built from its configuration: nothing is downloaded."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=tied,
        use_cache=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    config._attn_implementation = "eager"  # noqa: SLF001 - older releases have no public name
    model: nn.Module = LlamaForCausalLM(config)
    return model


def build(kind: str, seed: int) -> nn.Module:
    """The model of that kind, in float32, with weights that follow from the seed.

    Kinds: mlp, mlp-outputs, mlp-tied, mlp-frozen, llama, llama-tied, llama-frozen (norm and head are trained), llama-head
    (the head alone), llama-projector, or
    `module:function` (called without arguments), or a folder with a `config.json`.
    """
    torch.manual_seed(seed)
    if kind.startswith("mlp"):
        model = Mlp(outputs=kind == "mlp-outputs", tied=kind == "mlp-tied")
        if kind == "mlp-frozen":
            freeze(model.embedding, model.layers[0])
        return model
    if kind == "llama-projector":
        language_model = tiny_llama(tied=False)
        freeze(language_model)
        return WithProjector(language_model, 16)
    if kind.startswith("llama"):
        llama = tiny_llama(tied=kind == "llama-tied")
        if kind == "llama-frozen":
            freeze(llama.model.embed_tokens, llama.model.layers)
        if kind == "llama-head":
            freeze(llama.model)
        return llama
    return _from_user(kind)


def freeze(*modules: nn.Module) -> None:
    """Take the modules' parameters out of training."""
    for module in modules:
        for parameter in module.parameters():
            parameter.requires_grad_(False)


def _from_user(kind: str) -> nn.Module:
    module, colon, function = kind.partition(":")
    if colon and "/" not in module:
        built: nn.Module = getattr(importlib.import_module(module), function)()
        return built
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(kind)
    shrink(config)
    model: nn.Module = AutoModelForCausalLM.from_config(config)
    return model


def shrink(config: Any) -> None:  # noqa: ANN401 - a transformers configuration
    """Make a model configuration tiny without changing its kind."""
    small = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": 64,
        "max_position_embeddings": 32,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 32,
    }
    for key, value in small.items():
        if hasattr(config, key):
            setattr(config, key, value)
    for key in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if getattr(config, key, None) is not None:
            setattr(config, key, {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}[key])
    config.use_cache = False


def vocabulary_of(model: nn.Module) -> int:
    """How many token ids the model knows."""
    config = getattr(model, "config", None)
    return int(getattr(config, "vocab_size", VOCABULARY))


def batch(vocabulary: int, seed: int, step: int, rank: int, micro: int, size: int) -> Batch:
    """One micro-batch; different for every (step, rank, micro-batch).

    The first label is ignored, so that a loss over shifted tokens and a loss over all tokens count the same ones.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step * 10_007 + rank * 101 + micro)
    ids = torch.randint(3, vocabulary, (size, TOKENS), generator=generator)
    labels = ids.clone()
    labels[:, 0] = -100
    return {"input_ids": ids, "labels": labels}


def loss_of(output: Any) -> torch.Tensor:  # noqa: ANN401 - whatever a model returns
    """The loss in a model's answer: the answer, its `loss`, or its first element."""
    if isinstance(output, torch.Tensor):
        return output
    loss: torch.Tensor = output.loss if hasattr(output, "loss") else output[0]
    return loss
