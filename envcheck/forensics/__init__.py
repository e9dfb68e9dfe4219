"""What a finished or running training log says."""
