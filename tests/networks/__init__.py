"""Tests of the generators and their weights."""
