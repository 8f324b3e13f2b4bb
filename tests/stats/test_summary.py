from __future__ import annotations

import numpy as np
import pytest

from tests.stats.conftest import latents
from wfvae_cli.errors import InputError
from wfvae_cli.stats.accumulate import LatentStats
from wfvae_cli.stats.summary import normalised_density, summarise


def test_empty_says_what_failed_and_what_to_do() -> None:
    stats = LatentStats()
    stats.fail("a.mp4", "no moov atom")
    with pytest.raises(InputError, match=r"1 failed; a\.mp4: no moov atom.*give videos"):
        summarise(stats)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-30])
def test_a_constant_channel_is_an_error(value: float) -> None:
    stats = LatentStats()
    for seed in range(3):
        z = latents(seed)
        z[2] = value
        stats.add_clip(str(seed), [(z, None)])
    with pytest.raises(InputError, match="constant: 2; add clips that differ"):
        summarise(stats)


def test_a_channel_too_small_for_a_finite_scale_is_an_error() -> None:
    z = latents(0).astype(np.float64)
    z[1] *= 1e-320
    stats = LatentStats()
    stats.add_clip("a", [(z, None)])
    with pytest.raises(InputError, match="constant: 1"):
        summarise(stats)


def test_collapsed_channels_are_those_without_information() -> None:
    z = latents(0).astype(np.float64)
    z[:2] = (z[:2] - z[:2].mean()) * 1e-3
    logvar = np.zeros_like(z)
    stats = LatentStats()
    stats.add_clip("a", [(z, logvar)])
    assert summarise(stats).collapsed == 0.5


@pytest.mark.parametrize("mean", [0.0, -0.03, 3.0])
def test_shares_beyond_sigma_are_within_their_error(mean: float) -> None:
    x = np.random.default_rng(0).normal(mean, 0.01, (1, 1, 300, 500))
    stats = LatentStats()
    stats.add_clip("a", [(x, None)])
    s = summarise(stats)
    exact = (np.abs(x - x.mean()) > 3 * x.std()).mean()
    assert abs(s.beyond_3_sigma.share - exact) <= s.beyond_3_sigma.error
    if mean < 1:
        assert s.beyond_3_sigma.error < 5e-4
        assert s.beyond_3_sigma.share == pytest.approx(exact, rel=0.05)
    assert s.beyond_5_sigma.share <= s.beyond_5_sigma.error + 1e-5


def test_normal_latents_look_normal() -> None:
    rng = np.random.default_rng(0)
    stats = LatentStats()
    stats.add_clip("a", [(rng.normal(0.03, 0.01, (1, 4, 100, 200)), None)])
    edges = tuple(np.linspace(-3, 3, 13).tolist())
    middles = np.linspace(-2.75, 2.75, 12)
    normal = np.exp(-(middles**2) / 2) / np.sqrt(2 * np.pi)
    assert normalised_density(stats, 0, edges) == pytest.approx(normal, abs=0.03)
