"""Runs in the target interpreter; imports nothing of envcheck."""
