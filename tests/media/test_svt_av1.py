"""What SVT-AV1 does to the process that it runs in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

POLICIES = """
import os, sys
import av
import numpy as np
from fractions import Fraction
from wfvae_cli.media.clip import ClipInfo, Frame
from wfvae_cli.media.options import VideoOptions
from wfvae_cli.media.writer import open_writer

info = ClipInfo(64, 64, 8, frame_rate=Fraction(25), time_base=Fraction(1, 25))
with open_writer(sys.argv[1], info, VideoOptions(codec="av1")) as writer:
    for pts in range(3):
        writer.write(Frame(np.zeros((64, 64, 3), np.uint8), pts))
    tasks = [int(name) for name in os.listdir("/proc/self/task")]
    print(*{os.sched_getscheduler(task) for task in tasks}, len(tasks))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0,
    reason="it raises its priority on Linux, where root runs it",
)
def test_writing_av1_keeps_the_priority_and_prints_nothing(tmp_path: Path) -> None:
    """In a process of its own: threads of others would starve if it failed."""
    answer = subprocess.run(
        [sys.executable, "-c", POLICIES, str(tmp_path / "a.mkv")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    policies, threads = answer.stdout.split()
    assert int(policies) == os.SCHED_OTHER
    assert int(threads) > 4, "the encoder is at work"
