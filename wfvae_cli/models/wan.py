"""The VAE of Wan 2.1 (arXiv 2503.20314, section 4.1), which SkyReels-V2 uses too.

Its weights are published in two layouts of names, the original and that of diffusers'
`AutoencoderKLWan`; `wan_names` knows both, and the config may be either's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from wfvae_cli.errors import WeightsError
from wfvae_cli.models.base import Posterior, VideoVAE
from wfvae_cli.models.config import MOST_BLOCKS, choices, count, counts, read_normalization
from wfvae_cli.models.wan_names import rename_wan
from wfvae_cli.nn.blocks import ResidualBlock
from wfvae_cli.nn.conv import CausalConv3d, Chain
from wfvae_cli.nn.norm import make_norm, silu
from wfvae_cli.nn.row_bands import Footprint, in_row_bands
from wfvae_cli.nn.stream import Stream, name_layers
from wfvae_cli.nn.wan import ConvDownsample, ConvUpsample, JointAttention
from wfvae_cli.strides import Strides


@dataclass(frozen=True)
class WanConfig:
    """The fields of a published `config.json` that shape the network."""

    base_channels: int
    decoder_base_channels: int
    latent_dim: int
    multipliers: tuple[int, ...]
    """Width of each level, from the frames inwards, in base channels."""
    blocks: int
    """Residual blocks of an encoder level; a decoder level has one more."""
    halves_time: tuple[bool, ...]
    """For each step from level to level, True where it halves time as well as space."""

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> WanConfig:
        """Read a `config.json`, in the original's spelling or in diffusers'."""
        if config.get("attn_scales"):
            raise WeightsError(
                f"config.json: attn_scales = {config['attn_scales']!r} is not supported; known: []"
            )
        base = "base_dim" if "base_dim" in config else "dim"
        decoder_base = "dec_dim" if "dec_dim" in config else "decoder_base_dim"
        time = "temperal_downsample" if "temperal_downsample" in config else "temporal_downsample"
        own_decoder = config.get(decoder_base) is not None
        parsed = cls(
            base_channels=count(config, base),
            decoder_base_channels=count(config, decoder_base if own_decoder else base),
            latent_dim=count(config, "z_dim"),
            multipliers=counts(config, "dim_mult"),
            blocks=count(config, "num_res_blocks", most=MOST_BLOCKS),
            halves_time=choices(config, time, {True: True, False: False}),
        )
        if len(parsed.halves_time) != len(parsed.multipliers) - 1:
            raise WeightsError(
                f"config.json contradicts itself: {len(parsed.multipliers)} levels in dim_mult "
                f"have {len(parsed.multipliers) - 1} steps between them, but {time} has "
                f"{len(parsed.halves_time)} values"
            )
        return parsed


def encoder_halo(blocks: int, halvings: int) -> int:
    """Rows of an encoder's input beyond a latent row's own that its result depends on.

    Args:
        blocks: residual blocks of a level, of two 3x3x3 convs each.
        halvings: how often the height is halved.
    """
    rows = 2 * blocks
    for _ in range(halvings):
        rows = 2 * rows + 1 + 2 * blocks
    return rows + 1


def decoder_halo(blocks: int, doublings: int) -> int:
    """Latent rows beyond its own that a decoder's row depends on, behind the first blocks.

    Args:
        blocks: residual blocks of a level, of two 3x3x3 convs each.
        doublings: how often the height is doubled.
    """
    rows = 1
    for _ in range(doublings):
        rows = -(-(rows + 2 * blocks + 1) // 2)
    return rows


class Encoder(nn.Module):
    """Frames to moments."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        widths = [config.base_channels * m for m in config.multipliers]
        layers: list[nn.Module] = []
        channels = config.base_channels
        self.blocks, self.halvings = config.blocks, len(config.halves_time)
        self.conv_in = make_causal(3, channels)
        for level, width in enumerate(widths):
            for _ in range(config.blocks):
                layers.append(make_residual(channels, width))
                channels = width
            if level < len(config.halves_time):
                layers.append(ConvDownsample(width, config.halves_time[level]))
        self.downsamples = Chain(*layers)
        self.middle = make_middle(channels)
        self.norm_out = make_norm("rms", channels, dims=3)
        self.conv_out = make_causal(channels, 2 * config.latent_dim)

    def forward(self, frames: Tensor, stream: Stream) -> Tensor:
        """B3THW to B 2Z T'H'W'."""
        unit = 2**self.halvings
        x = in_row_bands(self._halve, frames, stream, "encoder.band", halo=self.halo, unit=unit)
        x = self.middle(x, stream)
        y: Tensor = self.conv_out(silu(self.norm_out(x)), stream)
        return y

    @property
    def halo(self) -> int:
        """Rows of frames beyond a latent row's own that `_halve` looks at."""
        return encoder_halo(self.blocks, self.halvings)

    def _halve(self, frames: Tensor, stream: Stream) -> Tensor:
        """Encode frames up to the backbone at the latents' size, before the attention."""
        y: Tensor = self.downsamples(self.conv_in(frames, stream), stream)
        return y


class Decoder(nn.Module):
    """Latents to frames."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        widths = [config.decoder_base_channels * m for m in reversed(config.multipliers)]
        doubles_time = config.halves_time[::-1]
        layers: list[nn.Module] = []
        channels = widths[0]
        self.blocks, self.doublings = config.blocks + 1, len(doubles_time)
        self.conv_in = make_causal(config.latent_dim, channels)
        self.middle = make_middle(channels)
        for level, width in enumerate(widths):
            for _ in range(config.blocks + 1):
                layers.append(make_residual(channels, width))
                channels = width
            if level < len(doubles_time):
                layers.append(ConvUpsample(width, width // 2, doubles_time[level]))
                channels = width // 2
        self.upsamples = Chain(*layers)
        self.norm_out = make_norm("rms", channels, dims=3)
        self.conv_out = make_causal(channels, 3)

    def forward(self, latents: Tensor, stream: Stream) -> Tensor:
        """BZT'H'W' to B3THW."""
        x = self.middle(self.conv_in(latents, stream), stream)
        x = self.upsamples(x, stream, slice(self.blocks))
        return in_row_bands(self._double, x, stream, "decoder.band", halo=self.halo)

    @property
    def halo(self) -> int:
        """Rows beyond a latent row's own that `_double` looks at."""
        return decoder_halo(self.blocks, self.doublings)

    def _double(self, x: Tensor, stream: Stream) -> Tensor:
        """Backbone at the latents' size to frames: all that comes after its own blocks."""
        x = self.upsamples(x, stream, slice(self.blocks, None))
        y: Tensor = self.conv_out(silu(self.norm_out(x)), stream)
        return y


class WanNetwork(VideoVAE):
    """Base class of the VAEs of Wan: an encoder and a decoder of causal convs.

    Args:
        config: the widths and levels.
        encoder: frames to moments.
        decoder: latents to frames.
        patch: pixels along each side of the patches that become channels first.
    """

    encoder_modules = ("encoder", "quant_conv")
    decoder_modules = ("decoder", "post_quant_conv")

    def __init__(
        self, config: WanConfig, encoder: nn.Module, decoder: nn.Module, patch: int = 1
    ) -> None:
        super().__init__()
        space = patch * 2 ** len(config.halves_time)
        self.strides = Strides(2 ** sum(config.halves_time), space, space)
        self.latent_channels = config.latent_dim
        self.encoder = encoder
        self.decoder = decoder
        self.quant_conv = CausalConv3d(2 * config.latent_dim, 2 * config.latent_dim, 1)
        self.post_quant_conv = CausalConv3d(config.latent_dim, config.latent_dim, 1)
        name_layers(self)

    def _encode(self, frames: Tensor, stream: Stream) -> Posterior:
        moments = self.quant_conv(self.encoder(frames, stream), stream)
        return Posterior.from_moments(moments)

    def _decode(self, latents: Tensor, stream: Stream) -> Tensor:
        frames: Tensor = self.decoder(self.post_quant_conv(latents, stream), stream)
        return frames


class WanVAE(WanNetwork):
    """The VAE of Wan 2.1."""

    family = "wan"
    encoder: Encoder
    decoder: Decoder

    def __init__(self, config: WanConfig) -> None:
        encoder, decoder = Encoder(config), Decoder(config)
        super().__init__(config, encoder, decoder)
        widest = max(config.base_channels, config.decoder_base_channels)
        halo = max(encoder.halo, self.strides.height * decoder.halo)
        self.peak_values_per_pixel = 10.0 * widest
        self.footprint = Footprint(
            8.5 * widest, 17.5 * widest, 25.0 * widest, 8 + 0.5 * widest, halo
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> WanVAE:
        """Build the network of a published `config.json`."""
        for key, known in _PIXELS.items():
            if config.get(key) not in (None, known):
                raise WeightsError(
                    f"config.json: {key} = {config[key]!r} is not supported in Wan 2.1's network, "
                    f"which has {known!r}; Wan 2.2's has is_residual = true, patch_size = 2, and "
                    "_class_name 'AutoencoderKLWan' (or 'Wan2_2_VAE')"
                )
        vae = cls(WanConfig.parse(config))
        vae.normalization = read_normalization(config, vae.latent_channels)
        return vae

    @classmethod
    def rename(cls, names: Iterable[str]) -> dict[str, str]:
        """Map the names of either published layout, which is recognised by the names themselves."""
        return rename_wan(names)


class QwenImageVAE(WanVAE):
    """The VAE of Qwen-Image (arXiv 2508.02324): Wan 2.1's network, its decoder tuned on images."""

    family = "qwenimage"


_PIXELS: dict[str, Any] = {
    "is_residual": False,
    "patch_size": 1,
    "in_channels": 3,
    "out_channels": 3,
    "input_channels": 3,
}
"""Fields of diffusers' configs in which Wan 2.1's network has one value alone, if any."""


def make_causal(inputs: int, outputs: int) -> CausalConv3d:
    """Make a causal conv 3, in front of which the clip has zeros."""
    return CausalConv3d(inputs, outputs, before="zeros")


def make_residual(inputs: int, outputs: int) -> ResidualBlock:
    """Make a residual block of such convs, with RMS norm."""
    return ResidualBlock(3, inputs, outputs, "rms", before="zeros")


def make_middle(channels: int) -> Chain:
    """Make the middle of either half: attention between two residual blocks."""
    return Chain(
        make_residual(channels, channels),
        JointAttention(channels),
        make_residual(channels, channels),
    )
