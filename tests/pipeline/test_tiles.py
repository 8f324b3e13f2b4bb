from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.models.build import build
from tests.models.contract import compositions, cuts, frame_cut
from wfvae_cli.errors import UsageError
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.nn.stream import Stream
from wfvae_cli.pipeline.halves import decode_latents, encode_frames
from wfvae_cli.pipeline.tiles import Axis, Grid, check_tile, in_tiles
from wfvae_cli.strides import Strides

STRIDES = Strides(4, 8, 8)


def model(case: str) -> LoadedModel:
    return LoadedModel(build(case).double(), case, "0" * 64, {})


@given(size=st.integers(1, 300), tile=st.integers(4, 300), unit=st.sampled_from([1, 2, 8]))
def test_weights_sum_to_one_everywhere(size: int, tile: int, unit: int) -> None:
    axis = Axis.of(size, tile)
    weights, total = axis.weights(unit), torch.zeros(size * unit)
    assert (weights >= 0).all()
    for start, weight in zip(axis.starts, weights, strict=True):
        assert len(weight) == axis.tile * unit
        total[start * unit : (start + axis.tile) * unit] += weight
    assert (total - 1).abs().max() <= 1e-6


@given(size=st.integers(1, 300), tile=st.integers(4, 300))
def test_tiles_cover_the_picture_and_share_a_quarter(size: int, tile: int) -> None:
    axis = Axis.of(size, tile)
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.tile == size
    steps = [b - a for a, b in zip(axis.starts, axis.starts[1:], strict=False)]
    assert all(0 < step <= axis.tile - axis.tile // 4 for step in steps)


def test_weights_are_ramps() -> None:
    first, last = Axis.of(14, 8).weights()
    torch.testing.assert_close(first, torch.tensor([1.0] * 6 + [0.75, 0.25]))
    torch.testing.assert_close(last, first.flip(0))


@pytest.mark.parametrize("size", [(40, 72), (37, 51), (8, 100)])
def test_what_runs_alike_everywhere_comes_back_as_it_was(size: tuple[int, int]) -> None:
    x = torch.randn(1, 2, 3, *size)
    grid = Grid.of(*size, 16, Strides(1, 1, 1))
    assert grid.tiles > 1
    torch.testing.assert_close(in_tiles(lambda part, stream: part, x, Stream(), grid), x)


@pytest.mark.parametrize("case", ["mini-wfvae-trilinear", "mini-wfvae2-image"])
def test_tiles_in_chunks_are_tiles_whole(case: str) -> None:
    tiled, latents = model(case), 3
    vae = tiled.vae
    height, width = 5 * vae.strides.height, 6 * vae.strides.width
    frames = frame_cut(vae, latents)
    x = torch.rand(1, 3, frames, height, width, dtype=torch.float64) * 2 - 1
    tile = 4 * vae.strides.width

    def encoded(chunks: tuple[int, ...]) -> Tensor:
        stream, parts = Stream(), []
        for begin, end in cuts(chunks):
            stream.last = end == latents
            part = x[:, :, frame_cut(vae, begin) : frame_cut(vae, end)]
            parts.append(encode_frames(tiled, part, stream, tile).mean)
        return torch.cat(parts, dim=2)

    def decoded(z: Tensor, chunks: tuple[int, ...]) -> Tensor:
        stream, parts = Stream(), []
        for begin, end in cuts(chunks):
            stream.last = end == latents
            parts.append(decode_latents(tiled, z[:, :, begin:end], stream, tile))
        return torch.cat(parts, dim=2)

    z = encoded((latents,))
    y = decoded(z.double(), (latents,))
    assert z.shape == (1, vae.latent_channels, latents, 5, 6)
    assert y.shape == x.shape
    exact = encode_frames(tiled, x, Stream.whole()).mean
    assert (z - exact).abs().max() > 1e-4, "tiles are not exact: was there one?"
    for chunks in compositions(latents):
        assert (encoded(chunks) - z).abs().max() <= 1e-5
        assert (decoded(z.double(), chunks) - y).abs().max() <= 1e-5


@pytest.mark.parametrize("tile", [36, 24, 0])
def test_tiles_that_have_no_whole_positions_are_refused(tile: int) -> None:
    with pytest.raises(UsageError, match=r"a multiple of 8 pixels .*at least 32, got .*nearest is"):
        check_tile(tile, STRIDES)


def test_other_tiles_pass() -> None:
    for tile in (32, 40, 512):
        check_tile(tile, STRIDES)
    check_tile("auto", STRIDES)
    check_tile("off", STRIDES)
