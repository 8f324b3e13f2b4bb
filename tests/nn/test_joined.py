"""Past and chunk in one buffer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from wfvae_cli.nn.joined import NO_PAST, Past, RowJoiner, join


def clip(frames: int) -> Tensor:
    x = torch.randn(1, 3, frames, 5, 7)
    return x.contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("repeat", [True, False])
@pytest.mark.parametrize("goes_on", [True, False])
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("norm", [None, torch.tanh])
def test_frames_are_joined_channels_last(
    repeat: bool, goes_on: bool, gradients: bool, norm: torch.nn.Module | None
) -> None:
    kept, x = clip(2) if goes_on else None, clip(3)
    made = x if norm is None else F.silu(norm(x))
    front = kept if kept is not None else made[:, :, :1].expand(-1, -1, 2, -1, -1)
    front = front if repeat or goes_on else torch.zeros_like(front)
    with torch.set_grad_enabled(gradients):
        joined = join(x.clone(), Past.of(kept, 2, repeat=repeat), norm)
    assert torch.equal(joined, torch.cat((front, made), dim=2))
    assert joined.permute(0, 2, 3, 4, 1).is_contiguous(), "for a batch of one, too"


def test_nothing_is_copied_where_nothing_is_joined() -> None:
    x = clip(2)
    assert join(x, NO_PAST, None) is x


@pytest.mark.parametrize("unit", [0, 4])
@pytest.mark.parametrize("rows", [1, 2, 4, 5])
@torch.no_grad()
def test_bands_are_rows_of_the_padded_picture(unit: int, rows: int) -> None:
    kept, x = clip(2), clip(2)
    joiner = RowJoiner(x, Past.of(kept, 2, repeat=True), None, rim=1, unit=unit)
    padded = F.pad(torch.cat((kept, x), dim=2), (1, 9, 1, 9))
    for begin in range(0, 5, rows):
        end = min(begin + rows, 5)
        band = joiner.take(begin, end)
        high = end - begin + 2
        left, wide = (0, 8 + 2) if unit else (1, 7)
        if unit:
            assert band.size(3) == high + -(end - begin) % 4
            assert not band[:, :, :, high:].any()
        assert torch.equal(
            band[:, :, :, :high], padded[:, :, :, begin : begin + high, left : left + wide]
        )
        assert torch.equal(joiner.own(band, end - begin), padded[..., begin + 1 : end + 1, 1:8])
