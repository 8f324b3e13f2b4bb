"""The code for other devices than the CPU, on the one that every machine has: `meta`, of shapes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.models.build import cached
from tests.parity.cases import case_config
from wfvae_cli.models.base import VideoVAE
from wfvae_cli.nn.stream import Stream

CASES = ["mini-wfvae-trilinear", "mini-wfvae-888", "mini-wfvae2-video", "mini-wan"]


def chunks_of(vae: VideoVAE, device: str, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Encode and decode a clip in three chunks; latents and frames."""
    model = vae.to(device, dtype)
    encoding, decoding, latents, frames = Stream(), Stream(), [], []
    cuts = [0, 1 + vae.strides.time, 1 + 2 * vae.strides.time, 1 + 4 * vae.strides.time]
    for begin, end in pairwise(cuts):
        encoding.last = decoding.last = end == cuts[-1]
        x = torch.zeros(1, 3, end - begin, 32, 32, device=device, dtype=dtype)
        latents.append(model.encode(x, encoding).mean)
        frames.append(model.decode(latents[-1], decoding))
        for tail in encoding.past.values():
            _, c, *places = tail.shape
            if c > 1 and min(places) > 1:
                assert tail.permute(0, 2, 3, 4, 1).is_contiguous(), "state is channels-last"
    return latents, frames


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_chunks_have_the_shapes_of_the_cpu(case: str, dtype: torch.dtype) -> None:
    vae = cached(case)
    expected = chunks_of(vae, "cpu", torch.float32)
    with torch.device("meta"):
        there = type(vae).from_config(case_config(case)).eval()
    found = chunks_of(there, "meta", dtype)
    for parts, others in zip(found, expected, strict=True):
        assert [part.shape for part in parts] == [part.shape for part in others]
        assert all(part.device.type == "meta" and part.dtype == dtype for part in parts)
