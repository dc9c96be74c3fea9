"""Measurements of speed, memory and quality; each prints one JSON line per case."""
