"""Backends that run the network: one protocol, and a file for each library."""
