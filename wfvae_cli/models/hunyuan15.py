"""The VAE of HunyuanVideo 1.5: 16x16x4, 32 channels, attention over all earlier frames.

Written to give what diffusers' `AutoencoderKLHunyuanVideo15` gives. Its weights are published in
two layouts of names, the original (`AutoencoderKLConv3D`) and diffusers'; `rename` knows both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from wfvae_cli.errors import WeightsError
from wfvae_cli.models.base import Posterior, VideoVAE
from wfvae_cli.models.config import choice, count, counts, read_normalization
from wfvae_cli.nn.hunyuan15 import (
    Level,
    ShuffleDownsample,
    ShuffleUpsample,
    middle,
    replicating_conv,
)
from wfvae_cli.nn.norm import make_norm
from wfvae_cli.nn.pixel_shuffle import grouped_means
from wfvae_cli.nn.row_bands import Footprint, in_row_bands
from wfvae_cli.nn.stream import Stream, name_layers
from wfvae_cli.strides import Strides

_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 32,
    "block_out_channels": [128, 256, 512, 1024, 1024],
    "layers_per_block": 2,
    "spatial_compression_ratio": 16,
    "temporal_compression_ratio": 4,
    "downsample_match_channel": True,
    "upsample_match_channel": True,
    "scaling_factor": 1.03682,
}
"""Defaults in diffusers of fields that a config leaves out."""
_ORIGINAL_FIELDS = {
    "ffactor_spatial": "spatial_compression_ratio",
    "ffactor_temporal": "temporal_compression_ratio",
}
"""The original's spelling, to diffusers'."""


@dataclass(frozen=True)
class Hunyuan15Config:
    """The fields of a `config.json` that shape the network."""

    latent_channels: int
    widths: tuple[int, ...]
    """Channels of each level, from the frames inwards."""
    blocks: int
    """Residual blocks of an encoder level; a decoder level has one more."""
    space_steps: int
    """Number of levels that halve height and width, from the frames inwards."""
    time_steps: int
    """Number of these levels, the last ones, that halve time as well."""
    down_match: bool
    """True where a level's downsampling already outputs the next level's channels."""
    up_match: bool
    """True where a level's upsampling already outputs the next level's channels."""

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> Hunyuan15Config:
        """Read a `config.json` with its defaults filled in.

        Raises:
            WeightsError: a field has a value that is not supported, or two contradict each other.
        """
        flags = {True: True, False: False}
        choice(config, "in_channels", {3: 3})
        choice(config, "out_channels", {3: 3})
        parsed = cls(
            latent_channels=count(config, "latent_channels"),
            widths=counts(config, "block_out_channels"),
            blocks=count(config, "layers_per_block"),
            space_steps=_exponent(config, "spatial_compression_ratio"),
            time_steps=_exponent(config, "temporal_compression_ratio"),
            down_match=choice(config, "downsample_match_channel", flags),
            up_match=choice(config, "upsample_match_channel", flags),
        )
        parsed._check()
        return parsed

    def _check(self) -> None:
        if self.time_steps > self.space_steps or self.space_steps >= len(self.widths):
            raise WeightsError(
                f"config.json contradicts itself: {len(self.widths)} levels in block_out_channels "
                f"cannot halve space {self.space_steps} times, and time {self.time_steps} of these"
            )
        z, innermost = self.latent_channels, self.widths[-1]
        steps = [
            *(("down", into, out, time) for into, out, time in self.downsampling()),
            *(("up", out, into, time) for into, out, time in self.upsampling()),
        ]
        for _, fine, coarse, time in steps:
            factor = 8 if time else 4
            # Groups of a first frame's channels are half as large: it is not halved in time.
            if coarse % factor or 4 * fine % coarse:
                raise WeightsError(
                    f"config.json: block_out_channels = {list(self.widths)} cannot be resampled: "
                    f"{factor} pixels of {fine} channels do not make groups of {coarse}"
                )
        if innermost % (2 * z):
            raise WeightsError(
                f"config.json: expected the last of block_out_channels, {innermost}, to be a "
                f"multiple of twice the {z} latent_channels"
            )

    def downsampling(self) -> list[tuple[int, int, bool]]:
        """Channels in, channels out, and whether time is halved, of each downsampling."""
        return [
            (
                self.widths[i],
                self.widths[i + 1] if self.down_match else self.widths[i],
                i >= self.space_steps - self.time_steps,
            )
            for i in range(self.space_steps)
        ]

    def upsampling(self) -> list[tuple[int, int, bool]]:
        """Channels in, channels out, and whether time is doubled, of each upsampling."""
        widths = self.widths[::-1]
        return [
            (widths[i], widths[i + 1] if self.up_match else widths[i], i < self.time_steps)
            for i in range(self.space_steps)
        ]


def _exponent(config: Mapping[str, Any], key: str) -> int:
    """Return the exponent of the power of two at `key`."""
    value = count(config, key)
    if value & (value - 1):
        raise WeightsError(f"config.json: expected {key} to be a power of 2, got {value}")
    return value.bit_length() - 1


class Encoder(nn.Module):
    """Frames to moments."""

    def __init__(self, config: Hunyuan15Config) -> None:
        super().__init__()
        self.config = config
        self.conv_in = replicating_conv(3, config.widths[0])
        steps = config.downsampling()
        levels, channels = [], config.widths[0]
        for i, width in enumerate(config.widths):
            step = ShuffleDownsample(*steps[i]) if i < len(steps) else None
            levels.append(Level(channels, width, config.blocks, step))
            channels = steps[i][1] if i < len(steps) else width
        self.down_blocks = nn.ModuleList(levels)
        self.mid_block = middle(channels)
        self.norm_out = make_norm("rms", channels, dims=3)
        self.conv_out = replicating_conv(channels, 2 * config.latent_channels)

    def forward(self, frames: Tensor, stream: Stream) -> Tensor:
        """B3THW to B 2Z T'H'W'."""
        unit = 2**self.config.space_steps
        x = in_row_bands(self._halve, frames, stream, "encoder.band", halo=self.halo, unit=unit)
        for level in self.down_blocks[self.config.space_steps :]:
            x = level(x, stream)
        x = self.mid_block(x, stream)
        y: Tensor = self.conv_out(x, stream, self.norm_out)
        return y + grouped_means(x, 2 * self.config.latent_channels)

    @property
    def halo(self) -> int:
        """Rows of frames beyond a latent row's own that `_halve` looks at."""
        rows = 0
        for _ in range(self.config.space_steps):
            rows = 2 * rows + 1 + 2 * self.config.blocks
        return rows + 1

    def _halve(self, frames: Tensor, stream: Stream) -> Tensor:
        """Encode frames up to the backbone at the latents' size."""
        x: Tensor = self.conv_in(frames, stream)
        for level in self.down_blocks[: self.config.space_steps]:
            x = level(x, stream)
        return x


class Decoder(nn.Module):
    """Latents to frames."""

    def __init__(self, config: Hunyuan15Config) -> None:
        super().__init__()
        self.config = config
        widths, steps = config.widths[::-1], config.upsampling()
        channels = widths[0]
        self.conv_in = replicating_conv(config.latent_channels, channels)
        self.mid_block = middle(channels)
        levels = []
        for i, width in enumerate(widths):
            step = ShuffleUpsample(*steps[i]) if i < len(steps) else None
            levels.append(Level(channels, width, config.blocks + 1, step))
            channels = steps[i][1] if i < len(steps) else width
        self.up_blocks = nn.ModuleList(levels)
        self.norm_out = make_norm("rms", channels, dims=3)
        self.conv_out = replicating_conv(channels, 3)

    def forward(self, latents: Tensor, stream: Stream) -> Tensor:
        """BZT'H'W' to B3THW."""
        x = self.conv_in(latents, stream)
        x = x + latents.repeat_interleave(x.size(1) // latents.size(1), dim=1)
        x = self.mid_block(x, stream)
        x = self._own_level.resnets(x, stream)
        return in_row_bands(self._double, x, stream, "decoder.band", halo=self.halo)

    @property
    def _own_level(self) -> Level:
        """The level of the latents' size."""
        level = self.up_blocks[0]
        assert isinstance(level, Level)
        return level

    @property
    def halo(self) -> int:
        """Rows beyond a latent row's own that `_double` looks at."""
        rows = 1
        for level in range(len(self.config.widths) - 1, 0, -1):
            rows += 2 * (self.config.blocks + 1)
            if level <= self.config.space_steps:
                rows = -(-rows // 2) + 1
        return rows

    def _double(self, x: Tensor, stream: Stream) -> Tensor:
        """Backbone at the latents' size to frames: all that comes after its own blocks."""
        if self._own_level.resample is not None:
            x = self._own_level.resample(x, stream)
        for level in self.up_blocks[1:]:
            x = level(x, stream)
        y: Tensor = self.conv_out(x, stream, self.norm_out)
        return y


class Hunyuan15VAE(VideoVAE):
    """The VAE of HunyuanVideo 1.5.

    Its attention sees all earlier frames, so their keys and values stay in the stream: encoding and
    decoding each keep `state_growth_per_latent` numbers more with every latent frame, at each of
    its positions. At full width these are 2048: 2 MiB a latent frame of 256x256 in float32, 14 MiB
    of 1280x720 in bfloat16. An offloaded stream keeps them on the host.
    """

    family = "hunyuanvideo15"

    def __init__(self, config: Hunyuan15Config) -> None:
        super().__init__()
        space = 2**config.space_steps
        self.strides = Strides(2**config.time_steps, space, space)
        self.latent_channels = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.state_growth_per_latent = 2 * config.widths[-1]
        widest = config.widths[0]  # for each pixel, as further in there are fewer of these
        self.peak_values_per_pixel = 10.0 * widest
        halo = max(self.encoder.halo, space * self.decoder.halo)
        self.footprint = Footprint(
            10.0 * widest, 22.0 * widest, 32.0 * widest, 8 + 0.5 * widest, halo
        )
        name_layers(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Hunyuan15VAE:
        """Build the network of a `config.json`, in diffusers' spelling or the original's."""
        given = {_ORIGINAL_FIELDS.get(key, key): value for key, value in config.items()}
        config = {**_DEFAULTS, **given}
        vae = cls(Hunyuan15Config.parse(config))
        vae.normalization = read_normalization(config, vae.latent_channels)
        return vae

    @classmethod
    def rename(cls, names: Iterable[str]) -> dict[str, str]:
        """Map the names of either published layout."""
        return {name: _rename(name) for name in names}

    def _encode(self, frames: Tensor, stream: Stream) -> Posterior:
        return Posterior.from_moments(self.encoder(frames, stream))

    def _decode(self, latents: Tensor, stream: Stream) -> Tensor:
        frames: Tensor = self.decoder(latents, stream)
        return frames


_RENAMES = tuple(
    (re.compile(pattern), ours)
    for pattern, ours in (
        # The original layout, to diffusers'
        (r"\.(down|up)\.(\d+)\.block\.", r".\1_blocks.\2.resnets."),
        (r"\.(down|up)\.(\d+)\.(down|up)sample\.", r".\1_blocks.\2.\3samplers.0."),
        (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
        (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
        (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
        # diffusers' layout, to this module's
        (r"\.(down|up)samplers\.0\.", ".resample."),
        (r"\.mid_block\.resnets\.0\.", ".mid_block.0."),
        (r"\.mid_block\.attentions\.0\.(?:to_)?(q|k|v|proj_out)\.", r".mid_block.1.\1.conv."),
        (r"\.mid_block\.attentions\.0\.", ".mid_block.1."),
        (r"\.mid_block\.resnets\.1\.", ".mid_block.2."),
        (r"\.(?:conv|nin)_shortcut\.", ".nin_shortcut.conv."),
    )
)
"""Each is applied in turn."""


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name
