from __future__ import annotations

import io
import math
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.metrics.test_result import clip
from wfvae_cli.errors import MissingExtraError
from wfvae_cli.metrics.result import ClipResult, Comparison, FailedFile, FileResult, FrameScores
from wfvae_cli.report.figure import SERIES, rendered
from wfvae_cli.report.metric_plots import MAX_BARS, plot_clips, plot_comparisons


@pytest.fixture(autouse=True)
def _drawing(request: pytest.FixtureRequest) -> None:
    if "without" not in request.node.name:
        pytest.importorskip("matplotlib")


def long_clip(lpips: bool = False) -> ClipResult:
    frames = tuple(
        FrameScores(i, 30 + math.sin(i), 0.9, 0.95, 32.0 if i else None, 0.1 if lpips else None)
        for i in range(40)
    )
    return replace(clip(30.0), frames=40, per_frame=frames, worst_frame=frames[11])


def comparison(count: int) -> Comparison:
    files = tuple(FileResult(f"folder/$x_{i}$.mp4", clip(30.0 + i / 7)) for i in range(count))
    return Comparison(files, (FailedFile("x", "bad"),))


def panels(page: Any) -> dict[str, Any]:
    """Axes by the score that they show."""
    return {axes.get_title(loc="left"): axes for axes in page.get_axes()}


def test_every_score_has_a_panel_with_a_scale_of_its_own() -> None:
    shown = panels(plot_clips({"a": long_clip(lpips=True)}, "t"))
    assert list(shown) == [
        "PSNR, dB", "flicker PSNR, dB", "SSIM", "MS-SSIM", "LPIPS, lower is better"
    ]  # fmt: skip
    assert "LPIPS, lower is better" not in panels(plot_clips({"a": long_clip()}, "t"))
    low, high = shown["PSNR, dB"].get_ylim()
    assert 28 < low < 29 and 31 < high < 32


def test_several_reconstructions_are_lines_in_their_colours() -> None:
    shown = panels(plot_clips({"a": long_clip(), "b": long_clip()}, "t"))["PSNR, dB"]
    assert [line.get_color() for line in shown.get_lines()[::2]] == list(SERIES[:2])
    labels = [text.get_text() for text in shown.get_legend().get_texts()]
    assert labels == ["a, mean 30", "b, mean 30"]


def test_an_identical_clip_and_one_of_one_frame_can_be_drawn() -> None:
    frame = FrameScores(0, math.inf)
    same = replace(clip(math.inf, None), frames=1, per_frame=(frame,), worst_frame=frame)
    assert rendered(plot_clips({"t": same}, "t"), "png").startswith(b"\x89PNG")
    files = Comparison((FileResult("a", same),), ())
    assert rendered(plot_comparisons({"t": files}, "t"), "png").startswith(b"\x89PNG")


def test_files_are_horizontal_bars_with_their_names() -> None:
    page = plot_comparisons({"a": comparison(5)}, "t")
    axes = panels(page)["PSNR, dB"]
    assert len(axes.patches) == 5
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [f"folder/$x_{i}$.mp4" for i in range(5)]
    lows, highs = axes.get_ylim()
    assert lows > highs  # the worst is at the top
    assert rendered(page, "png").startswith(b"\x89PNG")  # names are no formulas


def test_names_that_are_not_utf8_can_be_drawn() -> None:
    files = Comparison((FileResult("bad\udcff\n.mp4", clip(30.0)), FileResult("b", clip(31.0))), ())
    for form in ("svg", "png", "pdf"):
        assert rendered(plot_comparisons({"m\udcff": files}, "t\udcff"), form)
        one = plot_clips({"m\udcff": clip(30.0), "b": clip(31.0)}, "t\udcff")
        assert rendered(one, form)


def test_many_files_are_a_distribution() -> None:
    page = plot_comparisons({"a": comparison(MAX_BARS + 1), "b": comparison(7)}, "t")
    axes = panels(page)["PSNR, dB"]
    assert axes.get_ylabel() == "files"
    assert sum(patch.get_height() for patch in axes.patches[:40]) == MAX_BARS + 1
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    text = " ".join(text.get_text() for figure in page.subfigs for text in figure.texts)
    assert "41 files, 1 more could not be compared" in text


def test_the_same_result_gives_the_same_bytes_in_every_format() -> None:
    for form, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        first, second = (rendered(plot_clips({"a": clip(30.0)}, "t"), form) for _ in range(2))
        assert first == second
        assert first.startswith(start)


def test_a_page_is_as_wide_as_a_screen() -> None:
    picture = Image.open(io.BytesIO(rendered(plot_clips({"a": long_clip()}, "t"), "png")))
    pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] == 1380
    assert 0.01 < (pixels.min(axis=2) < 250).mean() < 0.5


def test_without_matplotlib_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'wfvae\[plot\]'"):
        plot_clips({"a": long_clip()}, "t")
