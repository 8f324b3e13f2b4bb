"""Data on stdin and stdout, interruptions, full disks: the program as a process of its own."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.cli.program import start, wait_for, wfvae
from tests.media.conftest import write_clip
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.media.reader import open_clip


def test_a_whole_pipeline(tmp_path: Path) -> None:
    matroska = write_clip(tmp_path / "in.mkv", 10)
    with matroska.open("rb") as source:
        encode = start("encode", "-", "-o", "-", stdin=source.fileno())
        assert encode.stdout is not None
        decode = start("decode", "-", "-o", "-", stdin=encode.stdout.fileno())
        encode.stdout.close()
        video, messages = decode.communicate(timeout=60)
    assert encode.wait() == decode.returncode == 0, messages
    (tmp_path / "out.mkv").write_bytes(video)
    with open_clip(tmp_path / "out.mkv") as reader:
        assert reader.info.container == "matroska"
        assert len(list(reader)) == 10


def test_the_sound_of_a_pipe_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mkv", 5, sound=True)
    with clip.open("rb") as source:
        process = start("roundtrip", "-", "-o", tmp_path / "out.mp4", stdin=source.fileno())
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 0, messages
    assert b"its sound, if it has any, is not copied" in messages
    with open_clip(tmp_path / "out.mp4") as reader:
        assert len(list(reader)) == 5


def test_latents_on_stdout_are_those_of_the_file(clip: Path, latents: Path) -> None:
    process = start("encode", clip, "-o", "-")
    data, messages = process.communicate(timeout=60)
    assert process.returncode == 0, messages
    assert data == latents.read_bytes()


def test_a_reader_that_has_seen_enough_is_no_error(latents: Path) -> None:
    process = start("decode", latents, "-o", "-")
    assert process.stdout is not None
    process.stdout.close()
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"Traceback" not in messages
    assert b"Exception" not in messages


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("delay", [0.0, 0.3, pytest.param(1.5, marks=pytest.mark.slow)])
def test_an_interruption_at_any_time_leaves_nothing(
    tmp_path: Path, number: signal.Signals, code: int, delay: float
) -> None:
    clip = write_clip(tmp_path / "long.mp4", [_picture(i) for i in range(40)])
    process = start("roundtrip", clip, "-o", tmp_path / "out.mp4", "--chunk", "5")
    time.sleep(delay)
    process.send_signal(number)
    began = time.perf_counter()
    _, messages = process.communicate(timeout=60)
    # Before Python has installed its handlers a signal ends the process itself.
    assert process.returncode in (code, -number, 0), messages
    assert time.perf_counter() - began < 10
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"long.mp4", "out.mp4"}
    assert ("out.mp4" in left) == (process.returncode == 0)
    if process.returncode == code:
        assert b"Traceback" not in messages


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_of_the_work_leaves_nothing(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    clip = write_clip(tmp_path / "long.mp4", [_picture(i) for i in range(120)])
    options = ("--codec", "ffv1", "--chunk", "5")  # which writes each frame at once
    process = start("roundtrip", clip, "-o", tmp_path / "out.mkv", *options)
    wait_for(lambda: any(path.stat().st_size for path in tmp_path.glob(".out*")), process)
    process.send_signal(number)
    began = time.perf_counter()
    _, messages = process.communicate(timeout=60)
    assert process.returncode == code, messages
    assert time.perf_counter() - began < 10
    assert [path.name for path in tmp_path.iterdir()] == ["long.mp4"]
    assert b"Traceback" not in messages


def wait_for_reading(process: subprocess.Popen[bytes], pipe: int) -> None:
    """Wait until the program has read what is written here into its stdin, and waits for more."""
    os.write(pipe, b"\x1a")
    wait_for(lambda: _unread(pipe) == 0, process)


def _unread(pipe: int) -> int:
    count = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(count, sys.byteorder)


@pytest.mark.parametrize("delay", [pytest.param(0.3, marks=pytest.mark.slow), None])
def test_a_terminal_that_closes_is_no_error(tmp_path: Path, delay: float | None) -> None:
    terminal, stderr = os.openpty()
    read_end, write_end = os.pipe()
    output = tmp_path / "z.safetensors"
    process = start("encode", "-", "-o", output, stdin=read_end, stderr=stderr)
    os.close(read_end)
    os.close(stderr)
    if delay is None:
        wait_for_reading(process, write_end)
    else:
        time.sleep(delay)
    os.close(terminal)
    process.send_signal(signal.SIGHUP)
    code = process.wait(timeout=30)
    os.close(write_end)
    # Before Python has installed its handlers a signal ends the process itself.
    assert code in (129, -signal.SIGHUP)
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_while_waiting_for_stdin(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    process = start("encode", "-", "-o", tmp_path / "z.safetensors", stdin=read_end)
    os.close(read_end)
    wait_for_reading(process, write_end)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=30)
    os.close(write_end)
    assert process.returncode == 130, messages
    assert b"Traceback" not in messages
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, clip: Path) -> None:
    limited = """
import json, os, resource, signal, sys
import torch  # once, before the forks
from wfvae_cli.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for arguments in json.loads(sys.argv[1]):
    if not (child := os.fork()):
        sys.argv[1:] = arguments
        main()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    commands = (
        ["encode", str(clip), "-o", str(tmp_path / "z.safetensors")],
        ["roundtrip", str(clip), "-o", str(tmp_path / "out.mkv"), "--codec", "ffv1"],
    )
    answer = subprocess.run(
        [sys.executable, "-c", limited, json.dumps(commands)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.stdout.split() == ["5", "5"], answer
    assert answer.stderr.count("size limit") == 2
    assert "Traceback" not in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_names_chunk_and_resolution(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mp4", 9, width=640, height=640)
    limited = (
        "import resource, torch, av, wfvae_cli.pipeline.roundtrip;"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize();"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 500 * 2**20,) * 2);"
        "from wfvae_cli.cli import main; main()"
    )
    answer = subprocess.run(
        [sys.executable, "-c", limited, "roundtrip", str(clip), "--chunk", "9"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert answer.returncode == 6, answer
    message = "out of memory in a chunk of 9 frames of 640x640: retrying in two parts"
    assert message in answer.stderr
    assert "frames of 640x640: use a smaller --chunk" in answer.stderr


def test_json_and_data_do_not_mix_on_stdout(latents: Path) -> None:
    answer = wfvae("decode", latents, "-o", "-", "--json")
    assert answer.code == 2
    assert "choose one" in answer.stderr


def test_latents_cut_off_in_a_pipe_are_refused(tmp_path: Path, latents: Path) -> None:
    process = start("decode", "-", "-o", tmp_path / "out.mp4", stdin=subprocess.PIPE)
    _, messages = process.communicate(latents.read_bytes()[:-100], timeout=60)
    assert process.returncode == 3
    assert b"truncated" in messages
    assert list(tmp_path.iterdir()) == []
    with LatentFile(latents) as file:
        assert file.latent_frames == 4


def _picture(index: int) -> NDArray[np.uint8]:
    return np.random.default_rng(index).integers(0, 256, (96, 128, 3), dtype=np.uint8)
