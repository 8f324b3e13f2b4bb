from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.models.checkpoints import SMALL_LTX2 as SMALL
from tests.models.contract import (
    check_batch,
    check_causality,
    check_every_chunking,
    check_footprint,
    check_interleaving,
    check_strips,
    decode_parts,
    encode_parts,
    random_clip,
    randomise,
)
from wfvae_cli.errors import UsageError, WeightsError
from wfvae_cli.models.ltx2 import LTX2VAE
from wfvae_cli.models.ltx2_config import LTX2Config
from wfvae_cli.models.registry import find_family
from wfvae_cli.models.weights import build_on_meta
from wfvae_cli.nn.stream import Stream
from wfvae_cli.strides import Strides

LTX_20: dict[str, Any] = {
    "latent_channels": 8,
    "block_out_channels": [16, 32, 64, 128],
    "layers_per_block": [1, 1, 1, 1, 1],
    "downsample_type": ["spatial", "temporal", "spatiotemporal", "spatiotemporal"],
    "spatio_temporal_scaling": [True, True, True, True],
    "decoder_block_out_channels": [16, 32, 64],
    "decoder_layers_per_block": [1, 1, 1, 1],
    "decoder_spatio_temporal_scaling": [True, True, True],
    "upsample_type": ["spatiotemporal", "spatiotemporal", "spatiotemporal"],
    "upsample_residual": [True, True, True],
    "upsample_factor": [2, 2, 2],
    "patch_size": 4,
    "scaling_factor": 1.0,
}
LTX_23: dict[str, Any] = {
    **LTX_20,
    "block_out_channels": [16, 32, 64, 64],
    "decoder_block_out_channels": [16, 32, 32, 64],
    "decoder_layers_per_block": [1, 1, 1, 1, 1],
    "decoder_spatio_temporal_scaling": [True, True, True, True],
    "decoder_inject_noise": [False] * 5,
    "upsample_type": ["spatiotemporal", "spatiotemporal", "temporal", "spatial"],
    "upsample_residual": [False, False, False, False],
    "upsample_factor": [2, 2, 1, 2],
    "decoder_spatial_padding_mode": "zeros",
}
OTHERS: dict[str, Any] = {
    "downsample_type": ["conv", "spatial", "spatial"],
    "block_out_channels": [8, 8, 8],
    "layers_per_block": [1, 1, 1, 1],
    "spatio_temporal_scaling": [True, True, False],
    "encoder_spatial_padding_mode": "replicate",
    "decoder_block_out_channels": [8, 16, 32],
    "decoder_layers_per_block": [1, 2, 1, 1],
    "decoder_spatio_temporal_scaling": [True, False, True],
    "decoder_inject_noise": False,
    "upsample_type": ["spatiotemporal", "spatial", "spatial"],
    "upsample_factor": [1, 1, 1],
    "upsample_residual": False,
    "decoder_spatial_padding_mode": "replicate",
}


def small(**changes: Any) -> LTX2VAE:
    vae = LTX2VAE.from_config({**SMALL, **changes})
    randomise(vae)
    return vae


def with_oracle(change: dict[str, Any]) -> tuple[LTX2VAE, Any]:
    diffusers = pytest.importorskip("diffusers", reason="the oracle is diffusers (extra dev)")
    config = {**SMALL, **change}
    torch.manual_seed(0)
    oracle = diffusers.AutoencoderKLLTX2Video.from_config(config).eval().requires_grad_(False)
    channels = config["latent_channels"]
    oracle.latents_mean.copy_(torch.randn(channels))
    oracle.latents_std.copy_(0.5 + torch.rand(channels))
    vae = LTX2VAE.from_config(config)
    weights = oracle.state_dict()
    renamed = vae.rename(weights)
    vae.load_state_dict(
        {renamed[name]: value for name, value in weights.items() if name not in vae.statistics}
    )
    vae.use_statistics({name: weights[name] for name in vae.statistics})
    return vae.eval().requires_grad_(False), oracle


@pytest.mark.parametrize(
    "change", [LTX_20, {**LTX_20, "decoder_causal": True}, LTX_23, {**LTX_23, **OTHERS}]
)
def test_it_agrees_with_diffusers(change: dict[str, Any]) -> None:
    vae, oracle = with_oracle(change)
    frames = random_clip(vae, 4)
    expected = oracle.encode(frames).latent_dist
    posterior = vae.encode(frames, Stream.whole())
    torch.testing.assert_close(posterior.mean, expected.mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(posterior.logvar, expected.logvar, atol=1e-5, rtol=0)
    # In float64: without weights, a norm over few channels makes rounding large.
    vae, oracle, frames = vae.double(), oracle.double(), frames.double()
    expected = oracle.encode(frames).latent_dist
    decoded = oracle.decode(expected.mean).sample
    for chunks in ((4,), (1, 2, 1)):
        mean = torch.cat(list(encode_parts(vae, frames, chunks, Stream())), dim=2).chunk(2, 1)[0]
        torch.testing.assert_close(mean, expected.mean, atol=1e-10, rtol=0)
        again = torch.cat(list(decode_parts(vae, expected.mean, chunks, Stream())), dim=2)
        torch.testing.assert_close(again, decoded, atol=1e-10, rtol=0)


def test_normalised_latents_decode_as_the_oracles() -> None:
    vae, oracle = with_oracle({"scaling_factor": 1.5})
    vae, oracle = vae.double(), oracle.double()
    assert vae.normalization is not None
    shift, scale = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in vars(vae.normalization).values())
    frames = random_clip(vae, 2)
    normal = (vae.encode(frames, Stream.whole()).mean - shift) * scale
    mean, std = (getattr(oracle, name).view(1, -1, 1, 1, 1) for name in vae.statistics)
    # As diffusers' pipelines do it.
    theirs = (oracle.encode(frames).latent_dist.mean - mean) * oracle.config.scaling_factor / std
    torch.testing.assert_close(normal, theirs, atol=1e-5, rtol=0)
    expected = oracle.decode(theirs * std / oracle.config.scaling_factor + mean).sample
    decoded = vae.decode((normal / scale + shift).double(), Stream.whole())
    torch.testing.assert_close(decoded, expected, atol=1e-5, rtol=0)


def test_what_a_config_says_of_its_latents_stands_above_the_weights() -> None:
    vae = small(latents_mean=[1.0] * 4, latents_std=[2.0] * 4)
    vae.use_statistics({name: torch.ones(4) for name in vae.statistics})
    assert vae.normalization is not None
    assert (vae.normalization.shift, vae.normalization.scale) == ((1.0,) * 4, (0.5,) * 4)
    with pytest.raises(WeightsError, match="latents_std in the weights"):
        small().use_statistics({name: torch.zeros(4) for name in vae.statistics})


def test_chunked_is_whole() -> None:
    vae = small()
    assert vae.strides == Strides(2, 4, 4)
    check_every_chunking(vae, longest=5)


@pytest.mark.parametrize("edges", ["zeros", "reflect", "replicate"])
@pytest.mark.parametrize("causal", [True, False])
def test_chunked_is_whole_for_long_clips(edges: str, causal: bool) -> None:
    vae = small(
        decoder_causal=causal,
        decoder_spatial_padding_mode=edges,
        encoder_spatial_padding_mode=edges,
    )
    clip = random_clip(vae, 14)
    latents = vae.encode(clip, Stream.whole()).mean
    frames = vae.decode(latents, Stream.whole())
    assert frames.shape == clip.shape
    for chunks in ((1,) * 14, (3, 1, 6, 4), (13, 1)):
        parts = [part.chunk(2, dim=1)[0] for part in encode_parts(vae, clip, chunks, Stream())]
        torch.testing.assert_close(torch.cat(parts, dim=2), latents, atol=1e-11, rtol=0)
        parts = list(decode_parts(vae, latents, chunks, Stream()))
        torch.testing.assert_close(torch.cat(parts, dim=2), frames, atol=1e-11, rtol=0)
        # 4 convs at the latents' rate, 6 at twice that: 14 frames late.
        covered = 1 + 2 * (sum(chunks[:-1]) - 1)
        late = 0 if causal else 14
        assert sum(part.size(2) for part in parts[:-1]) == max(0, covered - late)


def test_a_last_chunk_does_not_let_all_frames_go_together() -> None:
    vae, largest = small(), 0

    def watch(module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        nonlocal largest
        largest = max(largest, arguments[0].size(2))

    vae.decoder.up_blocks[-1].register_forward_pre_hook(watch)
    z = torch.randn(1, 4, 12, 2, 2, dtype=torch.float64)
    parts = list(decode_parts(vae, z, (2,) * 6, Stream()))
    assert parts[-1].size(2) == 18
    assert largest == 4


def test_streams_do_not_mix() -> None:
    check_interleaving(small())
    check_batch(small())


def test_the_encoder_never_sees_the_future() -> None:
    check_causality(small())


@pytest.mark.parametrize("edges", ["zeros", "reflect", "replicate"])
def test_in_row_bands_is_whole(edges: str) -> None:
    vae = small(decoder_spatial_padding_mode=edges, encoder_spatial_padding_mode=edges)
    check_strips(vae, columns=2)


def test_a_plan_knows_how_much_state_there_is() -> None:
    check_footprint(build_on_meta(LTX2VAE, {"decoder_causal": False}), latents=28, size=512)


def test_published_configs_have_the_published_sizes() -> None:
    for change in ({}, {**LTX_23, "block_out_channels": [256, 512, 1024, 1024]}):
        config = {**change, "patch_size": 4, "latent_channels": 128}
        assert LTX2Config.parse(config).strides == Strides(8, 32, 32)
    vae = build_on_meta(LTX2VAE, {})
    assert (vae.strides, vae.latent_channels) == (Strides(8, 32, 32), 128)
    assert find_family({"_class_name": "AutoencoderKLLTX2Video"}, [], "x").load() is LTX2VAE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestep_conditioning": True}, "takes out a given amount of noise"),
        ({"decoder_inject_noise": [False, True, False]}, "adds random noise"),
        ({"encoder_causal": False}, "would depend on later frames"),
        ({"patch_size_t": 2}, "patch_size_t = 2 is not supported; known: 1"),
        ({"decoder_spatial_padding_mode": "circular"}, "'circular' is not supported; known: "),
        ({"upsample_type": ["temporal", "conv"]}, "upsample_type = 'conv' is not supported"),
        ({"upsample_type": ["temporal"]}, "2 levels in .*, 1 in upsample_type and 2 in"),
        ({"upsample_type": ["temporal", "temporal"]}, r"\(2, 2, 2\) frames, .*\(4, 1, 1\) of 1"),
        ({"downsample_type": ["spatial"]}, "expected 2 values in downsample_type, got 1"),
        ({"spatio_temporal_scaling": [True]}, "expected 2 values in spatio_temporal_scaling"),
        ({"layers_per_block": [1, 1]}, "need 3 values in layers_per_block, got 2"),
        ({"block_out_channels": [6, 8]}, "spatial downsampling does not make 6 channels of 4"),
        ({"decoder_block_out_channels": [8, 6]}, "spatial upsampling .* 4 channels of 6"),
        ({"scaling_factor": 0}, "expected scaling_factor > 0"),
    ],
)
def test_a_config_it_cannot_build_is_an_answer(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        LTX2VAE.from_config({**SMALL, **change})


def test_a_picture_too_small_to_be_mirrored_is_an_answer() -> None:
    vae = small()
    with pytest.raises(UsageError, match=r"at least 2 rows and columns of latents \(8x8 pixels\)"):
        vae.decode(torch.zeros(1, 4, 1, 1, 3, dtype=torch.float64), Stream.whole())
    zeros = small(decoder_spatial_padding_mode="zeros")
    z = torch.zeros(1, 4, 1, 1, 1, dtype=torch.float64)
    assert zeros.decode(z, Stream.whole()).shape == (1, 3, 1, 4, 4)
