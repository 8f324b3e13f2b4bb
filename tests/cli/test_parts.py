"""`wfvae encode` with buckets, windows, captions and --dry-run, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.program import assert_refused, wfvae
from tests.dataset.clips import write_clip, write_image


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    write_clip(folder / "wide.mkv", 12, 48, 32, seed=1)
    write_clip(folder / "tall.mkv", 7, 32, 48, seed=2)
    write_image(folder / "still.png", 48, 24, seed=3)
    return folder


def test_buckets_are_told_in_a_table(source: Path, tmp_path: Path) -> None:
    answer = wfvae("encode", source, "-o", tmp_path / "out", "--buckets", "48x32x9,32x48x5")
    assert answer.code == 0, answer
    lines = [line.split() for line in answer.stderr.splitlines()]
    assert ["bucket", "clips", "frames"] in lines
    assert ["32x48x5", "1", "5"] in lines and ["48x32x9", "1", "9"] in lines
    assert "skipped 1 files, see manifest.jsonl" in answer.stderr
    assert "an image has 1 frame, the shortest bucket has 5" in answer.stderr


def test_automatic_buckets_and_windows(source: Path, tmp_path: Path) -> None:
    auto = ("--buckets", "auto", "--bucket-area", "48x32", "--bucket-step", "8")
    answer = wfvae(
        *("encode", source, "-o", tmp_path / "out", *auto, "--bucket-frames", "1,5"),
        *("--windows", "all", "--json"),
    )
    assert answer.code == 0, answer
    names = {path.name for path in (tmp_path / "out").glob("*.safetensors")}
    assert names == {
        "still.png.safetensors",
        "tall.mkv_00000-005.safetensors",
        "wide.mkv_00000-005.safetensors",
        "wide.mkv_00005-005.safetensors",
    }
    events = [json.loads(line) for line in answer.stdout.splitlines()]
    told = next(event for event in events if event["event"] == "buckets")
    assert told["buckets"]["48x32x5"] == {"clips": 2, "frames": 10}


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--buckets", "50x32x9"], 2, ["50x32x9 (nearest: 48x32x9)"]),
        (["--buckets", "48x32x8"], 2, ["1 + 4k frames", "(nearest: 48x32x9)"]),
        (["--buckets", "x"], 2, ["--buckets: expected WIDTHxHEIGHTxFRAMES"]),
        (["--buckets", "auto"], 2, ["needs --bucket-area"]),
        (["--bucket-area", "9x9"], 2, ["are for --buckets auto"]),
        (["--no-upscale"], 2, ["--no-upscale is about --buckets"]),
        (["--buckets", "48x32x9", "--size", "8x8"], 2, ["leave --size and --short-side out"]),
        (["--windows", "all"], 2, ["does not say how many frames"]),
        (["--windows", "some:3"], 2, ["--windows: expected head[:N]"]),
        (["--windows", "all:500"], 3, ["nothing is left to encode", "a window has 500"]),
        (["--buckets", "48x32x9", "--dry-run", "--keep", "--overwrite"], 2, ["contradict"]),
    ],
)
def test_what_cannot_be(
    options: list[str], code: int, words: list[str], source: Path, tmp_path: Path
) -> None:
    assert_refused(wfvae("encode", source, "-o", tmp_path / "out", *options), code, *words)


def test_strides_are_known_before_weights_are_there(source: Path, tmp_path: Path) -> None:
    answer = wfvae(
        *("encode", source, "-o", tmp_path / "out", "--model", "ltx-2"),
        *("--buckets", "960x540x45"),
    )
    assert_refused(answer, 2, "multiples of 32x32 pixels with 1 + 8k frames")
    assert not (tmp_path / "out").exists()


def test_a_caption_that_is_not_utf8_fails_its_clip(tmp_path: Path) -> None:
    for i in range(2):
        write_image(tmp_path / "in" / f"{i}.png", seed=i)
    (tmp_path / "in/0.txt").write_bytes(b"caf\xe9")
    answer = wfvae("encode", tmp_path / "in", "-o", tmp_path / "out")
    assert_refused(answer, 7, "0.txt: expected a caption in UTF-8, got the byte 0xe9 at offset 3")
    assert (tmp_path / "out/1.png.safetensors").exists()
    assert wfvae("encode", tmp_path / "in", "-o", tmp_path / "out", "--no-captions").code == 0


def test_a_dry_run_writes_nothing(source: Path, tmp_path: Path) -> None:
    options = ("--buckets", "48x32x9,48x24x1", "--dry-run")
    answer = wfvae("encode", source, "-o", tmp_path / "out", *options)
    assert answer.code == 0, answer
    for words in (
        "would encode 3 of 3 files with wfvae-tiny on ",
        "3 clips, 11 frames, ",
        "frames/s, measured on the first clips",
        "nothing was written",
    ):
        assert words in answer.stderr
    assert ["48x24x1", "2", "2"] in [line.split() for line in answer.stderr.splitlines()]
    told = json.loads(
        wfvae("encode", source, "-o", tmp_path / "out", *options, "--json").stdout.splitlines()[0]
    )
    assert (told["event"], told["frames"], told["outputs"]) == ("dry run", 11, 3)
    assert list(tmp_path.iterdir()) == []
