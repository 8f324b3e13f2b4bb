from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.cli.program import assert_refused, wfvae
from tests.media.conftest import write_clip
from tests.metrics.reference import reference_psnr, reference_ssim

Picture = NDArray[np.uint8]
PNG = b"\x89PNG\r\n"


def pictures(count: int, seed: int = 0, width: int = 48, height: int = 32) -> list[Picture]:
    rng = np.random.default_rng(seed)
    small = rng.integers(40, 216, (count, height // 4, width // 4, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(each).resize((width, height))) for each in small]


def worse(originals: Sequence[Picture], seed: int = 1, bad: int | None = None) -> list[Picture]:
    """Noise on every picture, and most on number `bad`."""
    rng = np.random.default_rng(seed)
    result = []
    for index, each in enumerate(originals):
        spread = 30 if index == bad else 6
        noisy = each + rng.normal(0, spread, each.shape)
        result.append(noisy.round().clip(0, 255).astype(np.uint8))
    return result


def lossless(path: Path, frames: Sequence[Picture]) -> Path:
    return write_clip(path, frames, codec="ffv1", pix_fmt="bgr0")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Six frames, of which number 4 came back worst."""
    frames = pictures(6)
    return lossless(tmp_path / "a.mkv", frames), lossless(tmp_path / "b.mkv", worse(frames, bad=4))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two videos and an image in pairs, one of the videos under another suffix."""
    left, right = tmp_path / "left", tmp_path / "right"
    for folder in (left / "sub", right / "sub"):
        folder.mkdir(parents=True)
    for index, name in enumerate(("one", "sub/two")):
        frames = pictures(4, index)
        lossless(left / f"{name}.mkv", frames)
        lossless(right / f"{name}.{'mkv' if index else 'avi'}", worse(frames, bad=1 + index))
    (picture,) = pictures(1, 7)
    Image.fromarray(picture).save(left / "still.png")
    Image.fromarray(worse([picture])[0]).save(right / "still.png")
    return left, right


def test_two_videos_agree_with_scikit_image(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    answer = wfvae("compare", *pair, "--json")
    assert answer.code == 0, answer
    scores = json.loads(answer.stdout)
    x = pictures(6)
    y = worse(x, bad=4)
    psnr = [reference_psnr(a, b) for a, b in zip(x, y, strict=True)]
    ssim = [reference_ssim(a, b, data_range=255) for a, b in zip(x, y, strict=True)]
    assert scores["psnr"] == pytest.approx(np.mean(psnr), abs=1e-4)
    assert scores["ssim"] == pytest.approx(np.mean(ssim), abs=1e-4)
    change = np.diff(np.array(x, float), axis=0) - np.diff(np.array(y, float), axis=0)
    flicker = 10 * np.log10(255**2 / np.square(change).mean(axis=(1, 2, 3)))
    assert scores["flicker_psnr"] == pytest.approx(flicker.mean(), abs=1e-4)
    assert scores["frames"] == 6
    assert scores["worst_frame"]["index"] == 4
    assert scores["original"] == str(pair[0])


def test_the_scores_for_people(pair: tuple[Path, Path]) -> None:
    answer = wfvae("compare", *pair)
    assert (answer.code, answer.stdout) == (0, "")
    assert "6 frames of 48x32, 8 bits" in answer.stderr
    assert "PSNR" in answer.stderr
    assert "worst frame 4" in answer.stderr
    same = wfvae("compare", pair[0], pair[0])
    assert "PSNR identical" in same.stderr


def test_reports_plot_and_stills_of_two_videos(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    table, full, plot, stills = (tmp_path / name for name in ("r.csv", "r.json", "r.png", "stills"))
    answer = wfvae(
        "compare", *pair, "--report", table, "--plot", plot, "--worst", "2", stills
    )  # fmt: skip
    assert answer.code == 0, answer
    assert wfvae("compare", *pair, "--report", full, "--no-ms-ssim", "-q").code == 0
    rows = list(csv.DictReader(table.open()))
    frames = json.loads(full.read_text())["per_frame"]
    assert [float(row["psnr"]) for row in rows] == [frame["psnr"] for frame in frames]
    assert rows[0]["flicker_psnr"] == ""
    assert plot.read_bytes().startswith(PNG)
    names = sorted(path.name for path in stills.iterdir())
    assert len(names) == 2
    assert names[0].endswith("a.mkv-000004.png")
    again = wfvae("compare", *pair, "--worst", "2", stills)
    assert_refused(again, 5, "stills is not empty", "--overwrite")


def test_two_folders(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    report = tmp_path / "files.csv"
    answer = wfvae("compare", *folders, "--json", "--report", report)
    assert answer.code == 0, answer
    values = json.loads(answer.stdout)
    assert values["files"] == 3
    assert [file["name"] for file in values["per_file"]] == ["one.mkv", "still.png", "sub/two.mkv"]
    psnr = [file["psnr"] for file in values["per_file"]]
    assert values["psnr"] == pytest.approx(np.mean(psnr))
    assert values["summary"]["psnr"]["median"] == pytest.approx(np.median(psnr))
    assert values["summary"]["psnr"]["p5"] == pytest.approx(np.percentile(psnr, 5))
    assert values["worst_files"][0] == values["per_file"][int(np.argmin(psnr))]["name"]
    rows = list(csv.DictReader(report.open()))
    assert [row["name"] for row in rows] == [file["name"] for file in values["per_file"]]


def test_two_folders_for_people(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    stills = tmp_path / "stills"
    answer = wfvae("compare", *folders, "--worst", "3", stills, "--plot", tmp_path / "f.png")
    assert answer.code == 0, answer
    for words in ("sub/two.mkv", "median", "5th percentile", "worst files"):
        assert words in answer.stdout
    names = sorted(path.name for path in stills.iterdir())
    assert [name.partition("-")[0] for name in names] == ["01", "02", "03"]
    # The two frames with the most noise are of two files.
    assert {name.partition("dB-")[2] for name in names[:2]} == {
        "one.mkv-000001.png",
        "sub_two.mkv-000002.png",
    }


def test_files_that_cannot_be_compared(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    left, right = folders
    (left / "alone.mkv").write_bytes((left / "one.mkv").read_bytes())
    (right / "sub" / "two.mkv").write_text("not a video")
    report = tmp_path / "files.json"
    answer = wfvae("compare", left, right, "--report", report)
    assert_refused(answer, 7, "alone.mkv", "sub/two.mkv", "2 of 4 files")
    values = json.loads(report.read_text())
    assert values["files"] == 2
    assert {failed["name"] for failed in values["failed"]} == {"alone.mkv", "sub/two.mkv"}


def test_what_cannot_be_compared(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    longer = lossless(tmp_path / "longer.mkv", pictures(8))
    wider = lossless(tmp_path / "wider.mkv", pictures(6, width=64))
    assert_refused(wfvae("compare", pair[0], longer), 3, "6 frames", "8; only clips of equal")
    assert_refused(wfvae("compare", pair[0], wider), 3, "48x32", "64x32", "one size")
    assert_refused(wfvae("compare", pair[0], tmp_path), 2, "two files or two directories")
    assert_refused(wfvae("compare", pair[0], tmp_path / "no.mkv"), 3, "no.mkv")
    # The options of frames and size make them comparable.
    assert wfvae("compare", pair[0], longer, "--frames", "6").code == 0
    assert wfvae("compare", pair[0], wider, "--size", "32x32").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--report", "r.txt"], 2, ["*.json or *.csv"]),
        (["--report", "no/such/r.csv"], 5, ["does not exist"]),
        (["--worst", "0", "stills"], 2, ["at least 1 frame"]),
        (["--lpips-weights", "no.pth"], 2, ["needs torchvision", "wfvae[metrics]"]),
        (["--fid"], 2, ["wfvae[metrics]"]),
        (["--fvd-weights", "no.pt"], 4, ["expected a TorchScript file", "no.pt"]),
    ],
)
def test_options_that_cannot_be_had(
    pair: tuple[Path, Path],
    arguments: Sequence[str],
    code: int,
    words: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("torchvision", "torchmetrics", "torch_fidelity"):
        for name in [name for name in sys.modules if name.split(".")[0] == module]:
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, module, None)
    assert_refused(wfvae("compare", *pair, *arguments), code, *words)


def test_a_roundtrip_writes_the_same(tmp_path: Path, clip: Path) -> None:
    table, plot, stills, out = (tmp_path / name for name in ("r.csv", "r.png", "stills", "out.mkv"))
    answer = wfvae(
        "roundtrip", clip, "-o", out, "--codec", "ffv1", "--json",
        "--report", table, "--plot", plot, "--worst", "3", stills,
    )  # fmt: skip
    assert answer.code == 0, answer
    scores = json.loads(answer.stdout)
    rows = list(csv.DictReader(table.open()))
    assert [int(row["index"]) for row in rows] == list(range(10))
    psnr = [float(row["psnr"]) for row in rows]
    assert scores["psnr"] == pytest.approx(np.mean(psnr))
    assert scores["ms_ssim"] is None
    assert scores["output"] == str(out)
    assert plot.read_bytes().startswith(PNG)
    worst = sorted(stills.iterdir())[0].stem
    assert int(worst.rpartition("-")[2]) == int(np.argmin(psnr)) == scores["worst_frame"]["index"]
    compared = json.loads(wfvae("compare", clip, out, "--json").stdout)
    assert compared["psnr"] == pytest.approx(scores["psnr"], abs=1e-6)
    assert compared["ssim"] == pytest.approx(scores["ssim"], abs=1e-6)


def test_a_roundtrip_refuses_early(tmp_path: Path, clip: Path) -> None:
    out = tmp_path / "out.mkv"
    answer = wfvae("roundtrip", clip, "-o", out, "--report", tmp_path / "r.txt")
    assert_refused(answer, 2, "*.json or *.csv")
    assert not out.exists()
