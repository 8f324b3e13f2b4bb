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
from tests.report.clips import page_of
from wfvae_cli.cli.compare_work import labels_of

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
    answer = wfvae("compare", *folders, "--worst", "2", stills, "--plot", tmp_path / "f.svg")
    assert answer.code == 0, answer
    for words in ("sub/two.mkv", "median", "5th percentile", "worst files", "flicker PSNR"):
        assert words in answer.stdout
    names = sorted(path.name for path in stills.iterdir())
    assert len(names) == 5  # two of each video, and the picture
    # The two frames with the most noise are of two files, and sort before all others.
    assert {name.partition("dB-")[2] for name in names[:2]} == {
        "one.mkv-000001.png",
        "sub_two.mkv-000002.png",
    }
    assert (tmp_path / "f.svg").read_bytes().startswith(b"<?xml")


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
    assert_refused(wfvae("compare", pair[0], tmp_path), 2, "only files or only directories")
    assert_refused(wfvae("compare", pair[0], tmp_path / "no", tmp_path), 3, "no: ")
    assert_refused(wfvae("compare", pair[0], pair[1], pair[1]), 2, "different reconstructions")
    assert_refused(wfvae("compare", pair[0], tmp_path / "no.mkv"), 3, "no.mkv")
    # The options of frames and size make them comparable.
    assert wfvae("compare", pair[0], longer, "--frames", "6").code == 0
    assert wfvae("compare", pair[0], wider, "--size", "32x32").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--report", "r.txt"], 2, ["*.json or *.csv"]),
        (["--report", "no/such/r.csv"], 5, ["does not exist"]),
        (["--plot", "p.jpg"], 2, ["*.png, *.svg or *.pdf", "p.jpg"]),
        (["--plot", "no/such/p.svg"], 5, ["does not exist"]),
        (["--html", "no/such/report"], 5, ["does not exist"]),
        (["--html", "."], 5, ["files that are no report"]),
        (["--stats", "s.json"], 2, ["add --html"]),
        (["--html", "h", "--stats", "s.json", "--stats", "t.json"], 2, ["once for each of 1"]),
        (["--html", "h", "--stats", "s.json"], 3, ["s.json"]),
        (["--log-to", "mlflow:x"], 2, ["tensorboard:DIR or wandb:PROJECT"]),
        (["--protocol", "other"], 2, ["wf-vae"]),
        (["--protocol", "wf-vae", "--frames", "3"], 2, ["leave those options out"]),
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


@pytest.fixture
def three(tmp_path: Path, folders: tuple[Path, Path]) -> tuple[Path, Path, Path]:
    """A third folder, of reconstructions that are worse and lack a file."""
    worst = tmp_path / "worst"
    (worst / "sub").mkdir(parents=True)
    for index, name in enumerate(("one", "sub/two")):
        lossless(worst / f"{name}.mkv", worse(worse(pictures(4, index), seed=5), bad=0))
    return (*folders, worst)


def test_several_reconstructions_are_ranked(tmp_path: Path, three: tuple[Path, Path, Path]) -> None:
    report, table, stills = tmp_path / "r.json", tmp_path / "r.csv", tmp_path / "stills"
    answer = wfvae("compare", *three, "--report", table, "--worst", "1", stills, "--plot",
                   tmp_path / "p.png")  # fmt: skip
    assert_refused(answer, 7, "still.png", "1 of 3 files")
    lines = [line.split()[:3] for line in answer.stdout.splitlines() if "dB" in line]
    assert lines == [["right", "1", "3"], ["worst", "2", "2"]]
    rows = list(csv.DictReader(table.open()))
    assert [(row["reconstructions"], row["name"]) for row in rows] == [
        ("right", "one.mkv"), ("right", "still.png"), ("right", "sub/two.mkv"),
        ("worst", "one.mkv"), ("worst", "sub/two.mkv"), ("worst", "still.png"),
    ]  # fmt: skip
    assert {path.name for path in stills.iterdir()} == {"right", "worst"}
    assert (tmp_path / "p.png").read_bytes().startswith(PNG)
    answer = wfvae("compare", *three, "--json", "--report", report)
    values = json.loads(answer.stdout)
    assert [side["name"] for side in values["reconstructions"]] == ["right", "worst"]
    assert [side["files"] for side in values["reconstructions"]] == [3, 2]
    written = json.loads(report.read_text())["reconstructions"]
    assert len(written[0]["per_file"][0]["per_frame"]) == 4


@pytest.mark.parametrize(
    ("original", "reconstructions", "expected"),
    [
        ("in.mp4", ["out.mp4"], ("in.mp4", ("out.mp4",))),
        ("left", ["/x/right", "worst/"], ("left", ("right", "worst"))),
        ("in/c.mp4", ["a/c.mp4", "b/c.mp4"], ("in/c.mp4", ("a", "b"))),
        ("/p/v", ["a/x/d", "b/x/d"], ("/p/v", ("a/x/d", "b/x/d"))),
        ("same", ["same"], ("same", ("same",))),
    ],
)
def test_names_that_tell_paths_apart(
    original: str, reconstructions: list[str], expected: tuple[str, tuple[str, ...]]
) -> None:
    assert labels_of(original, reconstructions) == expected


def test_a_page_of_two_reconstructions(tmp_path: Path, three: tuple[Path, Path, Path]) -> None:
    folder = tmp_path / "page"
    assert wfvae("compare", *three, "--html", folder, "-q", "--frames", "3").code == 7
    page = page_of(folder)
    assert page["title"] == "right and worst against left"
    assert [model["name"] for model in page["models"]] == ["right", "worst"]
    files = {file["name"]: file for file in page["files"]}
    assert set(files) == {"one.mkv", "sub/two.mkv", "still.png"}
    assert "no counterpart" in files["still.png"]["results"][1]["error"]
    assert files["one.mkv"]["results"][0]["frames"] == 3
    assert files["still.png"]["image"] and files["still.png"]["original"]["name"] == "original.png"
    assert page["options"]["frames"] == "3" and page["versions"]["wfvae"]
    again = wfvae("compare", *three, "--html", folder)
    assert_refused(again, 5, "page holds a report", "--overwrite")
    assert wfvae("compare", *three, "--html", folder, "-q", "--overwrite").code == 7


def test_a_page_of_one_clip_with_its_latents(
    tmp_path: Path, pair: tuple[Path, Path], encoded: Path
) -> None:
    stats, folder = tmp_path / "s.json", tmp_path / "page"
    assert wfvae("stats", encoded, "-o", stats, "-q").code == 0
    assert wfvae("compare", *pair, "--html", folder, "--stats", stats, "-q").code == 0
    page = page_of(folder)
    assert [file["name"] for file in page["files"]] == ["a.mkv"]
    assert page["title"] == "b.mkv against a.mkv"
    assert page["models"][0]["latents"]["clips"] == 4
    assert page["models"][0]["facts"]["family"] == "wfvae"


def test_a_protocol_is_followed_and_named(tmp_path: Path) -> None:
    frames = pictures(34, width=64, height=48)
    a = lossless(tmp_path / "a.mkv", frames)
    b = lossless(tmp_path / "b.mkv", worse(frames))
    answer = wfvae("compare", a, b, "--protocol", "wf-vae", "--json", "--no-ms-ssim")
    assert answer.code == 0, answer
    scores = json.loads(answer.stdout)
    assert (scores["frames"], scores["width"], scores["height"]) == (33, 256, 256)
    assert scores["protocol"].startswith("Protocol wf-vae") and "2411.17459" in scores["protocol"]
    short = lossless(tmp_path / "short.mkv", frames[:5])
    answer = wfvae("compare", short, short, "--protocol", "wf-vae", "--no-ms-ssim")
    assert_refused(answer, 3, "expected 33 frames", "got 5")


def test_scores_are_logged(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard (extra tensorboard)")
    target = f"tensorboard:{tmp_path / 'runs'}"
    assert wfvae("compare", *pair, "--log-to", target, "-q").code == 0
    assert list((tmp_path / "runs" / "b.mkv").glob("events.out.*"))


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
