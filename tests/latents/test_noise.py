from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wfvae_cli.latents.noise import posterior_noise


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
@settings(deadline=None, max_examples=20)
def test_chunks_give_what_the_whole_gives(counts: list[int]) -> None:
    whole = posterior_noise(3, 4, 2, 3, first=0, count=sum(counts))
    firsts = [sum(counts[:index]) for index in range(len(counts))]
    parts = [posterior_noise(3, 4, 2, 3, *cut) for cut in zip(firsts, counts, strict=True)]
    assert torch.equal(torch.cat(parts, dim=1), whole)


def test_noise_is_standard_normal_and_differs_by_seed_and_frame() -> None:
    noise = posterior_noise(0, 16, 32, 32, first=0, count=8)
    assert noise.shape == (16, 8, 32, 32)
    assert noise.dtype == torch.float32
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    flat = noise.transpose(0, 1).flatten(1)
    assert (torch.corrcoef(flat) - torch.eye(8)).abs().max() < 0.05
    assert not torch.equal(noise, posterior_noise(1, 16, 32, 32, first=0, count=8))


def test_the_noise_of_a_seed_never_changes() -> None:
    noise = posterior_noise(42, 2, 1, 2, first=5, count=1)
    expected = torch.tensor([0.2737905, 0.4352508, 0.6972021, 1.3396964])
    assert torch.allclose(noise.flatten(), expected, atol=1e-6), noise.flatten().tolist()
