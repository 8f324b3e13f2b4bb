import pytest
import torch
from torch.nn import functional as F

from wfvae_cli.nn.edges import Edges, pad_edges
from wfvae_cli.nn.look_ahead import LookAheadConv3d
from wfvae_cli.nn.stream import Stream, name_layers


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("edges", ["zeros", "reflect", "replicate"])
@pytest.mark.parametrize("chunks", [(6,), (1,) * 6, (2, 3, 1)])
def test_it_convolves_the_padded_clip(edges: Edges, ahead: bool, chunks: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(LookAheadConv3d(3, 4, edges=edges, ahead=ahead)).double()
    name_layers(network)
    conv = network[0]
    assert isinstance(conv, LookAheadConv3d)
    x, stream, parts = torch.randn(2, 3, 6, 4, 5).double(), Stream(), []
    kept = x.clone()
    with torch.inference_mode():
        in_time = [x[:, :, :1], x, x[:, :, -1:]] if ahead else [x[:, :, :1], x[:, :, :1], x]
        padded = pad_edges(torch.cat(in_time, dim=2), edges)
        expected = F.conv3d(padded, conv.conv.weight, conv.conv.bias)
        for number, part in enumerate(torch.split(x, list(chunks), dim=2), start=1):
            stream.last = number == len(chunks)
            parts.append(conv(part, stream))
    counts = [part.size(2) for part in parts]
    late = 0 if not ahead or len(chunks) == 1 else 1
    assert counts[0] == chunks[0] - late
    torch.testing.assert_close(torch.cat(parts, dim=2), expected)
    assert torch.equal(x, kept)


def test_without_frames_it_keeps_nothing() -> None:
    conv, stream = LookAheadConv3d(3, 4, ahead=True), Stream()
    assert conv(torch.zeros(1, 3, 0, 4, 5), stream).shape == (1, 4, 0, 4, 5)
    assert not stream.past
