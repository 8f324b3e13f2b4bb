"""Video and image files in and out, as RGB frames in NumPy arrays.

Only `from_planes` and `to_planes`, which convert colours on a device, import torch.
"""
