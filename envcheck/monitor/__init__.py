"""Watches a training run, or a log of one, and says when, where and why it goes wrong."""
