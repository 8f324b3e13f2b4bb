"""Detection of a model's config from its tensors, or of the most similar model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from wfvae_cli.models.wan_names import rename_wan, rename_wan22
from wfvae_cli.models.wan_statistics import WAN_21_MEAN, WAN_21_STD, WAN_22_MEAN, WAN_22_STD

Shapes = Mapping[str, Sequence[int]]

_WAN_21 = {"dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}
_WAN_22 = {"dim": 160, "z_dim": 48, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}


class InferredConfig(NamedTuple):
    """A `config.json` for a checkpoint that came without one."""

    config: dict[str, Any]
    note: str
    """Assumption made, as a sentence for the user."""


def infer_config(shapes: Shapes) -> InferredConfig | None:
    """Derive a config from tensor names and shapes, where they decide it.

    Wan's checkpoints are published without a config and need none: every field shows in the
    tensors, in either layout of names. WF-VAE's do not (how time is interpolated leaves no
    trace), nor do KL image VAEs' (the scaling factor).

    Args:
        shapes: the checkpoint's tensors, by name.

    Returns:
        The config and what was assumed; None where the tensors do not decide it.
    """
    for name, rename, read, published, statistics in (
        ("Wan VAE", rename_wan, _wan_config, _WAN_21, (WAN_21_MEAN, WAN_21_STD)),
        ("Wan 2.2 VAE", rename_wan22, _wan22_config, _WAN_22, (WAN_22_MEAN, WAN_22_STD)),
    ):
        config = read({ours: tuple(shapes[theirs]) for theirs, ours in rename(shapes).items()})
        if config is None:
            continue
        note = f"without a config.json, taken for a {name} by its tensors"
        version = "2.1" if published is _WAN_21 else "2.2"
        if any(config.get(key) != value for key, value in published.items()):
            note += f", of another size than Wan {version}'s: without normalisation"
            return InferredConfig(config, note)
        mean, std = statistics
        config |= {"latents_mean": list(mean), "latents_std": list(std)}
        return InferredConfig(
            config, f"{note}, of Wan {version}'s size: with its latents' mean and std"
        )
    return None


_LATENT = "post_quant_conv.conv.weight"
_ENDS = ("encoder.conv_in.conv.weight", "decoder.conv_out.conv.weight")
_NEEDED = (*_ENDS, _LATENT, "encoder.middle.1.to_qkv.weight")


def _wan_config(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Read the levels of a Wan 2.1 encoder from its shapes; None where it is none."""
    if any(name not in shapes for name in _NEEDED):
        return None
    widths: list[list[int]] = [[]]
    halves_time: list[bool] = []
    layer = "encoder.downsamples.0"
    while f"{layer}.conv2.conv.weight" in shapes or f"{layer}.space.conv.weight" in shapes:
        if f"{layer}.space.conv.weight" in shapes:
            widths.append([])
            halves_time.append(f"{layer}.time.conv.weight" in shapes)
        else:
            widths[-1].append(shapes[f"{layer}.conv2.conv.weight"][0])
        layer = f"encoder.downsamples.{sum(map(len, widths)) + len(halves_time)}"
    config = _levels("WanVAE", shapes, widths, halves_time)
    if config is None:
        return None
    decoder_dim = shapes[_ENDS[1]][1] // config["dim_mult"][0]
    return config if decoder_dim == config["dim"] else {**config, "decoder_base_dim": decoder_dim}


def _wan22_config(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Read the levels of a Wan 2.2 encoder from its shapes; None where it is none."""
    if any(name not in shapes for name in _NEEDED):
        return None
    widths: list[list[int]] = []
    halves_time: list[bool] = []
    while f"encoder.levels.{len(widths)}.blocks.0.conv2.conv.weight" in shapes:
        level = f"encoder.levels.{len(widths)}"
        widths.append([])
        while f"{level}.blocks.{len(widths[-1])}.conv2.conv.weight" in shapes:
            widths[-1].append(shapes[f"{level}.blocks.{len(widths[-1])}.conv2.conv.weight"][0])
        if f"{level}.resample.space.conv.weight" in shapes:
            halves_time.append(f"{level}.resample.time.conv.weight" in shapes)
    config = _levels("Wan2_2_VAE", shapes, widths, halves_time)
    if config is None or shapes[_ENDS[0]][1] != 12:  # RGB of 2x2 pixels
        return None
    decoder_dim = shapes[_ENDS[1]][1] // config["dim_mult"][0]
    return {**config, "dec_dim": decoder_dim, "patch_size": 2}


def _levels(
    class_name: str,
    shapes: Mapping[str, tuple[int, ...]],
    widths: list[list[int]],
    halves_time: list[bool],
) -> dict[str, Any] | None:
    """The fields that both networks have; None where the blocks make no such network."""
    dim = shapes[_ENDS[0]][0]
    blocks = len(widths[0]) if widths else 0
    if not blocks or any(len(level) != blocks or level[-1] % dim for level in widths):
        return None
    return {
        "_class_name": class_name,
        "dim": dim,
        "z_dim": shapes[_LATENT][0],
        "dim_mult": [level[-1] // dim for level in widths],
        "num_res_blocks": blocks,
        "attn_scales": [],
        "temporal_downsample": halves_time,
    }


_COMMON = frozenset(("encoder", "decoder", "weight", "bias"))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_VOCABULARIES: dict[str, frozenset[str]] = {
    "WFVAEModel": _words(
        "wavelet_transform_in wavelet_transform_l1 wavelet_transform_l2 "
        "inverse_wavelet_transform_out inverse_wavelet_transform_l1 inverse_wavelet_transform_l2 "
        "down1 down2 up1 up2 mid layer connect_l1 connect_l2 norm_out conv_out conv_in "
        "norm norm1 norm2 conv conv1 conv2 nin_shortcut q k v proj_out"
    ),
    "WFVAE2Model": _words(
        "wavelet_transform_in wavelet_transform inverse_wavelet_transform "
        "inverse_wavelet_transform_out down_blocks up_blocks mid in_flow_conv out_flow_conv "
        "branch_conv res_block out_res_block down up norm_out conv_out conv_in "
        "norm norm1 norm2 conv conv1 conv2 nin_shortcut q k v proj_out"
    ),
    "WanVAE": _words(
        "conv1 conv2 downsamples upsamples middle head residual shortcut resample time_conv "
        "norm gamma to_qkv proj"
    ),
    "AutoencoderKLWan": _words(
        "quant_conv post_quant_conv conv_in conv_out norm_out down_blocks up_blocks mid_block "
        "resnets attentions upsamplers resample time_conv conv1 conv2 conv_shortcut norm norm1 "
        "norm2 gamma to_qkv proj"
    ),
    "AutoencoderKLLTX2Video": _words(
        "latents_mean latents_std conv_in conv_out down_blocks up_blocks mid_block resnets "
        "downsamplers upsamplers conv conv1 conv2 conv_shortcut norm3"
    ),
    "AutoencoderKLHunyuanVideo15": _words(
        "conv_in conv_out norm_out down_blocks up_blocks mid_block resnets attentions "
        "downsamplers upsamplers conv conv1 conv2 conv_shortcut norm norm1 norm2 gamma to_q to_k "
        "to_v proj_out"
    ),
    "AutoencoderKL": _words(
        "quant_conv post_quant_conv conv_in conv_out conv_norm_out down_blocks up_blocks "
        "mid_block resnets attentions downsamplers upsamplers conv conv1 conv2 conv_shortcut "
        "norm1 norm2 group_norm to_q to_k to_v to_out"
    ),
}
"""The words in each layout's tensor names."""
_ALIKE = 0.3


def nearest_layout(names: Iterable[str]) -> str | None:
    """Say which known layout's tensor names are most like these.

    Args:
        names: a checkpoint's tensor names.

    Returns:
        The `_class_name` of the layout that shares most words (intersection over union); None
        where none is alike.
    """
    words = {word for name in names for word in name.split(".") if not word.isdigit()} - _COMMON
    likeness = {
        layout: len(words & vocabulary) / len(words | vocabulary)
        for layout, vocabulary in _VOCABULARIES.items()
    }
    nearest = max(likeness, key=lambda layout: likeness[layout])
    return nearest if likeness[nearest] >= _ALIKE else None
