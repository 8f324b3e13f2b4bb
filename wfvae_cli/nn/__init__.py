"""Layers of streaming video networks. They hold weights; clips hold state. Never sees a file."""
