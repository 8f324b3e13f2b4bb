import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wfvae_cli.errors import OutputError
from wfvae_cli.metrics.pixels import Pixels
from wfvae_cli.metrics.result import FrameScores
from wfvae_cli.metrics.stills import WorstFrames

GAP = 8


def grey(level: int, height: int = 20, width: int = 300) -> Pixels:
    return np.full((height, width, 3), level, np.uint8)


def kept(worst: WorstFrames) -> list[tuple[str, int]]:
    return [(k.name, k.scores.index) for k in sorted(worst._heap, reverse=True)]


@settings(deadline=None, max_examples=50)
@given(
    psnrs=st.lists(st.sampled_from([10.0, 20.0, 25.5, 30.0, math.inf]), max_size=12),
    count=st.integers(1, 4),
)
def test_the_worst_are_kept_in_order_and_no_more(psnrs: list[float], count: int) -> None:
    worst = WorstFrames(count, name="c")
    for index, psnr in enumerate(psnrs):
        worst.observe(FrameScores(index, psnr), grey(1), grey(2))
        assert len(worst._heap) <= count
    differing = [index for index, psnr in enumerate(psnrs) if psnr != math.inf]
    expected = sorted(differing, key=lambda index: psnrs[index])[:count]
    assert kept(worst) == [("c", index) for index in expected]


def test_merging_keeps_the_worst_of_both() -> None:
    total = WorstFrames(3)
    for name, psnrs in (("a", (30.0, 20.0, 40.0)), ("b", (25.0, 20.0))):
        one = total.fresh(name)
        for index, psnr in enumerate(psnrs):
            one.observe(FrameScores(index, psnr), grey(1), grey(2))
        total.merge(one)
    assert kept(total) == [("a", 1), ("b", 1), ("b", 0)]


def test_frames_are_copied(tmp_path: Path) -> None:
    worst, buffer = WorstFrames(1), grey(50)
    worst.observe(FrameScores(0, 20.0), buffer, grey(60))
    buffer[:] = 0  # a decoder reuses its memory
    (path,) = worst.write(tmp_path)
    assert (np.asarray(Image.open(path))[-GAP - 1, GAP] == 50).all()


def test_stills_show_both_sides_and_the_difference(tmp_path: Path) -> None:
    worst = WorstFrames(2, name="some/clip 1.mp4")
    worst.observe(FrameScores(4, 31.26, 0.91), grey(100), grey(105))
    worst.observe(FrameScores(7, 22.0), grey(100), grey(97).astype(np.uint16) * np.uint16(257))
    paths = worst.write(tmp_path / "new" / "stills", gain=4)
    assert [path.name for path in paths] == [
        "01-22.0dB-some_clip_1.mp4-000007.png",
        "02-31.3dB-some_clip_1.mp4-000004.png",
    ]
    for path, levels in zip(paths, ((100, 97, 116), (100, 105, 148)), strict=True):
        page = np.asarray(Image.open(path))
        assert page.dtype == np.uint8 and page.shape[1] == 3 * 300 + 4 * GAP
        row = page[-GAP - 10]
        for panel, level in enumerate(levels):
            left = GAP + panel * (300 + GAP)
            assert (row[left : left + 300] == level).all()
            assert (row[left - GAP : left] == 255).all()
        labels = page[: -GAP - 20]
        assert (labels < 128).any() and (labels == 255).mean() > 0.5


def test_small_frames_are_enlarged_by_a_whole_factor(tmp_path: Path) -> None:
    worst = WorstFrames(1)
    picture = np.random.default_rng(0).integers(0, 256, (8, 100, 3), dtype=np.uint8)
    worst.observe(FrameScores(0, 20.0), picture, picture)
    (path,) = worst.write(tmp_path)
    panel = np.asarray(Image.open(path))[-GAP - 24 : -GAP, GAP : GAP + 300]
    assert np.array_equal(panel, picture.repeat(3, axis=0).repeat(3, axis=1))


def test_stills_that_exist_are_not_replaced_unless_asked(tmp_path: Path) -> None:
    worst = WorstFrames(1)
    worst.observe(FrameScores(0, 20.0), grey(1), grey(2))
    (path,) = worst.write(tmp_path)
    with pytest.raises(OutputError, match="exists"):
        worst.write(tmp_path)
    assert worst.write(tmp_path, overwrite=True) == [path]


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    worst = WorstFrames(1)
    with pytest.raises(OutputError, match="expected a directory"):
        worst.write(tmp_path / "file")
