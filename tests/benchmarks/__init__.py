"""Tests of the benchmarks that measure and describe the bundled models."""
