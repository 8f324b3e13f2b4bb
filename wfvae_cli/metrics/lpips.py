"""LPIPS, the learned perceptual distance of two pictures, through torchmetrics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from wfvae_cli.errors import WeightsError
from wfvae_cli.metrics.extras import load_tensors, published_weights, require
from wfvae_cli.metrics.pixels import Pixels

Backbone = Literal["alex", "vgg"]

_OPTION = "--lpips-weights FILE"
_URLS: dict[Backbone, str] = {
    "alex": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "vgg": "https://download.pytorch.org/models/vgg16-397923af.pth",
}
_MIN_SIDE: dict[Backbone, int] = {"alex": 31, "vgg": 16}
"""Below this side in pixels, pooling leaves nothing of a picture."""


class Lpips:
    """LPIPS (Zhang et al. 2018, version 0.1), lower is better; 0 for identical pictures.

    Pictures are taken at their own size, in [-1, 1]. The linear layers come with torchmetrics,
    the backbone is torchvision's, trained on ImageNet.
    """

    def __init__(
        self,
        *,
        net: Backbone = "alex",
        weights: Path | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """Load the backbone.

        Args:
            net: `alex`, what the authors recommend for measuring, or `vgg`.
            weights: torchvision's `.pth` of that backbone; by default PyTorch's cache, or else a
                download.
            device: where to compute.

        Raises:
            MissingExtraError: torchmetrics or torchvision is missing.
            WeightsError: the weights cannot be had, or are not of this backbone.
        """
        require("torchvision", extra="metrics", purpose="LPIPS")
        functional = require(
            "torchmetrics.functional.image.lpips", extra="metrics", purpose="LPIPS"
        )
        path = weights or published_weights(_URLS[net], option=_OPTION)
        remedy = f"give {_URLS[net].rpartition('/')[2]}, as published at {_URLS[net]}"
        state = load_tensors(path, remedy=remedy)
        # The public class of torchmetrics always loads the backbone itself, from the network
        # and with unrestricted pickles; its module takes a random backbone to fill safely.
        self._module: Any = functional._NoTrainLpips(net=net, pnet_rand=True)
        _fill_backbone(self._module.net, state, path, remedy)
        self._module.to(device)
        self._device = device
        self._min_side = _MIN_SIDE[net]

    def __call__(self, original: Pixels, reconstruction: Pixels) -> float | None:
        """LPIPS of two pictures.

        Args:
            original: HWC RGB, uint8 or uint16.
            reconstruction: the same size.

        Returns:
            The distance; None if a side is below 31 (`alex`) or 16 (`vgg`) pixels.
        """
        if min(original.shape[:2]) < self._min_side:
            return None
        with torch.inference_mode():
            distance = self._module(self._input(original), self._input(reconstruction))
        return float(distance)

    def _input(self, pixels: Pixels) -> Tensor:
        """Float32 `[1, 3, H, W]` in [-1, 1]."""
        scaled = pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max / 2) - 1
        return torch.from_numpy(scaled).permute(2, 0, 1).unsqueeze(0).to(self._device)


def _fill_backbone(backbone: Any, state: Any, path: Path, remedy: str) -> None:
    """Put torchvision's `features.<i>.*` into the slices that LPIPS cuts the backbone into."""
    own: dict[str, Tensor] = backbone.state_dict()
    published = {name: re.sub(r"^slice\d+\.", "features.", name) for name in own}
    for name, source in published.items():
        if source not in state or state[source].shape != own[name].shape:
            found = tuple(state[source].shape) if source in state else "nothing"
            raise WeightsError(
                f"expected {source} of shape {tuple(own[name].shape)} in {path}, "
                f"got {found}: {remedy}"
            )
    backbone.load_state_dict({name: state[source] for name, source in published.items()})
