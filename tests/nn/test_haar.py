from collections.abc import Callable

import pytest
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from tests.parity.cases import case_shapes
from wfvae_cli.nn.haar import (
    GAIN_2D,
    GAIN_3D,
    causal_haar_3d,
    haar_2d,
    haar_3d,
    inverse_causal_haar_3d,
    inverse_haar_2d,
    inverse_haar_3d,
    published_filter,
)
from wfvae_cli.nn.stream import Stream

LETTERS_3D = ("h", "g", "hh", "gh", "h_v", "g_v", "hh_v", "gh_v")
LETTERS_2D = ("aa", "ad", "da", "dd")


def clip(frames: int, height: int = 6, width: int = 10) -> Tensor:
    return torch.randn(2, 3, frames, height, width, generator=torch.Generator().manual_seed(0))


def convolved(x: Tensor, filters: list[Tensor], stride: tuple[int, int, int]) -> Tensor:
    """The transform as the publishers run it: one-channel convs, a subband each."""
    b, c = x.shape[:2]
    flat = x.flatten(0, 1)[:, None]
    bands = [functional.conv3d(flat, f, stride=stride) for f in filters]
    bands = [rearrange(band, "(b c) 1 t h w -> b c t h w", b=b, c=c) for band in bands]
    return torch.cat(bands, dim=1)


def test_3d_equals_the_published_filters() -> None:
    names = [f"encoder.wavelet_transform_in.{name}_conv.conv.weight" for name in LETTERS_3D]
    filters = [published_filter(name) for name in names]
    assert all(f is not None for f in filters)
    x = clip(4)
    expected = convolved(x, [f for f in filters if f is not None], (2, 2, 2))
    torch.testing.assert_close(haar_3d(x), expected, atol=1e-6, rtol=0)


def test_2d_equals_the_published_filters() -> None:
    names = [f"encoder.wavelet_transform_l1.{name}" for name in LETTERS_2D]
    filters = [f[:, :, None] for name in names if (f := published_filter(name)) is not None]
    assert len(filters) == 4
    x = clip(3)
    torch.testing.assert_close(haar_2d(x), convolved(x, filters, (1, 2, 2)), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("forward", "inverse", "gain"),
    [(haar_3d, inverse_haar_3d, 8 * GAIN_3D**2), (haar_2d, inverse_haar_2d, 4 * GAIN_2D**2)],
)
def test_inverse_undoes_forward_up_to_the_published_gain(
    forward: Callable[[Tensor], Tensor], inverse: Callable[[Tensor], Tensor], gain: float
) -> None:
    x = clip(4)
    torch.testing.assert_close(inverse(forward(x)), x * gain, atol=1e-6, rtol=0)


def test_a_stream_pads_its_first_frame_only() -> None:
    x = clip(7)
    whole = causal_haar_3d(x, Stream())
    assert whole.size(2) == 4
    assert whole[:, 12:, 0].abs().max() == 0, "a repeated frame has no change in time"
    later = causal_haar_3d(x[:, :, 3:], Stream(first=False))
    assert torch.equal(later, whole[:, :, 2:])
    assert inverse_causal_haar_3d(whole, Stream()).shape == x.shape
    assert inverse_causal_haar_3d(later, Stream(first=False)).size(2) == 4


def test_every_wavelet_tensor_of_the_published_models_is_known() -> None:
    for case in ("wfvae-l-16ch", "wfvae-m-888-32ch", "mini-wfvae2-video", "mini-wfvae2-image"):
        for name, shape in case_shapes(case).items():
            constant = published_filter(name)
            assert (constant is not None) == ("wavelet_transform" in name)
            assert constant is None or list(constant.shape) == shape
