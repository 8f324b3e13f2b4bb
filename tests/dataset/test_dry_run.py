"""A dry run says what a run then does, and writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.dataset.clips import write_clip, write_image
from tests.dataset.conftest import run
from wfvae_cli.dataset import dry_run
from wfvae_cli.dataset.buckets import Bucket, Buckets
from wfvae_cli.dataset.config import EncodeConfig
from wfvae_cli.dataset.dry_run import Estimate, estimate_run
from wfvae_cli.dataset.encode_job import EncodeJob
from wfvae_cli.dataset.items import find_inputs
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.dataset.windows import Windows
from wfvae_cli.errors import OutputError
from wfvae_cli.pipeline.options import EncodeOptions


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dry")
    for i in range(3):
        write_clip(folder / f"{i}.mkv", 12, seed=i)
    write_clip(folder / "short.mkv", 4, seed=4)
    write_image(folder / "still.png")
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def estimate(source: Path, output: Path, config: EncodeConfig) -> Estimate:
    job = EncodeJob(OutputStore(output), config, threads=1, readers=2)
    return estimate_run(find_inputs([str(source)]), job)


CUT = EncodeConfig(
    buckets=Buckets.of([Bucket(32, 24, 5), Bucket(24, 16, 1)]), windows=Windows.parse("all:5")
)


@pytest.mark.parametrize("format", ["files", "webdataset"])
@pytest.mark.parametrize("config", [EncodeConfig(), CUT])
def test_a_run_does_what_the_dry_run_said(
    config: EncodeConfig, format: Any, source: Path, tmp_path: Path
) -> None:
    config = EncodeConfig(buckets=config.buckets, windows=config.windows, format=format)
    output = tmp_path / "out"
    said = estimate(source, output, config)
    assert list(tmp_path.iterdir()) == []
    done = run(source, output, config)
    assert (said.files, said.opened, said.current) == (6, 6, 0)
    assert said.frames == said.frames_left == done.frames
    assert said.buckets == done.buckets
    assert (said.failed, dict(said.skipped)) == (done.failed, dict(done.unsuitable))
    assert said.frames_per_second is not None and said.frames_per_second > 0
    assert said.hours == pytest.approx(said.frames / said.frames_per_second / 3600)
    there = [path.stat().st_size for path in output.rglob("*.safetensors")]
    if there:
        assert said.outputs == len(there)
        assert 0.5 * sum(there) < said.bytes < 2 * sum(there)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    again = estimate(source, output, config)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    assert (again.current, again.frames_left, again.hours) == (5, 0, None)


def test_a_run_that_would_be_refused(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path)
    with pytest.raises(OutputError, match="save_dtype: float32, now bfloat16"):
        estimate(source, tmp_path, EncodeConfig(EncodeOptions(save_dtype="bfloat16")))


def test_some_files_stand_for_all_where_time_is_short(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(100):
        write_image(tmp_path / "in" / f"{i}.png", seed=i)
    monkeypatch.setattr(dry_run, "_MOST_SECONDS", 0.0)
    said = estimate(tmp_path / "in", tmp_path / "out", EncodeConfig())
    assert said.opened == 16
    assert (said.files, said.outputs, said.frames) == (100, 100, 100)
