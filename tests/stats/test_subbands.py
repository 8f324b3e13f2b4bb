from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wfvae_cli.errors import InputError, UsageError
from wfvae_cli.report.subband_plot import plot_subbands
from wfvae_cli.stats.subband_clip import BIN_WIDTH, NAMES, Kind, SubbandClip
from wfvae_cli.stats.subbands import SubbandStats
from wfvae_cli.stats.table import subband_table


def _clip(seed: int, frames: int = 9, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(3, frames, size, size, generator=generator)
    return (noise + torch.linspace(0, 1, size)) - 1


def _stats(
    kind: Kind, clips: dict[str, torch.Tensor], levels: int = 3, chunk: int = 100
) -> SubbandStats:
    stats = SubbandStats(kind, levels)
    for name, clip in clips.items():
        one = SubbandClip(name, kind, levels)
        for start in range(0, clip.shape[1], chunk):
            one.update(clip[:, start : start + chunk])
        one.end()
        stats.add(one)
    return stats


def _haar(x: np.ndarray, axes: tuple[int, ...], gain: float) -> dict[str, np.ndarray]:
    """Bands of one level by their letters, straight from the definition."""
    bands = {"": x * gain}
    for axis in axes:
        split = {}
        for name, band in bands.items():
            even, odd = (np.take(band, range(k, band.shape[axis], 2), axis) for k in (0, 1))
            split[name + "L"], split[name + "H"] = even + odd, even - odd
        bands = split
    return bands


@pytest.mark.parametrize("kind", ["video", "image"])
def test_energies_and_entropies_follow_the_definition(kind: Kind) -> None:
    clip = _clip(0)
    rows = {(row.level, row.name): row for row in _stats(kind, {"a": clip}, levels=2).subbands()}
    low = clip.double().numpy()
    for level in (1, 2):
        if kind == "video":
            low = np.concatenate((low[:, :1], low), axis=1)
        axes, gain = ((1, 2, 3), 0.3536) if kind == "video" else ((2, 3), 0.5)
        bands = _haar(low, axes, gain)
        total = sum((band**2).sum() for band in bands.values())
        assert set(bands) == set(NAMES[kind])
        for name, band in bands.items():
            row = rows[level, name]
            assert row.energy == pytest.approx((band**2).mean(), rel=1e-5)
            assert row.share == pytest.approx((band**2).sum() / total, rel=1e-5)
            p = np.unique(np.rint(band / BIN_WIDTH), return_counts=True)[1] / band.size
            assert row.entropy == pytest.approx(-(p * np.log2(p)).sum(), abs=0.02)
        low = bands["L" * len(axes)]


@settings(deadline=None, max_examples=20)
@given(
    frames=st.integers(1, 30), chunk=st.integers(1, 12), kind=st.sampled_from(["video", "image"])
)
def test_chunks_do_not_matter(frames: int, chunk: int, kind: Kind) -> None:
    clip = _clip(frames, frames, size=8)
    whole, chunked = _stats(kind, {"a": clip}), _stats(kind, {"a": clip}, chunk=chunk)
    assert [row.entropy for row in chunked.subbands()] == [r.entropy for r in whole.subbands()]
    assert [row.energy for row in chunked.subbands()] == pytest.approx(
        [row.energy for row in whole.subbands()], rel=1e-9
    )


def test_a_clip_is_padded_with_its_last_frame_and_edge_pixels() -> None:
    clip = _clip(1, frames=12, size=16)[..., :13]
    padded = torch.cat((clip, clip[:, -1:].expand(-1, 5, -1, -1)), dim=1)
    padded = torch.cat((padded, padded[..., -1:].expand(-1, -1, -1, 3)), dim=3)
    found, expected = _stats("video", {"a": clip}), _stats("video", {"a": padded})
    for mine, theirs in zip(found.subbands(), expected.subbands(), strict=True):
        assert mine.energy == pytest.approx(theirs.energy, rel=1e-12)
        assert mine.entropy == theirs.entropy


def test_a_still_grey_clip_has_all_its_energy_in_the_low_band() -> None:
    rows = _stats("video", {"a": torch.full((3, 17, 16, 16), 0.5)}).subbands()
    assert [row.share for row in rows if row.name == "LLL"] == [1.0] * 3
    assert all(row.entropy == 0 for row in rows)


def test_extreme_pixels_stay_in_range() -> None:
    stats = _stats("video", {"a": torch.ones(3, 9, 8, 8), "b": -torch.ones(3, 9, 8, 8)})
    lows = [row for row in stats.subbands() if row.name == "LLL"]
    assert [row.entropy for row in lows] == [1.0] * 3  # two values, equally often
    assert lows[2].energy == pytest.approx((8 * 0.3536) ** 6, rel=1e-5)


def test_merge_and_files_equal_the_whole(tmp_path: Path) -> None:
    clips = {name: _clip(k) for k, name in enumerate("abcd")}
    whole = _stats("image", clips)
    a = _stats("image", {name: clips[name] for name in "ca"})
    b = _stats("image", {name: clips[name] for name in "bd"})
    b.fail("x.png", "broken")
    (tmp_path / "b.json").write_text(b.to_json())
    b = SubbandStats.load(tmp_path / "b.json")
    a.merge(b)
    found, expected = json.loads(a.to_json()), json.loads(whole.to_json())
    assert found["failed"][0]["name"] == "x.png"
    assert found["clip_ids"] == expected["clip_ids"]
    for mine, theirs in zip(found["subbands"], expected["subbands"], strict=True):
        assert mine["energy"] == pytest.approx(theirs["energy"], rel=1e-12)
        assert mine["entropy"] == theirs["entropy"]
    assert SubbandStats.load(tmp_path / "b.json").to_json() == (tmp_path / "b.json").read_text()


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    stats = _stats("video", {"a": _clip(0)})
    with pytest.raises(UsageError, match="1 clips are in both"):
        stats.merge(_stats("video", {"a": _clip(0)}))
    with pytest.raises(UsageError, match="one kind"):
        stats.merge(_stats("image", {"b": _clip(0)}))
    with pytest.raises(UsageError, match="1 to 6"):
        SubbandStats("video", 7)
    clip = SubbandClip("b.mp4", "video")
    clip.update(_clip(0))
    with pytest.raises(InputError, match=r"b\.mp4: .*one size"):
        clip.update(_clip(0, size=8))
    with pytest.raises(InputError, match=r"c\.mp4: no frames"):
        SubbandClip("c.mp4", "video").end()
    with pytest.raises(InputError, match="no clip to analyse"):
        SubbandStats("video").subbands()
    (tmp_path / "x.json").write_text('{"schema": "other"}')
    with pytest.raises(InputError, match="--subbands"):
        SubbandStats.load(tmp_path / "x.json")
    values = {**json.loads(stats.to_json()), "state": []}
    (tmp_path / "x.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="damaged"):
        SubbandStats.load(tmp_path / "x.json")


@pytest.mark.parametrize("kind", ["video", "image"])
def test_table_and_plot(kind: Kind, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    stats = _stats(kind, {"a": _clip(0)}, levels=2)
    table = subband_table(stats)
    assert len(table.rows) == 2 * len(NAMES[kind])
    assert all(len(row) == len(table.header) for row in table.rows)
    shares = [float(row[3].rstrip("%")) for row in table.rows]
    assert math.isclose(sum(shares), 200, abs_tol=0.1)
    plot_subbands(stats, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1320, 792)
        assert 0.05 < (np.asarray(image.convert("L")) < 250).mean() < 0.6
