import pytest
import torch

from wfvae_cli.nn.pixel_shuffle import (
    Factor,
    Order,
    channels_to_pixels,
    grouped_means,
    pixels_to_channels,
)


@pytest.mark.parametrize("order", ["c t h w", "c t w h", "t h w c"])
@pytest.mark.parametrize("factor", [(1, 2, 3), (2, 2, 2), (2, 1, 1)])
def test_there_and_back(order: Order, factor: Factor) -> None:
    x = torch.randn(2, 3, 4, 4, 6)
    y = pixels_to_channels(x, factor, order)
    t, h, w = factor
    assert y.shape == (2, 3 * t * h * w, 4 // t, 4 // h, 6 // w)
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(channels_to_pixels(y, factor, order), x)


def test_the_order_of_channels() -> None:
    x = torch.arange(8.0).view(1, 2, 1, 2, 2)  # two channels of 2x2 pixels
    found = {
        order: pixels_to_channels(x, (1, 2, 2), order).flatten().tolist()
        for order in ("c t h w", "c t w h", "t h w c")
    }
    assert found["c t h w"] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert found["c t w h"] == [0, 2, 1, 3, 4, 6, 5, 7]
    assert found["t h w c"] == [0, 4, 1, 5, 2, 6, 3, 7]


def test_means_of_adjacent_channels() -> None:
    x = torch.tensor([1.0, 3.0, 10.0, 20.0]).view(1, 4, 1, 1, 1)
    assert grouped_means(x, 2).flatten().tolist() == [2.0, 15.0]
