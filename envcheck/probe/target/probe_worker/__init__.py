"""One rank of the probe. Stand-alone: standard library, torch, deepspeed and transformers; Python 3.8 syntax."""
