"""WF-VAE, first generation (arXiv 2411.17459): `WFVAEModel` of the published configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wfvae_cli.errors import WeightsError
from wfvae_cli.models.base import Posterior, VideoVAE
from wfvae_cli.models.config import MOST_BLOCKS, choice, count, read_normalization
from wfvae_cli.nn.blocks import FrameAttention, ResidualBlock
from wfvae_cli.nn.conv import CausalConv3d, Chain, FrameConv2d
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

_HALVES_TIME = {"Downsample": False, "Spatial2xTime2x3DDownsample": True}
_DOUBLES_TIME = {"Upsample": False, "Spatial2xTime2x3DUpsample": True}
_WAVELET_3D = {"HaarWaveletTransform2D": False, "HaarWaveletTransform3D": True}
_INVERSE_3D = {"InverseHaarWaveletTransform2D": False, "InverseHaarWaveletTransform3D": True}


@dataclass(frozen=True)
class WFVAEConfig:
    """The fields of a published `config.json` that shape the network."""

    latent_dim: int
    base_channels: int
    encoder_blocks: int
    decoder_blocks: int
    connect_blocks: int
    encoder_energy_flow: int
    decoder_energy_flow: int
    attention: bool
    norm: NormType
    interpolation: TimeInterpolation
    level1_time: bool
    """True where level 1 halves time as well as space (8x8x8 models)."""
    level2_time: bool

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> WFVAEConfig:
        """Read a `config.json`, the misspelt keys of the published ones included."""
        attention: bool = choice(config, "use_attention", {True: True, False: False})
        if attention:
            # The older AttnBlock3D has the same tensors but mixes frames into the pixel axis.
            choice(config, "attention_type", {"AttnBlock3DFix": True})
        norms: dict[str, NormType] = {"layernorm": "layernorm", "groupnorm": "groupnorm"}
        modes: dict[str, TimeInterpolation] = {"nearest": "nearest", "trilinear": "trilinear"}
        return cls(
            latent_dim=count(config, "latent_dim"),
            base_channels=count(config, "base_channels"),
            encoder_blocks=count(config, "encoder_num_resblocks", most=MOST_BLOCKS),
            decoder_blocks=count(config, "decoder_num_resblocks", most=MOST_BLOCKS),
            connect_blocks=count(config, "connect_res_layer_num", least=0, most=MOST_BLOCKS),
            encoder_energy_flow=count(config, "encoder_energy_flow_hidden_size"),
            decoder_energy_flow=count(config, "decoder_energy_flow_hidden_size"),
            attention=attention,
            norm=choice(config, "norm_type", norms),
            interpolation=choice(config, "t_interpolation", modes),
            level1_time=_halves_time(config, level=1),
            level2_time=_halves_time(config, level=2),
        )


def _halves_time(config: Mapping[str, Any], level: int) -> bool:
    """Tell if a level halves time; its four fields must agree, or its paths could not be added."""
    fields = {
        f"l{level}_dowmsample_block": ("Downsample", "Spatial2xTime2x3DDownsample"),
        f"l{level}_downsample_wavelet": ("HaarWaveletTransform2D", "HaarWaveletTransform3D"),
        f"l{level}_upsample_block": ("Upsample", "Spatial2xTime2x3DUpsample"),
        f"l{level}_upsample_wavelet": (
            "InverseHaarWaveletTransform2D",
            "InverseHaarWaveletTransform3D",
        ),
    }
    answers = {
        choice(config, key, {space: False, space_time: True})
        for key, (space, space_time) in fields.items()
    }
    if len(answers) > 1:
        given = ", ".join(f"{key} = {config[key]}" for key in fields)
        raise WeightsError(
            f"config.json contradicts itself: at level {level} some fields halve time and "
            f"others do not ({given})"
        )
    return answers.pop()


class Encoder(nn.Module):
    """Frames to moments; the wavelet bands of each level join the backbone (energy flow)."""

    def __init__(self, config: WFVAEConfig) -> None:
        super().__init__()
        self.config = config
        c, e, norm = config.base_channels, config.encoder_energy_flow, config.norm
        blocks = range(config.encoder_blocks)
        self.down1 = Chain(
            FrameConv2d(24, c, 3, padding=1),
            *(ResidualBlock(2, c, c, norm) for _ in blocks),
            SpaceTimeDownsample(c) if config.level1_time else SpaceDownsample(c),
        )
        self.down2 = Chain(
            FrameConv2d(c + e, 2 * c, 3, padding=1),
            *(ResidualBlock(3, 2 * c, 2 * c, norm) for _ in blocks),
            SpaceTimeDownsample(2 * c) if config.level2_time else SpaceDownsample(2 * c),
        )
        self.connect_l1 = FrameConv2d(24 if config.level1_time else 12, e, 3, padding=1)
        self.connect_l2 = FrameConv2d(24 if config.level2_time else 12, e, 3, padding=1)
        self.mid = _middle(config, 2 * c + e, 4 * c, 4 * c)
        self.norm_out = make_norm(norm, 4 * c, dims=3)
        self.conv_out = CausalConv3d(4 * c, 2 * config.latent_dim)

    def forward(self, frames: Tensor, stream: Stream) -> Tensor:
        """B3THW to B 2Z T'H'W', the log-variance not clamped."""
        x = in_row_bands(self._halve, frames, stream, "encoder.band", halo=self.halo, unit=8)
        x = self.mid(x, stream)
        y: Tensor = self.conv_out(silu(self.norm_out(x)), stream)
        return y

    @property
    def halo(self) -> int:
        """Rows of frames beyond a latent row's own that `_halve` looks at."""
        convs = 1 + 2 * self.config.encoder_blocks  # of a level, before the one that halves it
        quarter = convs + 1
        half = 2 * quarter + convs + 1
        return 2 * half

    def _halve(self, frames: Tensor, stream: Stream) -> Tensor:
        """Encode frames up to the backbone at the latents' size, before the attention."""
        level0 = causal_haar_3d(frames, stream)
        level1 = _analyse(level0[:, :3], self.config.level1_time, stream)
        level2 = _analyse(level1[:, :3], self.config.level2_time, stream)
        x = self.down1(level0, stream)
        x = torch.cat((x, self.connect_l1(level1)), dim=1)
        x = self.down2(x, stream)
        return torch.cat((x, self.connect_l2(level2)), dim=1)


class Decoder(nn.Module):
    """Latents to frames; each level's last channels become the wavelet bands of a low band."""

    def __init__(self, config: WFVAEConfig) -> None:
        super().__init__()
        self.config = config
        c, e, norm = config.base_channels, config.decoder_energy_flow, config.norm
        blocks = config.decoder_blocks
        self.conv_in = CausalConv3d(config.latent_dim, 4 * c)
        self.mid = _middle(config, 4 * c, 4 * c, 4 * c + e)
        self.up2 = Chain(
            *(ResidualBlock(3, 4 * c, 4 * c, norm) for _ in range(blocks)),
            _upsample(4 * c, config.level2_time, config.interpolation),
            ResidualBlock(3, 4 * c, 4 * c + e, norm),
        )
        self.up1 = Chain(
            *(ResidualBlock(3, 2 * c if i else 4 * c, 2 * c, norm) for i in range(blocks)),
            _upsample(2 * c, config.level1_time, config.interpolation),
            ResidualBlock(3, 2 * c, 2 * c, norm),
        )
        self.layer = Chain(ResidualBlock(3, 2 * c, c, norm), ResidualBlock(3, c, c, norm))
        self.connect_l1 = _connect(config, 24 if config.level1_time else 12)
        self.connect_l2 = _connect(config, 24 if config.level2_time else 12)
        self.norm_out = make_norm(norm, c, dims=3)
        self.conv_out = FrameConv2d(c, 24, 3, padding=1)

    def forward(self, latents: Tensor, stream: Stream) -> Tensor:
        """BZT'H'W' to B3THW."""
        e = self.config.decoder_energy_flow
        x = self.mid(self.conv_in(latents, stream), stream)
        bands2 = self.connect_l2(x[:, -e:], stream)
        x = self.up2(x[:, :-e], stream, slice(self.config.decoder_blocks))
        x = torch.cat((x, bands2), dim=1)
        return in_row_bands(self._double, x, stream, "decoder.band", halo=self.halo)

    @property
    def halo(self) -> int:
        """Rows beyond a latent row's own that `_double` looks at."""
        config = self.config
        half = 8  # three blocks, the conv before them and the one after
        # Where a level doubles time it blends neighbouring rows, too.
        quarter = -(-(half + config.level1_time) // 2) + 2 * config.decoder_blocks
        quarter = max(quarter, 1 + 2 * config.connect_blocks) + 3  # before the paths part
        return -(-(quarter + config.level2_time) // 2)

    def _double(self, x: Tensor, stream: Stream) -> Tensor:
        """Backbone and wavelet bands at the latents' size to frames: all after the attention."""
        e, bands = self.config.decoder_energy_flow, 24 if self.config.level2_time else 12
        low1 = _synthesise(x[:, -bands:], self.config.level2_time, stream)

        x = self.up2(x[:, :-bands], stream, slice(self.config.decoder_blocks, None))
        bands1 = self.connect_l1(x[:, -e:], stream)
        # The backbone may look ahead where the wavelet path does not: they wait for each other.
        bands1[:, :3] += align(low1, bands1.size(2), "decoder.low1", stream)
        low0 = _synthesise(bands1, self.config.level1_time, stream)

        x = self.layer(self.up1(x[:, :-e], stream), stream)
        bands0 = self.conv_out(silu(self.norm_out(x)))
        bands0[:, :3] += align(low0, bands0.size(2), "decoder.low0", stream)
        return inverse_causal_haar_3d(bands0, stream)


class WFVAE(VideoVAE):
    """WF-VAE, first generation. Weights carry the publishers' names."""

    family = "wfvae"

    def __init__(self, config: WFVAEConfig) -> None:
        super().__init__()
        time = 2 * (1 + config.level1_time) * (1 + config.level2_time)
        self.strides = Strides(time, 8, 8)
        self.latent_channels = config.latent_dim
        self.peak_values_per_pixel = 3.6 * config.base_channels
        if config.norm == "groupnorm":
            self.whole_clip_only = "its GroupNorm takes statistics over all frames at once"
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        if config.norm == "layernorm":
            c, halo = config.base_channels, max(self.encoder.halo, 8 * self.decoder.halo)
            self.footprint = Footprint(1.6 * c, 2.0 * c, 10.0 * c, 8 + 0.2 * c, halo)
        name_layers(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> WFVAE:
        """Build the network of a published `config.json`."""
        vae = cls(WFVAEConfig.parse(config))
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


def _middle(config: WFVAEConfig, inputs: int, width: int, outputs: int) -> Chain:
    first = ResidualBlock(3, inputs, width, config.norm)
    last = ResidualBlock(3, width, outputs, config.norm)
    if not config.attention:
        return Chain(first, last)
    return Chain(first, FrameAttention(3, width, config.norm), last)


def _connect(config: WFVAEConfig, bands: int) -> Chain:
    e = config.decoder_energy_flow
    blocks = (ResidualBlock(3, e, e, config.norm) for _ in range(config.connect_blocks))
    return Chain(*blocks, FrameConv2d(e, bands, 3, padding=1))


def _upsample(channels: int, time: bool, interpolation: TimeInterpolation) -> nn.Module:
    return SpaceTimeUpsample(channels, interpolation) if time else SpaceUpsample(channels)


def _analyse(low: Tensor, time: bool, stream: Stream) -> Tensor:
    return causal_haar_3d(low, stream) if time else haar_2d(low)


def _synthesise(bands: Tensor, time: bool, stream: Stream) -> Tensor:
    return inverse_causal_haar_3d(bands, stream) if time else inverse_haar_2d(bands)
