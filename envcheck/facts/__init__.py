"""What is true on a machine: collected once, then frozen."""
