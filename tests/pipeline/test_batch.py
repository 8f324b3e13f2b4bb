"""Clips that share a call of the model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from wfvae_cli.models.base import LoadedModel, Posterior
from wfvae_cli.models.load import load_model
from wfvae_cli.nn.stream import Stream
from wfvae_cli.pipeline.batch import ClipStreams, batch_size, run_batch
from wfvae_cli.pipeline.chunks import FrameChunk
from wfvae_cli.pipeline.options import Batch
from wfvae_cli.pipeline.plan import ChunkPlan

PLAN = ChunkPlan(2, 1)


def clip(seed: int, frames: int = 5, height: int = 16, width: int = 24) -> FrameChunk:
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)
    return FrameChunk(pixels, range(frames), last=True)


def there_and_back(
    model: LoadedModel, clips: Sequence[list[FrameChunk]], size: int
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Mean, log-variance and reconstruction of clips that go through together, in chunks."""
    streams = [ClipStreams.of(PLAN) for _ in clips]
    found: list[list[tuple[Tensor, ...]]] = [[] for _ in clips]
    for chunks in zip(*clips, strict=True):
        outputs = run_batch(model, "both", chunks, streams, size)
        for parts, output in zip(found, outputs, strict=True):
            assert output.posterior is not None and output.frames is not None
            parts.append((*output.posterior, output.frames))
    joined = [[torch.cat(each, dim=2) for each in zip(*parts, strict=True)] for parts in found]
    return [(mean, logvar, frames) for mean, logvar, frames in joined]


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
    together = there_and_back(model, [cut(each, *chunks) for each in clips], 4)
    for one, (mean, logvar, frames) in zip(clips, together, strict=True):
        ((alone, alone_logvar, alone_frames),) = there_and_back(model, [[one]], 1)
        torch.testing.assert_close(mean, alone, rtol=0, atol=1e-5)
        torch.testing.assert_close(logvar, alone_logvar, rtol=0, atol=1e-4)
        torch.testing.assert_close(frames, alone_frames, rtol=0, atol=1e-4)


@pytest.mark.parametrize("chunks", [(5,), (5, 8, 8, 4)])
def test_neither_place_nor_company_changes_a_bit(chunks: tuple[int, ...]) -> None:
    model = load_model(device="cpu")
    clips = [cut(clip(seed, sum(chunks)), *chunks) for seed in range(4)]
    together = there_and_back(model, clips, 4)
    backwards = there_and_back(model, clips[::-1], 4)[::-1]
    lonely = [there_and_back(model, [one], 4)[0] for one in clips]
    for each in zip(together, backwards, lonely, strict=True):
        for a, b, c in zip(*each, strict=True):
            assert torch.equal(a, b)
            assert torch.equal(a, c)


def test_a_batch_that_does_not_fit_goes_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(device="cpu")
    clips = [[clip(seed, 17)] for seed in range(2)]
    expected = there_and_back(model, clips, 2)
    encode = model.vae.encode
    refused: list[int] = []

    def small(frames: Tensor, stream: Stream) -> Posterior:
        if frames.size(2) > 9:
            refused.append(frames.size(2))
            raise MemoryError
        return encode(frames, stream)

    monkeypatch.setattr(model.vae, "encode", small)
    for (a, *_), (b, *_) in zip(there_and_back(model, clips, 2), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert refused == [17]


@pytest.mark.parametrize("batch", ["auto", 64])
def test_no_call_is_larger_than_what_fills_the_device(batch: Batch) -> None:
    model = load_model(device="cpu")
    sizes = [
        batch_size(model, batch, PLAN, clip(0, *shape))
        for shape in [(5, 16, 24), (9, 64, 64), (17, 128, 160), (33, 720, 1280)]
    ]
    assert sizes == [64, 3, 1, 1]
    assert batch_size(model, 7, PLAN, clip(0)) == 7
    assert batch_size(model, batch, ChunkPlan(2, 1, tile=32), clip(0)) == 1


@pytest.mark.parametrize(("batch", "most"), [(1, 1), (3, 3), ("auto", 8), (64, 8)])
def test_clips_of_several_chunks_go_together_where_frames_are_small(
    batch: Batch, most: int
) -> None:
    model = load_model(device="cpu")
    assert batch_size(model, batch, PLAN, cut(clip(0, 9), 5, 4)[0]) == most
    assert batch_size(model, batch, PLAN, cut(clip(0, 37, 256, 256), 33, 4)[0]) == 1
