from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.report.clips import HOSTILE, RUN, feed, levels, noisy, page_of, two_models
from tests.stats.conftest import Make, make_report
from wfvae_cli.errors import OutputError
from wfvae_cli.metrics.clip import ClipMetrics
from wfvae_cli.report.report import Report, ReportModel, check_report_folder

__all__ = ["make_report"]  # a fixture


def detail_of(folder: Path, clip: str) -> list[Any]:
    text = (folder / "clips" / clip / "clip.js").read_text("utf-8").strip()
    key, _, rest = text.removeprefix("wfReport.clip(").removesuffix(");").partition(", ")
    assert json.loads(key) == clip
    detail: list[Any] = json.loads(rest)
    return detail


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_models(tmp_path_factory.mktemp("page") / "report")


def test_files_are_listed_by_name_with_a_result_for_each_model(page: Path) -> None:
    values = page_of(page)
    names = [file["name"] for file in values["files"]]
    assert names == sorted([HOSTILE, "b.mp4", "bad <i>.mp4", "still.png", "sub/a.mp4"])
    assert [file["id"] for file in values["files"]] == ["0001", "0002", "0003", "0004", "0005"]
    files = {file["name"]: file for file in values["files"]}
    ours = files["b.mp4"]
    assert (ours["frames"], ours["width"], ours["height"], ours["fps"]) == (12, 64, 48, 12.0)
    assert ours["results"][0]["psnr"] > ours["results"][1]["psnr"]
    assert ours["results"][0]["frames_per_second"] == 24
    assert ours["results"][0]["latent_bytes"] == 2048
    assert ours["results"][0]["worst_frame"]["index"] == 7
    assert files["bad <i>.mp4"]["results"][0]["error"].startswith("cannot be read")
    assert files["bad <i>.mp4"]["results"][1] is None
    first = values["models"][0]
    assert first["distances"] == {"fid": 3.25, "fid_samples": 37}
    psnrs = [f["results"][0]["psnr"] for f in values["files"] if "original" in f]
    assert first["summary"]["psnr"]["mean"] == pytest.approx(np.mean(psnrs))


def test_clips_have_curves_chunks_crops_and_media(page: Path) -> None:
    detail = detail_of(page, "0002")
    assert len(detail) == 2
    curves = detail[0]["curves"]
    assert len(curves["psnr"]) == 12 and curves["flicker_psnr"][0] is None
    assert detail[0]["chunks"] == [0, 5, 9]
    assert detail[0]["worst"][0]["index"] == 7
    folder = page / "clips" / "0002"
    listed = {detail[m][role]["name"] for m in range(2) for role in ("reconstruction", "error")}
    listed |= {
        each[role]
        for m in range(2)
        for each in detail[m]["worst"]
        for role in ("original", "reconstruction", "error")
    }
    listed |= {"original.mp4", "thumb.jpg", "clip.js"}
    assert {path.name for path in folder.iterdir()} == listed
    crop = np.asarray(Image.open(folder / detail[0]["worst"][0]["original"]))
    assert (crop == levels(12)[7, 0, 0, 0]).all()  # lossless


def test_the_folder_needs_nothing_else(page: Path) -> None:
    assert {path.name for path in page.iterdir()} == {"index.html", "report.js", "assets", "clips"}
    html = (page / "index.html").read_text("utf-8")
    scripts = ["report.js", *(f"assets/{path.name}" for path in (page / "assets").iterdir())]
    assert all(f'"{script}"' in html for script in scripts)
    text = "".join(path.read_text("utf-8") for path in (page / "assets").iterdir())
    addresses = [line for line in (html + text).split() if "://" in line]
    assert all("www.w3.org/2000/svg" in address for address in addresses)
    assert not [path for path in page.parent.iterdir() if path.name.endswith(".part")]


def test_data_cannot_end_the_script_that_carries_it(page: Path) -> None:
    for path in (page / "report.js", page / "clips" / "0001" / "clip.js"):
        assert "<" not in path.read_text("utf-8")


def test_the_same_clips_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    x, y = levels(4), noisy(levels(4), 5)
    for folder, names in (("a", "pqr"), ("b", "rqp")):
        with Report(tmp_path / folder, [ReportModel("m")], RUN) as report:
            for name in names:
                feed(report, name, 0, (x, y))
    first = {p.relative_to(tmp_path / "a"): p for p in sorted((tmp_path / "a").rglob("*"))}
    for relative, path in first.items():
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / relative).read_bytes(), relative


def test_clips_that_fail_leave_nothing(tmp_path: Path) -> None:
    with Report(tmp_path / "r", [ReportModel("m")], RUN) as report:
        clip = report.clip("half.mp4", 0, frame_rate=None)
        metrics = ClipMetrics(observers=[clip])
        for frame in levels(3):
            metrics.update(frame, frame)
        clip.close(None)
        report.fail("half.mp4", 0, "ends early")
        feed(report, "whole.mp4", 0, (levels(2), levels(2)))
    files = page_of(tmp_path / "r")["files"]
    assert [file["results"][0].get("error") for file in files] == ["ends early", None]
    assert [path.name for path in (tmp_path / "r" / "clips").iterdir()] == ["0002"]


def test_a_model_that_fails_first_leaves_the_original_to_the_next(tmp_path: Path) -> None:
    with Report(tmp_path / "r", [ReportModel("m"), ReportModel("n")], RUN) as report:
        report.clip("c", 0, frame_rate=None).close(None)
        feed(report, "c", 1, (levels(2), levels(2)))
    assert (tmp_path / "r" / "clips" / "0001" / "original.mp4").is_file()
    assert detail_of(tmp_path / "r", "0001")[0] is None


def test_an_error_leaves_no_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        Report(tmp_path / "r", [ReportModel("m")], RUN) as report,
    ):
        feed(report, "c", 0, (levels(2), levels(2)))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_only_a_report_is_replaced_and_only_if_asked(tmp_path: Path) -> None:
    for names in ("ab", "c"):
        with Report(tmp_path / "r", [ReportModel("m")], RUN, overwrite=True) as report:
            for name in names:
                feed(report, name, 0, (levels(2), levels(2)))
    assert [file["name"] for file in page_of(tmp_path / "r")["files"]] == ["c"]
    with pytest.raises(OutputError, match="add --overwrite"):
        check_report_folder(tmp_path / "r")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(OutputError, match="no report"):
        check_report_folder(tmp_path / "photos", overwrite=True)
    with pytest.raises(OutputError, match="is a file"):
        check_report_folder(tmp_path / "photos" / "a.jpg", overwrite=True)
    with pytest.raises(OutputError, match="does not exist"):
        check_report_folder(tmp_path / "no" / "r")


def test_the_folder_may_be_the_current_one_if_it_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with Report(Path(), [ReportModel("m")], RUN) as report:
        feed(report, "c", 0, (levels(2), levels(2)))
    assert (tmp_path / "here" / "index.html").is_file()


def test_latents_are_shown_in_every_convention(tmp_path: Path, make_report: Make) -> None:
    stats = make_report()
    with Report(tmp_path / "r", [ReportModel("m", latents=stats)], RUN) as report:
        feed(report, "c", 0, (levels(2), levels(2)))
    latents = page_of(tmp_path / "r")["models"][0]["latents"]
    assert latents["mean"] == list(stats.summary.mean)
    assert latents["kl"] == list(stats.summary.kl or ())
    assert {"shift", "scale", "latents_mean", "latents_std", "shift_factor", "scaling_factor"} == {
        *latents["factors"]
    }
    assert np.shape(latents["correlation"]) == (4, 4)
