from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch

from tests.models.contract import check_batch, check_every_chunking, check_interleaving, random_clip
from wfvae_cli.errors import MissingExtraError, WeightsError
from wfvae_cli.models.kl import KLImageVAE
from wfvae_cli.models.registry import find_family
from wfvae_cli.models.weights import build_on_meta
from wfvae_cli.nn.stream import Stream
from wfvae_cli.stats.accumulate import LatentStats
from wfvae_cli.stats.summary import summarise
from wfvae_cli.strides import Strides

diffusers = pytest.importorskip("diffusers", reason="KL image VAEs run through diffusers (kl)")

CONFIG: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.30.0",
    "act_fn": "silu",
    "block_out_channels": [8, 8, 16, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 32,
}


def oracle() -> Any:
    torch.manual_seed(0)
    return diffusers.AutoencoderKL.from_config(CONFIG).eval().requires_grad_(False)


def load(weights: dict[str, torch.Tensor]) -> KLImageVAE:
    """Load as the program does: built without memory, then given the checkpoint's tensors."""
    vae = build_on_meta(KLImageVAE, CONFIG)
    assert isinstance(vae, KLImageVAE)
    renamed = vae.rename(weights)
    state = {renamed[name]: value for name, value in weights.items()}
    vae.load_state_dict(state, strict=True, assign=True)
    return vae.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vae() -> KLImageVAE:
    return load(oracle().state_dict())


def test_it_is_what_diffusers_computes(vae: KLImageVAE) -> None:
    theirs = oracle()
    clip = random_clip(vae, 3)
    posterior = vae.encode(clip, Stream.whole())
    frames = vae.decode(posterior.mean, Stream.whole())
    for t in range(3):
        expected = theirs.encode(clip[:, :, t]).latent_dist
        torch.testing.assert_close(posterior.mean[:, :, t], expected.mean, atol=1e-5, rtol=0)
        torch.testing.assert_close(posterior.logvar[:, :, t], expected.logvar, atol=1e-5, rtol=0)
        image = theirs.decode(expected.mean).sample
        torch.testing.assert_close(frames[:, :, t], image, atol=1e-5, rtol=0)


def test_it_streams_any_number_of_frames(vae: KLImageVAE) -> None:
    assert vae.strides == Strides(1, 8, 8)
    check_every_chunking(vae, longest=3)
    check_interleaving(vae)
    check_batch(vae)


def test_a_batch_of_videos_keeps_its_order(vae: KLImageVAE) -> None:
    clips = [random_clip(vae, 2, seed) for seed in (1, 2)]
    together = vae.encode(torch.cat(clips), Stream.whole()).mean
    for row, clip in enumerate(clips):
        alone = vae.encode(clip, Stream.whole()).mean[0]
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=0)


def test_old_names_of_attention_weights_are_known(vae: KLImageVAE) -> None:
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = oracle().state_dict()
    old = {}
    for name, value in weights.items():
        for new_part, old_part in names.items():
            name = name.replace(f"attentions.0.{new_part}.", f"attentions.0.{old_part}.")
        old[name] = value
    assert old.keys() != weights.keys()
    clip = random_clip(vae, 1)
    expected = vae.encode(clip, Stream.whole()).mean
    assert torch.equal(load(old).encode(clip, Stream.whole()).mean, expected)


def test_the_family_is_recognised_by_config_and_by_tensors() -> None:
    names = list(oracle().state_dict())
    assert find_family(CONFIG, [], "x").load() is KLImageVAE
    assert find_family({}, names, "x").load() is KLImageVAE


def test_a_config_without_a_scaling_factor_has_stable_diffusions() -> None:
    normalization = build_on_meta(KLImageVAE, CONFIG).normalization
    assert normalization is not None
    assert normalization.scale == (0.18215,) * 4
    assert normalization.shift == (0.0,) * 4
    flux = {**CONFIG, "scaling_factor": 0.3611, "shift_factor": 0.1159}
    normalization = build_on_meta(KLImageVAE, flux).normalization
    assert normalization is not None
    assert (normalization.scale[0], normalization.shift[0]) == (0.3611, 0.1159)


def test_stats_find_the_scale_factor_that_a_model_was_made_to_have() -> None:
    # Give a random model latents of a known spread over known images, Stable Diffusion's way:
    # the factor is 1 / std of the latents over everything.
    weights = oracle().state_dict()
    vae = load(weights)
    images = [random_clip(vae, 1, seed) for seed in range(4)]
    latents = torch.cat([vae.encode(image, Stream.whole()).mean for image in images])
    gain = 1 / 0.18215 / float(latents.std(correction=0))
    for leaf in ("weight", "bias"):
        weights[f"quant_conv.{leaf}"][:4] *= gain
    scaled = load(weights)
    stats = LatentStats()
    for number, image in enumerate(images):
        posterior = scaled.encode(image, Stream.whole())
        stats.add_clip(str(number), [(posterior.mean[0].numpy(), posterior.logvar[0].numpy())])
    factors = summarise(stats).factors
    assert factors.scaling_factor == pytest.approx(0.18215, rel=1e-4)
    assert factors.latents_std == pytest.approx(
        (latents * gain).std(dim=(0, 2, 3, 4), correction=0).tolist(), rel=1e-4
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_channels": 4}, "expected 3 in_channels and out_channels, .* got 4 and 3"),
        ({"down_block_types": ["NoSuchBlock"] * 4}, "diffusers cannot build an AutoencoderKL"),
    ],
)
def test_a_config_it_cannot_build_is_an_answer(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        KLImageVAE.from_config({**CONFIG, **change})


def test_a_missing_diffusers_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_diffusers(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "diffusers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_diffusers)
    with pytest.raises(MissingExtraError, match=r"pip install 'wfvae\[kl\]'"):
        KLImageVAE.from_config(CONFIG)
