from __future__ import annotations

import pytest
import torch

from wfvae_cli.nn.patches import (
    add_repeated_blocks,
    average_blocks,
    channels_to_pixels,
    pixels_to_channels,
)


def test_a_patch_is_ordered_by_channel_column_row() -> None:
    x = torch.arange(8.0).view(1, 2, 1, 2, 2)  # two channels of the pixels a b / c d
    patched = pixels_to_channels(x, 2)
    assert patched.flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert torch.equal(channels_to_pixels(patched, 2), x)


@pytest.mark.parametrize(("frames", "first"), [(5, True), (4, False), (1, True)])
def test_blocks_are_averaged_behind_zeros_in_front_of_the_first_frame(
    frames: int, first: bool
) -> None:
    x = torch.randn(2, 3, frames, 4, 6)
    y = average_blocks(x, 3, time=2, space=2)
    assert y.shape == (2, 3, (frames + 1) // 2, 2, 3)
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    # As many channels as before: the group is a whole block.
    start = 1 if first else 2
    block = x[:, :, :start, :2, :2].sum(dim=(2, 3, 4)) / 8
    torch.testing.assert_close(y[:, :, 0, 0, 0], block)


def test_fewer_groups_than_a_block_has_pixels_are_averaged_apart() -> None:
    x = torch.arange(4.0).view(1, 1, 1, 2, 2)
    assert average_blocks(x, 2, time=1, space=2).flatten().tolist() == [0.5, 2.5]


@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.parametrize("outputs", [4, 8])
def test_chunks_are_enlarged_as_diffusers_does(time: int, outputs: int) -> None:
    wan = pytest.importorskip(
        "diffusers.models.autoencoders.autoencoder_kl_wan", reason="the oracle is diffusers"
    )
    oracle = wan.DupUp3D(8, outputs, factor_t=time, factor_s=2)
    x = torch.randn(1, 8, 3, 2, 3)
    whole = oracle(x, first_chunk=True)
    y = add_repeated_blocks(torch.zeros_like(whole), x, time=time, space=2, first=True)
    assert torch.equal(y, whole)
    later = oracle(x)
    assert torch.equal(
        add_repeated_blocks(torch.ones_like(later), x, time=time, space=2, first=False), later + 1
    )


@pytest.mark.parametrize("outputs", [4, 8, 16])
def test_chunks_are_shrunk_as_diffusers_does(outputs: int) -> None:
    wan = pytest.importorskip(
        "diffusers.models.autoencoders.autoencoder_kl_wan", reason="the oracle is diffusers"
    )
    x = torch.randn(1, 8, 5, 4, 6)
    expected = wan.AvgDown3D(8, outputs, factor_t=2, factor_s=2)(x)
    torch.testing.assert_close(average_blocks(x, outputs, time=2, space=2), expected)
