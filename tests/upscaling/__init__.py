"""Tests of srgan_cli.upscaling."""
