import pytest
import torch
from torch.nn import functional as F

from wfvae_cli.nn.resample import SpaceUpsample, convolve_doubled
from wfvae_cli.nn.stream import Stream


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 1, 1), (3, 4, 5)])
def test_convolving_a_doubled_frame_without_making_it(frames: int, height: int, width: int) -> None:
    x = torch.randn(2, 3, frames, height, width, dtype=torch.float64)
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64)
    bias = torch.randn(5, dtype=torch.float64)
    doubled = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
    wanted = F.conv3d(doubled, weight.unsqueeze(2), bias, padding=(0, 1, 1))
    torch.testing.assert_close(convolve_doubled(x, weight, bias), wanted)


def test_upsampling_uses_its_weights() -> None:
    layer = SpaceUpsample(3, 4).requires_grad_(False)
    x = torch.randn(1, 3, 2, 4, 4)
    wanted = convolve_doubled(x, layer.conv.weight, layer.conv.bias)
    torch.testing.assert_close(layer(x, Stream()), wanted)
    assert wanted.shape == (1, 4, 2, 8, 8)
