"""Enlarging rows of a picture on any available device."""
