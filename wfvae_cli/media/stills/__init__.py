"""Image formats: what Pillow decodes, and what it would squeeze, miss or refuse."""
