from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.stats.conftest import Make, make_report
from wfvae_cli.errors import MissingExtraError, OutputError, UsageError
from wfvae_cli.report import latent_plot
from wfvae_cli.report.figure import RED
from wfvae_cli.report.latent_plot import dataset_name, plot_stats
from wfvae_cli.stats.accumulate import LatentStats

__all__ = ["make_report"]  # a fixture


@pytest.fixture
def page_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The figure that would be written for a report."""
    pytest.importorskip("matplotlib")

    def draw(report: Any) -> Any:
        pages: list[Any] = []
        monkeypatch.setattr(latent_plot, "save", lambda page, path, overwrite: pages.append(page))
        plot_stats(report, Path("x.png"))
        return pages[0]

    return draw


@pytest.mark.parametrize("channels", [4, pytest.param(64, marks=pytest.mark.slow)])
def test_plot_is_one_png_with_the_same_bytes(
    channels: int, make_report: Make, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    report = make_report(channels=channels)
    plot_stats(report, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] == 1500
    assert 0.02 < (pixels.min(axis=2) < 250).mean() < 0.6  # neither empty nor full
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(OutputError, match="exists already"):
        plot_stats(report, tmp_path / "a.png")
    if channels == 4:
        before = (tmp_path / "a.png").read_bytes()
        plot_stats(report, tmp_path / "a.png", overwrite=True)
        assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_suffix_chooses_the_format(
    suffix: str, start: bytes, make_report: Make, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    plot_stats(make_report(), tmp_path / f"a.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes().startswith(start)
    with pytest.raises(UsageError, match=r"\*\.svg"):
        plot_stats(make_report(), tmp_path / "a.gif")


def test_the_page_names_the_dataset_and_has_scales(page_of: Any, make_report: Make) -> None:
    page = page_of(make_report(run={"sources": ["/data/my $videos$/"]}))
    heading = page.subfigs[0].texts[0].get_text()
    assert heading == "Latents of tiny on my $videos$"
    first, second = page.subfigs[1].get_axes()[:2]
    assert [label.get_text() for label in first.get_yticklabels()] != [""] * 3
    assert first.get_ylim() == second.get_ylim()


def test_the_diagonal_of_the_correlation_is_left_out(page_of: Any, make_report: Make) -> None:
    report = make_report()
    axes = next(
        axes
        for axes in page_of(report).get_axes()
        if axes.get_title(loc="left").startswith("Correlation")
    )
    shown = np.asarray(axes.images[0].get_array().filled(np.nan))
    assert np.isnan(np.diag(shown)).all()
    others = shown[~np.eye(4, dtype=bool)]
    assert others == pytest.approx(np.array(report.summary.correlation)[~np.eye(4, dtype=bool)])
    assert axes.images[0].get_clim() == pytest.approx((-np.abs(others).max(), np.abs(others).max()))


def test_bars_that_leave_the_frame_are_marked(page_of: Any, make_report: Make) -> None:
    spike = LatentStats()
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 3, 16, 16)).astype(np.float32)
    z[1] = np.where(rng.random(z[1].shape) < 0.9, 0.01 * z[1], 5 * z[1])
    spike.add_clip("a", [(z, np.zeros_like(z))])
    histograms = page_of(make_report(stats=spike)).subfigs[1].get_axes()[:2]
    marks = [
        [text.get_text() for text in axes.texts if text.get_color() == RED] for axes in histograms
    ]
    assert marks[0] == [] and len(marks[1]) == 1
    assert float(marks[1][0]) > 1.5


def test_names_of_datasets() -> None:
    assert dataset_name({}) == ""
    assert dataset_name({"sources": ["videos", "/a/b.mp4"]}) == "videos, b.mp4"
    assert dataset_name({"merged": [{"sources": ["a/x"]}, {"sources": ["a/x", "y"]}]}) == "x, y"
    assert dataset_name({"sources": list("abcde")}) == "a, b and 3 more"


def test_plot_without_matplotlib_names_the_extra(
    make_report: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'wfvae\[plot\]'"):
        plot_stats(make_report(), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
