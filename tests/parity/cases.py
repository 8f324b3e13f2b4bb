"""The parity cases: published configurations, weights by rule, their publishers' answers.

Every case is a `NAME.json` (the fields of the published `config.json`, and the complete state
dict as names and shapes) and a `NAME.safetensors` (`x`, `moments`, `mean`, `reconstruction`, in
float32 from the publishers' own code on a CPU). No case ships a checkpoint: a tensor's values
follow from its name and shape alone.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

HERE = Path(__file__).parent


def draw(name: str, shape: list[int]) -> Tensor:
    """Values of tensor `name`: gains near 1, small biases, weights scaled by their fan-in."""
    seed = zlib.crc32(name.encode())
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, dtype=np.float32)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "bias":
        noise *= np.float32(0.02)
    elif leaf == "gamma" or (leaf == "weight" and len(shape) == 1):
        noise = np.float32(1) + np.float32(0.1) * noise
    else:
        noise = (noise / np.sqrt(int(np.prod(shape[1:])))).astype(np.float32)
    return torch.from_numpy(noise)


def case_config(name: str) -> dict[str, Any]:
    """The `config.json` fields of a case."""
    config: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())["config"]
    return config


def case_shapes(name: str) -> dict[str, list[int]]:
    """The complete state dict of a case, as names to shapes."""
    shapes: dict[str, list[int]] = json.loads((HERE / f"{name}.json").read_text())["tensors"]
    return shapes


def case_weights(name: str) -> dict[str, Tensor]:
    """The state dict of a case without the constant wavelet filters, which are not drawn."""
    return {
        tensor: draw(tensor, shape)
        for tensor, shape in case_shapes(name).items()
        if "wavelet_transform" not in tensor
    }


def case_answers(name: str) -> dict[str, Tensor]:
    """`x`, `moments`, `mean` and `reconstruction` of a case."""
    return load_file(HERE / f"{name}.safetensors")
