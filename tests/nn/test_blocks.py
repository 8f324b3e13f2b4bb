"""Blocks, put together from layers that are tested by themselves."""

import pytest
import torch

from wfvae_cli.nn import blocks
from wfvae_cli.nn.blocks import ResidualBlock, attend_in_frames, attend_in_query_blocks
from wfvae_cli.nn.norm import NormType
from wfvae_cli.nn.stream import Stream, name_layers


@pytest.mark.parametrize("norm", ["layernorm", "rms"])
@pytest.mark.parametrize("outputs", [4, 6])
def test_a_block_in_bands_gives_what_it_gives_at_once(
    norm: NormType, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(3, 4, outputs, norm).double().requires_grad_(False)
    name_layers(block)
    x = torch.randn(1, 4, 5, 7, 6, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    given, sizes = x.clone(), []

    def run() -> tuple[torch.Tensor, int]:
        stream = Stream()
        first = block(x[:, :, :3], stream)
        kept = stream.nbytes
        stream.last = True
        return torch.cat((first, block(x[:, :, 3:], stream)), dim=2), kept

    def listen(module: torch.nn.Module, args: tuple[torch.Tensor]) -> None:
        del module
        sizes.append(args[0].size(3))

    with torch.inference_mode():
        at_once, kept = run()
        monkeypatch.setattr("wfvae_cli.nn.conv.BAND_BYTES", 2 * x[:, :, :3, 0].numel() * 8)
        block.norm2.register_forward_pre_hook(listen)
        in_row_bands, kept_in_bands = run()
    assert max(sizes) < x.size(3), "it ran in row bands"
    torch.testing.assert_close(in_row_bands, at_once)
    assert kept_in_bands == kept
    assert torch.equal(x, given), "what goes around the convolutions is not overwritten"


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_attention_in_query_blocks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 3, 2, 5, dtype=torch.float64)
    expected = attend_in_frames(q, k, v)
    monkeypatch.setattr(blocks, "SCORE_BYTES", rows * 4 * 6 * 10)
    flat = (x.permute(0, 2, 3, 4, 1).reshape(6, 10, 4) for x in (q, k, v))
    y = attend_in_query_blocks(*flat).view(2, 3, 2, 5, 4).permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(y, expected)
