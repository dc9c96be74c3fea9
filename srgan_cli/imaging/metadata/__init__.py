"""Metadata: reading it, updating it, and putting it into files."""
