"""The configuration of LTX-2's VAE, as diffusers writes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wfvae_cli.errors import WeightsError
from wfvae_cli.models.config import choice, choices, count, counts
from wfvae_cli.nn.edges import Edges
from wfvae_cli.nn.ltx2 import FACTORS, Resampling
from wfvae_cli.strides import Strides

_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 128,
    "block_out_channels": [256, 512, 1024, 2048],
    "down_block_types": None,
    "decoder_block_out_channels": [256, 512, 1024],
    "layers_per_block": [4, 6, 6, 2, 2],
    "decoder_layers_per_block": [5, 5, 5, 5],
    "spatio_temporal_scaling": True,
    "decoder_spatio_temporal_scaling": True,
    "decoder_inject_noise": False,
    "downsample_type": ["spatial", "temporal", "spatiotemporal", "spatiotemporal"],
    "upsample_type": ["spatiotemporal", "spatiotemporal", "spatiotemporal"],
    "upsample_residual": True,
    "upsample_factor": [2, 2, 2],
    "timestep_conditioning": False,
    "patch_size": 4,
    "patch_size_t": 1,
    "resnet_norm_eps": 1e-6,
    "scaling_factor": 1.0,
    "encoder_causal": True,
    "decoder_causal": True,
    "encoder_spatial_padding_mode": "zeros",
    "decoder_spatial_padding_mode": "reflect",
}
"""Defaults in diffusers of fields that a config leaves out."""
_FLAGS = {True: True, False: False}
_EDGES: dict[str, Edges] = {"zeros": "zeros", "reflect": "reflect", "replicate": "replicate"}
_KINDS: dict[str, Resampling] = {kind: kind for kind in FACTORS}
_UP_KINDS: dict[str, Resampling] = {kind: kind for kind in FACTORS if kind != "conv"}


@dataclass(frozen=True)
class Down:
    """A level of the encoder: residual blocks of `inputs` channels, then what resamples."""

    inputs: int
    outputs: int
    blocks: int
    kind: Resampling | None


@dataclass(frozen=True)
class Up:
    """A level of the decoder: upsampling, then residual blocks of `outputs` channels."""

    inputs: int
    outputs: int
    blocks: int
    kind: Resampling | None
    residual: bool
    """True where the resampling adds its input."""
    converts: bool
    """True where a residual block in front of it changes the number of channels."""


@dataclass(frozen=True)
class LTX2Config:
    """The fields of a `config.json` that shape the network."""

    latent_channels: int
    patch: int
    """Pixels of the side of the patches that become channels first."""
    downs: tuple[Down, ...]
    """Levels from the frames inwards."""
    encoder_middle: int
    """Residual blocks behind these."""
    decoder_middle: int
    """Residual blocks before `ups`."""
    ups: tuple[Up, ...]
    """Levels from the latents outwards."""
    decoder_ahead: bool
    """True where the decoder's convs see one frame ahead."""
    encoder_edges: Edges
    decoder_edges: Edges
    eps: float
    """Epsilon of the LayerNorms in the decoder's shortcuts."""
    scaling_factor: float
    """Factor applied to the normalised latents, besides their mean and std."""

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> LTX2Config:
        """Read a `config.json`; fields that it leaves out have diffusers' defaults.

        Raises:
            WeightsError: a field has a value that is not supported, or two contradict each other.
        """
        config = {**_DEFAULTS, **config}
        _refuse_unsupported(config)
        layers, decoder_layers = _layers(config, ""), _layers(config, "decoder_")
        parsed = cls(
            latent_channels=count(config, "latent_channels"),
            patch=count(config, "patch_size"),
            downs=_downs(config, layers),
            encoder_middle=layers[-1],
            decoder_middle=decoder_layers[-1],
            ups=_ups(config, decoder_layers),
            decoder_ahead=not choice(config, "decoder_causal", _FLAGS),
            encoder_edges=choice(config, "encoder_spatial_padding_mode", _EDGES),
            decoder_edges=choice(config, "decoder_spatial_padding_mode", _EDGES),
            eps=_positive(config, "resnet_norm_eps"),
            scaling_factor=_positive(config, "scaling_factor"),
        )
        inwards, outwards = (_product(levels) for levels in (parsed.downs, parsed.ups))
        if inwards != outwards:
            raise WeightsError(
                f"config.json contradicts itself: downsample_type makes 1 of {inwards} frames, "
                f"rows and columns, upsample_type {outwards} of 1"
            )
        return parsed

    @property
    def strides(self) -> Strides:
        """Frames, rows and columns of a latent position."""
        t, h, w = _product(self.downs)
        return Strides(t, self.patch * h, self.patch * w)

    @property
    def pixels_per_row(self) -> int:
        """Rows of pixels that a row of the last decoder level's input makes."""
        kind = self.ups[-1].kind
        return self.patch * (1 if kind is None else FACTORS[kind][1])


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    choice(config, "in_channels", {3: 3})
    choice(config, "out_channels", {3: 3})
    noise = config["decoder_inject_noise"]
    if any(noise) if isinstance(noise, (list, tuple)) else noise:
        raise WeightsError(
            f"config.json: decoder_inject_noise = {noise!r} is not supported: its decoder adds "
            "random noise, so the same latents would not give the same frames"
        )
    if config["timestep_conditioning"]:
        raise WeightsError(
            "config.json: timestep_conditioning = True is not supported: its decoder takes out a "
            "given amount of noise as well, and latents of an encoder have none"
        )
    if not config["encoder_causal"]:
        raise WeightsError(
            "config.json: encoder_causal = False is not supported: latents would depend on later "
            "frames"
        )
    if config["patch_size_t"] != 1:
        raise WeightsError(
            f"config.json: patch_size_t = {config['patch_size_t']!r} is not supported; known: 1 "
            "(others leave the first frame no latent frame of its own)"
        )
    if config["down_block_types"] is not None:
        choices(config, "down_block_types", {"LTX2VideoDownBlock3D": True})


def _layers(config: Mapping[str, Any], half: str) -> tuple[int, ...]:
    """Residual blocks of each level and, last, of the middle."""
    key = f"{half}layers_per_block"
    layers, levels = counts(config, key), counts(config, f"{half}block_out_channels")
    if len(layers) != len(levels) + 1:
        raise WeightsError(
            f"config.json contradicts itself: {len(levels)} levels in {half}block_out_channels "
            f"and a middle need {len(levels) + 1} values in {key}, got {len(layers)}"
        )
    return layers


def _downs(config: Mapping[str, Any], layers: tuple[int, ...]) -> tuple[Down, ...]:
    widths = counts(config, "block_out_channels")
    kinds = _resampling(config, "downsample_type", "spatio_temporal_scaling", _KINDS, len(widths))
    downs, channels = [], count(config, "latent_channels")
    for width, blocks, kind in zip(widths, layers, kinds, strict=False):
        block = 1 if kind in (None, "conv") else math.prod(FACTORS[kind])
        if width % block or channels * block % width or (block == 1 and width != channels):
            raise WeightsError(
                f"config.json: block_out_channels = {list(widths)} cannot be resampled: "
                f"{kind or 'no'} downsampling does not make {width} channels of {channels}"
            )
        downs.append(Down(channels, width, blocks, kind))
        channels = width
    return tuple(downs)


def _ups(config: Mapping[str, Any], layers: tuple[int, ...]) -> tuple[Up, ...]:
    key = "decoder_block_out_channels"
    widths = counts(config, key)[::-1]
    # The types alone are listed from the latents outwards; all else is from the frames inwards.
    scales = _per_level(config, "decoder_spatio_temporal_scaling", len(widths))[::-1]
    residuals = _per_level(config, "upsample_residual", len(widths))[::-1]
    types = choices(config, "upsample_type", _UP_KINDS)
    shrinks = counts(config, "upsample_factor")[::-1]
    if not len(types) == len(shrinks) == len(widths):
        raise WeightsError(
            f"config.json contradicts itself: {len(widths)} levels in {key}, {len(types)} in "
            f"upsample_type and {len(shrinks)} in upsample_factor"
        )
    ups, channels = [], widths[0]
    for i, width in enumerate(widths):
        shrink, kind = shrinks[i], types[i] if scales[i] else None
        outputs = width // shrink
        converts = channels // shrink != outputs
        inputs = outputs * shrink if kind else outputs
        block = math.prod(FACTORS[kind]) if kind else 1
        # A block that converts channels gives `outputs` of them, whatever the factor.
        found = outputs if converts else channels
        fits = found == inputs and (not converts or channels // shrink == channels)
        residual = kind is not None and residuals[i]
        if not outputs or not fits or (residual and (block % shrink or inputs % block)):
            raise WeightsError(
                f"config.json: {key} = {list(widths[::-1])} cannot be resampled: "
                f"{kind or 'no'} upsampling by a factor of {shrink} does not make {outputs} "
                f"channels of {channels}"
            )
        ups.append(Up(channels, outputs, layers[-2 - i], kind, residual, converts))
        channels = outputs
    return tuple(ups)


def _resampling(
    config: Mapping[str, Any],
    types: str,
    scaling: str,
    known: Mapping[str, Resampling],
    levels: int,
) -> list[Resampling | None]:
    """Return the resampling of each level; None for a level without one."""
    kinds, scales = choices(config, types, known), _per_level(config, scaling, levels)
    if len(kinds) != levels:
        raise WeightsError(
            f"config.json contradicts itself: expected {levels} values in {types}, got {len(kinds)}"
        )
    return [kind if scale else None for kind, scale in zip(kinds, scales, strict=True)]


def _per_level(config: Mapping[str, Any], key: str, levels: int) -> tuple[bool, ...]:
    """A flag for each level; a single one is meant for all."""
    if isinstance(config[key], bool):
        return (config[key],) * levels
    flags: tuple[bool, ...] = choices(config, key, _FLAGS)
    if len(flags) != levels:
        raise WeightsError(
            f"config.json contradicts itself: expected {levels} values in {key}, got {len(flags)}"
        )
    return flags


def _positive(config: Mapping[str, Any], key: str) -> float:
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise WeightsError(f"config.json: expected {key} > 0, a number, got {value!r}")
    return float(value)


def _product(levels: tuple[Down, ...] | tuple[Up, ...]) -> tuple[int, int, int]:
    """Compute the stride in frames, rows and columns of all levels together."""
    factors = [FACTORS[level.kind] for level in levels if level.kind is not None]
    t, h, w = (math.prod(factor[axis] for factor in factors) for axis in range(3))
    return t, h, w
