"""Which windows a clip gives, that one decode serves all, and what is written."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.dataset.broken import lying_frames, without_rate
from tests.dataset.clips import contents, write_clip, write_image
from tests.dataset.conftest import run
from tests.dataset.kill_and_resume import compare_after_kills
from tests.models.checkpoints import write_wan
from wfvae_cli.dataset.buckets import Bucket, Buckets, UnsuitableError
from wfvae_cli.dataset.config import EncodeConfig
from wfvae_cli.dataset.encode_job import EncodeJob
from wfvae_cli.dataset.items import find_inputs
from wfvae_cli.dataset.manifest import last_results
from wfvae_cli.dataset.run import run_dataset
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.dataset.windows import Window, Windows, cut_windows
from wfvae_cli.errors import UsageError, VideoError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.media.clip import Frame
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import ClipReader
from wfvae_cli.models.load import load_model
from wfvae_cli.models.options import DEFAULT_MODEL
from wfvae_cli.pipeline.encode import encode_clip
from wfvae_cli.pipeline.options import EncodeOptions


def starts(text: str, total: int) -> list[int]:
    windows = Windows.parse(text)
    assert windows.frames is not None
    chosen = windows.of(total, windows.frames)
    assert all(window.frames == windows.frames for window in chosen)
    return [window.start for window in chosen]


@pytest.mark.parametrize(
    ("text", "total", "expected"),
    [
        ("head:9", 20, [0]),
        ("middle:9", 20, [5]),
        ("all:9", 20, [0, 9]),
        ("all:9", 18, [0, 9]),
        ("all:9", 17, [0]),
        ("uniform:3:9", 20, [0, 5, 11]),
        ("uniform:1:9", 20, [5]),
        ("uniform:4:9", 10, [0, 1]),
        ("slide:9:4", 20, [0, 4, 8]),
        ("slide:9:30", 100, [0, 30, 60, 90]),
    ],
)
def test_where_windows_begin(text: str, total: int, expected: list[int]) -> None:
    assert starts(text, total) == expected
    assert str(Windows.parse(text)) == text


@pytest.mark.parametrize("text", ["head", "all", "middle", "uniform:3", "slide:4"])
def test_frames_may_be_left_to_the_bucket(text: str) -> None:
    windows = Windows.parse(text)
    assert (windows.frames, str(windows)) == (None, text)
    with pytest.raises(UsageError, match="does not say how many frames a window has"):
        EncodeConfig(windows=windows)
    shapes = Buckets.of([Bucket(32, 24, 5)])
    EncodeConfig(windows=windows, buckets=shapes)


@pytest.mark.parametrize("text", ["", "tail", "head:0", "head:x", "all:1:2", "uniform", "slide:0"])
def test_what_names_no_windows(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected head\[:N\]"):
        Windows.parse(text)


def test_frames_that_no_bucket_has() -> None:
    with pytest.raises(UsageError, match=r"no bucket has them \(there are 1, 5\)"):
        EncodeConfig(
            windows=Windows("all", 9), buckets=Buckets.of([Bucket(8, 8, 1), Bucket(8, 8, 5)])
        )


def test_a_clip_that_is_shorter_than_a_window() -> None:
    with pytest.raises(UnsuitableError, match="it has 4 frames, a window has 9"):
        Windows.parse("all:9").of(4, 9)


@given(
    total=st.integers(1, 40),
    parts=st.sets(st.tuples(st.integers(0, 39), st.integers(1, 12)), min_size=1, max_size=5),
)
def test_one_pass_gives_every_window(total: int, parts: set[tuple[int, int]]) -> None:
    windows = sorted(Window(s, n) for s, n in parts if s + n <= total)
    assume(windows)
    frames = [Frame(np.zeros((1, 1, 3), np.uint8), 10 * i) for i in range(total)]
    taken = [
        (origin, [frame.pts for frame in part])
        for origin, part in cut_windows(iter(frames), windows, total)
    ]
    assert taken == [(10 * w.start, [10 * i for i in range(w.frames)]) for w in windows]


def test_no_more_frames_are_read_or_kept_than_windows_need() -> None:
    alive = 0

    class Counted(Frame):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def source() -> Any:
        nonlocal alive
        for i in range(100):
            alive += 1
            yield Counted(np.zeros((1, 1, 3), np.uint8), i)
        raise AssertionError("read on behind the last window")

    most = 0
    windows = [Window(0, 10), Window(5, 10), Window(50, 10)]
    for _, part in cut_windows(source(), windows, 100):
        for _ in part:
            most = max(most, alive)
    assert most <= 11


def test_a_clip_that_ends_before_its_container_said() -> None:
    frames = [Frame(np.zeros((1, 1, 3), np.uint8), i) for i in range(7)]
    with pytest.raises(VideoError, match="ends after 7 frames, but its container states 20"):
        for _, part in cut_windows(iter(frames), [Window(0, 5), Window(5, 5)], 20):
            list(part)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "long.mkv", 25, seed=1)
    write_clip(folder / "short.mkv", 6, seed=2)
    write_image(folder / "still.png", seed=3)
    return folder


SLIDE = EncodeConfig(windows=Windows.parse("slide:9:5"))


def test_every_window_is_what_encoding_that_part_alone_gives(clips: Path, tmp_path: Path) -> None:
    summary = run(clips, tmp_path / "out", SLIDE)
    assert (summary.done, summary.skipped, summary.failed, summary.frames) == (1, 2, 0, 36)
    assert list(contents(tmp_path / "out")) == [
        f"long.mkv_{start:05d}-009.safetensors" for start in (0, 5, 10, 15)
    ]
    alone = tmp_path / "alone.safetensors"
    sampling = Sampling(start=10 / 8, frames=9)
    encode_clip(clips / "long.mkv", alone, load_model(), sampling=sampling)
    with (
        LatentFile(alone) as a,
        LatentFile(tmp_path / "out/long.mkv_00010-009.safetensors") as b,
    ):
        assert torch.equal(a.read(), b.read())
        assert b.metadata.start == a.metadata.start == Fraction(10, 8)
        assert (b.metadata.frames, b.metadata.extra["window"]) == (9, "00010-009")


def test_the_manifest_lists_windows(clips: Path, tmp_path: Path) -> None:
    run(clips, tmp_path, SLIDE)
    lines = last_results(tmp_path / "manifest.jsonl")
    windows = lines["long.mkv"].windows
    assert windows is not None
    assert [(w.start, w.frames, w.shape) for w in windows] == [
        (start, 9, (16, 3, 3, 4)) for start in (0, 5, 10, 15)
    ]
    assert all((tmp_path / w.output).stat().st_size == w.bytes for w in windows)
    assert lines["short.mkv"].error == (
        "too short: it has 6 frames, a window has 9 (--windows slide:9:5)"
    )
    assert run(clips, tmp_path, SLIDE).current == 1


def test_windows_cost_one_decode(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = 0
    original = ClipReader.__next__

    def count(self: ClipReader) -> Frame:
        nonlocal taken
        frame = original(self)
        taken += 1
        return frame

    monkeypatch.setattr(ClipReader, "__next__", count)
    summary = run(clips / "long.mkv", tmp_path, SLIDE)
    assert (summary.frames, taken) == (36, 24)  # up to the end of the last window


@pytest.mark.parametrize("format", ["files", "webdataset", "musubi"])
def test_what_is_missing_is_made_again_with_the_same_bytes(
    format: Any, clips: Path, tmp_path: Path
) -> None:
    config, model = config_of(format), DEFAULT_MODEL
    if format == "musubi":
        model = str(write_wan(tmp_path / "wan"))
    whole, part = tmp_path / "whole", tmp_path / "part"
    run(clips, whole, config, model=model)
    shutil.copytree(whole, part)
    (part / "manifest.jsonl").unlink()
    outputs = sorted([*part.glob("*.safetensors"), *part.glob("*.tar")])
    kept = {path: path.stat().st_mtime_ns for path in outputs[1:]}
    outputs[0].unlink()
    run(clips, part, config, model=model)
    assert contents(whole) == contents(part)
    assert contents(whole, "*.tar") == contents(part, "*.tar")
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert run(clips, part, config, model=model).done == 0


def config_of(format: Any) -> EncodeConfig:
    if format != "musubi":
        return EncodeConfig(windows=SLIDE.windows, format=format)
    from wfvae_cli.latents.normalization import AppliedNormalization

    normalization = AppliedNormalization((0.0,) * 4, (1.0,) * 4, "config")
    options = EncodeOptions(save_dtype="bfloat16", normalization=normalization)
    return EncodeConfig(options, windows=SLIDE.windows, format="musubi")


def test_a_damaged_window_is_made_again_where_outputs_are_verified(
    clips: Path, tmp_path: Path
) -> None:
    run(clips, tmp_path, SLIDE)
    before = contents(tmp_path)
    path = tmp_path / "long.mkv_00005-009.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert run(clips, tmp_path, SLIDE).current == 1
    job = EncodeJob(OutputStore(tmp_path), SLIDE, threads=1, readers=2)
    assert run_dataset(find_inputs([str(clips)]), job, verify=True).done == 1
    assert contents(tmp_path) == before


def test_other_windows_replace_those_that_were_there_when_asked(
    clips: Path, tmp_path: Path
) -> None:
    run(clips, tmp_path, SLIDE)
    other = EncodeConfig(windows=Windows.parse("uniform:2:9"))
    with pytest.raises(OSError, match="windows: slide:9:5, now uniform:2:9"):
        run(clips, tmp_path, other)
    run(clips, tmp_path, other, conflict="overwrite")
    assert list(contents(tmp_path)) == [
        "long.mkv_00000-009.safetensors",
        "long.mkv_00016-009.safetensors",
    ]


def test_what_a_skipped_clip_has_of_earlier_options_is_told(clips: Path, tmp_path: Path) -> None:
    run(clips, tmp_path)
    before = contents(tmp_path)
    longer = EncodeConfig(windows=Windows.parse("head:99"))
    assert run(clips, tmp_path, longer, conflict="overwrite").skipped == len(before)
    assert contents(tmp_path) == before
    for result in last_results(tmp_path / "manifest.jsonl").values():
        assert f"still there ({result.item}.safetensors): remove it" in (result.error or "")


def test_a_promise_of_absurdly_many_frames_is_not_believed(tmp_path: Path) -> None:
    lying_frames(tmp_path / "lying.mp4")
    without_rate(tmp_path / "without-rate.y4m")
    config = EncodeConfig(windows=Windows.parse("slide:3:2"))
    summary = run(tmp_path, tmp_path.parent / "out-lying", config)
    assert (summary.done, summary.failed, summary.frames) == (2, 0, 12)


def test_samples_of_two_windows_have_noise_of_their_own(clips: Path, tmp_path: Path) -> None:
    config = EncodeConfig(EncodeOptions(posterior="sample"), windows=Windows.parse("uniform:2:9"))
    run(clips / "long.mkv", tmp_path, config)
    seeds = set()
    for path in tmp_path.glob("*.safetensors"):
        with LatentFile(path) as file:
            seeds.add(file.metadata.seed)
    assert len(seeds) == 2


def test_batches_of_windows_do_not_depend_on_which_are_left(clips: Path, tmp_path: Path) -> None:
    config = EncodeConfig(
        windows=Windows.parse("all"), buckets=Buckets.of([Bucket(32, 24, 5)]), batch=4
    )
    run(clips, tmp_path, config)
    before = contents(tmp_path)
    assert len(before) == 6
    for path in list(tmp_path.glob("*.safetensors"))[::2]:
        path.unlink()
    run(clips, tmp_path, config)
    assert contents(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("format", ["files", "webdataset"])
def test_kill_and_resume(format: str, clips: Path, tmp_path: Path) -> None:
    shards = ["--shard-clips", "2"] if format == "webdataset" else []
    options = ["--format", format, *shards, "--batch", "4"]
    parts = ["--buckets", "32x24x5,24x16x1", "--windows", "slide:3"]
    verdict = compare_after_kills(clips, tmp_path, kills=2, seed=3, options=[*options, *parts])
    assert verdict.differences == ()
