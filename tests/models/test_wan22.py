from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

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
from tests.parity.cases import case_answers, case_config, case_shapes, case_weights
from wfvae_cli.errors import UsageError, WeightsError
from wfvae_cli.latents.normalization import Normalization
from wfvae_cli.models.convert import convert
from wfvae_cli.models.load import load_model
from wfvae_cli.models.registry import find_family
from wfvae_cli.models.wan import WanVAE
from wfvae_cli.models.wan22 import Wan22VAE
from wfvae_cli.nn.stream import Stream
from wfvae_cli.strides import Strides

MINI = "mini-wan22"
FULL = "wan2.2-vae"

SMALL: dict[str, Any] = {
    "_class_name": "Wan2_2_VAE",
    "dim": 4,
    "dec_dim": 6,
    "z_dim": 2,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temporal_downsample": [True, True],
    "patch_size": 2,
}
DIFFUSERS: dict[str, Any] = {
    "base_dim": 8,
    "decoder_base_dim": 12,
    "z_dim": 4,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "latents_mean": [0.5, -1.0, 0.0, 2.0],
    "latents_std": [2.0, 4.0, 0.5, 1.0],
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
}


def small(**changes: Any) -> Wan22VAE:
    vae = Wan22VAE.from_config({**SMALL, **changes})
    randomise(vae)
    return vae


def to_diffusers(name: str, blocks: int = 2) -> str:
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
    rest = rest.replace("middle.0", "mid_block.resnets.0").replace(
        "middle.2", "mid_block.resnets.1"
    )
    rest = rest.replace("middle.1", "mid_block.attentions.0")
    for way, last in (("down", blocks), ("up", blocks + 1)):
        if rest.startswith(f"{way}samples"):
            _, level, _, layer, leaf = rest.split(".", maxsplit=4)
            kind = f"{way}sampler" if int(layer) == last else f"resnets.{layer}"
            rest = f"{way}_blocks.{level}.{kind}.{leaf}"
    return f"{half}.{rest}"


def test_it_agrees_with_the_publishers() -> None:
    check_parity(cached(MINI), MINI)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_full_size_agrees_with_the_publishers() -> None:
    vae = build(FULL)
    assert vae.strides == Strides(4, 16, 16)
    assert sum(value.numel() for value in vae.parameters()) == 704_688_668
    check_parity(vae, FULL)


@pytest.mark.parametrize("chunks", [(1, 1, 1, 1), (3, 1), (1, 3)])
def test_chunks_larger_than_the_publishers_give_their_answers(chunks: tuple[int, ...]) -> None:
    vae, answers = cached(MINI), case_answers(MINI)
    assert answers["mean"].size(2) == sum(chunks)
    with torch.inference_mode():
        moments = torch.cat(list(encode_parts(vae, answers["x"], chunks, Stream())), dim=2)
        frames = torch.cat(list(decode_parts(vae, answers["mean"], chunks, Stream())), dim=2)
    torch.testing.assert_close(moments, answers["moments"], atol=2e-5, rtol=0)
    torch.testing.assert_close(frames, answers["reconstruction"], atol=2e-5, rtol=0)


def test_chunked_is_whole() -> None:
    vae = small()
    assert vae.strides == Strides(4, 8, 8)
    check_every_chunking(vae, longest=5)


@pytest.mark.parametrize("halves_time", [[False, True], [True, False], [False, False]])
def test_chunked_is_whole_wherever_time_is_halved(halves_time: list[bool]) -> None:
    vae = small(temporal_downsample=halves_time)
    assert vae.strides == Strides(2 ** sum(halves_time), 8, 8)
    check_every_chunking(vae, longest=4)


def test_in_strips_is_whole() -> None:
    check_strips(small())


def test_a_plan_knows_how_much_state_there_is() -> None:
    check_footprint(cached(MINI))


def test_streams_do_not_mix() -> None:
    check_interleaving(small())
    check_batch(small())


def test_the_future_never_alters_the_past() -> None:
    check_causality(small())


def test_both_layouts_name_the_same_tensors() -> None:
    original = list(case_shapes(MINI))
    parameters = set(Wan22VAE.from_config(case_config(MINI)).state_dict())
    assert set(Wan22VAE.rename(original).values()) == parameters
    diffusers = [to_diffusers(name) for name in original]
    assert len(set(diffusers)) == len(original)
    renamed = Wan22VAE.rename(diffusers)
    assert [renamed[name] for name in diffusers] == list(Wan22VAE.rename(original).values())


def test_it_agrees_with_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers", reason="the second oracle is diffusers")
    torch.manual_seed(0)
    oracle = diffusers.AutoencoderKLWan(**DIFFUSERS).eval().requires_grad_(False)
    config = {"_class_name": "AutoencoderKLWan", **DIFFUSERS}
    vae = find_family(config, [], "x").load().from_config(config)
    assert isinstance(vae, Wan22VAE)
    weights = oracle.state_dict()
    renamed = vae.rename(weights)
    vae.load_state_dict({renamed[name]: value for name, value in weights.items()})
    vae.eval().requires_grad_(False)
    frames = random_clip(vae, 3)
    with torch.inference_mode():
        expected = oracle.encode(frames).latent_dist
        posterior = vae.encode(frames, Stream.whole())
        torch.testing.assert_close(posterior.mean, expected.mean, atol=1e-5, rtol=0)
        torch.testing.assert_close(posterior.logvar, expected.logvar, atol=1e-5, rtol=0)
        # Normalised as the pipelines do it, and back.
        assert vae.normalization is not None
        mean, std = (
            torch.tensor(DIFFUSERS[key]).view(1, -1, 1, 1, 1)
            for key in ("latents_mean", "latents_std")
        )
        normalised = vae.normalization.apply(posterior.mean)
        torch.testing.assert_close(normalised, (expected.mean - mean) / std, atol=1e-5, rtol=0)
        latents = vae.normalization.undo(normalised)
        decoded = vae.decode(latents, Stream.whole()).clamp(-1, 1)
        answer = oracle.decode(expected.mean).sample
    torch.testing.assert_close(decoded, answer, atol=1e-5, rtol=0)


def test_the_two_wans_of_diffusers_are_told_by_the_config() -> None:
    old = {"_class_name": "AutoencoderKLWan"}
    assert find_family(old, [], "x").load() is WanVAE
    assert find_family(old | {"is_residual": False}, [], "x").load() is WanVAE
    assert find_family(old | {"is_residual": True}, [], "x").load() is Wan22VAE


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_a_single_file_needs_no_config(tmp_path: Path, layout: str) -> None:
    """As ComfyUI repackages it, and a `.pth` through `convert`."""
    rename = to_diffusers if layout == "diffusers" else str
    state = {rename(name): value for name, value in case_weights(MINI).items()}
    save_file(state, tmp_path / "wan2.2_vae.safetensors")
    torch.save(state, tmp_path / "Wan2.2_VAE.pth")
    report = convert(tmp_path / "Wan2.2_VAE.pth", tmp_path / "converted")
    assert report.family == "wan22"
    answers = case_answers(MINI)
    for name in ("wan2.2_vae.safetensors", "converted"):
        model = load_model(str(tmp_path / name), device="cpu", dtype="float32")
        assert model.vae.family == "wan22"
        assert {k: v for k, v in model.config.items() if k != "latents_mean"} == case_config(MINI)
        with torch.inference_mode():
            mean = model.vae.encode(answers["x"], Stream.whole()).mean
        torch.testing.assert_close(mean, answers["mean"], atol=1e-4, rtol=0)


def test_the_published_mean_and_std_are_built_in() -> None:
    with torch.device("meta"):
        published = Wan22VAE.from_config(case_config(FULL)).normalization
    assert published is not None
    assert published.shift[0] == -0.2289
    assert published.scale[-1] == pytest.approx(1 / 0.7744)


def test_normalisation_takes_a_clip_or_a_batch() -> None:
    normalization = Normalization((1.0, -2.0), (0.5, 4.0))
    clip = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    normalised = normalization.apply(clip)
    assert torch.equal(normalised[0], (clip[0] - 1) * 0.5)
    assert torch.equal(normalised[1], (clip[1] + 2) * 4)
    assert torch.equal(normalization.apply(clip[None])[0], normalised)
    torch.testing.assert_close(normalization.undo(normalised), clip)
    with pytest.raises(UsageError, match=r"with 2 channels, got latents.shape = .*3, 4, 5, 6"):
        normalization.apply(torch.zeros(3, 4, 5, 6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 4}, "patch_size = 4 is not supported; known: 2"),
        ({"in_channels": 3}, "in_channels = 3 is not supported; known: 12"),
        ({"temporal_downsample": [True]}, "2 steps between them, but .* has 1 values"),
        ({"dec_dim": 0}, "expected dec_dim to be an integer from 1 to 65536"),
        ({"dim_mult": [1, 3, 3]}, "a level whose shortcut has 32 channels for 12"),
    ],
)
def test_a_config_it_cannot_build_is_an_answer(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        Wan22VAE.from_config({**SMALL, **change})
