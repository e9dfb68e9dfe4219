"""Checks of an environment against one project's profile; run only where `--profile` asks for it."""
