"""Encode the sources of some clips again, and compare the stored latents with the result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from wfvae_cli.audit.compare import CLOSE, Match, channel_order, encode, match, match_scaled
from wfvae_cli.audit.entry import CacheEntry
from wfvae_cli.audit.mistakes import FILTERS, variants
from wfvae_cli.audit.sources import Reading, fit, read_frames, reading_of
from wfvae_cli.errors import InputError
from wfvae_cli.models.base import LoadedModel

_LATENTS = 3
"""Latent frames that are compared: later frames never change earlier ones."""
_OTHER_ORDER = "channels of the latents in another order"
_LIKELY, _BETTER = 0.25, 0.5
"""A mistake is named where its error is below the first, and below this part of the error of the
pixels as they should be."""


@dataclass(frozen=True)
class Comparison:
    """One clip's latents, compared with its source encoded again."""

    entry: CacheEntry
    source: Path
    found: Match
    """The best match."""
    plain: Match
    """The match with the pixels as they should be."""
    problems: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """Say it in a few words."""
        best = self.found
        match best.kind:
            case "equal":
                text = f"equal to the mean, {best.scale} ({best.error:.2%} off)"
            case "sample":
                text = f"a sample of the posterior, {best.scale} ({best.sigmas:.2f} sigma)"
            case "close":
                text = f"close to the mean, {best.scale} ({best.error:.2%} off)"
            case _:
                text = f"made from other pixels ({best.error:.0%} off)"
        if best.variant in FILTERS:
            text += f", {best.variant}"
        return "; ".join((text, *self.problems))

    def to_json(self) -> dict[str, Any]:
        """Give the fields as JSON values."""
        best = self.found
        return {
            "name": self.entry.name,
            "source": str(self.source),
            "verdict": self.verdict,
            "kind": best.kind,
            "scale": best.scale,
            "mistake": best.variant or None,
            "error": best.error,
            "sigmas": best.sigmas,
            "error_without_mistake": self.plain.error,
            "problems": list(self.problems),
        }


def compare_clip(entry: CacheEntry, source: Path, model: LoadedModel) -> Comparison:
    """Encode the first frames of a clip's source, and say what the cache holds of them.

    Raises:
        InputError: the latents or the source cannot be read.
    """
    if entry.grid is None or entry.read is None:
        raise InputError(f"{entry.name}: cannot be read")
    stored, problems = entry.read(), []
    channels = model.vae.latent_channels
    if stored.size(0) != channels and stored.size(1) == channels:
        stored = stored.transpose(0, 1)
        problems.append("channels and time of the latents transposed")
    if stored.size(0) != channels:
        raise InputError(
            f"{entry.name}: {stored.size(0)} channels, but {model.name} gives {channels}"
        )
    strides, total = model.vae.strides, stored.size(1)
    kept = total if model.vae.whole_clip_only else min(total, _LATENTS)
    reading = reading_of(entry, strides, kept)
    first = stored[:, :kept]
    frames = read_frames(source, reading.sampling, reading.first + reading.frames)
    base = fit(frames[:, reading.first :], reading.frames, reading.width, reading.height)
    if base.size(1) != reading.frames:
        raise InputError(f"{source}: has fewer frames than {entry.name} says")
    posterior = encode(model, base)
    plain = match(first, posterior, model.vae.normalization)
    # What may have been done to the latents costs no encoding; where it is certain, that is all.
    changed = plain
    if plain.kind not in ("equal", "sample"):
        changed = _search_latents(first, posterior, plain, model)
    best = changed
    if changed.kind not in ("equal", "sample"):
        clip_frames = strides.frames_of(total)
        best = _search(source, reading, base, stored, kept, clip_frames, plain, model)
        if best.kind == "far" and not best.variant:
            best = changed
    return Comparison(entry, source, best, plain, (*problems, *_problems(entry, best)))


def _search(
    source: Path,
    reading: Reading,
    base: Tensor,
    stored: Tensor,
    kept: int,
    total: int,
    plain: Match,
    model: LoadedModel,
) -> Match:
    """Try every mistake; the pixels as they should be where none is better by far."""
    best = plain
    for variant in variants(source, reading, base, total):
        seen = stored if variant.view is None else variant.view(stored)
        posterior = encode(model, variant.frames)
        seen = seen[:, :kept]
        if seen.shape != posterior[0].shape:
            continue
        found = match(seen, posterior, model.vae.normalization, variant.name)
        if found.rank < best.rank:
            best = found
        if found.kind == "equal":
            break
    is_better = best.error < _LIKELY and best.error < _BETTER * plain.error
    # Another filter is no fault, so that it needs less than a mistake to be believed.
    is_certain = best.kind in ("equal", "sample") or (
        best.kind == "close" and best.variant in FILTERS
    )
    return best if is_certain or (is_better and plain.error > CLOSE) else plain


def _search_latents(
    stored: Tensor, posterior: tuple[Tensor, Tensor], plain: Match, model: LoadedModel
) -> Match:
    """Try what may have been done to the latents: other factors, and channels in another order."""
    order = channel_order(stored, posterior[0])
    if order is not None:
        found = match(stored[order], posterior, model.vae.normalization, _OTHER_ORDER)
        if found.error < _LIKELY and found.error < _BETTER * plain.error:
            return found
    found = match_scaled(stored, posterior)
    is_better = found.kind != "far" and found.error < _BETTER * plain.error
    return found if is_better else plain


def _problems(entry: CacheEntry, best: Match) -> list[str]:
    problems = []
    if best.kind == "far" and (not best.variant or best.variant in FILTERS):
        problems.append(
            f"made from other pixels, or by other weights: {best.error:.0%} off, and no usual "
            "mistake fits"
        )
    if best.variant and best.variant not in FILTERS:
        problems.append(best.variant)
    if best.kind != "far" or best.variant:
        if entry.content == "normalised" and best.scale == "raw":
            problems.append("never normalised")
        elif entry.content == "raw" and best.scale == "normalised":
            problems.append("normalised, where raw latents are expected")
        elif best.scale not in ("normalised", "raw"):
            problems.append(best.scale)
    if best.kind == "sample" and entry.posterior == "mean":
        problems.append("a sample of the posterior, where its mean is expected")
    return problems
