"""Several workers for one run: other processes of this machine, or of a cluster."""
