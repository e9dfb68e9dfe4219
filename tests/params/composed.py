"""Models for the slow tests of `envcheck params`; runs in the target interpreter.

A tiny random Llama with a projector before it, kept as VILA keeps it: `llm/` and `mm_projector/` each with weights of their own.
"""

from __future__ import annotations

import os
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

HIDDEN = 16
HERE = os.environ.get("COMPOSED", ".")


class ProjectorConfig(transformers.PretrainedConfig):
    """How many layers the projector has beyond the first."""

    model_type = "tiny_projector"

    def __init__(self, layers=1, **more):
        super().__init__(**more)
        self.layers = layers


class Projector(transformers.PreTrainedModel):
    """As VILA's: no `_init_weights` of its own."""

    config_class = ProjectorConfig
    base_model_prefix = "projector"

    def __init__(self, config):
        super().__init__(config)
        self.first = nn.Linear(8, HIDDEN)
        self.extension = nn.ModuleList(nn.Linear(HIDDEN, HIDDEN) for _ in range(config.layers - 1))
        self.norm = nn.LayerNorm(HIDDEN)
        if hasattr(self, "post_init"):
            self.post_init()

    def forward(self, images):
        out = self.first(images)
        for layer in self.extension:
            out = out + layer(out)
        return self.norm(out)


class GatedProjector(Projector):
    """With a bare parameter, which no initialiser of the library knows."""

    def __init__(self, config):
        super().__init__(config)
        self.gate = nn.Parameter(torch.randn(HIDDEN, HIDDEN))

    def forward(self, images):
        return super().forward(images) @ self.gate


class Composed(nn.Module):
    """The projector's output stands before the tokens."""

    def __init__(self, llm, projector):
        super().__init__()
        self.llm = llm
        self.mm_projector = projector
        self.config = llm.config

    def envcheck_inputs(self):
        ids = torch.randint(3, 64, (2, 8), generator=torch.Generator().manual_seed(3))
        images = torch.randn(2, 2, 8, generator=torch.Generator().manual_seed(4))
        return {"input_ids": ids, "labels": ids.clone(), "images": images}

    def forward(self, input_ids, labels, images=None):
        embedded = self.llm.get_input_embeddings()(input_ids)
        if images is not None:
            embedded = torch.cat([self.mm_projector(images).to(embedded.dtype), embedded], dim=1)
            labels = torch.cat([torch.full((labels.shape[0], images.shape[1]), -100), labels], dim=1)
        return self.llm(inputs_embeds=embedded, labels=labels)


class Blind(Composed):
    """Never uses its projector."""

    def envcheck_inputs(self):
        return {key: value for key, value in super().envcheck_inputs().items() if key != "images"}


def llama(tied=False):
    torch.manual_seed(5)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=HIDDEN,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            vocab_size=64,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
        )
    )


def save(folder):
    """Write what the functions below load: `llm/`, `mm_projector/` (one layer), `tied/`; `apart/`, `twice/`: a pair twice."""
    llama().save_pretrained(os.path.join(folder, "llm"), safe_serialization=True)
    llama(tied=True).save_pretrained(os.path.join(folder, "tied"), safe_serialization=True)
    for name, factor in (("apart", 2.0), ("twice", 1.0)):
        llama(tied=True).to(torch.bfloat16).save_pretrained(os.path.join(folder, name), safe_serialization=True)
        path = os.path.join(folder, name, "model.safetensors")
        tensors = load_file(path)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * factor
        save_file(tensors, path, metadata={"format": "pt"})
    torch.manual_seed(6)
    Projector(ProjectorConfig(layers=1)).save_pretrained(os.path.join(folder, "mm_projector"), safe_serialization=True)


def _load(kind=Composed, layers=1, frozen=True):
    llm = transformers.LlamaForCausalLM.from_pretrained(os.path.join(HERE, "llm"))
    projector = Projector.from_pretrained(os.path.join(HERE, "mm_projector"), config=ProjectorConfig(layers=layers))
    model = kind(llm, projector)
    if frozen:
        llm.requires_grad_(False)
    return model


def whole():
    return _load()


def extended():
    """The projector has two layers more than its checkpoint: VILA's reported case."""
    return _load(layers=3)


def extended_by_hand():
    """The same, and the added layers initialised after loading."""
    model = _load(layers=3)
    for layer in model.mm_projector.extension:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


def gated():
    """A bare parameter that the checkpoint lacks."""
    llm = transformers.LlamaForCausalLM.from_pretrained(os.path.join(HERE, "llm"))
    llm.requires_grad_(False)
    projector = GatedProjector.from_pretrained(os.path.join(HERE, "mm_projector"), config=ProjectorConfig(layers=1))
    return Composed(llm, projector)


def extended_frozen():
    model = extended_by_hand()
    model.mm_projector.extension.requires_grad_(False)
    return model


def extended_huge():
    model = extended_by_hand()
    nn.init.normal_(model.mm_projector.extension[0].weight, std=30.0)
    return model


def extended_zero():
    model = extended_by_hand()
    nn.init.zeros_(model.mm_projector.extension[0].weight)
    return model


def blind():
    return _load(Blind)


def nothing_trainable():
    model = _load()
    model.requires_grad_(False)
    return model


def mixed():
    model = _load(frozen=False)
    model.llm.to(torch.bfloat16)
    model.mm_projector.to(torch.float32)
    return model


def poisoned():
    model = _load()
    with torch.no_grad():
        model.mm_projector.first.weight[0, 0] = float("nan")
    return model


def untied():
    model = transformers.LlamaForCausalLM.from_pretrained(os.path.join(HERE, "tied"))
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    return model


def crash():
    os.abort()


if __name__ == "__main__":
    save(sys.argv[1])
