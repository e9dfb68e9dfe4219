"""envcheck: checks that a training environment computes the right gradients, before you train in it."""

__version__ = "0.1.0"
