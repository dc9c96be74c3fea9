"""How a network learns to enlarge: data, degradation, losses, the loop, and the run folder."""
