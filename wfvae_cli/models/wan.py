"""The VAE of Wan 2.1 (arXiv 2503.20314, section 4.1), which SkyReels-V2 uses too.

Its weights are published in two layouts of names, the original and that of diffusers'
`AutoencoderKLWan`; `rename` knows both, and the config may be either's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from wfvae_cli.errors import WeightsError
from wfvae_cli.models.base import Posterior, VideoVAE
from wfvae_cli.models.config import MOST_BLOCKS, choices, count, counts, read_normalization
from wfvae_cli.nn.blocks import ResidualBlock
from wfvae_cli.nn.conv import CausalConv3d, Chain
from wfvae_cli.nn.norm import make_norm, silu
from wfvae_cli.nn.row_bands import Footprint, in_row_bands
from wfvae_cli.nn.stream import Stream, name_layers
from wfvae_cli.nn.wan import ConvDownsample, ConvUpsample, JointAttention
from wfvae_cli.strides import Strides

_OF_WAN_22 = {"is_residual": (False,), "patch_size": (None, 1)}
"""Fields of diffusers' config that only Wan 2.2's VAE, another architecture, sets otherwise."""


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
    """Which of the steps from level to level halve time as well as space."""

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> WanConfig:
        """Read a `config.json`, in the original's spelling or in diffusers'."""
        for key, known in _OF_WAN_22.items():
            if config.get(key, known[0]) not in known:
                raise WeightsError(
                    f"config.json: {key} = {config[key]!r} is Wan 2.2's VAE, which is not "
                    "supported; Wan 2.1's is"
                )
        if config.get("attn_scales"):
            raise WeightsError(
                f"config.json: attn_scales = {config['attn_scales']!r} is not supported; known: []"
            )
        base = "base_dim" if "base_dim" in config else "dim"
        time = "temperal_downsample" if "temperal_downsample" in config else "temporal_downsample"
        own_decoder = config.get("decoder_base_dim") is not None
        parsed = cls(
            base_channels=count(config, base),
            decoder_base_channels=count(config, "decoder_base_dim" if own_decoder else base),
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


class Encoder(nn.Module):
    """Frames to moments."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        widths = [config.base_channels * m for m in config.multipliers]
        layers: list[nn.Module] = []
        channels = config.base_channels
        self.blocks, self.halvings = config.blocks, len(config.halves_time)
        self.conv_in = _causal(3, channels)
        for level, width in enumerate(widths):
            for _ in range(config.blocks):
                layers.append(_residual(channels, width))
                channels = width
            if level < len(config.halves_time):
                layers.append(ConvDownsample(width, config.halves_time[level]))
        self.downsamples = Chain(*layers)
        self.middle = _middle(channels)
        self.norm_out = make_norm("rms", channels, dims=3)
        self.conv_out = _causal(channels, 2 * config.latent_dim)

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
        rows = 2 * self.blocks
        for _ in range(self.halvings):
            rows = 2 * rows + 1 + 2 * self.blocks
        return rows + 1

    def _halve(self, frames: Tensor, stream: Stream) -> Tensor:
        """Frames to the backbone at the latents' size: all that comes before the attention."""
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
        self.conv_in = _causal(config.latent_dim, channels)
        self.middle = _middle(channels)
        for level, width in enumerate(widths):
            for _ in range(config.blocks + 1):
                layers.append(_residual(channels, width))
                channels = width
            if level < len(doubles_time):
                layers.append(ConvUpsample(width, width // 2, doubles_time[level]))
                channels = width // 2
        self.upsamples = Chain(*layers)
        self.norm_out = make_norm("rms", channels, dims=3)
        self.conv_out = _causal(channels, 3)

    def forward(self, latents: Tensor, stream: Stream) -> Tensor:
        """BZT'H'W' to B3THW."""
        x = self.middle(self.conv_in(latents, stream), stream)
        x = self.upsamples(x, stream, slice(self.blocks))
        return in_row_bands(self._double, x, stream, "decoder.band", halo=self.halo)

    @property
    def halo(self) -> int:
        """Rows beyond a latent row's own that `_double` looks at."""
        rows = 1
        for _ in range(self.doublings):
            rows = -(-(rows + 2 * self.blocks + 1) // 2)
        return rows

    def _double(self, x: Tensor, stream: Stream) -> Tensor:
        """Backbone at the latents' size to frames: all that comes after its own blocks."""
        x = self.upsamples(x, stream, slice(self.blocks, None))
        y: Tensor = self.conv_out(silu(self.norm_out(x)), stream)
        return y


class WanVAE(VideoVAE):
    """The VAE of Wan 2.1."""

    family = "wan"
    encoder_modules = ("encoder", "quant_conv")
    decoder_modules = ("decoder", "post_quant_conv")

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        space = 2 ** len(config.halves_time)
        self.strides = Strides(2 ** sum(config.halves_time), space, space)
        self.latent_channels = config.latent_dim
        widest = max(config.base_channels, config.decoder_base_channels)
        self.peak_values_per_pixel = 10.0 * widest
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        halo = max(self.encoder.halo, space * self.decoder.halo)
        self.footprint = Footprint(
            8.5 * widest, 17.5 * widest, 24.5 * widest, 8 + 0.5 * widest, halo
        )
        self.quant_conv = CausalConv3d(2 * config.latent_dim, 2 * config.latent_dim, 1)
        self.post_quant_conv = CausalConv3d(config.latent_dim, config.latent_dim, 1)
        name_layers(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> WanVAE:
        """Build the network of a published `config.json`."""
        vae = cls(WanConfig.parse(config))
        vae.normalization = read_normalization(config, vae.latent_channels)
        return vae

    @classmethod
    def rename(cls, names: Iterable[str]) -> dict[str, str]:
        """Map the names of either published layout, told apart by the names themselves."""
        names = list(names)
        original = "encoder.conv1.weight" in names
        resnets = [int(found[1]) for name in names if (found := _UP_RESNET.match(name))]
        layers_per_level = max(resnets, default=0) + 2
        return {
            name: _replace_first(name if original else _to_flat(name, layers_per_level), _RENAMES)
            for name in names
        }

    def _encode(self, frames: Tensor, stream: Stream) -> Posterior:
        moments = self.quant_conv(self.encoder(frames, stream), stream)
        return Posterior.from_moments(moments)

    def _decode(self, latents: Tensor, stream: Stream) -> Tensor:
        frames: Tensor = self.decoder(self.post_quant_conv(latents, stream), stream)
        return frames


def _causal(inputs: int, outputs: int) -> CausalConv3d:
    return CausalConv3d(inputs, outputs, before="zeros")


def _residual(inputs: int, outputs: int) -> ResidualBlock:
    return ResidualBlock(3, inputs, outputs, "rms", before="zeros")


def _middle(channels: int) -> Chain:
    return Chain(
        _residual(channels, channels), JointAttention(channels), _residual(channels, channels)
    )


_Replacements = tuple[tuple[re.Pattern[str], str], ...]


def _compile(*replacements: tuple[str, str]) -> _Replacements:
    return tuple((re.compile(pattern), ours) for pattern, ours in replacements)


_RENAMES = _compile(
    (r"^conv1\.", "quant_conv.conv."),
    (r"^conv2\.", "post_quant_conv.conv."),
    (r"^(encoder|decoder)\.conv1\.", r"\1.conv_in.conv."),
    (r"^(encoder|decoder)\.head\.0\.", r"\1.norm_out."),
    (r"^(encoder|decoder)\.head\.2\.", r"\1.conv_out.conv."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1.conv."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2.conv."),
    (r"\.shortcut\.", ".nin_shortcut.conv."),
    (r"\.resample\.1\.", ".space.conv."),
    (r"\.time_conv\.", ".time.conv."),
)
"""From the original layout to this module's names; a name is changed by the first that fits."""

_LEAVES = _compile(
    (r"^norm1\.", "residual.0."),
    (r"^conv1\.", "residual.2."),
    (r"^norm2\.", "residual.3."),
    (r"^conv2\.", "residual.6."),
    (r"^conv_shortcut\.", "shortcut."),
)
"""Inside a residual block, from diffusers' layout to the original."""

_TRUNKS = _compile(
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"^(encoder|decoder)\.conv_in\.", r"\1.conv1."),
    (r"^(encoder|decoder)\.norm_out\.", r"\1.head.0."),
    (r"^(encoder|decoder)\.conv_out\.", r"\1.head.2."),
)
"""Outside of blocks, from diffusers' layout to the original."""

_UP_RESNET = re.compile(r"^decoder\.up_blocks\.\d+\.resnets\.(\d+)\.")
_BLOCK = re.compile(
    r"^(?P<half>encoder|decoder)\."
    r"(?:mid_block\.resnets\.(?P<middle>\d+)"
    r"|mid_block\.(?P<attention>attentions\.0)"
    r"|down_blocks\.(?P<down>\d+)"
    r"|up_blocks\.(?P<level>\d+)\.(?:resnets\.(?P<resnet>\d+)|upsamplers\.0))"
    r"\.(?P<rest>.+)$"
)


def _to_flat(name: str, layers_per_level: int) -> str:
    """Turn a name of diffusers' layout into the original's, which numbers layers throughout.

    Args:
        name: a tensor's name; one that is of no known form stays as it is.
        layers_per_level: residual blocks of a decoder level and its upsampling.
    """
    block = _BLOCK.match(name)
    if block is None:
        return _replace_first(name, _TRUNKS)
    rest = _replace_first(block["rest"], _LEAVES)
    if block["middle"]:
        return f"{block['half']}.middle.{2 * int(block['middle'])}.{rest}"
    if block["attention"]:
        return f"{block['half']}.middle.1.{rest}"
    if block["down"]:
        return f"{block['half']}.downsamples.{block['down']}.{rest}"
    within = int(block["resnet"]) if block["resnet"] else layers_per_level - 1
    return f"{block['half']}.upsamples.{int(block['level']) * layers_per_level + within}.{rest}"


def _replace_first(name: str, replacements: _Replacements) -> str:
    for pattern, replacement in replacements:
        if pattern.search(name):
            return pattern.sub(replacement, name, count=1)
    return name
