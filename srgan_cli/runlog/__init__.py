"""What a training run leaves to look at."""
