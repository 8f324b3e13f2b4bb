"""The adapter against diffusers itself, class by class: small configs, weights from a seed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.contract import check_batch, check_every_chunking, check_interleaving, random_clip
from tests.models.diffusers_configs import CONFIGS, LENGTHS
from wfvae_cli.errors import UsageError
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.models.diffusers import LEAST_LOGVAR, DiffusersVAE
from wfvae_cli.models.diffusers_table import CLASSES
from wfvae_cli.models.load import describe_checkpoint, load_model
from wfvae_cli.models.registry import find_family
from wfvae_cli.nn.stream import Stream
from wfvae_cli.strides import Strides

diffusers = pytest.importorskip("diffusers", reason="the adapter runs diffusers (extra diffusers)")

IMAGES = [name for name in CLASSES if CLASSES[name].takes == "images"]
CLIPS = [name for name in CLASSES if CLASSES[name].takes == "clips"]
WHOLE = [name for name in CLIPS if name != "AutoencoderKLCogVideoX"]
STRIDES = {
    "AutoencoderKL": (1, 8, 4),
    "AutoencoderKLFlux2": (1, 16, 16),
    "AutoencoderKLHunyuanImage": (1, 4, 4),
    "AutoencoderDC": (1, 2, 4),
    "AutoencoderTiny": (1, 8, 4),
    "AutoencoderKLKVAE": (1, 2, 4),
    "AutoencoderKLHunyuanVideo": (4, 8, 4),
    "AutoencoderKLCogVideoX": (4, 8, 4),
    "AutoencoderKLLTXVideo": (8, 32, 8),
    "AutoencoderKLMochi": (6, 8, 4),
    "AutoencoderKLCosmos": (8, 8, 4),
    "AutoencoderKLKVAEVideo": (4, 4, 4),
    "AutoencoderVidTok": (4, 8, 4),
    "AutoencoderKLAllegro": (4, 8, 4),
    "AutoencoderKLMiniMaxH3": (4, 16, 4),
}
"""Of time and of each side of a frame, and channels."""
IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1, 1)


@cache
def oracle(name: str) -> Any:
    if not hasattr(diffusers, name):
        pytest.skip(f"diffusers {diffusers.__version__} has no {name}")
    torch.manual_seed(0)
    built = getattr(diffusers, name).from_config(CONFIGS[name]).eval().requires_grad_(False)
    built.use_framewise_encoding = built.use_framewise_decoding = False
    for key, value in built.state_dict().items():  # statistics that are no identity
        if key in CLASSES[name].statistics and value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5)
        if key.endswith(("scale1", "scale2", "register_tokens")):  # 0 when they are made
            value.copy_(torch.randn_like(value))
    if name == "AutoencoderKLAllegro":
        built.enable_tiling()  # as its pipeline does
    if name in LENGTHS:
        in_small_tiles(built, name)
    return built


def in_small_tiles(built: Any, name: str) -> None:
    """Cut clips into tiles of 32 and 64 pixels in place of 128 and 256: those take seconds each.

    Allegro in float64: norms over few channels make much of rounding.
    """
    if name == "AutoencoderKLAllegro":
        built.double()
        built.kernel, built.stride = (24, 32, 32), (16, 24, 16)
    else:
        built.enable_tiling(64, 64, 16, 16)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: tmp_path_factory.mktemp(name) for name in CLASSES}


@cache
def load(name: str, folder: Path) -> LoadedModel:
    """Load as the program does, what diffusers saved."""
    deepcopy(oracle(name)).float().save_pretrained(folder)
    model = load_model(str(folder), device="cpu", dtype="float32")
    if name in LENGTHS:
        in_small_tiles(model.vae.autoencoder, name)
        return replace(model, vae=DiffusersVAE(model.vae.autoencoder, CLASSES[name]))
    return model


@pytest.fixture
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def clip_for(model: LoadedModel, latents: int) -> Tensor:
    """A random clip of few pixels, though of enough for every network.

    Of the first length that the model takes, the second, and so on.
    """
    s = model.vae.strides
    width, height = s.padded_size(max(3 * s.width, 48), max(2 * s.height, 32))
    return random_frames(model, s.lengths.frames.at(latents - 1), height, width)


def random_frames(model: LoadedModel, frames: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand((1, 3, frames, height, width), generator=generator)
    return values.to(model.dtype_of("encode")) * 2 - 1


def as_given(name: str, frames: Tensor) -> Tensor:
    """Prepare RGB in [-1, 1] as the publishers' pipelines do."""
    if name == "AutoencoderVidTok":
        return torch.cat((*[frames[:, :, :1]] * 3, frames), dim=2)
    if name == "AutoencoderKLMiniMaxH3":
        return (frames * 0.5 + 0.5 - IMAGENET_MEAN) / IMAGENET_STD
    return frames


def encoded(name: str, frames: Tensor) -> Tensor:
    """The mean that diffusers itself gives."""
    answer = oracle(name).encode(as_given(name, frames))
    if name == "AutoencoderDC":
        return answer.latent  # type: ignore[no-any-return]
    if name == "AutoencoderTiny":
        return answer.latents  # type: ignore[no-any-return]
    return answer.latent_dist.mode()  # type: ignore[no-any-return]


def decoded(name: str, latents: Tensor) -> Tensor:
    answer = oracle(name).decode(latents)
    frames: Tensor = answer if isinstance(answer, Tensor) else answer.sample
    if name == "AutoencoderKLAllegro":
        return frames.permute(0, 2, 1, 3, 4)  # as in AllegroPipeline.decode_latents
    if name == "AutoencoderKLMiniMaxH3":
        return (frames * IMAGENET_STD + IMAGENET_MEAN) * 2 - 1
    return frames


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_every_class_that_runs_is_tested() -> None:
    assert set(CLASSES) == set(CONFIGS) == set(STRIDES)


@pytest.mark.parametrize("name", CLASSES)
def test_what_a_checkpoint_is(name: str, folders: dict[str, Path]) -> None:
    model = load(name, folders[name])
    time, space, channels = STRIDES[name]
    assert model.vae.strides == Strides(time, space, space, LENGTHS.get(name))
    assert model.vae.latent_channels == channels
    assert model.vae.family == CLASSES[name].family
    assert (model.vae.whole_clip_only is None) == (name not in WHOLE)
    facts = describe_checkpoint(str(folders[name]))
    assert facts["recognised_by"] == f"config.json: _class_name {name}"
    assert (facts["normalization"] is None) == (model.vae.normalization is None)


@pytest.mark.usefixtures("inference")
@pytest.mark.parametrize("name", IMAGES)
def test_an_image_vae_takes_frames_one_by_one(name: str, folders: dict[str, Path]) -> None:
    model = load(name, folders[name])
    clip = clip_for(model, 2)
    posterior = model.vae.encode(clip, Stream.whole())
    frames = model.vae.decode(posterior.mean, Stream.whole())
    for t in range(2):
        mean = encoded(name, clip[:, :, t])
        if name == "AutoencoderKLFlux2":
            # What Flux2Pipeline._patchify_latents gives, in PyTorch's own words.
            close(posterior.mean[:, :, t], torch.nn.functional.pixel_unshuffle(mean, 2))
        else:
            close(posterior.mean[:, :, t], mean)
        close(frames[:, :, t], decoded(name, mean))
    if CLASSES[name].has_variance and name != "AutoencoderKLFlux2":
        logvar = oracle(name).encode(clip[:, :, 1]).latent_dist.logvar
        close(posterior.logvar[:, :, 1], logvar)
    elif not CLASSES[name].has_variance:
        assert (posterior.logvar == LEAST_LOGVAR).all()


@pytest.mark.usefixtures("inference")
@pytest.mark.parametrize("latents", [1, 3])
@pytest.mark.parametrize("name", CLIPS)
def test_a_video_vae_takes_clips_as_a_whole(
    name: str, latents: int, folders: dict[str, Path]
) -> None:
    model = load(name, folders[name])
    clip = clip_for(model, latents)
    posterior = model.vae.encode(clip, Stream.whole())
    mean = encoded(name, clip)
    assert posterior.mean.size(2) == model.vae.strides.lengths.latents.at(latents - 1)
    close(posterior.mean, mean)
    frames = model.vae.decode(mean, Stream.whole())
    assert frames.shape == clip.shape
    close(frames, decoded(name, mean))
    if CLASSES[name].has_variance:
        close(posterior.logvar, oracle(name).encode(as_given(name, clip)).latent_dist.logvar)
    else:
        assert (posterior.logvar == LEAST_LOGVAR).all()


@pytest.mark.usefixtures("inference")
def test_longer_clips_than_a_tile_are_still_whole(folders: dict[str, Path]) -> None:
    name = "AutoencoderKLHunyuanVideo"  # which diffusers cuts into overlapping pieces of 16 frames
    model = load(name, folders[name])
    clip = clip_for(model, 6)
    close(model.vae.encode(clip, Stream.whole()).mean, encoded(name, clip))


@pytest.mark.usefixtures("inference")
@pytest.mark.parametrize(
    ("name", "frames", "height", "width"),
    [
        ("AutoencoderKLAllegro", 40, 56, 48),  # two tiles along each axis
        ("AutoencoderKLMiniMaxH3", 22, 80, 32),  # two tiles along one axis
        ("AutoencoderKLMiniMaxH3", 22, 32, 80),
    ],
)
def test_tiles_of_the_classes_own_are_theirs(
    name: str, frames: int, height: int, width: int, folders: dict[str, Path]
) -> None:
    model = load(name, folders[name])
    clip = random_frames(model, frames, height, width)
    mean = encoded(name, clip)
    close(model.vae.encode(clip, Stream.whole()).mean, mean)
    close(model.vae.decode(mean, Stream.whole()), decoded(name, mean))


@pytest.mark.usefixtures("inference")
@pytest.mark.parametrize("name", LENGTHS)
def test_a_batch_of_clips_keeps_its_order(name: str, folders: dict[str, Path]) -> None:
    vae = load(name, folders[name]).vae
    clip = clip_for(load(name, folders[name]), 1)
    both = vae.encode(torch.cat((clip, clip.flip(4))), Stream.whole()).mean
    frames = vae.decode(both, Stream.whole())
    for row, each in enumerate((clip, clip.flip(4))):
        close(both[row], vae.encode(each, Stream.whole()).mean[0])
        close(frames[row], vae.decode(both[row : row + 1], Stream.whole())[0])


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("AutoencoderKLAllegro", (25, 32, 32), r"expected 24 \+ 16k frames first .* got 25"),
        ("AutoencoderKLAllegro", (24, 32, 40), r"\(32 \+ 16k\)x\(32 \+ 24k\), got"),
        ("AutoencoderKLMiniMaxH3", (5, 32, 32), r"expected 22 \+ 17k frames first .* got 5"),
        ("AutoencoderKLMiniMaxH3", (22, 32, 16), r"\(32 \+ 16k\)x\(32 \+ 16k\), got"),
    ],
)
def test_clips_that_a_class_would_cut_are_refused(
    name: str, shape: tuple[int, int, int], message: str, folders: dict[str, Path]
) -> None:
    model = load(name, folders[name])
    with pytest.raises(UsageError, match=message):
        model.vae.encode(random_frames(model, *shape), Stream.whole())


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("AutoencoderKLAllegro", (7, 4, 4), r"4 channels and 6 \+ 4k frames"),
        ("AutoencoderKLAllegro", (6, 4, 5), r"pictures of \(32 \+ 16k\)x\(32 \+ 24k\) pixels"),
        ("AutoencoderKLMiniMaxH3", (1, 2, 2), r"4 channels and 7 \+ 5k frames"),
    ],
)
def test_latents_that_a_class_would_cut_are_refused(
    name: str, shape: tuple[int, int, int], message: str, folders: dict[str, Path]
) -> None:
    vae = load(name, folders[name]).vae
    with pytest.raises(UsageError, match=message):
        vae.decode(torch.zeros(1, 4, *shape), Stream.whole())


@pytest.mark.parametrize("name", WHOLE)
def test_chunks_of_a_video_vae_are_refused_with_the_reason(
    name: str, folders: dict[str, Path]
) -> None:
    model = load(name, folders[name])
    with pytest.raises(UsageError, match="takes whole clips only: its"):
        model.vae.encode(clip_for(model, 2), Stream())


def pipelines_way(name: str, latents: Tensor) -> Tensor:
    """What the pipelines of diffusers make of latents, written out for each class."""
    vae = oracle(name)
    factor = vae.config.get("scaling_factor", 1.0)
    shift, std = torch.tensor(vae.config.get("shift_factor") or 0.0), torch.tensor(1.0)
    if name == "AutoencoderKLFlux2":
        shift = vae.bn.running_mean
        std = torch.sqrt(vae.bn.running_var + vae.config.batch_norm_eps)
    elif name == "AutoencoderKLLTXVideo":
        shift, std = vae.latents_mean, vae.latents_std
    elif name in ("AutoencoderKLMochi", "AutoencoderKLMiniMaxH3"):
        shift, std = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
    normalised: Tensor = (latents - shift.view(1, -1, 1, 1, 1)) * factor
    return normalised / std.view(1, -1, 1, 1, 1)


@pytest.mark.usefixtures("inference")
@pytest.mark.parametrize("name", CLASSES)
def test_normalised_as_the_pipelines_of_diffusers_do_and_back(
    name: str, folders: dict[str, Path]
) -> None:
    model = load(name, folders[name])
    normalization = model.vae.normalization
    if name in ("AutoencoderKLCosmos", "AutoencoderKLKVAE", "AutoencoderKLKVAEVideo"):
        assert normalization is None  # one for each latent frame; none
        return
    if name == "AutoencoderVidTok":
        assert normalization is None
        return
    assert normalization is not None
    clip = clip_for(model, 1)
    mean = model.vae.encode(clip, Stream.whole()).mean
    normalised = normalization.apply(mean)
    close(normalised, pipelines_way(name, mean))
    back = normalization.undo(normalised)
    close(back, mean)
    close(model.vae.decode(back, Stream.whole()), model.vae.decode(mean, Stream.whole()))


def test_it_streams_any_number_of_frames(folders: dict[str, Path]) -> None:
    vae = load("AutoencoderKL", folders["AutoencoderKL"]).vae
    check_every_chunking(vae, longest=3)
    check_interleaving(vae)
    check_batch(vae)


@pytest.mark.usefixtures("inference")
@pytest.mark.parametrize("name", ["AutoencoderKL", "AutoencoderKLFlux2"])
def test_a_batch_of_videos_keeps_its_order(name: str, folders: dict[str, Path]) -> None:
    vae = load(name, folders[name]).vae
    clips = [random_clip(vae, 2, seed) for seed in (1, 2)]
    together = vae.encode(torch.cat(clips), Stream.whole()).mean
    frames = vae.decode(together, Stream.whole())
    for row, clip in enumerate(clips):
        alone = vae.encode(clip, Stream.whole()).mean
        close(together[row], alone[0])
        close(frames[row], vae.decode(alone, Stream.whole())[0])


@pytest.mark.usefixtures("inference")
def test_old_names_of_attention_weights_are_known(folders: dict[str, Path]) -> None:
    vae = load("AutoencoderKL", folders["AutoencoderKL"]).vae
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = oracle("AutoencoderKL").state_dict()
    old = {}
    for name, value in weights.items():
        for new_part, old_part in names.items():
            name = name.replace(f"attentions.0.{new_part}.", f"attentions.0.{old_part}.")
        old[name] = value
    assert old.keys() != weights.keys()
    renamed = DiffusersVAE.rename(old)
    assert set(renamed.values()) == set(vae.state_dict())


def test_the_family_is_recognised_by_config_and_by_tensors() -> None:
    names = list(oracle("AutoencoderKL").state_dict())
    for name in CLASSES:
        assert issubclass(find_family({"_class_name": name}, [], "x").load(), DiffusersVAE)
    assert find_family({}, names, "x").load() is DiffusersVAE


def test_statistics_in_the_weights_are_shown_without_loading_them(
    folders: dict[str, Path],
) -> None:
    name = "AutoencoderKLLTXVideo"
    load(name, folders[name])
    shift = describe_checkpoint(str(folders[name]))["normalization"]["shift"]
    assert shift == pytest.approx(oracle(name).latents_mean.tolist())
    json.dumps(shift)
