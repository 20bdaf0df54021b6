"""Micro-benchmarks: `make bench`."""
