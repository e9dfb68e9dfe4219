"""The live probe: train a tiny model under ZeRO with the installed packages and compare it with plain torch."""
