"""Layers of streaming video networks: layers hold weights, streams hold the state of clips."""
