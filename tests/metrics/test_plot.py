import io
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.metrics.test_result import clip
from wfvae_cli.errors import MissingExtraError
from wfvae_cli.metrics.plot import plot_clip, plot_comparison
from wfvae_cli.metrics.result import ClipResult, Comparison, FailedFile, FileResult, FrameScores


def opened(png: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(png))
    assert picture.format == "PNG"
    return picture.convert("RGB")


def long_clip(lpips: bool = False) -> ClipResult:
    frames = tuple(
        FrameScores(i, 30 + math.sin(i), 0.9, 0.95, 32.0 if i else None, 0.1 if lpips else None)
        for i in range(40)
    )
    return replace(clip(30.0), frames=40, per_frame=frames, worst_frame=frames[11])


def has_colour(picture: Image.Image, colour: tuple[int, int, int]) -> bool:
    return bool((np.asarray(picture) == colour).all(axis=-1).any())


def test_a_clip_has_a_panel_for_every_kind_of_score() -> None:
    pytest.importorskip("matplotlib")
    two, three = (
        opened(plot_clip(long_clip(), title="t")),
        opened(plot_clip(long_clip(lpips=True), title="t")),
    )
    assert two.width == three.width == 1400
    assert three.height > two.height
    assert has_colour(two, (0x25, 0x63, 0xA8)) and has_colour(two, (0x2E, 0x8B, 0x57))


def test_the_same_result_gives_the_same_bytes() -> None:
    pytest.importorskip("matplotlib")
    assert plot_clip(long_clip(), title="t") == plot_clip(long_clip(), title="t")


def test_an_identical_clip_and_one_of_one_frame_can_be_drawn() -> None:
    pytest.importorskip("matplotlib")
    frame = FrameScores(0, math.inf)
    same = replace(clip(math.inf, None), frames=1, per_frame=(frame,), worst_frame=frame)
    assert opened(plot_clip(same, title="t")).width == 1400


def test_a_comparison_draws_a_point_for_every_file() -> None:
    pytest.importorskip("matplotlib")
    files = tuple(FileResult(f"{i}.mp4", clip(30.0 + i)) for i in range(5))
    one = plot_comparison(Comparison(files[:1], ()), title="t")
    five = plot_comparison(Comparison(files, (FailedFile("x", "bad"),)), title="t")
    blue = [
        (np.asarray(opened(png)) == (0x25, 0x63, 0xA8)).all(axis=-1).sum() for png in (one, five)
    ]
    assert blue[1] > blue[0] > 0


def test_without_matplotlib_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'wfvae\[plot\]'"):
        plot_clip(long_clip(), title="t")
