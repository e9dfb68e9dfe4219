"""Checks: facts and the matrix in, findings out; one module per check family."""
