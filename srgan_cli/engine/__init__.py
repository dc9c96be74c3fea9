"""Rows of a picture in, larger rows out, on whatever there is to compute with."""
