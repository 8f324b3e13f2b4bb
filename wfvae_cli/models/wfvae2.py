"""WF-VAE, second generation: `WFVAE2Model` of the published configs, for video and for images.

The same pieces as in the first (arXiv 2411.17459) with the levels spelt out: any number of them,
each halving space alone or space and time. The image form has every piece in two dimensions, and
a video goes through it frame by frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wfvae_cli.errors import WeightsError
from wfvae_cli.models.base import Posterior, VideoVAE
from wfvae_cli.models.config import MOST_BLOCKS, choice, choices, count, counts, read_normalization
from wfvae_cli.nn.blocks import FrameAttention, ResidualBlock, make_conv
from wfvae_cli.nn.conv import Chain, FrameConv2d
from wfvae_cli.nn.haar import (
    causal_haar_3d,
    haar_2d,
    inverse_causal_haar_3d,
    inverse_haar_2d,
    published_filter,
)
from wfvae_cli.nn.norm import NormType, make_norm, silu
from wfvae_cli.nn.resample import (
    SpaceDownsample,
    SpaceTimeDownsample,
    SpaceTimeUpsample,
    SpaceUpsample,
    TimeInterpolation,
)
from wfvae_cli.nn.row_bands import Footprint, in_row_bands
from wfvae_cli.nn.stream import Stream, align, name_layers
from wfvae_cli.strides import Strides

Dims = Literal[2, 3]
"""Dimensions of a layer: 2 for separate frames, 3 with time."""


@dataclass(frozen=True)
class WFVAE2Config:
    """The fields of a published `config.json` that shape the network."""

    latent_dim: int
    input_dims: Dims
    """3 for video, 2 for the image form."""
    encoder_channels: tuple[int, ...]
    """Widths from the frames inwards, one more than there are levels."""
    decoder_channels: tuple[int, ...]
    level_dims: tuple[Dims, ...]
    """3 where a level halves time as well as space; from the frames inwards."""
    block_dims: tuple[Dims, ...]
    """Dimensions of each level's residual blocks."""
    middle: tuple[tuple[Literal["residual", "attention"], Dims], ...]
    encoder_blocks: int
    decoder_blocks: int
    encoder_energy_flow: int
    decoder_energy_flow: int
    norm: NormType
    interpolation: TimeInterpolation

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> WFVAE2Config:
        """Read a `config.json`."""
        inputs: dict[str, Dims] = {"video": 3, "image": 2}
        norms: dict[str, NormType] = {"layernorm": "layernorm", "groupnorm": "groupnorm"}
        modes: dict[str, TimeInterpolation] = {"nearest": "nearest", "trilinear": "trilinear"}
        input_dims = choice(config, "input_type", inputs)
        levels: dict[str, Dims] = {"hw": 2, "thw": 3}
        blocks: dict[str, Dims] = {"ResnetBlock2D": 2, "ResnetBlock3D": 3}
        # AttnBlock3D has the tensors of AttnBlock3DFix but mixes frames into the pixel axis.
        middle: dict[str, tuple[Literal["residual", "attention"], Dims]] = {
            "ResnetBlock2D": ("residual", 2),
            "ResnetBlock3D": ("residual", 3),
            "AttnBlock2D": ("attention", 2),
            "AttnBlock3DFix": ("attention", 3),
        }
        separate = config.get("decoder_base_channels") is not None
        parsed = cls(
            latent_dim=count(config, "latent_dim"),
            input_dims=input_dims,
            encoder_channels=counts(config, "base_channels"),
            decoder_channels=counts(
                config, "decoder_base_channels" if separate else "base_channels"
            ),
            level_dims=choices(config, "layer_type", levels),
            block_dims=choices(config, "layer_res_type", blocks),
            middle=choices(config, "mid_layers_type", middle),
            encoder_blocks=count(config, "encoder_num_resblocks", most=MOST_BLOCKS),
            decoder_blocks=count(config, "decoder_num_resblocks", least=2, most=MOST_BLOCKS),
            encoder_energy_flow=count(config, "encoder_energy_flow_size"),
            decoder_energy_flow=count(config, "decoder_energy_flow_size"),
            norm=choice(config, "norm_type", norms),
            interpolation=choice(config, "t_interpolation", modes),
        )
        parsed._check()
        return parsed

    def _check(self) -> None:
        levels = len(self.level_dims)
        lengths = {
            "layer_res_type": (len(self.block_dims), levels),
            "base_channels": (len(self.encoder_channels), levels + 1),
            "decoder_base_channels": (len(self.decoder_channels), levels + 1),
        }
        for key, (got, expected) in lengths.items():
            if got != expected:
                raise WeightsError(
                    f"config.json contradicts itself: {levels} levels in layer_type need "
                    f"{expected} values in {key}, got {got}"
                )
        inner = (*self.level_dims, *self.block_dims, *(dims for _, dims in self.middle))
        if self.input_dims == 2 and 3 in inner:
            raise WeightsError(
                "config.json contradicts itself: input_type = 'image' has no time, but "
                "layer_type, layer_res_type or mid_layers_type names a layer of 3 dimensions"
            )

    @property
    def spans_time(self) -> bool:
        """True where a norm takes statistics over all frames of a clip."""
        return self.norm == "groupnorm" and self.input_dims == 3


class DownBlock(nn.Module):
    """A level of the encoder: the next wavelet bands join the backbone (energy flow)."""

    def __init__(self, config: WFVAE2Config, level: int) -> None:
        super().__init__()
        inputs, outputs = config.encoder_channels[level : level + 2]
        dims, norm = config.block_dims[level], config.norm
        self.level_dims = config.level_dims[level]
        self.in_flow_conv = FrameConv2d(
            _bands(self.level_dims), config.encoder_energy_flow, 3, padding=1
        )
        self.res_block = Chain(
            *(ResidualBlock(dims, inputs, inputs, norm) for _ in range(config.encoder_blocks - 1))
        )
        halve = SpaceTimeDownsample if self.level_dims == 3 else SpaceDownsample
        self.down: nn.Module = halve(inputs)
        self.out_res_block = ResidualBlock(dims, inputs + config.encoder_energy_flow, outputs, norm)

    def forward(self, x: Tensor, bands: Tensor, stream: Stream) -> tuple[Tensor, Tensor]:
        """Backbone and bands of the level above to those of this level."""
        x = self.down(self.res_block(x, stream), stream)
        bands = _analyse(bands[:, :3], self.level_dims, stream)
        x = torch.cat((x, self.in_flow_conv(bands)), dim=1)
        return self.out_res_block(x, stream), bands


class UpBlock(nn.Module):
    """A level of the decoder: its branch's channels become the wavelet bands of a low band."""

    def __init__(self, config: WFVAE2Config, level: int) -> None:
        super().__init__()
        outputs, inputs = config.decoder_channels[level : level + 2]
        dims, norm, e = config.block_dims[level], config.norm, config.decoder_energy_flow
        self.level = level
        self.energy_flow = e
        self.level_dims = config.level_dims[level]
        self.branch_conv = ResidualBlock(self.level_dims, inputs, inputs + e, norm)
        self.out_flow_conv = Chain(
            ResidualBlock(self.level_dims, e, e, norm),
            FrameConv2d(e, _bands(self.level_dims), 3, padding=1),
        )
        self.res_block = Chain(
            *(ResidualBlock(dims, inputs, inputs, norm) for _ in range(config.decoder_blocks - 2))
        )
        self.up = (
            SpaceTimeUpsample(inputs, config.interpolation)
            if self.level_dims == 3
            else SpaceUpsample(inputs)
        )
        self.out_res_block = ResidualBlock(dims, inputs, outputs, norm)

    def forward(self, x: Tensor, low: Tensor | None, stream: Stream) -> tuple[Tensor, Tensor]:
        """Backbone and low band of the level below to those of this level."""
        x = self.branch_conv(x, stream)
        bands = self.out_flow_conv(x[:, -self.energy_flow :], stream)
        if low is not None:
            _add_low(bands, low, f"decoder.low{self.level + 1}", stream)
        low = _synthesise(bands, self.level_dims, stream)
        x = self.up(self.res_block(x[:, : -self.energy_flow], stream), stream)
        return self.out_res_block(x, stream), low


class Encoder(nn.Module):
    """Frames to moments."""

    def __init__(self, config: WFVAE2Config) -> None:
        super().__init__()
        self.input_dims = config.input_dims
        self.blocks = config.encoder_blocks
        first, last = config.encoder_channels[0], config.encoder_channels[-1]
        self.conv_in = FrameConv2d(_bands(config.input_dims), first, 3, padding=1)
        self.down_blocks = nn.ModuleList(
            DownBlock(config, level) for level in range(len(config.level_dims))
        )
        self.mid = _middle(config, last)
        self.norm_out = make_norm(config.norm, last, config.input_dims)
        self.conv_out = make_conv(config.input_dims, last, 2 * config.latent_dim, 3)

    def forward(self, frames: Tensor, stream: Stream) -> Tensor:
        """B3THW to B 2Z T'H'W', the log-variance not clamped."""
        unit = 2 ** (1 + len(self.down_blocks))
        x = in_row_bands(self._halve, frames, stream, "encoder.band", halo=self.halo, unit=unit)
        x = self.mid(x, stream)
        y: Tensor = self.conv_out(silu(self.norm_out(x)), stream)
        return y

    @property
    def halo(self) -> int:
        """Rows of frames beyond a latent row's own that `_halve` looks at."""
        rows = 0
        for _ in self.down_blocks:
            rows += 2  # the block after the paths meet
            rows = max(2 * rows + 1 + 2 * (self.blocks - 1), 2 * (rows + 1))
        return 2 * (rows + 1)

    def _halve(self, frames: Tensor, stream: Stream) -> Tensor:
        """Encode frames up to the backbone at the latents' size, before the attention."""
        bands = _analyse(frames, self.input_dims, stream)
        x: Tensor = self.conv_in(bands)
        for block in self.down_blocks:
            x, bands = block(x, bands, stream)
        return x


class Decoder(nn.Module):
    """Latents to frames."""

    def __init__(self, config: WFVAE2Config) -> None:
        super().__init__()
        self.input_dims = config.input_dims
        self.blocks, self.level_dims = config.decoder_blocks, config.level_dims
        first, last = config.decoder_channels[0], config.decoder_channels[-1]
        self.conv_in = make_conv(config.input_dims, config.latent_dim, last, 3)
        self.mid = _middle(config, last)
        self.up_blocks = nn.ModuleList(
            UpBlock(config, level) for level in reversed(range(len(config.level_dims)))
        )
        self.norm_out = make_norm(config.norm, first, config.input_dims)
        self.conv_out = FrameConv2d(first, _bands(config.input_dims), 3, padding=1)

    def forward(self, latents: Tensor, stream: Stream) -> Tensor:
        """BZT'H'W' to B3THW."""
        x = self.mid(self.conv_in(latents, stream), stream)
        return in_row_bands(self._double, x, stream, "decoder.band", halo=self.halo)

    @property
    def halo(self) -> int:
        """Rows beyond a latent row's own that `_double` looks at."""
        rows = 1
        for dims in self.level_dims:
            # Where a level doubles time it blends neighbouring rows, too.
            rows = -(-(rows + 3 + (dims == 3)) // 2)
            rows = max(rows + 2 * (self.blocks - 2), 3) + 2
        return rows

    def _double(self, x: Tensor, stream: Stream) -> Tensor:
        """Backbone at the latents' size to frames: all that comes after the attention."""
        low: Tensor | None = None
        for block in self.up_blocks:
            x, low = block(x, low, stream)
        bands = self.conv_out(self.norm_out(x))
        if low is not None:
            _add_low(bands, low, "decoder.low0", stream)
        return _synthesise(bands, self.input_dims, stream)


class WFVAE2(VideoVAE):
    """WF-VAE, second generation. Weights carry the publishers' names."""

    family = "wfvae2"

    def __init__(self, config: WFVAE2Config) -> None:
        super().__init__()
        halvings = (config.input_dims, *config.level_dims)
        self.strides = Strides(2 ** halvings.count(3), 2 ** len(halvings), 2 ** len(halvings))
        self.latent_channels = config.latent_dim
        widest = max(config.encoder_channels[0], config.decoder_channels[0])
        self.peak_values_per_pixel = (4.0 if config.input_dims == 3 else 2.0) * widest
        if config.spans_time:
            self.whole_clip_only = "its GroupNorm takes statistics over all frames at once"
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        if config.norm == "layernorm":
            halo = max(self.encoder.halo, self.strides.height * self.decoder.halo)
            state = widest if config.input_dims == 3 else 0.0
            self.footprint = Footprint(
                1.4 * widest, 1.0 * state, 1.5 * state, 8 + 0.2 * widest, halo
            )
        name_layers(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> WFVAE2:
        """Build the network of a published `config.json`."""
        vae = cls(WFVAE2Config.parse(config))
        vae.normalization = read_normalization(config, vae.latent_channels)
        return vae

    @classmethod
    def constant(cls, name: str) -> Tensor | None:
        """The Haar filter that checkpoints carry as `name`, where it is one."""
        return published_filter(name)

    def _encode(self, frames: Tensor, stream: Stream) -> Posterior:
        return Posterior.from_moments(self.encoder(frames, stream))

    def _decode(self, latents: Tensor, stream: Stream) -> Tensor:
        frames: Tensor = self.decoder(latents, stream)
        return frames


def _middle(config: WFVAE2Config, channels: int) -> Chain:
    return Chain(
        *(
            ResidualBlock(dims, channels, channels, config.norm)
            if kind == "residual"
            else FrameAttention(dims, channels, config.norm)
            for kind, dims in config.middle
        )
    )


def _bands(dims: Dims) -> int:
    """Channels of the Haar transform of three colours."""
    return 24 if dims == 3 else 12


def _analyse(low: Tensor, dims: Dims, stream: Stream) -> Tensor:
    return causal_haar_3d(low, stream) if dims == 3 else haar_2d(low)


def _synthesise(bands: Tensor, dims: Dims, stream: Stream) -> Tensor:
    return inverse_causal_haar_3d(bands, stream) if dims == 3 else inverse_haar_2d(bands)


def _add_low(bands: Tensor, low: Tensor, key: str, stream: Stream) -> None:
    """Add the level below's low band, which waits where the backbone looks ahead, in place."""
    bands[:, :3] += align(low, bands.size(2), key, stream)
