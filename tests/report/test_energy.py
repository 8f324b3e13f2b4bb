from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wfvae_cli.report.energy import LEVELS, EnergyClip
from wfvae_cli.stats.subband_clip import NAMES, Kind


def kept(kind: Kind, halve: bool) -> list[list[dict[str, Any]]]:
    rng = np.random.default_rng(0)
    frames = rng.integers(64, 192, (9, 32, 40, 3), dtype=np.uint8)
    clip = EnergyClip("clip", kind)
    for frame in frames:
        # Half the contrast around mid-grey has a quarter of the energy.
        other = (127.5 + (frame - 127.5) / 2).round().astype(np.uint8) if halve else frame
        clip.add(frame, other)
    levels: Any = clip.result().to_json()["levels"]
    assert len(levels) == LEVELS
    return list(levels)


@pytest.mark.parametrize("kind", ["video", "image"])
def test_identical_clips_keep_all_energy(kind: Kind) -> None:
    for bands in kept(kind, halve=False):
        assert [band["name"] for band in bands] == list(NAMES[kind])
        assert [band["kept"] for band in bands] == [1.0] * len(bands)
        assert sum(band["share"] for band in bands) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["video", "image"])
def test_half_the_contrast_keeps_a_quarter(kind: Kind) -> None:
    for bands in kept(kind, halve=True):
        assert [band["kept"] for band in bands] == pytest.approx([0.25] * len(bands), rel=0.02)


def test_a_band_without_energy_has_no_share_kept() -> None:
    clip = EnergyClip("flat", "image")
    clip.add(np.full((16, 16, 3), 90, np.uint8), np.full((16, 16, 3), 91, np.uint8))
    levels: Any = clip.result().to_json()["levels"]
    assert [band["kept"] is None for band in levels[0]] == [False, True, True, True]
