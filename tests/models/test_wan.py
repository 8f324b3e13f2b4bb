from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from tests.models.build import build, cached, check_parity
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
from tests.parity.cases import case_answers, case_config, case_shapes
from wfvae_cli.errors import WeightsError
from wfvae_cli.models.registry import find_family
from wfvae_cli.models.wan import QwenImageVAE, WanVAE
from wfvae_cli.nn.stream import Stream
from wfvae_cli.strides import Strides

MINI = "mini-wan"
FULL = "wan2.1-vae"

SMALL: dict[str, Any] = {
    "_class_name": "WanVAE",
    "dim": 4,
    "z_dim": 2,
    "dim_mult": [1, 2, 1],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temporal_downsample": [True, True],
}
DIFFUSERS: dict[str, Any] = {
    "base_dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "latents_mean": [0.5, -1.0, 0.0, 2.0],
    "latents_std": [2.0, 4.0, 0.5, 1.0],
}


def small(**changes: Any) -> WanVAE:
    vae = WanVAE.from_config({**SMALL, **changes})
    randomise(vae)
    return vae


def test_it_agrees_with_the_publishers() -> None:
    check_parity(cached(MINI), MINI)


def test_in_strips_is_whole() -> None:
    check_strips(small())


def test_a_plan_knows_how_much_state_there_is() -> None:
    check_footprint(cached(MINI))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_full_size_agrees_with_the_publishers() -> None:
    check_parity(build(FULL), FULL)


@pytest.mark.parametrize("chunks", [(1, 1, 1, 1, 1), (3, 2)])
def test_chunks_larger_than_the_publishers_give_their_answers(chunks: tuple[int, ...]) -> None:
    vae, answers = cached(MINI), case_answers(MINI)
    moments = torch.cat(list(encode_parts(vae, answers["x"], chunks, Stream())), dim=2)
    frames = torch.cat(list(decode_parts(vae, answers["mean"], chunks, Stream())), dim=2)
    torch.testing.assert_close(moments, answers["moments"], atol=1e-5, rtol=0)
    torch.testing.assert_close(frames, answers["reconstruction"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("longest", [5, pytest.param(6, marks=pytest.mark.slow)])
def test_chunked_is_whole(longest: int) -> None:
    vae = small()
    assert vae.strides == Strides(4, 4, 4)
    check_every_chunking(vae, longest)


@pytest.mark.parametrize("halves_time", [[False, True], [True, False], [False, False]])
def test_chunked_is_whole_wherever_time_is_halved(halves_time: list[bool]) -> None:
    vae = small(temporal_downsample=halves_time)
    assert vae.strides == Strides(2 ** sum(halves_time), 4, 4)
    check_every_chunking(vae, longest=4)


def test_streams_do_not_mix() -> None:
    check_interleaving(small())
    check_batch(small())


def test_the_future_never_alters_the_past() -> None:
    check_causality(small())


def test_black_pixels_stay_finite() -> None:
    vae = small().float()
    vae.encoder.conv_in.conv.weight.zero_()
    vae.encoder.conv_in.conv.bias.zero_()  # type: ignore[union-attr]  # it has one
    posterior = vae.encode(torch.zeros(1, 3, 1, 8, 8), Stream.whole())
    assert posterior.mean.isfinite().all()


def test_both_layouts_name_the_same_tensors() -> None:
    original = list(case_shapes(MINI))
    parameters = set(WanVAE.from_config(case_config(MINI)).state_dict())
    assert set(WanVAE.rename(original).values()) == parameters
    diffusers = [to_diffusers(name, blocks=2) for name in original]
    assert len(set(diffusers)) == len(original)
    renamed = WanVAE.rename(diffusers)
    assert [renamed[name] for name in diffusers] == list(WanVAE.rename(original).values())


def to_diffusers(name: str, blocks: int) -> str:
    """The name in diffusers' layout, written out independently of the code under test."""
    leaves = {
        "residual.0": "norm1",
        "residual.2": "conv1",
        "residual.3": "norm2",
        "residual.6": "conv2",
        "shortcut": "conv_shortcut",
    }
    if name.startswith(("conv1", "conv2")):
        return name.replace("conv1", "quant_conv").replace("conv2", "post_quant_conv")
    half, _, rest = name.partition(".")
    rest = re.sub(r"^conv1", "conv_in", rest)
    rest = rest.replace("head.0", "norm_out").replace("head.2", "conv_out")
    for theirs, leaf in leaves.items():
        rest = rest.replace(f".{theirs}.", f".{leaf}.")
    rest = rest.replace("downsamples", "down_blocks").replace("middle.1", "mid_block.attentions.0")
    rest = rest.replace("middle.0", "mid_block.resnets.0")
    rest = rest.replace("middle.2", "mid_block.resnets.1")
    if rest.startswith("upsamples"):
        _, number, leaf = rest.split(".", maxsplit=2)
        level, layer = divmod(int(number), blocks + 2)
        kind = "upsamplers.0" if layer > blocks else f"resnets.{layer}"
        rest = f"up_blocks.{level}.{kind}.{leaf}"
    return f"{half}.{rest}"


def test_it_agrees_with_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers", reason="the second oracle is diffusers (extra kl)")
    torch.manual_seed(0)
    oracle = diffusers.AutoencoderKLWan(**DIFFUSERS).eval().requires_grad_(False)
    vae = WanVAE.from_config({"_class_name": "AutoencoderKLWan", **DIFFUSERS})
    weights = oracle.state_dict()
    renamed = vae.rename(weights)
    vae.load_state_dict({renamed[name]: value for name, value in weights.items()})
    vae.eval().requires_grad_(False)
    frames = random_clip(vae, 3)
    expected = oracle.encode(frames).latent_dist
    posterior = vae.encode(frames, Stream.whole())
    torch.testing.assert_close(posterior.mean, expected.mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(posterior.logvar, expected.logvar, atol=1e-5, rtol=0)
    decoded = vae.decode(expected.mean, Stream.whole()).clamp(-1, 1)
    torch.testing.assert_close(decoded, oracle.decode(expected.mean).sample, atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [1, 9])
def test_qwen_image_is_wan_under_its_own_name(frames: int) -> None:
    diffusers = pytest.importorskip("diffusers", reason="the second oracle is diffusers")
    torch.manual_seed(0)
    oracle = diffusers.AutoencoderKLQwenImage(**DIFFUSERS).eval().requires_grad_(False)
    config = {"_class_name": "AutoencoderKLQwenImage", **DIFFUSERS, "input_channels": 3}
    vae = find_family(config, [], "x").load().from_config(config)
    assert isinstance(vae, QwenImageVAE)
    assert (vae.family, vae.strides) == ("qwenimage", Strides(4, 8, 8))
    weights = oracle.state_dict()
    renamed = vae.rename(weights)
    vae.load_state_dict({renamed[name]: value for name, value in weights.items()})
    vae.eval().requires_grad_(False)
    x = random_clip(vae, 1 + (frames - 1) // 4)
    assert vae.normalization is not None
    with torch.inference_mode():
        expected = oracle.encode(x).latent_dist.mean
        mean = vae.encode(x, Stream.whole()).mean
        torch.testing.assert_close(mean, expected, atol=1e-5, rtol=0)
        # Normalised as QwenImageImg2ImgPipeline does it, and back.
        shift, std = (
            torch.tensor(DIFFUSERS[key]).view(1, -1, 1, 1, 1)
            for key in ("latents_mean", "latents_std")
        )
        normalised = vae.normalization.apply(mean)
        torch.testing.assert_close(normalised, (expected - shift) / std, atol=1e-5, rtol=0)
        decoded = vae.decode(vae.normalization.undo(normalised), Stream.whole()).clamp(-1, 1)
        answer = oracle.decode(expected).sample
    torch.testing.assert_close(decoded, answer, atol=1e-5, rtol=0)


def test_normalisation_has_zero_mean_and_unit_variance() -> None:
    normalization = WanVAE.from_config(DIFFUSERS).normalization
    assert normalization is not None
    assert normalization.shift == (0.5, -1.0, 0.0, 2.0)
    assert normalization.scale == (0.5, 0.25, 2.0, 1.0)
    with torch.device("meta"):
        published = WanVAE.from_config(case_config(FULL)).normalization
    assert published is not None
    assert published.shift[0] == -0.7571
    assert published.scale[0] == pytest.approx(1 / 2.8184)


def test_97_frames_give_25_latent_frames() -> None:
    vae = small(dim=2)
    frames = torch.zeros(1, 3, 97, 4, 4, dtype=torch.float64)
    assert vae.encode(frames, Stream.whole()).mean.shape == (1, 2, 25, 1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is_residual": True}, "is_residual = True is not .*; Wan 2.2's has is_residual = true"),
        ({"patch_size": 2}, "patch_size = 2 is not supported in Wan 2.1's network, which has 1"),
        ({"input_channels": 4}, "input_channels = 4 is not supported"),
        ({"attn_scales": [0.5]}, r"attn_scales = \[0.5\] is not supported"),
        ({"temporal_downsample": [True]}, "2 steps between them, but .* has 1 values"),
        ({"temporal_downsample": [True, "a"]}, "temporal_downsample = 'a' is not supported"),
        ({"dim_mult": 4}, "expected dim_mult to be a list"),
    ],
)
def test_a_config_it_cannot_build_is_an_answer(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        WanVAE.from_config({**SMALL, **change})
