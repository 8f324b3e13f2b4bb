"""What a checkpoint's tensors say about it: its config where they decide it, else its likeness."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Shapes = Mapping[str, Sequence[int]]

# Published beside the original weights, in Wan2.1's wan/modules/vae.py, and in the config.json
# of diffusers' conversion; the checkpoint itself does not hold them.
_WAN_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
_WAN_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)
_WAN_21 = {"dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}


class InferredConfig(NamedTuple):
    """A `config.json` for a checkpoint that came without one."""

    config: dict[str, Any]
    note: str
    """What was assumed, for the user."""


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
    from wfvae_cli.models.wan import WanVAE  # loads torch

    renamed = WanVAE.rename(shapes)
    config = _wan_config({ours: tuple(shapes[name]) for name, ours in renamed.items()})
    if config is None:
        return None
    note = "without a config.json, taken for a Wan VAE by its tensors"
    if all(config[key] == value for key, value in _WAN_21.items()):
        config |= {"latents_mean": list(_WAN_MEAN), "latents_std": list(_WAN_STD)}
        return InferredConfig(config, f"{note}, of Wan 2.1's size: with its latents' mean and std")
    return InferredConfig(config, f"{note}, of another size than Wan 2.1's: without normalisation")


def _wan_config(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Read the levels of a Wan encoder from its shapes; None where it is none."""
    ends = ("encoder.conv_in.conv.weight", "decoder.conv_out.conv.weight")
    latent = "post_quant_conv.conv.weight"
    if any(name not in shapes for name in (*ends, latent, "encoder.middle.1.to_qkv.weight")):
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
    dim = shapes[ends[0]][0]
    blocks = len(widths[0])
    if not blocks or any(len(level) != blocks or level[-1] % dim for level in widths):
        return None
    config: dict[str, Any] = {
        "_class_name": "WanVAE",
        "dim": dim,
        "z_dim": shapes[latent][0],
        "dim_mult": [level[-1] // dim for level in widths],
        "num_res_blocks": blocks,
        "attn_scales": [],
        "temporal_downsample": halves_time,
    }
    decoder_dim = shapes[ends[1]][1] // config["dim_mult"][0]
    return config if decoder_dim == dim else {**config, "decoder_base_dim": decoder_dim}


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
