"""A tiny random LLaVA whose checkpoint lacks its projector: `llava.py FOLDER`; runs in the target interpreter."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration


def main(folder: Path) -> None:
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=16,
    )
    text = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=63, vision_feature_layer=-1)
    LlavaForConditionalGeneration(config).save_pretrained(folder, max_shard_size="20KB", safe_serialization=True)
    place = folder / "model.safetensors.index.json"
    index = json.loads(place.read_text(encoding="utf-8"))
    for name in [name for name in index["weight_map"] if "multi_modal_projector" in name]:
        path = folder / index["weight_map"].pop(name)
        tensors = load_file(path)
        del tensors[name]
        save_file(tensors, path, metadata={"format": "pt"})
    place.write_text(json.dumps(index), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
