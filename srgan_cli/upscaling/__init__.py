"""Enlarging pictures, documents and folders: planning, running and resuming."""
