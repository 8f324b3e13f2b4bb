"""The VAE of CogVideoX (arXiv 2408.06072), run by diffusers in its publishers' batches.

Its definition is how it is run: 9 frames, then 8 and 8, each batch with a cache of its convs'
inputs, and with GroupNorm over the batch alone. So chunks of whole batches give what the whole
clip gives, the cache lies in the clip's stream, and memory does not grow with length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from wfvae_cli.errors import UsageError
from wfvae_cli.models.base import Posterior
from wfvae_cli.models.diffusers import DiffusersVAE
from wfvae_cli.nn.stream import Stream

_CACHED = 2
"""Frames that a conv needs of the past. The cache holds other numbers too, which nothing reads."""


class CogVideoXVAE(DiffusersVAE):
    """A diffusers `AutoencoderKLCogVideoX`.

    A clip that is no whole number of batches is padded with its last frame, or latent frame, and
    what comes of the padding alone is dropped; diffusers itself takes no such clip.
    """

    chunk_unit = 2

    def encode(self, frames: Tensor, stream: Stream) -> Posterior:
        """Encode the next chunk of a clip: see `VideoVAE.encode`.

        Raises:
            UsageError: also, the chunk is no whole number of batches and not the last.
        """
        self._check_batches(frames, stream, self.strides.time * self.chunk_unit, "frames")
        return super().encode(frames, stream)

    def decode(self, latents: Tensor, stream: Stream) -> Tensor:
        """Decode the next chunk of a clip's latents: see `VideoVAE.decode`.

        Raises:
            UsageError: also, the chunk is no whole number of batches and not the last.
        """
        self._check_batches(latents, stream, self.chunk_unit, "latent frames")
        return super().decode(latents, stream)

    def _check_batches(self, x: Tensor, stream: Stream, size: int, what: str) -> None:
        count = x.size(2)
        whole = (count - stream.first) % size == 0 and (count > 1 or not stream.first)
        if not (whole or stream.last):
            form = f"1 + {size}k {what} first" if stream.first else f"{size}k {what} next"
            raise UsageError(f"expected {form} in this stream, since more follow, got {count}")

    def _encode(self, frames: Tensor, stream: Stream) -> Posterior:
        count = -(-frames.size(2) // self.strides.time)
        parts = self._in_batches("encoder", frames, stream, self.strides.time * self.chunk_unit)
        convolve = self.autoencoder.quant_conv
        moments = torch.cat([part if convolve is None else convolve(part) for part in parts], dim=2)
        return Posterior.from_moments(moments[:, :, :count])

    def _decode(self, latents: Tensor, stream: Stream) -> Tensor:
        count = self.strides.time * latents.size(2) - (self.strides.time - 1) * stream.first
        convolve = self.autoencoder.post_quant_conv
        x = latents if convolve is None else convolve(latents)
        frames = torch.cat(list(self._in_batches("decoder", x, stream, self.chunk_unit)), dim=2)
        return frames[:, :, :count]

    def _in_batches(self, half: str, x: Tensor, stream: Stream, size: int) -> Iterator[Tensor]:
        """Send a chunk, padded, through one half of the network in batches of `size`."""
        missing = -(x.size(2) - stream.first) % size
        x = torch.cat((x, *[x[:, :, -1:]] * missing), dim=2).contiguous()
        network, frames = getattr(self.autoencoder, half), x.size(2)
        for begin, end in pairwise((0, *range(size + stream.first, frames, size), frames)):
            y, cache = network(x[:, :, begin:end], conv_cache=_nested(stream, half))
            for key in [key for key in stream.past if key.startswith(f"{half}/")]:
                del stream.past[key]
            stream.past.update(_flat(cache, half))
            yield y


def _nested(stream: Stream, half: str) -> dict[str, Any] | None:
    """The cache as diffusers passes it from batch to batch; None at a clip's start."""
    cache: dict[str, Any] = {}
    for key, tail in stream.past.items():
        first, *path, leaf = key.split("/")
        if first == half:
            inner = cache
            for name in path:
                inner = inner.setdefault(name, {})
            inner[leaf] = tail
    return cache or None


def _flat(cache: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of such a cache that a later batch will read, as a stream holds them."""
    for name, value in cache.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}/{name}")
        elif value is not None and value.size(2) == _CACHED:
            yield f"{prefix}/{name}", value
