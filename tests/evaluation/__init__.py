"""Tests of `srgan_cli.evaluation`."""
