"""The VAE of Wan 2.2 (TI2V-5B): 48 channels, 4x16x16.

Wan 2.1's pieces, with patches of pixels as channels, and with a shortcut around every level. Its
weights are published in two layouts of names, which `wan_names` knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from wfvae_cli.errors import WeightsError
from wfvae_cli.models.config import choice, read_normalization
from wfvae_cli.models.wan import (
    WanConfig,
    WanNetwork,
    decoder_halo,
    encoder_halo,
    make_causal,
    make_middle,
    make_residual,
)
from wfvae_cli.models.wan_names import rename_wan22
from wfvae_cli.nn.conv import Chain
from wfvae_cli.nn.norm import make_norm, silu
from wfvae_cli.nn.patches import (
    add_repeated_blocks,
    average_blocks,
    channels_to_pixels,
    pixels_to_channels,
)
from wfvae_cli.nn.row_bands import Footprint, in_row_bands
from wfvae_cli.nn.stream import Stream
from wfvae_cli.nn.wan import ConvDownsample, ConvUpsample

PATCH = 2
"""Pixels along each side of a patch."""
_PATCH_CHANNELS = 3 * PATCH**2


def _check_widths(moved: int, channels: int) -> None:
    """Refuse widths between which a shortcut cannot average or repeat whole channels."""
    if moved % channels:
        raise WeightsError(
            f"config.json: dim_mult gives a level whose shortcut has {moved} channels for "
            f"{channels}, expected a multiple"
        )


class DownLevel(nn.Module):
    """Residual blocks and halving, with averaged blocks of pixels around all of it.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        blocks: residual blocks.
        halves_time: whether time is halved too; None in the last level, which keeps all sizes.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int, halves_time: bool | None) -> None:
        super().__init__()
        self.outputs = outputs
        self.time = 2 if halves_time else 1
        self.space = 1 if halves_time is None else 2
        _check_widths(inputs * self.time * self.space**2, outputs)
        widths = [inputs, *[outputs] * blocks]
        self.blocks = Chain(*(make_residual(a, b) for a, b in pairwise(widths)))
        self.resample = None if halves_time is None else ConvDownsample(outputs, halves_time)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Shrink the next chunk, BCTHW."""
        y: Tensor = self.blocks(x, stream)
        if self.resample is not None:
            y = self.resample(y, stream)
        return y.add_(average_blocks(x, self.outputs, time=self.time, space=self.space))


class UpLevel(nn.Module):
    """Residual blocks and doubling, with repeated channels around all of it.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        blocks: residual blocks.
        doubles_time: whether time is doubled too; None in the last level, which keeps all sizes
            and has no shortcut.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int, doubles_time: bool | None) -> None:
        super().__init__()
        self.outputs = outputs
        self.time = 2 if doubles_time else 1
        if doubles_time is not None:
            _check_widths(outputs * self.time * 2**2, inputs)
        widths = [inputs, *[outputs] * blocks]
        self.blocks = Chain(*(make_residual(a, b) for a, b in pairwise(widths)))
        self.resample = (
            None if doubles_time is None else ConvUpsample(outputs, outputs, doubles_time)
        )

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Enlarge the next chunk, BCTHW."""
        return self.enlarge(x, self.blocks(x, stream), stream)

    def enlarge(self, x: Tensor, y: Tensor, stream: Stream) -> Tensor:
        """Double what the blocks made of the chunk `x`, and add the shortcut."""
        if self.resample is None:
            return y
        first = stream.first
        y = self.resample(y, stream)
        return add_repeated_blocks(y, x, time=self.time, space=2, first=first)


class Encoder(nn.Module):
    """Frames to moments."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        widths = [config.base_channels * m for m in (1, *config.multipliers)]
        self.blocks, self.halvings = config.blocks, len(config.halves_time)
        self.conv_in = make_causal(_PATCH_CHANNELS, widths[0])
        self.levels = Chain(
            *(
                DownLevel(inputs, outputs, config.blocks, halves_time)
                for (inputs, outputs), halves_time in zip(
                    pairwise(widths), (*config.halves_time, None), strict=True
                )
            )
        )
        self.middle = make_middle(widths[-1])
        self.norm_out = make_norm("rms", widths[-1], dims=3)
        self.conv_out = make_causal(widths[-1], 2 * config.latent_dim)

    def forward(self, frames: Tensor, stream: Stream) -> Tensor:
        """B3THW to B 2Z T'H'W'."""
        unit = PATCH * 2**self.halvings
        x = in_row_bands(self._halve, frames, stream, "encoder.band", halo=self.halo, unit=unit)
        x = self.middle(x, stream)
        y: Tensor = self.conv_out(silu(self.norm_out(x)), stream)
        return y

    @property
    def halo(self) -> int:
        """Rows of frames beyond a latent row's own that `_halve` looks at."""
        return PATCH * encoder_halo(self.blocks, self.halvings)

    def _halve(self, frames: Tensor, stream: Stream) -> Tensor:
        """Encode frames up to the backbone at the latents' size, before the attention."""
        x = self.conv_in(pixels_to_channels(frames, PATCH), stream)
        y: Tensor = self.levels(x, stream)
        return y


class Decoder(nn.Module):
    """Latents to frames."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        multipliers = (config.multipliers[-1], *reversed(config.multipliers))
        widths = [config.decoder_base_channels * m for m in multipliers]
        self.blocks, self.doublings = config.blocks + 1, len(config.halves_time)
        self.conv_in = make_causal(config.latent_dim, widths[0])
        self.middle = make_middle(widths[0])
        self.levels = Chain(
            *(
                UpLevel(inputs, outputs, self.blocks, doubles_time)
                for (inputs, outputs), doubles_time in zip(
                    pairwise(widths), (*reversed(config.halves_time), None), strict=True
                )
            )
        )
        self.norm_out = make_norm("rms", widths[-1], dims=3)
        self.conv_out = make_causal(widths[-1], _PATCH_CHANNELS)

    def forward(self, latents: Tensor, stream: Stream) -> Tensor:
        """BZT'H'W' to B3THW."""
        x = self.middle(self.conv_in(latents, stream), stream)
        y = self._first.blocks(x, stream)
        both = torch.cat((x, y), dim=1)  # bands are cut from one tensor
        return in_row_bands(self._double, both, stream, "decoder.band", halo=self.halo)

    @property
    def halo(self) -> int:
        """Rows beyond a latent row's own that `_double` looks at."""
        return decoder_halo(self.blocks, self.doublings)

    @property
    def _first(self) -> UpLevel:
        level = self.levels[0]
        assert isinstance(level, UpLevel)
        return level

    def _double(self, both: Tensor, stream: Stream) -> Tensor:
        """Decode from the first level's input and its blocks' output, concatenated in channels."""
        width = self.conv_in.conv.out_channels
        x, y = both[:, :width], both[:, width:]
        y = self._first.enlarge(x, y, stream)
        y = self.levels(y, stream, slice(1, None))
        y = self.conv_out(silu(self.norm_out(y)), stream)
        return channels_to_pixels(y, PATCH)


class Wan22VAE(WanNetwork):
    """The VAE of Wan 2.2's model for text and images, of 5 B parameters."""

    family = "wan22"
    encoder: Encoder
    decoder: Decoder

    def __init__(self, config: WanConfig) -> None:
        encoder, decoder = Encoder(config), Decoder(config)
        super().__init__(config, encoder, decoder, PATCH)
        halo = max(encoder.halo, self.strides.height * decoder.halo)
        widest = max(config.base_channels, config.decoder_base_channels)
        # Wan 2.1's, scaled by what both allocate at the peak of the same chunks.
        self.peak_values_per_pixel = 4.7 * widest
        self.footprint = Footprint(
            4.0 * widest,
            4.4 * config.base_channels,
            7.0 * config.decoder_base_channels,
            8 + 0.25 * widest,
            halo,
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Wan22VAE:
        """Build the network of a published `config.json`, in the original's spelling or diffusers'.

        Raises:
            WeightsError: a field is missing or has a value that this network does not have.
        """
        for key, known in _PIXELS.items():
            if config.get(key) is not None:
                choice(config, key, {known: known})
        vae = cls(WanConfig.parse(config))
        vae.normalization = read_normalization(config, vae.latent_channels)
        return vae

    @classmethod
    def rename(cls, names: Iterable[str]) -> dict[str, str]:
        """Map the names of either published layout, which is recognised by the names themselves."""
        return rename_wan22(names)


_PIXELS: dict[str, Any] = {
    "is_residual": True,
    "patch_size": PATCH,
    "in_channels": _PATCH_CHANNELS,
    "out_channels": _PATCH_CHANNELS,
}
"""Fields of diffusers' config in which this network has one value alone."""
