"""The monitor's side towards torch, DeepSpeed and transformers; they are imported only where they are there already."""
