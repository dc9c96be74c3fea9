"""Hostile and damaged files, made by code, against the real commands: see docs/RELIABILITY.md."""
