"""Benchmarks: speed and memory of a model on this machine, and the rounding of types."""
