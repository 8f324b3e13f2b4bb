from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

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
from wfvae_cli.models.compiled import compile_halves
from wfvae_cli.models.hunyuan15 import Hunyuan15VAE
from wfvae_cli.models.registry import find_family
from wfvae_cli.models.weights import build_on_meta
from wfvae_cli.nn.stream import Stream
from wfvae_cli.strides import Strides

SMALL: dict[str, Any] = {
    "_class_name": "AutoencoderKLHunyuanVideo15",
    "latent_channels": 2,
    "block_out_channels": [8, 8, 8],
    "layers_per_block": 1,
    "spatial_compression_ratio": 4,
    "temporal_compression_ratio": 4,
}
VARIANTS: tuple[dict[str, Any], ...] = (
    {
        "block_out_channels": [8, 8, 16, 16, 16],
        "spatial_compression_ratio": 16,
    },
    {"block_out_channels": [8, 16, 16, 16], "temporal_compression_ratio": 2},
    {"downsample_match_channel": False, "upsample_match_channel": False},
    {"temporal_compression_ratio": 1, "layers_per_block": 2},
)


def small(**changes: Any) -> Hunyuan15VAE:
    vae = Hunyuan15VAE.from_config({**SMALL, **changes})
    randomise(vae)
    return vae


def with_oracle(change: dict[str, Any]) -> tuple[Hunyuan15VAE, Any]:
    diffusers = pytest.importorskip("diffusers", reason="the oracle is diffusers (extra dev)")
    config = {**SMALL, **change}
    torch.manual_seed(0)
    oracle = diffusers.AutoencoderKLHunyuanVideo15.from_config(config).eval().requires_grad_(False)
    for name, weight in oracle.named_parameters():
        if name.endswith("gamma"):
            weight.add_(0.1 * torch.randn(weight.shape))
    vae = Hunyuan15VAE.from_config(config)
    weights = oracle.state_dict()
    renamed = vae.rename(weights)
    vae.load_state_dict({renamed[name]: value for name, value in weights.items()})
    return vae.eval().requires_grad_(False), oracle


@pytest.mark.parametrize("change", VARIANTS)
def test_it_agrees_with_diffusers(change: dict[str, Any]) -> None:
    vae, oracle = with_oracle(change)
    frames = random_clip(vae, 3)
    expected = oracle.encode(frames).latent_dist
    decoded = oracle.decode(expected.mean).sample
    for chunks in ((3,), (1, 2)):
        moments = torch.cat(list(encode_parts(vae, frames, chunks, Stream())), dim=2)
        mean, logvar = moments.chunk(2, dim=1)
        torch.testing.assert_close(mean, expected.mean, atol=1e-5, rtol=0)
        torch.testing.assert_close(logvar, expected.logvar, atol=1e-5, rtol=0)
        frames_again = torch.cat(list(decode_parts(vae, expected.mean, chunks, Stream())), dim=2)
        torch.testing.assert_close(frames_again, decoded, atol=1e-5, rtol=0)


def test_normalised_latents_decode_as_the_oracles() -> None:
    vae, oracle = with_oracle({"scaling_factor": 1.5})
    assert vae.normalization is not None
    shift, scale = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in vars(vae.normalization).values())
    frames = random_clip(vae, 2)
    normal = (vae.encode(frames, Stream.whole()).mean - shift) * scale
    theirs = oracle.encode(frames).latent_dist.mean * oracle.config.scaling_factor
    torch.testing.assert_close(normal, theirs, atol=1e-5, rtol=0)
    decoded = vae.decode(normal / scale + shift, Stream.whole())
    expected = oracle.decode(theirs / oracle.config.scaling_factor).sample
    torch.testing.assert_close(decoded, expected, atol=1e-5, rtol=0)


def test_chunked_is_whole() -> None:
    vae = small()
    assert vae.strides == Strides(4, 4, 4)
    check_every_chunking(vae, longest=4)


def test_streams_do_not_mix() -> None:
    check_interleaving(small())
    check_batch(small())


def test_the_future_never_alters_the_past() -> None:
    check_causality(small())


def test_in_row_bands_is_whole() -> None:
    check_strips(small())


def test_its_state_grows_as_it_says() -> None:
    vae = small()
    clip = random_clip(vae, 5)
    positions = 2 * 3  # of a latent frame of that clip
    encoder, decoder, kept = Stream(), Stream(), []
    for begin in range(4):
        frames = clip[:, :, max(0, 4 * begin - 3) : 4 * begin + 1]
        latents = vae.encode(frames, encoder).mean
        vae.decode(latents, decoder)
        kept.append((encoder.nbytes // 8, decoder.nbytes // 8))  # float64
    growth = vae.state_growth_per_latent * positions
    for before, after in pairwise(kept[1:]):
        assert [b - a for a, b in zip(before, after, strict=True)] == [growth, growth]
    assert build_on_meta(Hunyuan15VAE, {}).state_growth_per_latent == 2048
    with pytest.raises(UsageError, match="state grows with every chunk"):
        compile_halves(vae, torch.device("cpu"))


def test_it_is_found_by_its_class_and_has_the_published_size() -> None:
    for name in ("AutoencoderKLHunyuanVideo15", "AutoencoderKLConv3D"):
        assert find_family({"_class_name": name}, [], "x").load() is Hunyuan15VAE
    vae = build_on_meta(Hunyuan15VAE, {})
    assert (vae.strides, vae.latent_channels) == (Strides(4, 16, 16), 32)
    assert vae.normalization is not None
    assert vae.normalization.scale == (1.03682,) * 32


def test_the_original_layout_names_the_same_tensors() -> None:
    vae, oracle = with_oracle({})
    theirs = list(oracle.state_dict())
    original = [to_original(name) for name in theirs]
    assert len(set(original)) == len(theirs)
    assert list(Hunyuan15VAE.rename(original).values()) == list(vae.rename(theirs).values())
    fields = {"ffactor_spatial": 4, "ffactor_temporal": 2, "shift_factor": None}
    config = {"block_out_channels": [8, 8, 8], "latent_channels": 2, "scaling_factor": 2.0}
    vae = Hunyuan15VAE.from_config({**config, **fields})
    assert vae.strides == Strides(2, 4, 4)


def to_original(name: str) -> str:
    """The name in the original layout, written out independently of the code under test."""
    half, _, rest = name.partition(".")
    parts = rest.split(".")
    if parts[0] in ("down_blocks", "up_blocks"):
        direction = parts[0].removesuffix("_blocks")
        if parts[2] == "resnets":
            parts = [direction, parts[1], "block", *parts[3:]]
        else:
            parts = [direction, parts[1], f"{direction}sample", *parts[4:]]
    elif parts[0] == "mid_block":
        block = "attn_1" if parts[1] == "attentions" else f"block_{int(parts[2]) + 1}"
        parts = ["mid", block, *(part.removeprefix("to_") for part in parts[3:])]
    return ".".join([half, *("nin_shortcut" if p == "conv_shortcut" else p for p in parts)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_channels": 4}, "in_channels = 4 is not supported"),
        ({"spatial_compression_ratio": 12}, "to be a power of 2, got 12"),
        ({"temporal_compression_ratio": 8}, "3 levels .* halve space 2 times, and time 3"),
        ({"block_out_channels": [8, 8]}, "2 levels in block_out_channels"),
        ({"block_out_channels": [8, 12, 8]}, "cannot be resampled"),
        ({"latent_channels": 3}, "8, to be a multiple of twice the 3 latent_channels"),
    ],
)
def test_a_config_it_cannot_build_is_an_answer(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        Hunyuan15VAE.from_config({**SMALL, **change})


def test_a_plan_knows_how_much_state_there_is() -> None:
    check_footprint(build_on_meta(Hunyuan15VAE, {}), size=256)
