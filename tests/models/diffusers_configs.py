"""Small configs of the classes that the adapter to diffusers runs: built in milliseconds."""

from __future__ import annotations

from typing import Any

from wfvae_cli.strides import ClipLengths, Progression

KL_BLOCKS: dict[str, Any] = {
    "block_out_channels": [8, 8, 16, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "AutoencoderKL": KL_BLOCKS | {"shift_factor": 0.1159, "scaling_factor": 0.3611},
    "AutoencoderKLFlux2": KL_BLOCKS,
    "AutoencoderKLHunyuanImage": {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "block_out_channels": [32, 32, 32],
        "layers_per_block": 1,
        "spatial_compression_ratio": 4,
        "sample_size": 32,
        "scaling_factor": 0.75289,
    },
    "AutoencoderDC": {
        "latent_channels": 4,
        "attention_head_dim": 2,
        "encoder_block_types": ["ResBlock", "EfficientViTBlock"],
        "decoder_block_types": ["ResBlock", "EfficientViTBlock"],
        "encoder_block_out_channels": [8, 8],
        "decoder_block_out_channels": [8, 8],
        "encoder_layers_per_block": [1, 1],
        "decoder_layers_per_block": [1, 1],
        "encoder_qkv_multiscales": [[], [5]],
        "decoder_qkv_multiscales": [[], [5]],
        "downsample_block_type": "conv",
        "upsample_block_type": "interpolate",
        "decoder_norm_types": "rms_norm",
        "decoder_act_fns": "silu",
        "scaling_factor": 0.41407,
    },
    "AutoencoderTiny": {
        "encoder_block_out_channels": [8, 8, 8, 8],
        "decoder_block_out_channels": [8, 8, 8, 8],
        "num_encoder_blocks": [1, 1, 1, 1],
        "num_decoder_blocks": [1, 1, 1, 1],
        "latent_channels": 4,
    },
    "AutoencoderKLKVAE": {
        "channels": 32,
        "num_enc_blocks": 1,
        "num_dec_blocks": 1,
        "z_channels": 4,
        "ch_mult": [1, 2],
    },
    "AutoencoderKLHunyuanVideo": {
        "latent_channels": 4,
        "block_out_channels": [8, 8, 8, 8],
        "layers_per_block": 1,
        "norm_num_groups": 4,
    },
    "AutoencoderKLCogVideoX": {
        "latent_channels": 4,
        "block_out_channels": [8, 8, 8, 8],
        "layers_per_block": 1,
        "norm_num_groups": 4,
    },
    "AutoencoderKLLTXVideo": {
        "latent_channels": 8,
        "block_out_channels": [8, 8, 8, 8],
        "decoder_block_out_channels": [8, 8, 8, 8],
        "layers_per_block": [1, 1, 1, 1, 1],
        "decoder_layers_per_block": [1, 1, 1, 1, 1],
    },
    "AutoencoderKLMochi": {
        "latent_channels": 4,
        "encoder_block_out_channels": [32, 32, 32, 32],
        "decoder_block_out_channels": [32, 32, 32, 32],
        "layers_per_block": [1, 1, 1, 1, 1],
        "latents_mean": [0.1, -0.2, 0.3, 0.0],
        "latents_std": [0.5, 2.0, 1.0, 1.5],
    },
    "AutoencoderKLCosmos": {
        "latent_channels": 4,
        "encoder_block_out_channels": [8, 8, 8, 8],
        "decode_block_out_channels": [8, 8, 8, 8],
        "attention_resolutions": [8],
        "resolution": 64,
        "num_layers": 1,
    },
    "AutoencoderKLKVAEVideo": {
        "ch": 32,
        "ch_mult": [1, 2, 2],
        "num_res_blocks": 1,
        "z_channels": 4,
        "temporal_compress_times": 4,
    },
    "AutoencoderVidTok": {
        "ch": 32,
        "ch_mult": [1, 1, 1, 1],
        "z_channels": 4,
        "num_res_blocks": 1,
    },
    "AutoencoderKLAllegro": {
        "latent_channels": 4,
        "block_out_channels": [2, 2, 2, 2],
        "layers_per_block": 1,
        "norm_num_groups": 1,
        "sample_size": 128,
        "scaling_factor": 0.13,
    },
    "AutoencoderKLMiniMaxH3": {
        "latent_channels": 4,
        "block_out_channels": [8, 8, 8, 8, 8],
        "layers_per_block": 1,
        "spatial_downsample_factors": [2, 2, 2, 2, 1],
        "temporal_downsample_factors": [1, 2, 2, 1, 1],
        "norm_num_groups": 4,
        "decoder_num_layers": 1,
        "decoder_num_attention_heads": 2,
        "decoder_attention_head_dim": 16,
        "latents_mean": [0.1, -0.2, 0.3, 0.0],
        "latents_std": [0.5, 2.0, 1.0, 1.5],
    },
}

LENGTHS = {
    "AutoencoderKLAllegro": ClipLengths(Progression(24, 16), Progression(6, 4)),
    "AutoencoderKLMiniMaxH3": ClipLengths(Progression(22, 17), Progression(7, 5)),
}
"""Of clips, where they are not 1 + k latent frames."""
