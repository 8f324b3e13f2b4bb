"""Image formats: those that Pillow decodes, and those that it would reduce, miss or refuse."""
