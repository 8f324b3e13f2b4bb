"""Clips that share a call of the model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from wfvae_cli.errors import DeviceError
from wfvae_cli.models.base import LoadedModel, Posterior
from wfvae_cli.models.load import load_model
from wfvae_cli.nn.stream import Stream
from wfvae_cli.pipeline.batch import Batch, batch_size, check_memory, encode_batch, fixed_plan
from wfvae_cli.pipeline.chunks import FrameChunk
from wfvae_cli.pipeline.encode import encode_pixels
from wfvae_cli.pipeline.plan import ChunkPlan


def clip(seed: int, frames: int = 5, height: int = 16, width: int = 24) -> FrameChunk:
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)
    return FrameChunk(pixels, range(frames), last=True)


def encoded(model: LoadedModel, clips: Sequence[list[FrameChunk]], size: int) -> list[Posterior]:
    """Clips that go through the model side by side, chunk by chunk."""
    streams = [Stream() for _ in clips]
    found: list[list[Posterior]] = [[] for _ in clips]
    for chunks in zip(*clips, strict=True):
        for stream, chunk in zip(streams, chunks, strict=True):
            stream.last = chunk.last
        posteriors, streams = encode_batch(model, chunks, streams, size)
        for parts, posterior in zip(found, posteriors, strict=True):
            parts.append(posterior)
    return [
        Posterior(*(torch.cat(parts, dim=2) for parts in zip(*posteriors, strict=True)))
        for posteriors in found
    ]


def cut(whole: FrameChunk, *frames: int) -> list[FrameChunk]:
    """A clip in chunks of so many frames."""
    ends = list(itertools.accumulate(frames))
    return [
        FrameChunk(whole.pixels[end - n : end], whole.pts[end - n : end], last=end == ends[-1])
        for n, end in zip(frames, ends, strict=True)
    ]


@pytest.mark.parametrize("chunks", [(1,), (5,), (5, 8, 8, 4)])
def test_a_batch_equals_its_clips_to_rounding(chunks: tuple[int, ...]) -> None:
    model = load_model(device="cpu")
    clips = [clip(seed, sum(chunks)) for seed in range(3)]
    together = encoded(model, [cut(each, *chunks) for each in clips], 4)
    for one, posterior in zip(clips, together, strict=True):
        alone = encode_pixels(model, one, Stream.whole())
        torch.testing.assert_close(posterior.mean, alone.mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(posterior.logvar, alone.logvar, rtol=0, atol=1e-4)


@pytest.mark.parametrize("chunks", [(5,), (5, 8, 8, 4)])
def test_neither_place_nor_company_changes_a_bit(chunks: tuple[int, ...]) -> None:
    model = load_model(device="cpu")
    clips = [cut(clip(seed, sum(chunks)), *chunks) for seed in range(4)]
    together = encoded(model, clips, 4)
    backwards = encoded(model, clips[::-1], 4)[::-1]
    lonely = [encoded(model, [one], 4)[0] for one in clips]
    for a, b, c in zip(together, backwards, lonely, strict=True):
        assert torch.equal(a.mean, b.mean)
        assert torch.equal(a.mean, c.mean)


def test_a_batch_that_does_not_fit_goes_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(device="cpu")
    clips = [[clip(seed, 17)] for seed in range(2)]
    expected = encoded(model, clips, 2)
    encode = model.vae.encode
    refused: list[int] = []

    def small(frames: Tensor, stream: Stream) -> Posterior:
        if frames.size(2) > 9:
            refused.append(frames.size(2))
            raise MemoryError
        return encode(frames, stream)

    monkeypatch.setattr(model.vae, "encode", small)
    for a, b in zip(encoded(model, clips, 2), expected, strict=True):
        torch.testing.assert_close(a.mean, b.mean, rtol=0, atol=1e-5)
    assert refused == [17]


def test_chunks_do_not_depend_on_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(device="cpu")
    plan = fixed_plan(model, None, 640, 360)
    monkeypatch.setattr("psutil.virtual_memory", lambda: _Memory(1 << 28))
    assert fixed_plan(model, None, 640, 360) == plan
    assert ChunkPlan.of(model, None, 640, 360) != plan
    assert fixed_plan(model, 17, 640, 360) == ChunkPlan(5, 4)


def test_tiles_of_a_dataset_are_those_that_were_asked_for() -> None:
    model = load_model(device="cpu")
    assert fixed_plan(model, None, 8000, 8000, "auto") == fixed_plan(model, None, 8000, 8000)
    assert fixed_plan(model, None, 8000, 8000).tile is None
    tiled = fixed_plan(model, None, 8000, 8000, 256)
    assert (tiled.tile, tiled.row_bands) == (256, 1)
    assert tiled.later > fixed_plan(model, None, 8000, 8000).later, "a tile is a smaller picture"
    check_memory(model, 1, 100_000, 100_000, tile=256)


def test_what_does_not_fit_is_refused_before_it_is_tried() -> None:
    model = load_model(device="cpu")
    check_memory(model, 5, 64, 64)
    with pytest.raises(DeviceError, match=r"5 frames of 100000x100000 need about .* GiB"):
        check_memory(model, 5, 100_000, 100_000)


def test_sizes_of_batches() -> None:
    model = load_model(device="cpu")
    assert batch_size(model, 7, clip(0)) == 7
    assert batch_size(model, "auto", clip(0)) == 64
    assert batch_size(model, "auto", clip(0, 33, 720, 1280)) == 1
    assert 1 < batch_size(model, "auto", clip(0, 17, 256, 256)) < 64


@pytest.mark.parametrize(("batch", "most"), [(1, 1), (3, 3), ("auto", 8), (64, 8)])
def test_clips_of_several_chunks_go_together_where_frames_are_small(
    batch: Batch, most: int
) -> None:
    model = load_model(device="cpu")
    assert batch_size(model, batch, cut(clip(0, 9), 5, 4)[0]) == most
    assert batch_size(model, batch, cut(clip(0, 37, 256, 256), 33, 4)[0]) == 1


class _Memory:
    def __init__(self, available: int) -> None:
        self.available = available
