"""Video and image files in and out, as RGB frames in NumPy arrays. Never imports torch."""
