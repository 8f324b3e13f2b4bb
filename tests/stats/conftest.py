from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from wfvae_cli.stats.accumulate import LatentStats
from wfvae_cli.stats.report import ModelIdentity, StatsReport

Make = Callable[..., StatsReport]
MODEL = ModelIdentity("tiny", "ab" * 32, "wfvae")


def latents(seed: int, channels: int = 4, frames: int = 3, size: int = 6) -> NDArray[np.float32]:
    """A clip whose channels differ in mean, spread and shape, and are correlated."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(channels, frames, size, size)) + rng.normal(size=(channels, 1, 1, 1)) / 4
    z[1] = z[1] ** 3 / 4 + z[0]
    scale = np.linspace(0.3, 4, channels)[:, None, None, None]
    return np.asarray(z * scale + np.linspace(-5, 2, channels)[:, None, None, None], np.float32)


@pytest.fixture
def make_report() -> Make:
    def make(seeds: range = range(12), channels: int = 4, **changes: object) -> StatsReport:
        stats = LatentStats()
        for seed in seeds:
            z = latents(seed, channels)
            stats.add_clip(f"clip{seed}", [(z, np.full_like(z, -2))])
        fields = {"model": MODEL, "options": {"size": "48x48"}, "stats": stats, **changes}
        return StatsReport(**fields)  # type: ignore[arg-type]  # test's own fields

    return make
