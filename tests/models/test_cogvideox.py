"""CogVideoX against diffusers: its publishers' batches, in chunks of any whole number of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.diffusers_configs import CONFIGS
from wfvae_cli.errors import DeviceError, UsageError
from wfvae_cli.models.base import LoadedModel, Posterior, VideoVAE
from wfvae_cli.models.cogvideox import CogVideoXVAE
from wfvae_cli.models.registry import find_family
from wfvae_cli.nn.stream import Stream
from wfvae_cli.pipeline.halves import run_half
from wfvae_cli.pipeline.plan import ChunkPlan

diffusers = pytest.importorskip("diffusers", reason="CogVideoX runs through diffusers")

NAME = "AutoencoderKLCogVideoX"
CONFIG: dict[str, Any] = {"_class_name": NAME, **CONFIGS[NAME]}


@cache
def oracle() -> Any:
    torch.manual_seed(0)
    return diffusers.AutoencoderKLCogVideoX.from_config(CONFIG).eval().requires_grad_(False)


@cache
def vae() -> VideoVAE:
    built = find_family(CONFIG, [], "x").load().from_config(CONFIG)
    weights = oracle().state_dict()
    renamed = built.rename(weights)
    built.load_state_dict({renamed[name]: value for name, value in weights.items()})
    return built.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def clip(frames: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, frames, 16, 16, generator=generator) * 2 - 1


def encode(x: Tensor, cuts: tuple[int, ...]) -> Tensor:
    """Mean and log-variance of a clip in chunks that end at these frames."""
    stream, parts = Stream(), []
    for begin, end in pairwise((0, *cuts)):
        stream.last = end == x.size(2)
        parts.append(torch.cat(vae().encode(x[:, :, begin:end], stream), dim=1))
    return torch.cat(parts, dim=2)


def decode(z: Tensor, cuts: tuple[int, ...]) -> Tensor:
    stream, parts = Stream(), []
    for begin, end in pairwise((0, *cuts)):
        stream.last = end == z.size(2)
        parts.append(vae().decode(z[:, :, begin:end], stream))
    return torch.cat(parts, dim=2)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cuts", [(25,), (9, 17, 25), (17, 25), (9, 25)])
def test_any_chunks_of_whole_batches_give_what_diffusers_gives(cuts: tuple[int, ...]) -> None:
    assert isinstance(vae(), CogVideoXVAE)
    x = clip(25)
    expected = oracle().encode(x).latent_dist
    close(encode(x, cuts), torch.cat((expected.mean, expected.logvar), dim=1))
    latent_cuts = tuple(1 + (cut - 1) // 4 for cut in cuts)
    close(decode(expected.mean, latent_cuts), oracle().decode(expected.mean).sample)


def test_chunks_are_the_batches_of_diffusers_with_its_cache() -> None:
    x = clip(17)
    cached, stream = None, Stream()
    for begin, end in ((0, 9), (9, 17)):
        part, cached = oracle().encoder(x[:, :, begin:end], conv_cache=cached)
        stream.last = end == 17
        ours = vae().encode(x[:, :, begin:end], stream)
        close(ours.mean, part.chunk(2, dim=1)[0])


@pytest.mark.parametrize("frames", [5, 13])
def test_what_is_no_whole_batch_is_padded_with_its_last_frame(frames: int) -> None:
    x = clip(frames)
    latents = 1 + (frames - 1) // 4
    padded = torch.cat((x, *[x[:, :, -1:]] * 4), dim=2)
    mean = encode(x, (frames,)).chunk(2, dim=1)[0]
    close(mean, oracle().encode(padded).latent_dist.mean[:, :, :latents])
    longer = torch.cat((mean, mean[:, :, -1:]), dim=2)
    close(decode(mean, (latents,)), oracle().decode(longer).sample[:, :, :frames])
    if frames > 9:
        close(encode(x, (9, frames)).chunk(2, dim=1)[0], mean)
        close(decode(mean, (3, latents)), decode(mean, (latents,)))


def test_streams_do_not_mix_and_may_be_joined() -> None:
    clips = [clip(17, seed) for seed in (1, 2)]
    alone = [encode(x, (9, 17)) for x in clips]
    streams = [Stream(), Stream()]
    for x, stream in zip(clips, streams, strict=True):
        vae().encode(x[:, :, :9], stream)
    together = Stream.join(streams)
    together.last = True
    mean = vae().encode(torch.cat(clips)[:, :, 9:], together).mean
    for row in (0, 1):
        close(mean[row], alone[row].chunk(2, dim=1)[0][0, :, 3:])


def test_the_state_does_not_grow() -> None:
    sizes = []
    stream = Stream()
    for begin, end in ((0, 9), (9, 17), (17, 25)):
        vae().encode(clip(25)[:, :, begin:end], stream)
        sizes.append(stream.nbytes)
    assert sizes[0] > 0
    assert len(set(sizes)) == 1


@pytest.mark.parametrize("frames", [1, 5])
def test_a_chunk_that_ends_within_a_batch_is_refused(frames: int) -> None:
    with pytest.raises(UsageError, match=rf"1 \+ 8k frames first .* got {frames}"):
        vae().encode(clip(frames), Stream())
    with pytest.raises(UsageError, match="2k latent frames next in this stream"):
        vae().decode(torch.zeros(1, 4, 1, 2, 2), Stream(first=False))


def test_plans_cut_clips_where_batches_end() -> None:
    model = LoadedModel(vae(), "cogvideox", "0" * 64, CONFIG)
    assert ChunkPlan.of(model, None, 16, 16).later % 2 == 0
    assert ChunkPlan.of(model, 17, 16, 16).later == 4
    with pytest.raises(UsageError, match=r"takes 8 frames at a time: give 1 \+ 8k frames"):
        ChunkPlan.of(model, 13, 16, 16)


def test_a_first_batch_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def short_of_memory(frames: Tensor, stream: Stream) -> Posterior:
        del stream
        seen.append(frames.size(2))
        raise MemoryError

    monkeypatch.setattr(vae(), "encode", short_of_memory)
    with pytest.raises(DeviceError, match="chunk of 9 frames of 16x16"):
        run_half(vae(), "encode", clip(9), Stream())
    assert seen == [9]
