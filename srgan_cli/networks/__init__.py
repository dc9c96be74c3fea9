"""The generators, and the files their weights live in."""
