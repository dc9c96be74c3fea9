"""The generators and the files for their weights."""
