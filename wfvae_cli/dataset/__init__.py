"""Datasets of any size: listing items, resuming, and sharing the work over `codec`."""
