"""The files that a training run leaves behind."""
