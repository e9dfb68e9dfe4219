"""A model's parameters before training: loaded, initialised, trainable, reachable."""
