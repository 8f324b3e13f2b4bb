"""Convolutions by minimal filtering, against PyTorch's own."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from wfvae_cli.nn import arithmetic, winograd
from wfvae_cli.nn.blocks import ResidualBlock
from wfvae_cli.nn.conv import Before, CausalConv3d, FrameConv2d
from wfvae_cli.nn.stream import Stream, name_layers


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Size]]:
    """Have 3x3 convolutions go by tiles, without gradients; collects the shapes of bands."""
    shapes: list[torch.Size] = []
    run = winograd.Convolver.__call__

    def listen(self: winograd.Convolver, x: Tensor, out: Tensor) -> None:
        shapes.append(x.shape)
        run(self, x, out)

    monkeypatch.setattr(winograd, "is_faster", lambda *shape: True)
    monkeypatch.setattr(winograd.Convolver, "__call__", listen)
    with torch.no_grad():
        yield shapes


def clip(frames: int, height: int = 9, width: int = 6, channels: int = 4, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    x = torch.randn(batch, channels, frames, height, width, generator=generator).double()
    return x.contiguous(memory_format=torch.channels_last_3d)


def make(before: Before = "repeat", outputs: int = 5) -> CausalConv3d:
    torch.manual_seed(0)
    conv = CausalConv3d(4, outputs, before=before).double().requires_grad_(False)
    conv.key = "conv"
    return conv


def convolve_plainly(conv: CausalConv3d, x: Tensor) -> Tensor:
    front = x[:, :, :1].expand(-1, -1, 2, -1, -1)
    front = front if conv.before == "repeat" else torch.zeros_like(front)
    return F.conv3d(torch.cat((front, x), 2), conv.conv.weight, conv.conv.bias, padding=(0, 1, 1))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 8), (5, 7), (2, 9)])
@pytest.mark.parametrize("taps", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_a_padded_picture(height: int, width: int, taps: int, bias: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, taps + 1, height, width, dtype=torch.float64)
    weight = torch.randn(5, 3, taps, 3, 3, dtype=torch.float64)
    offset = torch.randn(5, dtype=torch.float64) if bias else None
    below, right = -height % winograd.TILE, -width % winograd.TILE
    padded = F.pad(x, (1, 1 + right, 1, 1 + below))
    padded = padded.contiguous(memory_format=torch.channels_last_3d)
    out = torch.empty(2, 2, height, width, 5, dtype=torch.float64).permute(0, 4, 1, 2, 3)
    out = out if taps == 3 else out.new_empty(2, 2, height, width, 5).permute(0, 4, 1, 2, 3)
    winograd.Convolver(weight, offset, padded)(padded, out)
    expected = F.conv3d(x, weight, offset, padding=(0, 1, 1))
    torch.testing.assert_close(out, expected[:, :, : out.size(2)])


def test_weights_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = clip(3, 4, 4, channels=2), torch.randn(70, 2, 3, 3, 3, dtype=torch.float64)
    padded = F.pad(x, (1, 1, 1, 1)).contiguous(memory_format=torch.channels_last_3d)
    out = torch.empty(1, 1, 4, 4, 70, dtype=torch.float64).permute(0, 4, 1, 2, 3)
    monkeypatch.setattr(winograd, "_WEIGHT_BYTES", 1)
    convolve = winograd.Convolver(weight, None, padded)
    for sign in (1, -1):
        convolve(sign * padded, out)
        torch.testing.assert_close(out, sign * F.conv3d(x, weight, padding=(0, 1, 1)))


@pytest.mark.parametrize("before", ["repeat", "zeros"])
@pytest.mark.parametrize("sizes", [[1], [4], [1, 1, 2], [3, 1], [2, 2, 1]])
@pytest.mark.parametrize("tiles", [1, 99])
def test_chunks_and_bands_give_what_the_clip_gives(
    before: Before,
    sizes: list[int],
    tiles: int,
    everywhere: list[torch.Size],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(winograd, "_TILES_AT_A_TIME", tiles)
    conv, x = make(before), clip(sum(sizes), batch=2)
    stream, parts = Stream(), []
    for begin, end in pairwise([sum(sizes[:count]) for count in range(len(sizes) + 1)]):
        stream.last = end == sum(sizes)
        parts.append(conv(x[:, :, begin:end], stream, torch.tanh))
    torch.testing.assert_close(torch.cat(parts, 2), convolve_plainly(conv, F.silu(x.tanh())))
    rows = {shape[3] for shape in everywhere}
    assert rows == (set() if sizes == [1] else {6} if tiles == 1 else {14})


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("outputs", [4, 6])
def test_a_block_gives_what_it_gives_without(
    dims: int, outputs: int, everywhere: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(dims, 4, outputs, "layernorm").double().requires_grad_(False)
    name_layers(block)
    x = clip(3)
    given = x.clone()
    by_tiles = block(x, Stream.whole())
    assert len(everywhere) == 2
    assert torch.equal(x, given), "what goes around the convolutions is not overwritten"
    monkeypatch.setattr(winograd, "is_faster", lambda *shape: False)
    torch.testing.assert_close(by_tiles, block(x, Stream.whole()))
    assert len(everywhere) == 2


def test_layers_stay_what_they_are(everywhere: list[torch.Size]) -> None:
    """Nothing is kept of the weights: they may change, and layers can be copied."""
    conv, x = make(), clip(3)
    names = list(conv.state_dict())
    first = conv(x, Stream.whole())
    copy = deepcopy(conv)
    assert list(copy.state_dict()) == names
    assert torch.equal(copy(x, Stream.whole()), first)
    conv.conv.weight.mul_(2)
    torch.testing.assert_close(conv(x, Stream.whole()), convolve_plainly(conv, x))
    assert len(everywhere) == 3


def test_gradients_go_the_plain_way(everywhere: list[torch.Size]) -> None:
    conv, x = make().requires_grad_(True), clip(3)
    with torch.enable_grad():
        conv(x, Stream.whole()).sum().backward()
    assert conv.conv.weight.grad is not None
    assert everywhere == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_types_are_rounded_once_or_left_alone(
    dtype: torch.dtype, everywhere: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    conv = make().to(dtype)
    x = clip(3).to(dtype)
    monkeypatch.setattr(arithmetic, "WITHOUT_INSTRUCTIONS", frozenset([dtype]))
    found = conv(x, Stream.whole())
    wide = convolve_plainly(conv.double(), x.double())
    torch.testing.assert_close(found.double(), wide, rtol=8e-3, atol=1e-5)
    assert found.dtype == dtype
    assert len(everywhere) == 1
    monkeypatch.setattr(arithmetic, "WITHOUT_INSTRUCTIONS", frozenset())
    assert not winograd.suits(conv.conv, x, conv.rim)


def test_rounding_is_that_of_a_direct_convolution() -> None:
    """Compared in float32 with float64; the usual points would give three times as much."""
    torch.manual_seed(0)
    x, weight = torch.randn(1, 96, 1, 16, 16), torch.randn(96, 96, 1, 3, 3) / (9 * 96) ** 0.5
    exact = F.conv3d(x.double(), weight.double(), padding=(0, 1, 1))
    padded = F.pad(x, (1, 1, 1, 1)).contiguous(memory_format=torch.channels_last_3d)
    out = torch.empty(1, 1, 16, 16, 96).permute(0, 4, 1, 2, 3)
    winograd.Convolver(weight, None, padded)(padded, out)
    assert (out - exact).square().mean().sqrt() < 1.5e-6


def test_where_it_is_used() -> None:
    assert winograd.is_faster(3, 384, 384, 64, 64)
    assert winograd.is_faster(1, 384, 384, 64, 64)
    assert not winograd.is_faster(3, 24, 24, 64, 64), "too few channels"
    assert not winograd.is_faster(3, 384, 384, 8, 8), "too few tiles"
    assert not winograd.is_faster(3, 384, 384, 1, 999), "mostly padding"
    assert not winograd.is_faster(3, 768, 768, 20, 20), "a chunk of one frame would lose"
    assert winograd.is_faster(3, 768, 768, 24, 24)
    assert winograd.is_faster(1, 192, 192, 64, 64)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(1, 1, 0), (3, 2, 1), (3, 1, 0), (5, 1, 1)]
)
def test_other_convolutions_are_left_alone(
    kernel: int, stride: int, padding: int, everywhere: list[torch.Size]
) -> None:
    conv = FrameConv2d(4, 4, kernel, stride, padding).double().requires_grad_(False)
    conv(clip(2))
    assert everywhere == []
