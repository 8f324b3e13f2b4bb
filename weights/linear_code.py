"""A linear code of the network's shape: what the encoder learns from first.

4x8x8 pixels become 16 numbers by one convolution over blocks, and come back by another; both see
the neighbouring blocks and the one before. It starts as the blocks' principal components, and is
trained in minutes. A decoder this simple tells the encoder at once what each latent is good for,
which the network's own decoder does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from footage import Footage, Shape
from wfvae_cli.nn.conv import CausalConv3d

VALUES = 3 * 4 * 8 * 8
CROPS = Shape(batch=8, frames=13, size=96)
NEVER_BELOW = 2e-5
"""Squared error of values in [-1, 1] that counts as perfect, 53 dB: so that black crops, which
are easy, do not count for all."""


class LinearCode(nn.Module):
    """An encoder and a decoder of one convolution each, over blocks of 4x8x8 pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encoder = nn.Conv3d(VALUES, channels, (2, 3, 3))
        self.decoder = nn.Conv3d(channels, VALUES, (2, 3, 3))

    def encode(self, frames: Tensor) -> Tensor:
        """B3THW to BZT'H'W'."""
        latents: Tensor = self.encoder(surround(to_blocks(frames)))
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """BZT'H'W' to B3THW."""
        return from_blocks(self.decoder(surround(latents)))

    def forward(self, frames: Tensor) -> Tensor:
        """Frames to what is left of them, B3THW."""
        return self.decode(self.encode(frames))

    @torch.no_grad()
    def start_from_components(self, mean: Tensor, variances: Tensor, directions: Tensor) -> None:
        """Become the blocks' principal components; latents get unit variance.

        `mean` has 768 values, `variances` one for every latent, `directions` is 768 x latents.
        """
        inward, outward = directions / variances.sqrt(), directions * variances.sqrt()
        for conv, weight, bias in (
            (self.encoder, inward.T, -mean @ inward),
            (self.decoder, outward, mean),
        ):
            conv.weight.zero_()
            conv.weight[:, :, -1, 1, 1] = weight
            assert conv.bias is not None
            conv.bias.copy_(bias)


def to_blocks(frames: Tensor) -> Tensor:
    """B3THW to B 768 T'H'W'; frame 0 counts four times, as in the network."""
    frames = torch.cat((frames[:, :, :1].expand(-1, -1, 3, -1, -1), frames), dim=2)
    pattern = "b c (t dt) (h dh) (w dw) -> b (c dt dh dw) t h w"
    return rearrange(frames, pattern, dt=4, dh=8, dw=8)


def from_blocks(blocks: Tensor) -> Tensor:
    """B 768 T'H'W' to B3THW."""
    pattern = "b (c dt dh dw) t h w -> b c (t dt) (h dh) (w dw)"
    return rearrange(blocks, pattern, c=3, dt=4, dh=8, dw=8)[:, :, 3:]


def surround(x: Tensor) -> Tensor:
    """Copies of the border in space, and of the first block in time."""
    x = F.pad(x, (1, 1, 1, 1, 0, 0), mode="replicate")
    return torch.cat((x[:, :, :1], x), dim=2)


def log_error(decoded: Tensor, frames: Tensor) -> Tensor:
    """Mean over clips of the logarithm of squared error: what a mean PSNR measures."""
    return (decoded - frames).square().mean(dim=(1, 2, 3, 4)).add(NEVER_BELOW).log().mean()


def components(footage: Footage, channels: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variances and directions of the blocks' largest principal components.

    Crops count by the inverse of their contrast, or a few busy ones would decide.
    """
    second, first, weights = torch.zeros(VALUES, VALUES), torch.zeros(VALUES), 0.0
    for draw in range(100):
        frames = footage.batch(CROPS, np.random.default_rng((seed, draw, 1))).frames
        for clip in to_blocks(frames)[:, :, 1:].flatten(2):
            weight = 1 / (float(clip.var(dim=1).mean()) + 1e-3)
            second += weight / clip.size(1) * clip @ clip.T
            first += weight * clip.mean(dim=1)
            weights += weight
    mean = first / weights
    variances, directions = torch.linalg.eigh((second / weights - mean.outer(mean)).double())
    return mean, variances[-channels:].float(), directions[:, -channels:].float()


def fit(
    code: LinearCode,
    footage: Footage,
    steps: int,
    rate: float,
    seed: int,
    report: Callable[[int, float], None],
) -> None:
    """Train `code` on log squared error, the rate falling to 0; `report` hears of the loss."""
    adam = torch.optim.Adam(code.parameters(), betas=(0.9, 0.99))
    for step in range(steps):
        adam.param_groups[0]["lr"] = rate * min(1, (step + 1) / 50) * (1 - step / steps)
        frames = footage.batch(CROPS, np.random.default_rng((seed, step, 2))).frames
        inner = (..., slice(8, -8), slice(8, -8))  # blocks at a crop's border lack neighbours
        loss = log_error(code(frames)[inner], frames[inner])
        adam.zero_grad()
        torch.autograd.backward(loss)
        adam.step()
        report(step, float(loss.detach()))


@torch.no_grad()
def solve(layer: CausalConv3d, outputs: slice, examples: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set some outputs of a causal 3x3x3 conv to the best ones for (input, output) examples."""
    weight, bias = layer.conv.weight, layer.conv.bias
    assert bias is not None
    size = weight[0].numel() + 1
    products, answers = torch.zeros(size, size).double(), torch.zeros(size, bias[outputs].numel())
    for given, wanted in examples:
        rows = torch.cat((neighbourhoods(given), torch.ones(wanted[:, 0].numel(), 1)), dim=1)
        products += rows.T @ rows
        answers = answers + rows.T @ rearrange(wanted, "b c t h w -> (b t h w) c")
    products.diagonal().add_(1e-4 * products.diagonal().mean())
    solution = torch.linalg.solve(products, answers.double()).float()
    weight[outputs] = solution[:-1].T.reshape(weight[outputs].shape)
    bias[outputs] = solution[-1]


def neighbourhoods(x: Tensor) -> Tensor:
    """What a causal 3x3x3 conv sees for each of its outputs: (B T H W) x (C 3 3 3)."""
    x = torch.cat((x[:, :, :1].expand(-1, -1, 2, -1, -1), x), dim=2)
    x = F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).unfold(4, 3, 1)
    return rearrange(x, "b c t h w i j k -> (b t h w) (c i j k)")
