"""A WF-VAE small enough to build in milliseconds, and its checkpoint on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from wfvae_cli.models.wfvae import WFVAE

CONFIG: dict[str, Any] = {
    "_class_name": "WFVAEModel",
    "attention_type": "AttnBlock3DFix",
    "norm_type": "layernorm",
    "use_attention": True,
    "dropout": 0.0,
    "l1_dowmsample_block": "Downsample",
    "l1_downsample_wavelet": "HaarWaveletTransform2D",
    "l2_dowmsample_block": "Spatial2xTime2x3DDownsample",
    "l2_downsample_wavelet": "HaarWaveletTransform3D",
    "l1_upsample_block": "Upsample",
    "l1_upsample_wavelet": "InverseHaarWaveletTransform2D",
    "l2_upsample_block": "Spatial2xTime2x3DUpsample",
    "l2_upsample_wavelet": "InverseHaarWaveletTransform3D",
    "latent_dim": 4,
    "base_channels": 8,
    "encoder_num_resblocks": 1,
    "decoder_num_resblocks": 1,
    "encoder_energy_flow_hidden_size": 4,
    "decoder_energy_flow_hidden_size": 4,
    "connect_res_layer_num": 1,
    "t_interpolation": "trilinear",
}

HAAR = (
    *(f"encoder.wavelet_transform_l1.{band}" for band in ("aa", "ad", "da", "dd")),
    *(
        f"encoder.wavelet_transform_in.{band}_conv.conv.weight"
        for band in ("h", "g", "hh", "gh", "h_v", "g_v", "hh_v", "gh_v")
    ),
)
"""Some of the constants that published checkpoints carry beside their weights."""


def tiny_state(seed: int = 0, *, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random weights under the publishers' names, with Haar filters."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: torch.randn(value.shape, generator=generator).div(8).to(dtype)
        for name, value in WFVAE.from_config(CONFIG).state_dict().items()
    }
    for name in HAAR:
        constant = WFVAE.constant(name)
        assert constant is not None
        state[name] = constant.to(dtype)
    return state


def write_checkpoint(
    folder: Path,
    state: Mapping[str, Tensor],
    config: Mapping[str, Any] = CONFIG,
    name: str = "diffusion_pytorch_model.safetensors",
) -> Path:
    """Write config and weights into `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(dict(state), folder / name)
    return folder


def write_shards(folder: Path, state: Mapping[str, Tensor]) -> list[Path]:
    """Write `state` as two shards with an index, beside the config."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    names = sorted(state)
    weight_map: dict[str, str] = {}
    files = []
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"diffusion_pytorch_model-{number:05}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
        files.append(folder / file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    return files
