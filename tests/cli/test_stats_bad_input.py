"""What `wfvae stats` does about bad files and options, and when it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.program import assert_refused, start, wait_for, wfvae
from tests.cli.reports import report
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.media.reader import ClipReader, open_clip


def test_bad_files_are_named_and_the_rest_is_written(tmp_path: Path, videos: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("hello")
    cut = tmp_path / "cut.mp4"
    whole = (videos / "11.mp4").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    answer = wfvae("stats", tmp_path, videos / "11.mp4", "-o", tmp_path / "s.json")
    assert_refused(answer, 7, "text.mp4", "cut.mp4", "2 of 3 clips")
    values = report(tmp_path / "s.json")
    assert values["clips"] == 1
    assert [failed["name"].rpartition("/")[2] for failed in values["failed"]] == [
        "cut.mp4",
        "text.mp4",
    ]
    alone = wfvae("stats", text, "-o", tmp_path / "none.json")
    assert_refused(alone, 3, "no clip", "1 failed", "text.mp4")
    assert not (tmp_path / "none.json").exists()


def test_an_empty_folder(tmp_path: Path) -> None:
    assert_refused(wfvae("stats", tmp_path), 3, str(tmp_path), "nothing found")


def test_a_constant_channel_has_no_scale(tmp_path: Path, encoded: Path) -> None:
    source = encoded / "01.safetensors"
    with LatentFile(source) as file:
        size = 4 * int(np.prod(file.shape[1:]))  # bytes of a channel
        channels = file.shape[0]
    data = bytearray(source.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    begin += header["latents"]["data_offsets"][0]
    data[begin : begin + size] = bytes(size)
    (tmp_path / "flat.safetensors").write_bytes(data)
    assert channels > 1
    answer = wfvae("stats", tmp_path, "-o", tmp_path / "s.json", "--plot", tmp_path / "s.png")
    assert_refused(answer, 3, "these are constant: 0;", "add clips that differ")
    assert not list(tmp_path.glob("s.*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--subbands", "--until", "1%"], ["--subbands", "--until"]),
        (["--levels", "2"], ["--levels belongs to --subbands"]),
        (["--subbands", "--write-config", "."], ["--subbands", "--write-config"]),
        (["--merge", "--until", "1%", "--limit", "3"], ["only reads", "--limit, --until"]),
        (["--until", "1%", "--shard", "0/2"], ["--until looks at all clips", "--shard"]),
        (["--shard", "2/2"], ["from 0 to N - 1, got 2/2"]),
        (["--workers", "2"], ["--engine ray"]),
        (["--subbands", "--engine", "ray"], ["--subbands", "--engine"]),
        (["--merge", "--shard", "0/2"], ["only reads", "--shard"]),
        (["--merge", "--time-limit", "9"], ["only reads", "--time-limit"]),
        (["--until", "soon"], ["0.5%"]),
        (["--limit", "0"], ["--limit must be at least 1"]),
        (["-o", "-"], ["--json"]),
        (["--chunk", "4"], ["1 + 4k"]),
    ],
)
def test_options_without_meaning(
    videos: Path, arguments: Sequence[str], words: Sequence[str]
) -> None:
    assert_refused(wfvae("stats", videos / "more", *arguments), 2, *words)


def test_sampling_options_are_not_for_latents(encoded: Path) -> None:
    assert_refused(wfvae("stats", encoded, "--short-side", "64"), 2, "cannot be cut or scaled")


@pytest.mark.parametrize("delay", [None, pytest.param(1.0, marks=pytest.mark.slow)])
def test_an_interruption_leaves_nothing(tmp_path: Path, videos: Path, delay: float | None) -> None:
    # A thousand names of one clip: more than can be done in time.
    manifest = tmp_path / "many.jsonl"
    rows = ({"path": str(videos / "11.mp4"), "id": f"{index}"} for index in range(5000))
    manifest.write_text("\n".join(map(json.dumps, rows)))
    process = start("stats", manifest, "-o", tmp_path / "s.json", "--plot", tmp_path / "s.png")
    if delay is None:
        wait_for((tmp_path / "s.json.part").exists, process)
    else:
        time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert b"Traceback" not in stderr
    # Neither report nor plot, not even in part; what was measured may be kept for the next run.
    assert {path.name for path in tmp_path.iterdir()} - {"s.json.part"} == {"many.jsonl"}


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of a clip that nobody can open, in no time."""
    release = threading.Event()

    def hang(source: str | Path, *arguments: Any, **options: Any) -> ClipReader:
        if Path(source).name == "07.mp4":
            release.wait(60)
        return open_clip(source, *arguments, **options)

    monkeypatch.setattr("wfvae_cli.stats.draw.open_clip", hang)
    yield "07.mp4"
    release.set()


@pytest.mark.parametrize(
    ("mode", "limit"), [((), "--time-limit"), (("--subbands",), "--stall-limit")]
)
def test_a_file_that_hangs_is_given_up(
    tmp_path: Path, videos: Path, hanging: str, mode: Sequence[str], limit: str
) -> None:
    chosen = ("--include", "0[5-9].mp4", "--readers", "1")
    arguments: list[str | Path] = ["stats", *mode, videos, *chosen]
    answer = wfvae(*arguments, limit, "4", "-o", tmp_path / "s.json")
    assert_refused(answer, 7, f"{hanging}: left out: ", "4 s", f"({limit})", "1 of 5 clips")
    values = report(tmp_path / "s.json")
    assert values["clips"] == 4
    assert [failed["name"] for failed in values["failed"]] == [hanging]
    without = wfvae(*arguments, "--exclude", hanging, "-o", tmp_path / "without.json")
    assert without.code == 0, without
    expected = report(tmp_path / "without.json")
    assert values["state"] == expected["state"]


@pytest.mark.parametrize("mode", [(), ("--subbands",)], ids=["latents", "subbands"])
def test_a_pipe_is_no_clip(tmp_path: Path, videos: Path, mode: Sequence[str]) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    answer = wfvae("stats", *mode, tmp_path, videos / "01.mp4")
    assert_refused(answer, 7, "pipe.mp4: left out: expected a regular file", "1 of 2 clips")
