"""Seeded checkpoints on disk of models that publish trainers' latents, small and quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.models.tiny import write_checkpoint
from tests.parity.cases import case_config, case_weights
from wfvae_cli.models.registry import find_family

MEAN = [0.5, -0.25, 0.125, -1.0]
STD = [2.0, 0.5, 1.5, 3.0]

SMALL_LTX2: dict[str, Any] = {
    "_class_name": "AutoencoderKLLTX2Video",
    "latent_channels": 4,
    "block_out_channels": [8, 8],
    "layers_per_block": [1, 1, 1],
    "downsample_type": ["spatial", "temporal"],
    "spatio_temporal_scaling": [True, True],
    "decoder_block_out_channels": [8, 8],
    "decoder_layers_per_block": [1, 1, 1],
    "upsample_type": ["temporal", "spatial"],
    "upsample_factor": [2, 1],
    "upsample_residual": [True, False],
    "decoder_spatio_temporal_scaling": [True, True],
    "decoder_causal": False,
    "patch_size": 2,
}
_LTX2 = {**SMALL_LTX2, "latents_mean": MEAN, "latents_std": STD}
_HUNYUAN15: dict[str, Any] = {
    "_class_name": "AutoencoderKLHunyuanVideo15",
    "latent_channels": 4,
    "block_out_channels": [8, 8, 8],
    "layers_per_block": 1,
    "spatial_compression_ratio": 4,
    "temporal_compression_ratio": 4,
    "scaling_factor": 1.03682,
}


def write_wan(folder: Path, class_name: str = "WanVAE") -> Path:
    """A Wan 2.1, or with `AutoencoderKLQwenImage` a Qwen-Image, of 4 channels."""
    config = case_config("mini-wan")
    if class_name == "AutoencoderKLQwenImage":
        config = {
            "base_dim": config["dim"],
            "z_dim": config["z_dim"],
            "dim_mult": config["dim_mult"],
            "num_res_blocks": config["num_res_blocks"],
            "attn_scales": [],
            "temperal_downsample": config["temporal_downsample"],
        }
    config |= {"_class_name": class_name, "latents_mean": MEAN, "latents_std": STD}
    return write_checkpoint(folder, case_weights("mini-wan"), config)


def write_ltx2(folder: Path) -> Path:
    """An LTX-2 of 4 channels."""
    return _write_random(folder, _LTX2)


def write_hunyuan15(folder: Path) -> Path:
    """A HunyuanVideo 1.5 of 4 channels."""
    return _write_random(folder, _HUNYUAN15)


def _write_random(folder: Path, config: dict[str, Any]) -> Path:
    vae = find_family(config, {}, "a test").load().from_config(config)
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(value.shape, generator=generator) / max(1, value[0].numel()) ** 0.5
        for name, value in vae.state_dict().items()
    }
    return write_checkpoint(folder, state, config)
