from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from wfvae_cli.nn import winograd
from wfvae_cli.nn.conv import Before, CausalConv3d, laid_out
from wfvae_cli.nn.edges import Edges, pad_edges
from wfvae_cli.nn.stream import Stream


def make(
    before: Before = "repeat", kernel: int | tuple[int, int, int] = 3, outputs: int = 6
) -> CausalConv3d:
    torch.manual_seed(0)
    conv = CausalConv3d(4, outputs, kernel, before=before).double().requires_grad_(False)
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
@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize("outputs", [4, 6])
def test_bands_of_rows_give_what_all_rows_give(
    before: Before,
    kernel: int | tuple[int, int, int],
    rows: int,
    outputs: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conv, x, heights = make(before, kernel, outputs), clip(4, batch=2), []
    expected = convolve_plainly(conv, F.silu(x.tanh()))

    def norm(band: Tensor) -> Tensor:
        heights.append(band.size(3))
        return band.tanh()

    stream, parts = Stream(), []
    for chunk in (x[:, :, :3].clone(), x[:, :, 3:].clone()):
        row = chunk[:, :, :, 0].numel() * chunk.element_size()
        monkeypatch.setattr("wfvae_cli.nn.conv.BAND_BYTES", rows * row)
        place = chunk.data_ptr()
        with torch.inference_mode():
            parts.append(conv(chunk, stream, norm, overwrite=True))
        stream.last = True
        assert (parts[-1].data_ptr() == place) == (outputs == 4), "only what fits takes its place"
        assert sum(heights) == 5, "no row is read twice"
        assert max(heights) <= rows + 1
        heights.clear()
    torch.testing.assert_close(torch.cat(parts, dim=2), expected)


@pytest.mark.parametrize("edges", ["reflect", "replicate"])
@pytest.mark.parametrize("way", ["tiles", "bands of 1 row", "bands of 2 rows", "whole", "training"])
@pytest.mark.parametrize("sizes", [(1,), (5,), (1, 3), (2, 1, 2)])
def test_edges_are_those_of_the_padded_picture(
    edges: Edges, way: str, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    conv = CausalConv3d(4, 4, edges=edges).double().requires_grad_(False)
    x, stream = clip(sum(sizes), batch=2), Stream()
    parts: list[Tensor] = []
    front = x[:, :, :1].expand(-1, -1, 2, -1, -1)
    padded = pad_edges(F.silu(torch.cat((front, x), dim=2).tanh()), edges)
    monkeypatch.setattr(winograd, "is_faster", lambda *shape: way == "tiles")
    monkeypatch.setattr(winograd, "_TILES_AT_A_TIME", 1)
    for chunk in torch.split(x.clone(), list(sizes), dim=2):
        if way.startswith("bands"):
            row = chunk[:, :, :, 0].numel() * chunk.element_size()
            monkeypatch.setattr("wfvae_cli.nn.conv.BAND_BYTES", int(way[9]) * row)
        stream.last = sum(part.size(2) for part in parts) + chunk.size(2) == sum(sizes)
        with torch.set_grad_enabled(way == "training"):
            parts.append(conv(chunk, stream, torch.tanh, overwrite=way != "training"))
        assert all(tail.shape[3:] == (5, 7) for tail in stream.past.values())
    expected = F.conv3d(padded, conv.conv.weight, conv.conv.bias)
    torch.testing.assert_close(torch.cat(parts, dim=2), expected)


@pytest.mark.parametrize("rows", [2, 5])
def test_what_goes_in_is_left_alone_unless_it_may_be_overwritten(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = clip(4)
    monkeypatch.setattr("wfvae_cli.nn.conv.BAND_BYTES", rows * x[:, :, :, 0].numel() * 8)
    before = x.clone()
    with torch.inference_mode():
        make(outputs=4)(x, Stream.whole(), torch.tanh)
    assert torch.equal(x, before)


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
