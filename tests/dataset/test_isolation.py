"""Runs that go on where a file ends their process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.program import wfvae
from tests.cli.reports import scenery
from tests.media.conftest import write_clip
from wfvae_cli.dataset.isolation import read_journal, write_journal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are watched on Linux")

PROGRAM = """
import os, signal, sys
from wfvae_cli.cli import main
from wfvae_cli.dataset import encode_job
from wfvae_cli.media.reader import open_clip

def crashing(path, *args, **kwargs):
    if os.path.basename(path).startswith("crash"):
        os.kill(os.getpid(), signal.{signal})
    return open_clip(path, *args, **kwargs)

encode_job.open_clip = crashing
main()
"""


def start(*arguments: str | Path, by: str = "SIGSEGV") -> subprocess.Popen[str]:
    code = PROGRAM.format(signal=by)
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a", "b", "c", "crash", "d"):
        write_clip(folder / f"{name}.mp4", scenery(len(name), 5, 32, 32))
    return folder


def last_lines(output: Path) -> dict[str, dict[str, object]]:
    lines = (output / "manifest.jsonl").read_text().splitlines()
    return {line["item"]: line for line in map(json.loads, lines)}


@pytest.mark.parametrize("by", ["SIGSEGV", pytest.param("SIGKILL", marks=pytest.mark.slow)])
def test_a_file_that_ends_the_process_is_recorded_and_the_others_are_done(
    videos: Path, tmp_path: Path, by: str
) -> None:
    run = start("encode", videos, "-o", tmp_path / "out", "--readers", "2", by=by)
    _, err = run.communicate(timeout=100)
    assert run.returncode == 7, err
    lines = last_lines(tmp_path / "out")
    assert {item: line["status"] for item, line in lines.items()} == {
        "a.mp4": "done",
        "b.mp4": "done",
        "c.mp4": "done",
        "crash.mp4": "failed",
        "d.mp4": "done",
    }
    assert by in str(lines["crash.mp4"]["error"])
    assert lines["crash.mp4"]["kind"] == "crash"
    assert not (tmp_path / "out" / ".wfvae-work").exists()

    (tmp_path / "rest").mkdir()
    for path in videos.glob("*.mp4"):
        if path.stem != "crash":
            path.rename(tmp_path / "rest" / path.name)
    assert wfvae("encode", tmp_path / "rest", "-o", tmp_path / "straight").code == 0
    for path in (tmp_path / "straight").glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_signals_reach_the_work(videos: Path, tmp_path: Path, number: int, code: int) -> None:
    for index in range(16):
        write_clip(videos / f"more{index}.mp4", scenery(index, 17, 96, 96))
    run = start("encode", videos, "-o", tmp_path / "out", "--exclude", "crash*")
    manifest = tmp_path / "out" / "manifest.jsonl"
    while not (manifest.exists() and manifest.stat().st_size):
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(number)
    _, err = run.communicate(timeout=60)
    assert run.returncode == code, err
    assert len(last_lines(tmp_path / "out")) < 20


def test_killing_the_watching_process_ends_the_work(videos: Path, tmp_path: Path) -> None:
    for index in range(10):
        write_clip(videos / f"more{index}.mp4", scenery(index, 17, 96, 96))
    run = start("encode", videos, "-o", tmp_path / "out", "--exclude", "crash*")
    manifest = tmp_path / "out" / "manifest.jsonl"
    while not (manifest.exists() and manifest.stat().st_size):
        assert run.poll() is None
        time.sleep(0.02)
    run.kill()
    run.communicate(timeout=60)  # ends when the child, which has its pipes, is gone
    assert len(last_lines(tmp_path / "out")) < 14
    assert wfvae("encode", videos, "-o", tmp_path / "out", "--exclude", "crash*").code == 0
    assert len(last_lines(tmp_path / "out")) == 14


def test_a_journal_holds_what_was_written_last() -> None:
    journal = os.memfd_create("test")
    try:
        assert read_journal(journal) == []
        write_journal(journal, ["b", "a", "long" * 100])
        write_journal(journal, ["é", "a"])
        assert read_journal(journal) == ["a", "é"]
    finally:
        os.close(journal)
