from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.metrics.test_result import clip
from wfvae_cli.errors import OutputError
from wfvae_cli.metrics.pixels import Pixels
from wfvae_cli.metrics.result import FrameScores
from wfvae_cli.metrics.stills import WorstFrames, compose_still
from wfvae_cli.metrics.views import error_map, luminance_error

GAP = 8


def grey(level: int, height: int = 40, width: int = 300) -> Pixels:
    return np.full((height, width, 3), level, np.uint8)


def test_frames_are_copied(tmp_path: Path) -> None:
    worst, buffer = WorstFrames(1), grey(50)
    worst.observe(FrameScores(0, 20.0), buffer, grey(60))
    buffer[:] = 0  # a decoder reuses its memory
    (path,) = worst.write(tmp_path)
    assert (np.asarray(Image.open(path))[-GAP - 1, GAP] == 50).all()


def test_names_sort_from_the_worst_over_many_clips(tmp_path: Path) -> None:
    for name, psnr in (("some/clip 1.mp4", 31.26), ("b", 9.04)):
        worst = WorstFrames(2, name=name, directory=tmp_path / "new" / "stills")
        worst.observe(FrameScores(4, psnr, 0.91), grey(100), grey(105))
        worst.observe(FrameScores(7, 41.0), grey(100), grey(97).astype(np.uint16) * np.uint16(257))
        worst.close(None)
        assert name == "b" or not (tmp_path / "new").exists()
        worst.close(clip(30.0))
    assert sorted(path.name for path in (tmp_path / "new" / "stills").iterdir()) == [
        "09.0dB-b-000004.png",
        "31.3dB-some_clip_1.mp4-000004.png",
        "41.0dB-b-000007.png",
        "41.0dB-some_clip_1.mp4-000007.png",
    ]


def test_a_still_shows_both_sides_the_error_and_the_worst_part() -> None:
    x = grey(100, 64, 300)
    y = x.copy()
    y[20:28, 200:208] = 116  # half of the error map's scale
    page = np.asarray(compose_still("clip", FrameScores(3, 22.0, 0.9), x, y))
    assert page.shape[1] == 3 * 300 + 4 * GAP
    lefts = [GAP + panel * (300 + GAP) for panel in range(3)]
    below = page[-GAP - 200 : -GAP]
    colour = error_map(luminance_error(x, y))[24, 204]
    for left, inside in zip(lefts, ((100,) * 3, (116,) * 3, tuple(colour)), strict=True):
        panel = below[:, left : left + 300]
        assert (panel == inside).all(axis=2).any()
    # The enlarged part is 16 pixels wide, of which 8 differ.
    share = (below[:, lefts[1] : lefts[1] + 300] == 116).all(axis=2).mean()
    assert share > 0.2
    labels = page[:40]
    assert (labels < 128).any() and (labels == 255).mean() > 0.5


def test_small_and_tall_frames_can_be_shown() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (8, 100, 3), dtype=np.uint8)
    page = np.asarray(compose_still("clip", FrameScores(0, 20.0), picture, picture))
    assert page.shape[1] == 3 * 300 + 4 * GAP  # enlarged by a whole factor
    edge = picture.repeat(3, axis=0).repeat(3, axis=1)[:, -3:]  # beyond the outline
    shown = page[:, GAP + 297 : GAP + 300]
    tops = range(1, len(shown) - 24)
    assert any(np.array_equal(shown[top : top + 24], edge) for top in tops)
    tall = compose_still("clip", FrameScores(0, 20.0), grey(1, 700, 30), grey(2, 700, 30))
    assert tall.height > tall.width


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
