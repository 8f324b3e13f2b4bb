"""Comparison of stored latents with the posterior of the pixels they should have come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from wfvae_cli.audit.hypotheses import STABLE_DIFFUSION
from wfvae_cli.latents.normalization import Normalization
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.nn.stream import Stream

Kind = Literal["equal", "sample", "close", "far"]
_ORDER: tuple[Kind, ...] = ("equal", "sample", "close", "far")

COMPUTE_NOISE = 3e-4
"""Relative error between two float32 implementations of one encoder."""
CLOSE = 0.05
"""Relative error that an encoder in lower precision, or another resizing filter, explains."""
_SIGMAS = (0.85, 1.15)
_SIGMAS_OF_CHANNEL = (0.5, 1.6)
_CORRELATION = 0.2
"""Limits within which a difference is noise, not an error of its size: on the root mean square in
sigmas, of all and of each channel; on the correlation between neighbours, and with the mean."""


@dataclass(frozen=True)
class Match:
    """Distance of stored latents from one posterior, with one mistake or none applied to it."""

    variant: str
    """Mistake applied to the pixels; empty for none."""
    scale: str
    """Operation applied to the latents: a key of `hypotheses.HYPOTHESES`, one without the shift, or
    a factor that was fitted."""
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
        posterior = model.vae.encode(
            frames[None].to(model.device, model.dtype_of("encode")), Stream.whole()
        )
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
        candidates["divided by scale"] = ((once / scale**2), 1 / scale)
        candidates["normalised without the shift"] = (mean * scale, scale)
        candidates["normalised without the scale"] = (once / scale, one)
    candidates["scaled by 0.18215"] = (STABLE_DIFFUSION * mean, STABLE_DIFFUSION * one)
    found = [
        _compare(stored, expected, sigma * gain.abs(), variant, name)
        for name, (expected, gain) in candidates.items()
    ]
    # Where several are equal within rounding, as where a shift is 0, the first one is meant.
    return min(found, key=lambda each: (each.rank[0], each.kind != "equal" and each.error))


def match_scaled(stored: Tensor, posterior: tuple[Tensor, Tensor]) -> Match:
    """Compare stored latents with a mean whose scale is fitted: one factor, or each channel's own.

    For latents that nothing else explains: a shift and a scale that are fitted always come nearer.
    """
    mean, sigma = posterior
    seen = stored.float()
    factor = (seen * mean).sum() / mean.square().sum().clamp(min=1e-12)
    name = f"scaled by {float(factor):.4g}"
    found = _compare(stored, factor * mean, sigma * factor.abs(), "", name)
    if found.kind != "far":
        return found
    centred, own = _centred(mean), _centred(seen)
    size = centred.square().sum(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    gain = (own * centred).sum(dim=(1, 2, 3), keepdim=True) / size
    expected = seen.mean(dim=(1, 2, 3), keepdim=True) + gain * centred
    name = "normalised with another shift and scale"
    return _compare(stored, expected, sigma * gain.abs(), "", name)


def channel_order(stored: Tensor, mean: Tensor) -> Tensor | None:
    """Find the order that brings the channels of stored latents to those of a mean.

    Returns:
        Indices of stored channels; None where each is best explained by its own, or several are by
        the same.
    """
    rows = [_centred(each.float()).flatten(1) for each in (mean, stored)]
    unit = [row / row.norm(dim=1, keepdim=True).clamp(min=1e-12) for row in rows]
    best = (unit[0] @ unit[1].T).abs().argmax(dim=1)
    usual = torch.arange(best.numel())
    is_other = torch.equal(best.sort().values, usual) and not torch.equal(best, usual)
    return best if is_other else None


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(dim=(1, 2, 3), keepdim=True)


def _compare(stored: Tensor, expected: Tensor, sigma: Tensor, variant: str, scale: str) -> Match:
    difference = stored.float() - expected
    spread = _rms(_centred(expected)).clamp(min=1e-12)
    error = _rms(difference)
    # Half a unit in the last place of each number, and what rounding within the encoder adds.
    rounding = 0.5 * torch.finfo(precision_of(stored)).eps * _rms(expected)
    in_sigmas = difference / sigma.clamp(min=1e-12)
    sigmas = float(_rms(in_sigmas))
    if error <= rounding + COMPUTE_NOISE * spread:
        kind: Kind = "equal"
    elif _is_noise(in_sigmas, expected):
        kind = "sample"
    else:
        kind = "close" if error <= CLOSE * spread else "far"
    return Match(variant, scale, kind, float(error / spread), sigmas)


def precision_of(stored: Tensor) -> torch.dtype:
    """Return the coarsest dtype that holds all these numbers: some caches store rounded ones."""
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal(stored.to(dtype).to(stored.dtype), stored):
            return dtype
    return stored.dtype


def _is_noise(in_sigmas: Tensor, mean: Tensor) -> bool:
    """Return True where a difference, in sigmas, looks like independent standard normal numbers."""
    of_channel = in_sigmas.flatten(1).square().mean(1).sqrt()
    centred = _centred(mean)
    correlations = (
        in_sigmas.mean(),
        _correlation(in_sigmas[..., 1:], in_sigmas[..., :-1]),
        _correlation(in_sigmas[..., 1:, :], in_sigmas[..., :-1, :]),
        _correlation(in_sigmas, centred),
    )
    low, high = _SIGMAS_OF_CHANNEL
    limit = max(
        _CORRELATION, 3 / in_sigmas.numel() ** 0.5
    )  # of few numbers chance alone makes some
    return (
        _SIGMAS[0] <= float(_rms(in_sigmas)) <= _SIGMAS[1]
        and low <= float(of_channel.min())
        and float(of_channel.max()) <= high
        and all(abs(float(each)) < limit for each in correlations)
    )


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """Return the correlation of numbers whose mean is about zero; 0 where there are none."""
    if not one.numel():
        return one.new_zeros(())
    return (one * other).mean() / (_rms(one) * _rms(other)).clamp(min=1e-12)


def _rms(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()
