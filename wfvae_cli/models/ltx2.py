"""The VAE of LTX-2 (also 2.3 and 2.5): 8x32x32, 128 channels, a decoder that looks ahead.

Written to give what diffusers' `AutoencoderKLLTX2Video` gives, whose names its weights carry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wfvae_cli.errors import UsageError, WeightsError
from wfvae_cli.latents.normalization import Normalization
from wfvae_cli.models.base import Posterior, VideoVAE
from wfvae_cli.models.config import read_normalization
from wfvae_cli.models.ltx2_config import LTX2Config, Up
from wfvae_cli.nn.conv import CausalConv3d, Chain
from wfvae_cli.nn.look_ahead import LookAheadConv3d
from wfvae_cli.nn.ltx2 import (
    FACTORS,
    BlockUpsample,
    DownLevel,
    SameLevel,
    WaitingBlock,
    plain_rms_norm,
)
from wfvae_cli.nn.pixel_shuffle import Factor, Order, channels_to_pixels, pixels_to_channels
from wfvae_cli.nn.row_bands import Footprint, in_row_bands
from wfvae_cli.nn.stream import Stream, name_layers

_PATCH_ORDER: Order = "c t w h"
_IN_BANDS = 1
"""Levels that run in row bands, of each half: those next to the frames, which are the largest."""


class Encoder(nn.Module):
    """Frames to the mean's channels and one more: a log-variance for all of them."""

    def __init__(self, config: LTX2Config) -> None:
        super().__init__()
        self.config, edges = config, config.encoder_edges
        self.patch: Factor = (1, config.patch, config.patch)
        channels = config.latent_channels
        self.conv_in = CausalConv3d(3 * config.patch**2, channels, edges=edges)
        self.down_blocks = nn.ModuleList(
            DownLevel(down.inputs, down.outputs, down.blocks, down.kind, edges=edges)
            for down in config.downs
        )
        width = config.downs[-1].outputs
        self.mid_block = SameLevel(width, config.encoder_middle, edges=edges, ahead=False)
        self.conv_out = CausalConv3d(width, channels + 1, edges=edges)

    def forward(self, frames: Tensor, stream: Stream) -> Tensor:
        """B3THW to B Z+1 T'H'W'."""
        unit = self.config.patch
        for down in self.config.downs[:_IN_BANDS]:
            unit *= 1 if down.kind is None else FACTORS[down.kind][1]
        x = in_row_bands(self._largest, frames, stream, "encoder.band", halo=self.halo, unit=unit)
        for level in self.down_blocks[_IN_BANDS:]:
            x = level(x, stream)
        x = self.mid_block(x, stream)
        y: Tensor = self.conv_out(x, stream, plain_rms_norm)
        return y

    @property
    def halo(self) -> int:
        """Rows of frames that `_largest` looks at, beyond those that its own row covers."""
        rows = 0
        for down in reversed(self.config.downs[:_IN_BANDS]):
            if down.kind is not None:
                rows = rows * FACTORS[down.kind][1] + 1
            rows += 2 * down.blocks
        return self.config.patch * (rows + 1)

    def _largest(self, frames: Tensor, stream: Stream) -> Tensor:
        x: Tensor = self.conv_in(pixels_to_channels(frames, self.patch, _PATCH_ORDER), stream)
        for level in self.down_blocks[:_IN_BANDS]:
            x = level(x, stream)
        return x


class UpLevel(nn.Module):
    """A decoder level: a channel-converting block if needed, upsampling, then residual blocks."""

    def __init__(self, up: Up, config: LTX2Config) -> None:
        super().__init__()
        edges, ahead = config.decoder_edges, config.decoder_ahead
        channels = up.inputs
        self.conv_in = Chain()
        if up.converts:
            block = WaitingBlock(channels, up.outputs, edges=edges, ahead=ahead, eps=config.eps)
            self.conv_in.append(block)
            channels = up.outputs
        self.upsamplers = Chain()
        if up.kind is not None:
            factor = FACTORS[up.kind]
            self.upsamplers.append(
                BlockUpsample(
                    channels, up.outputs, factor, residual=up.residual, edges=edges, ahead=ahead
                )
            )
        self.resnets = SameLevel(up.outputs, up.blocks, edges=edges, ahead=ahead).resnets

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Transform the next chunk, BCTHW; no frames while the first layers wait for more."""
        y: Tensor = self.upsamplers(self.conv_in(x, stream), stream)
        return self.resnets(y, stream) if y.size(2) else y


@dataclass(frozen=True)
class _Stage:
    """Part of the decoder that is given a limited number of frames at a time."""

    run: Callable[[Tensor, Stream], Tensor]
    frames: int
    """Frames of its input for every latent frame."""


class Decoder(nn.Module):
    """Latents to frames; its convs may see one frame ahead, each, and wait for it."""

    def __init__(self, config: LTX2Config) -> None:
        super().__init__()
        self.config = config
        edges, ahead = config.decoder_edges, config.decoder_ahead
        self.patch: Factor = (1, config.patch, config.patch)
        width = config.ups[0].inputs
        self.conv_in = LookAheadConv3d(config.latent_channels, width, edges=edges, ahead=ahead)
        self.mid_block = SameLevel(width, config.decoder_middle, edges=edges, ahead=ahead)
        self.up_blocks = nn.ModuleList(UpLevel(up, config) for up in config.ups)
        outputs = 3 * config.patch**2
        self.conv_out = LookAheadConv3d(config.ups[-1].outputs, outputs, edges=edges, ahead=ahead)

    def forward(self, latents: Tensor, stream: Stream) -> Tensor:
        """BZT'H'W' to B3THW, as many frames as are ready."""
        frames = self._through(self._stages(), latents, stream, latents.size(2))
        if frames is None:
            b, _, _, h, w = latents.shape
            s = self.config.strides
            return latents.new_empty(b, 3, 0, h * s.height, w * s.width)
        return frames

    def _stages(self) -> list[_Stage]:
        stages, frames = [_Stage(self._smallest, 1)], 1
        for level, up in zip(self.up_blocks, self.config.ups, strict=True):
            stages.append(_Stage(level, frames))
            frames *= 1 if up.kind is None else FACTORS[up.kind][0]
        stages[-1] = _Stage(self._in_bands, stages[-1].frames)
        return stages

    def _through(
        self, stages: list[_Stage], x: Tensor, stream: Stream, latents: int
    ) -> Tensor | None:
        """Send frames through stages, those of `latents` latent frames at a time.

        The last chunk releases the frames that all layers held back, 22 latent frames' worth in
        LTX-2: a stage that was given them together would need that much more memory.

        Returns:
            The frames that are ready; None where there are none.
        """
        if not stages:
            return x
        last, done = stream.last, []
        pieces = torch.split(x, stages[0].frames * latents, dim=2)
        for number, piece in enumerate(pieces, start=1):
            stream.last = last and number == len(pieces)
            y = stages[0].run(piece, stream)
            if y.size(2):
                frames = self._through(stages[1:], y, stream, latents)
                done += [] if frames is None else [frames]
        stream.last = last
        if len(done) > 1:
            return torch.cat(done, dim=2)
        return done[0] if done else None

    def _smallest(self, latents: Tensor, stream: Stream) -> Tensor:
        y: Tensor = self.mid_block(self.conv_in(latents, stream), stream)
        return y

    def _in_bands(self, x: Tensor, stream: Stream) -> Tensor:
        return in_row_bands(self._largest, x, stream, "decoder.band", halo=self.halo)

    def _largest(self, x: Tensor, stream: Stream) -> Tensor:
        """Decode the last level and the layers behind it to pixels."""
        x = self.conv_out(self.up_blocks[-1](x, stream), stream, plain_rms_norm)
        return channels_to_pixels(x, self.patch, _PATCH_ORDER)

    @property
    def halo(self) -> int:
        """Rows beyond its own that a row of the last level's input needs."""
        up = self.config.ups[-1]
        rows = 1 + 2 * up.blocks
        if up.kind is not None:
            rows = -(-rows // FACTORS[up.kind][1]) + 1
        return rows + 2 * up.converts


class LTX2VAE(VideoVAE):
    """The VAE of LTX-2. Its latents' mean and std come with the weights."""

    family = "ltx2"
    statistics = ("latents_mean", "latents_std")

    def __init__(self, config: LTX2Config) -> None:
        super().__init__()
        self.config = config
        self.strides = config.strides
        self.latent_channels = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        widest = max(config.latent_channels, config.ups[-1].outputs) / config.patch**2
        self.peak_values_per_pixel = 9.0 * widest
        halo = max(self.encoder.halo, self.decoder.halo * config.pixels_per_row)
        self.footprint = Footprint(
            9.0 * widest, 68.0 * widest, 84.0 * widest, 8 + 3.0 * widest, halo
        )
        name_layers(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> LTX2VAE:
        """Build the network of a `config.json` that diffusers wrote.

        A mean and std that the config gives, as `wfvae stats` writes them, stand above the
        weights'.
        """
        vae = cls(LTX2Config.parse(config))
        if config.get("latents_mean") is not None:
            vae.normalization = read_normalization(config, vae.latent_channels)
        return vae

    @classmethod
    def rename(cls, names: Iterable[str]) -> dict[str, str]:
        """Map diffusers' names."""
        return {name: _rename(name) for name in names}

    def use_statistics(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the latents' mean and std from the checkpoint, unless the config gave them.

        Raises:
            WeightsError: they are missing, of another length, or a std is not positive.
        """
        if self.normalization is not None:
            return
        missing = [name for name in self.statistics if name not in tensors]
        if missing:
            raise WeightsError(f"the weights lack {', '.join(missing)}, their latents' statistics")
        mean, std = (tensors[name].double() for name in self.statistics)
        if not (mean.shape == std.shape == (self.latent_channels,) and bool((std > 0).all())):
            raise WeightsError(
                f"latents_mean and latents_std in the weights: expected {self.latent_channels} "
                f"values, and every std > 0; got {tuple(mean.shape)} and {tuple(std.shape)}"
            )
        scale = self.config.scaling_factor / std
        self.normalization = Normalization(tuple(mean.tolist()), tuple(scale.tolist()))

    def _encode(self, frames: Tensor, stream: Stream) -> Posterior:
        mean, logvar = self.encoder(frames, stream).split([self.latent_channels, 1], dim=1)
        return Posterior(mean, logvar.clamp(-30.0, 20.0).expand_as(mean))

    def _decode(self, latents: Tensor, stream: Stream) -> Tensor:
        _, _, _, h, w = latents.shape
        if self.config.decoder_edges == "reflect" and min(h, w) < 2:
            s = self.strides
            raise UsageError(
                "this model's decoder mirrors the picture at its edges, so it needs at least 2 "
                f"rows and columns of latents ({2 * s.height}x{2 * s.width} pixels), got {h}x{w}"
            )
        frames: Tensor = self.decoder(latents, stream)
        return frames


def _rename(name: str) -> str:
    """Turn a name of diffusers' layout into this module's."""
    half, _, rest = name.partition(".up_blocks.")
    level, _, layer = rest.partition(".conv_in.")
    if layer:
        name = f"{half}.up_blocks.{level}.conv_in.0.{layer}"
    return name.replace(".conv_shortcut.", ".conv_shortcut.conv.")
