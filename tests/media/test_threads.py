"""Decoders use every core, over frames too; encoders a fixed number of threads."""

from __future__ import annotations

import os
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from av.codec.context import ThreadType

from tests.media.conftest import MakeClip
from wfvae_cli.media.clip import ClipInfo, Frame
from wfvae_cli.media.inputs import LocalFile
from wfvae_cli.media.options import VideoOptions
from wfvae_cli.media.settings import THREADS
from wfvae_cli.media.source import VideoSource
from wfvae_cli.media.writer import VideoWriter, open_writer


@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
def test_decoders_have_threads_for_every_core(make_clip: MakeClip, codec: str) -> None:
    path = make_clip("a.mkv", 4, codec=codec)
    source = VideoSource(LocalFile(path))
    context = source.stream.codec_context
    # PyAV's default is slices alone, of which most files have one.
    assert context.thread_type is ThreadType.AUTO
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    assert context.thread_count >= min(16, cores)  # FFmpeg's limit is 16
    source.close()


def test_decoders_of_several_readers_share_the_cores(make_clip: MakeClip) -> None:
    source = VideoSource(LocalFile(make_clip("a.mp4", 4)), threads=3)
    assert source.stream.codec_context.thread_count == 3
    source.close()


@pytest.mark.parametrize("codec", ["h264", "ffv1", "prores"])
def test_encoders_have_threads(tmp_path: Path, codec: str) -> None:
    info = ClipInfo(64, 48, frame_rate=Fraction(25), time_base=Fraction(1, 25))
    options = VideoOptions(codec=codec)
    with open_writer(tmp_path / "a.mkv", info, options) as writer:
        assert isinstance(writer, VideoWriter)
        writer.write(Frame(np.zeros((48, 64, 3), np.uint8), 0))
        assert writer._encoder.thread_count == THREADS > 1
