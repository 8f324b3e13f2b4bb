import csv
import json
import math
from pathlib import Path

import pytest

from tests.metrics.test_result import clip
from wfvae_cli.errors import OutputError, UsageError
from wfvae_cli.metrics.report import write_report
from wfvae_cli.metrics.result import Comparison, FailedFile, FileResult

COMPARISON = Comparison(
    (FileResult("a, b.mp4", clip(31.0)), FileResult("c.png", clip(math.inf, None))),
    (FailedFile("d.mp4", "is empty"),),
)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_json_of_a_clip_has_every_frame_and_the_extra_keys(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(path, clip(30.0), extra={"input": "in.mp4", "fid": 1.5})
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content["input"] == "in.mp4" and content["fid"] == 1.5
    assert content["psnr"] == 30.0
    assert [frame["index"] for frame in content["per_frame"]] == [0, 1]
    assert content["per_frame"][0]["psnr"] == "inf"


def test_json_of_a_comparison_has_every_frame_of_every_file(tmp_path: Path) -> None:
    path = tmp_path / "report.JSON"
    write_report(path, COMPARISON)
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert [len(file["per_frame"]) for file in content["per_file"]] == [2, 2]
    assert content["failed"][0]["name"] == "d.mp4"


def test_csv_of_a_clip_has_a_row_for_every_frame(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    write_report(path, clip(30.0))
    first, second = rows(path)
    assert first["index"] == "0" and float(first["psnr"]) == math.inf and first["lpips"] == ""
    assert (second["psnr"], second["ssim"], second["flicker_psnr"]) == ("30.0", "0.9", "33.0")


def test_csv_of_a_comparison_has_a_row_for_every_file(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    write_report(path, COMPARISON)
    first, second, failed = rows(path)
    assert first["name"] == "a, b.mp4" and float(first["psnr"]) == 31.0
    assert first["worst_frame_index"] == "1" and first["error"] == ""
    assert second["psnr"] == "inf" and second["ssim"] == ""
    assert failed["name"] == "d.mp4" and failed["error"] == "is empty" and failed["psnr"] == ""


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\*\.json or \*\.csv, got report\.txt"):
        write_report(tmp_path / "report.txt", clip(30.0))
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_exists_is_kept_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        write_report(path, clip(30.0))
    assert path.read_text() == "mine"
    write_report(path, clip(30.0), overwrite=True)
    assert len(rows(path)) == 2
