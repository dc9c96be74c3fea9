"""A page and an API on this machine: pictures in, larger ones out."""
