from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from wfvae_cli.nn.conv import Before, CausalConv3d, laid_out
from wfvae_cli.nn.stream import Stream


def make(before: Before = "repeat", kernel: int | tuple[int, int, int] = 3) -> CausalConv3d:
    torch.manual_seed(0)
    conv = CausalConv3d(4, 6, kernel, before=before).double().requires_grad_(False)
    conv.key = "conv"
    return conv


def convolve_plainly(conv: CausalConv3d, x: Tensor) -> Tensor:
    """What a causal convolution is: the past in front, then a 3D convolution."""
    past = x[:, :, :1].expand(-1, -1, conv.conv.kernel_size[0] - 1, -1, -1)
    if conv.before == "zeros":
        past = torch.zeros_like(past)
    return F.conv3d(
        torch.cat((past, x), dim=2), conv.conv.weight, conv.conv.bias, padding=conv.conv.padding
    )


def clip(frames: int, batch: int = 1) -> Tensor:
    x = torch.randn(batch, 4, frames, 5, 7, dtype=torch.float64)
    return x.contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("before", ["repeat", "zeros"])
@pytest.mark.parametrize("kernel", [3, (3, 1, 1), 1])
@pytest.mark.parametrize("frames", [1, 2, 3, 6])
def test_a_clip_at_once(before: Before, kernel: int | tuple[int, int, int], frames: int) -> None:
    conv = make(before, kernel)
    for batch in (1, 2):
        x = clip(frames, batch)
        torch.testing.assert_close(conv(x, Stream.whole()), convolve_plainly(conv, x))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.sampled_from(["repeat", "zeros"]))
def test_any_chunks_give_what_the_clip_gives(sizes: list[int], before: Before) -> None:
    conv, x = make(before), clip(sum(sizes))
    stream, parts = Stream(), []
    ends = [sum(sizes[:count]) for count in range(len(sizes) + 1)]
    for begin, end in pairwise(ends):
        stream.last = end == sum(sizes)
        parts.append(conv(x[:, :, begin:end], stream))
    torch.testing.assert_close(torch.cat(parts, dim=2), convolve_plainly(conv, x))


@pytest.mark.parametrize("before", ["repeat", "zeros"])
@pytest.mark.parametrize("kernel", [3, (3, 1, 1)])
@pytest.mark.parametrize("budget", [1, 4 * 7 * 8 * 4], ids=["a row each", "a few rows"])
def test_bands_of_rows_give_what_all_rows_give(
    before: Before,
    kernel: int | tuple[int, int, int],
    budget: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wfvae_cli.nn.conv.BAND_BYTES", budget)
    conv, x, heights = make(before, kernel), clip(4, batch=2), []

    def prepare(band: Tensor) -> Tensor:
        heights.append(band.size(3))
        return band.tanh()

    stream = Stream()
    first = conv(x[:, :, :3], stream, prepare)
    stream.last = True
    y = torch.cat((first, conv(x[:, :, 3:], stream, prepare)), dim=2)
    torch.testing.assert_close(y, convolve_plainly(conv, x.tanh()))
    assert max(heights) < x.size(3)


def test_what_a_stream_keeps_is_never_changed() -> None:
    conv, x = make(), clip(4)
    stream = Stream()
    conv(x[:, :, :2], stream)
    kept = stream.past["conv"].clone()
    fork = stream.fork()
    conv(x[:, :, 2:], stream)
    assert torch.equal(fork.past["conv"], kept)


def test_types_that_round_more_are_added_up_once() -> None:
    conv, x = make().bfloat16(), clip(3).bfloat16()
    exact = convolve_plainly(make().bfloat16().double(), x.double())
    torch.testing.assert_close(conv(x, Stream.whole()), exact.bfloat16(), rtol=8e-3, atol=1e-3)


def test_weights_are_laid_out_tap_by_tap_and_keep_their_values() -> None:
    conv = make()
    before = conv.conv.weight.detach()
    after = laid_out(before, conv)
    assert torch.equal(after, before)
    for tap in after.unbind(dim=2):
        assert tap.is_contiguous(memory_format=torch.channels_last)
