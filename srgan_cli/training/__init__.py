"""Training of networks: losses, the loop, validation, and the run folder."""
