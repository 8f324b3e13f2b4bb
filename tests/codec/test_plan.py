import dataclasses
import sys

import psutil
import pytest
import torch

from tests.models.build import cached
from tests.models.laws import random_clip
from wfvae_cli.codec.plan import ChunkPlan, explained_memory, halved_if_too_large
from wfvae_cli.errors import DeviceError, UsageError
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.nn.stream import Stream


def model(case: str = "mini-wfvae-trilinear") -> LoadedModel:
    return LoadedModel(cached(case), case, "0" * 64, {})


def test_a_given_chunk_is_taken() -> None:
    assert ChunkPlan.of(model(), 17, 64, 64) == ChunkPlan(5, 4)


def test_the_default_shrinks_with_the_resolution_and_never_below_one_latent_frame() -> None:
    sizes = [ChunkPlan.of(model(), None, side, side).later for side in (64, 1024, 2048, 100_000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 8
    assert sizes[-1] == 1


def test_the_default_shrinks_with_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = ChunkPlan.of(model(), None, 512, 512)
    memory = psutil.virtual_memory()._replace(available=2**28)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert ChunkPlan.of(model(), None, 512, 512).later < usual.later


def test_a_whole_clip_model_takes_whole_clips() -> None:
    groupnorm = model("mini-wfvae-groupnorm")
    assert list(ChunkPlan.of(groupnorm, None, 64, 64).cuts(1000)) == [(0, 1000)]
    with pytest.raises(UsageError, match="--chunk 17 cannot be used with mini-wfvae-groupnorm"):
        ChunkPlan.of(groupnorm, 17, 64, 64)


def test_cuts_cover_everything_once() -> None:
    assert list(ChunkPlan(3, 2).cuts(8)) == [(0, 3), (3, 5), (5, 7), (7, 8)]
    assert list(ChunkPlan(3, 2).cuts(1)) == [(0, 1)]
    assert list(ChunkPlan(sys.maxsize, sys.maxsize).cuts(2)) == [(0, 2)]


def test_out_of_memory_says_what_to_do() -> None:
    with (
        pytest.raises(DeviceError, match=r"chunk of 9 frames of 64x32: use a smaller --chunk"),
        explained_memory(9, 64, 32),
    ):
        torch.empty(2**60)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="something else"), explained_memory(1, 1, 1):
        raise RuntimeError("something else")


def test_plans_are_values() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ChunkPlan(1, 1).first = 2  # type: ignore[misc]  # that it is refused is the test


@pytest.mark.parametrize("case", ["mini-wfvae-trilinear", "mini-wfvae-888"])
@pytest.mark.parametrize("first", [True, False])
def test_a_chunk_that_is_too_large_goes_through_in_two_halves(
    case: str, first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    vae = cached(case)
    s = vae.strides.time
    refused = []

    def run(frames: torch.Tensor, stream: Stream) -> torch.Tensor:
        if frames.size(2) > 2 * s + 1:
            refused.append(frames.size(2))
            stream.past["half-done"] = frames  # a chunk that fails has run a part of its layers
            raise DeviceError("out of memory")
        return vae.encode(frames, stream).mean

    with torch.inference_mode(), caplog.at_level("INFO", logger="wfvae"):
        clip = random_clip(vae, 6)
        whole = vae.encode(clip, Stream.whole()).mean
        stream, parts = Stream(), []
        if not first:
            parts.append(run(clip[:, :, : 1 + s], stream))
            clip = clip[:, :, 1 + s :]
        stream.last = True
        # Four latent frames: more than fit, and two halves of two fit.
        clip = clip[:, :, -4 * s :] if not first else clip[:, :, : 1 + 3 * s]
        whole = whole[:, :, :4] if first else whole
        parts.append(halved_if_too_large(run, clip, stream, s))
    assert refused
    assert "retrying in two halves" in caplog.text
    assert (torch.cat(parts, dim=2) - whole).abs().max() <= 1e-5


def test_halves_that_do_not_fit_either_are_an_error() -> None:
    def run(frames: torch.Tensor, stream: Stream) -> torch.Tensor:
        raise DeviceError(f"out of memory in a chunk of {frames.size(2)} frames")

    with pytest.raises(DeviceError, match="chunk of 5 frames"):
        halved_if_too_large(run, torch.zeros(1, 3, 9, 8, 8), Stream(), 4)
    with pytest.raises(DeviceError, match="chunk of 9 frames"):
        halved_if_too_large(run, torch.zeros(1, 3, 9, 8, 8), Stream(), None)
