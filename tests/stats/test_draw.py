"""How a clip is opened at the window that is drawn of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wfvae_cli.bench.picture import write_moving_picture
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import ClipReader, open_clip
from wfvae_cli.stats import draw as module
from wfvae_cli.stats.draw import Draw, Source, open_window


@pytest.mark.parametrize("sample_frames", [None, 3])
def test_a_window_is_decoded_as_the_whole_clip_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample_frames: int | None
) -> None:
    opened: list[dict[str, Any]] = []

    def record(path: str, sampling: Sampling, **options: Any) -> ClipReader:
        opened.append({"start": sampling.start} | options)
        return open_clip(path, sampling, threads=options["threads"])

    monkeypatch.setattr(module, "open_clip", record)
    clip = write_moving_picture(tmp_path / "clip.mp4", 20, 32, 32)
    source = Source(str(clip), "clip.mp4", Sampling(), "cuda")
    reader, _ = open_window(source, Draw(sample_frames=sample_frames), threads=2)
    with reader:
        assert len(list(reader)) == (sample_frames or 20)
    assert (opened[-1]["start"] > 0) == (sample_frames is not None)
    assert (opened[-1]["hwaccel"], opened[-1]["threads"]) == ("cuda", 2)
