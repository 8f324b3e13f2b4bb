import pytest
import torch
from torch.nn import functional as F

from wfvae_cli.nn.prefix_attention import PrefixAttention, attend_to_prefixes
from wfvae_cli.nn.stream import Stream, name_layers


def test_a_frame_sees_all_earlier_ones_and_itself() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 8, 4, 2, 3, dtype=torch.float64) for _ in range(3))
    frame = torch.arange(4).repeat_interleave(6)
    mask = frame[:, None] >= frame
    own, keys, values = (x.flatten(2).transpose(1, 2) for x in (q, k, v))
    expected = F.scaled_dot_product_attention(own, keys, values, attn_mask=mask)
    expected = expected.transpose(1, 2).reshape(2, 8, 4, 2, 3)
    torch.testing.assert_close(attend_to_prefixes(q, k, v), expected)
    torch.testing.assert_close(attend_to_prefixes(q[:, :, 3:], k, v), expected[:, :, 3:])


@pytest.mark.parametrize("offloaded", [False, True])
def test_the_past_stays_in_the_stream(offloaded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[tuple[int, ...]] = []
    to_host = torch.Tensor.cpu

    def spy(tensor: torch.Tensor) -> torch.Tensor:
        moved.append(tuple(tensor.shape))
        return to_host(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", spy)
    torch.manual_seed(0)
    network = torch.nn.Sequential(PrefixAttention(4)).double()
    name_layers(network)
    layer, x = network[0], torch.randn(1, 4, 5, 2, 3, dtype=torch.float64)
    assert isinstance(layer, PrefixAttention)
    with torch.inference_mode():
        whole = layer(x, Stream.whole())
        stream, parts, kept = Stream(offloaded=offloaded), [], []
        for begin, end in ((0, 1), (1, 3), (3, 5)):
            stream.last = end == 5
            parts.append(layer(x[:, :, begin:end], stream))
            kept.append(stream.nbytes // 8)
    torch.testing.assert_close(torch.cat(parts, dim=2), whole)
    assert kept == [layer.growth * 6, layer.growth * 18, 0]
    # An offloaded stream hands its keys and values to the host after every chunk but the last.
    assert moved == ([(1, 4, 1, 2, 3)] * 2 + [(1, 4, 3, 2, 3)] * 2 if offloaded else [])
