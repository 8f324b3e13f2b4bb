"""Short types on processors without instructions for them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from wfvae_cli.nn import arithmetic
from wfvae_cli.nn.conv import CausalConv3d, FrameConv2d
from wfvae_cli.nn.resample import convolve_doubled
from wfvae_cli.nn.stream import Stream

SHORT = [torch.bfloat16, torch.float16]


@pytest.fixture(params=SHORT, ids=str)
def short(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """A type that this processor now knows nothing of."""
    dtype: torch.dtype = request.param
    monkeypatch.setattr(arithmetic, "WITHOUT_INSTRUCTIONS", frozenset(SHORT))
    return dtype


def assert_rounded_once(found: Tensor, wide: Tensor, dtype: torch.dtype) -> None:
    """Equal but for results of float32 so near to a tie that their own rounding decides."""
    assert found.dtype == dtype
    expected = wide.to(dtype)
    differing = found != expected
    assert differing.float().mean() < 0.01
    torch.testing.assert_close(found[differing].double(), wide[differing], rtol=8e-3, atol=1e-6)


def clip(frames: int, dtype: torch.dtype) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(1, 4, frames, 6, 8).to(dtype, memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(
    ("kernel", "stride"), [(3, 1), ((3, 1, 1), 1), (1, 1), ((3, 1, 1), (2, 1, 1))]
)
@pytest.mark.parametrize("band_bytes", [1, 2**23])
def test_causal_convolutions_round_once(
    short: torch.dtype,
    kernel: int | tuple[int, int, int],
    stride: int | tuple[int, int, int],
    band_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wfvae_cli.nn.conv.BAND_BYTES", band_bytes)
    conv = CausalConv3d(4, 5, kernel, stride).to(short).requires_grad_(False)
    x, depth, padding = clip(9, short), conv.conv.kernel_size[0], conv.conv.padding
    past = x[:, :, :1].expand(-1, -1, depth - 1, -1, -1)
    weight, bias = conv.conv.weight.double(), conv.conv.bias
    assert bias is not None
    wide = F.conv3d(
        torch.cat((past, x), dim=2).double(), weight, bias.double(), conv.conv.stride, padding
    )
    with torch.inference_mode():
        assert_rounded_once(conv(x, Stream.whole()), wide, short)
        stream = Stream()
        early = conv(x[:, :, :5], stream)
        stream.last = True
        chunked = torch.cat((early, conv(x[:, :, 5:], stream)), dim=2)
    assert_rounded_once(chunked, wide, short)


def test_what_a_chunk_leaves_behind_is_not_rounded(short: torch.dtype) -> None:
    """It is frames as they came in, so that no sum of the next chunk has been rounded before."""
    conv, stream, x = CausalConv3d(4, 5).to(short).requires_grad_(False), Stream(), clip(5, short)
    conv(x, stream)
    assert [kept.dtype for kept in stream.past.values()] == [short]
    assert all(torch.equal(kept, x[:, :, 3:]) for kept in stream.past.values())


def test_convolutions_of_frames_round_once(short: torch.dtype) -> None:
    conv = FrameConv2d(4, 5, 3, stride=2, padding=1).to(short).requires_grad_(False)
    x = clip(2, short)
    weight, bias = conv.weight.double(), conv.bias
    assert bias is not None
    for frame, found in zip(x.unbind(2), conv(x).unbind(2), strict=True):
        wide = F.conv2d(frame.double(), weight, bias.double(), 2, 1)
        assert_rounded_once(found, wide, short)


def test_doubled_pictures_are_convolved_with_taps_that_are_not_rounded(short: torch.dtype) -> None:
    x, weight, bias = clip(2, short), torch.randn(5, 4, 3, 3).to(short), torch.randn(5).to(short)
    found = convolve_doubled(x, weight, bias)
    wide = convolve_doubled(x.double(), weight.double(), bias.double())
    assert_rounded_once(found, wide, short)


def test_types_with_instructions_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "WITHOUT_INSTRUCTIONS", frozenset())
    for dtype in (*SHORT, torch.float32, torch.float64):
        assert arithmetic.convolved_in(torch.zeros(1, dtype=dtype)) == dtype


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "onednn", "expected"),
    [(1, 0, 1, True), (0, 1, 1, True), (0, 0, 1, False), (1, 1, 0, False)],
)
def test_bfloat16_pays_where_it_has_instructions(
    avx512_bf16: int, amx: int, onednn: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = frozenset[torch.dtype]() if onednn else frozenset([torch.bfloat16])
    monkeypatch.setattr(arithmetic, "WITHOUT_INSTRUCTIONS", lacking)
    for name, there in (("avx512_bf16", avx512_bf16), ("amx_tile", amx)):
        monkeypatch.setattr(
            torch.cpu, f"_is_{name}_supported", lambda there=there: bool(there), raising=False
        )
    assert arithmetic.multiplies_bfloat16(torch.device("cpu")) == expected
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.delattr(torch.cpu, f"_is_{name}_supported")
    assert not arithmetic.multiplies_bfloat16(torch.device("cpu")), "a PyTorch that does not tell"


def test_tf32_is_looked_for_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def truncating(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv3d((x.view(torch.int32) & ~0x1FFF).view(torch.float32), weight, padding=1)

    monkeypatch.setattr(arithmetic, "CONV3D_WITHOUT_TF32", set[str]())
    cpu, conv = torch.device("cpu"), CausalConv3d(4, 5)
    x = clip(3, torch.float32)
    assert arithmetic.probe_conv3d_tf32(cpu, truncating)
    assert not arithmetic.conv3d_misses_tf32(x)
    assert not arithmetic.probe_conv3d_tf32(cpu)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert arithmetic.conv3d_misses_tf32(x)
    assert conv.runs_by_tap(x)
    assert not arithmetic.conv3d_misses_tf32(x.bfloat16())
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert not arithmetic.conv3d_misses_tf32(x)
