"""One half of a model: out of memory, and once more in two parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.models.build import cached
from tests.models.contract import random_clip
from wfvae_cli.errors import DeviceError
from wfvae_cli.models.base import Posterior, VideoVAE
from wfvae_cli.nn.stream import Stream
from wfvae_cli.pipeline.halves import explained_memory, run_half


def test_out_of_memory_says_what_to_do() -> None:
    with (
        pytest.raises(DeviceError, match=r"chunk of 9 frames of 64x32: use a smaller --chunk"),
        explained_memory(9, 64, 32),
    ):
        torch.empty(2**60)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="something else"), explained_memory(1, 1, 1):
        raise RuntimeError("something else")


def refuse_above(vae: VideoVAE, most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let memory run out for chunks of over `most` frames; the list gets their lengths."""
    encode, refused = vae.encode, []

    def short_of_memory(frames: Tensor, stream: Stream) -> Posterior:
        if frames.size(2) > most:
            refused.append(frames.size(2))
            stream.past["half-done"] = frames  # a chunk that fails has run a part of its layers
            raise RuntimeError("CUDA out of memory")
        return encode(frames, stream)

    monkeypatch.setattr(vae, "encode", short_of_memory)
    return refused


@pytest.mark.parametrize("case", ["mini-wfvae-trilinear", "mini-wfvae-888"])
@pytest.mark.parametrize("first", [True, False])
@torch.inference_mode()
def test_a_chunk_that_is_too_large_goes_through_in_two_parts(
    case: str,
    first: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vae = cached(case)
    s = vae.strides.time
    clip = random_clip(vae, 6)
    whole = torch.cat(vae.encode(clip, Stream.whole()), dim=1)
    refused = refuse_above(vae, 2 * s + 1, monkeypatch)
    stream, parts = Stream(), []
    if not first:
        parts.append(run_half(vae, "encode", clip[:, :, : 1 + s], stream))
    stream.last = True
    # Four latent frames: more than fit, and two parts of two fit.
    clip = clip[:, :, : 1 + 3 * s] if first else clip[:, :, -4 * s :]
    with caplog.at_level("INFO", logger="wfvae"):
        parts.append(run_half(vae, "encode", clip, stream))
    assert refused == [clip.size(2)]
    assert "retrying in two parts" in caplog.text
    whole = whole[:, :, :4] if first else whole
    assert (torch.cat(parts, dim=2) - whole).abs().max() <= 1e-5


@torch.inference_mode()
def test_parts_that_do_not_fit_either_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = cached("mini-wfvae-trilinear")
    refused = refuse_above(vae, 0, monkeypatch)
    with pytest.raises(DeviceError, match="chunk of 9 frames of 16x8: use a smaller --chunk"):
        run_half(vae, "encode", torch.zeros(1, 3, 9, 8, 16), Stream())
    assert refused == [9, 5]


@pytest.mark.parametrize("case", ["mini-wfvae-trilinear", "mini-wfvae-groupnorm"])
@torch.inference_mode()
def test_a_chunk_that_cannot_be_cut_keeps_no_second_copy_of_its_state(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(stream: Stream) -> Stream:
        raise AssertionError("the state was forked")

    monkeypatch.setattr(Stream, "fork", forbidden)
    vae = cached(case)
    frames = 1 if vae.whole_clip_only is None else 1 + 2 * vae.strides.time
    refused = refuse_above(vae, 0, monkeypatch)
    with pytest.raises(DeviceError, match=f"chunk of {frames} frames"):
        run_half(vae, "encode", torch.zeros(1, 3, frames, 16, 16), Stream.whole())
    assert refused == [frames]


@torch.inference_mode()
def test_latents_are_told_by_the_frames_that_they_make(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = cached("mini-wfvae-trilinear")

    def short_of_memory(latents: Tensor, stream: Stream) -> Tensor:
        raise MemoryError

    monkeypatch.setattr(vae, "decode", short_of_memory)
    z = torch.zeros(1, vae.latent_channels, 3, 2, 4)
    with pytest.raises(DeviceError, match="chunk of 12 frames of 32x16"):
        run_half(vae, "decode", z, Stream.whole())
