"""Comparing stored latents with the posterior of the pixels that they should have come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from wfvae_cli.models.base import LoadedModel, Normalization
from wfvae_cli.nn.stream import Stream

Kind = Literal["equal", "sample", "close", "far"]
_ORDER: tuple[Kind, ...] = ("equal", "sample", "close", "far")

COMPUTE_NOISE = 3e-4
"""Relative error between two float32 implementations of one encoder."""
CLOSE = 0.05
"""Relative error that an encoder in lower precision, or another resizing filter, explains."""
_SIGMA_RANGE = (0.85, 1.15)
_SIGMA_MEAN = 0.15


@dataclass(frozen=True)
class Match:
    """How near stored latents are to one posterior, after what was done to it."""

    variant: str
    """What was done to the pixels; empty for nothing."""
    scale: str
    """What was done to the latents: a key of `hypotheses.HYPOTHESES`."""
    kind: Kind
    error: float
    """Root mean square of the difference, over the deviation of the mean within its channels."""
    sigmas: float
    """Root mean square of the difference in the posterior's own standard deviations."""

    @property
    def rank(self) -> tuple[int, float]:
        """Smaller for better matches."""
        return _ORDER.index(self.kind), self.error


def encode(model: LoadedModel, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Encode `[3, T, H, W]` in [-1, 1].

    Returns:
        The posterior's mean and standard deviation, `[C, T', H', W']`, float32 on the CPU.
    """
    with torch.inference_mode():
        posterior = model.vae.encode(frames[None].to(model.device, model.dtype), Stream.whole())
        mean, logvar = posterior.mean[0].float().cpu(), posterior.logvar[0].float().cpu()
    return mean, torch.exp(0.5 * logvar)


def match(
    stored: Tensor,
    posterior: tuple[Tensor, Tensor],
    normalization: Normalization | None,
    variant: str = "",
) -> Match:
    """Find what was done to a posterior's mean that comes nearest to stored latents.

    Args:
        stored: `[C, T, H, W]` in the dtype that it is stored in, which decides the tolerance.
        posterior: mean and standard deviation of the same shape.
        normalization: of the model.
        variant: what was done to the pixels.
    """
    mean, sigma = posterior
    one = torch.ones(mean.size(0), 1, 1, 1)
    candidates = {"raw": (mean, one)}
    if normalization is not None:
        scale = mean.new_tensor(normalization.scale).view(-1, 1, 1, 1)
        once = normalization.apply(mean)
        candidates["normalised"] = (once, scale)
        candidates["normalised twice"] = (normalization.apply(once), scale**2)
        candidates["undone twice"] = (normalization.undo(mean), 1 / scale)
    found = [
        _compare(stored, expected, sigma * gain.abs(), variant, name)
        for name, (expected, gain) in candidates.items()
    ]
    return min(found, key=lambda each: each.rank)


def _compare(stored: Tensor, expected: Tensor, sigma: Tensor, variant: str, scale: str) -> Match:
    difference = stored.float() - expected
    spread = _rms(expected - expected.mean(dim=(1, 2, 3), keepdim=True)).clamp(min=1e-12)
    error = _rms(difference)
    # Half a unit in the last place of each number, and what rounding within the encoder adds.
    rounding = 0.5 * torch.finfo(stored.dtype).eps * _rms(expected)
    in_sigmas = difference / sigma.clamp(min=1e-12)
    sigmas, offset = float(_rms(in_sigmas)), abs(float(in_sigmas.mean()))
    if error <= rounding + COMPUTE_NOISE * spread:
        kind: Kind = "equal"
    elif _SIGMA_RANGE[0] <= sigmas <= _SIGMA_RANGE[1] and offset < _SIGMA_MEAN:
        kind = "sample"
    else:
        kind = "close" if error <= CLOSE * spread else "far"
    return Match(variant, scale, kind, float(error / spread), sigmas)


def _rms(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()
