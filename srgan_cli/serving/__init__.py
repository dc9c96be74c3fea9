"""A web page and an API on this machine that enlarge pictures."""
