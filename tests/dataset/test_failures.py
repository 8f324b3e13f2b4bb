"""What goes wrong on the way through a dataset, and what is left of it."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.dataset.broken import KINDS, lying_frames, make_broken, without_rate
from tests.dataset.clips import contents, write_clip
from tests.dataset.conftest import run
from tests.dataset.kill_and_resume import compare_after_kills, make_dataset
from wfvae_cli.dataset.config import EncodeConfig
from wfvae_cli.dataset.encode_job import EncodeJob
from wfvae_cli.dataset.engine import LocalEngine
from wfvae_cli.dataset.items import find_inputs
from wfvae_cli.dataset.manifest import last_results
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.dataset.run import NoRunCallbacks, run_dataset
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.errors import OutputError
from wfvae_cli.models.base import Posterior
from wfvae_cli.pipeline.batch import run_batch
from wfvae_cli.pipeline.job import ModelOutput
from wfvae_cli.pipeline.options import EncodeOptions, Limits


def test_broken_files_fail_with_their_reason_and_stop_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    names = make_broken(folder)
    lying_frames(folder / "lying.mp4")
    without_rate(folder / "without-rate.y4m")
    summary = run(folder, tmp_path / "out")
    assert (summary.failed, summary.done) == (len(KINDS), 2)
    assert summary.failures == {"unreadable": len(KINDS)}
    last = last_results(tmp_path / "out" / "manifest.jsonl")
    assert sorted(name for name, outcome in last.items() if outcome.status == "failed") == names
    assert all(
        outcome.error and name in outcome.error
        for name, outcome in last.items()
        if outcome.status == "failed"
    )
    assert last["lying.mp4"].frames == 5
    assert list(contents(tmp_path / "out")) == [
        "lying.mp4.safetensors",
        "without-rate.y4m.safetensors",
    ]


def test_a_clip_that_breaks_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_clip(folder / "a.mp4", 5)
    with (folder / "long.mjpeg").open("wb") as file:
        for size in [(32, 24)] * 40 + [(48, 40)]:
            Image.new("RGB", size, (90, 30, 10)).save(file, "jpeg")
    recipe = EncodeConfig(EncodeOptions(chunk=9))
    summary = run(folder, tmp_path / "out", recipe)
    assert (summary.done, summary.failed) == (1, 1)
    assert list(contents(tmp_path / "out")) == ["a.mp4.safetensors"]
    assert not (tmp_path / "out" / ".wfvae-work").exists()


@pytest.fixture
def hanging() -> Iterator[str]:
    """URL of a server that promises a video and never sends it."""
    release = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            release.wait(30)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/clip.mp4"
    release.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("limits", [Limits(stall=1.5), Limits(time=1.5, stall=None)])
def test_a_file_that_hangs_is_given_up(
    source: Path, tmp_path: Path, hanging: str, limits: Limits
) -> None:
    rows = [str(source / "clip1.mp4"), hanging, str(source / "clip2.mp4")]
    manifest = tmp_path / "list.txt"
    manifest.write_text("\n".join(rows))
    summary = run(manifest, tmp_path / "out", limits=limits, readers=1)
    assert (summary.done, summary.failures) == (2, {"time limit": 1})


def test_max_failures_stops_a_run_that_goes_wrong(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for i in range(30):
        (folder / f"{i:02d}.mp4").parent.mkdir(exist_ok=True)
        (folder / f"{i:02d}.mp4").write_text("no video")
    summary = run(folder, tmp_path / "out", max_failures=3)
    assert summary.failed < 30
    assert summary.stopped == "3 files have failed (--max-failures)"


def test_nan_latents_fail_their_file_only(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(*given: Any) -> list[ModelOutput]:
        first, *others = run_batch(*given)
        assert first.posterior is not None
        mean, logvar = first.posterior
        return [ModelOutput(Posterior(mean * float("nan"), logvar)), *others]

    monkeypatch.setattr("wfvae_cli.pipeline.pipeline.run_batch", poisoned)
    summary = run(source, tmp_path, EncodeConfig(batch=8))
    # four shapes, one of them of a long clip, and one clip of each poisoned
    assert (summary.done, summary.failures) == (3, {"bad latents": 4})
    assert len(contents(tmp_path)) == 3


def test_stopping_finishes_what_has_begun(source: Path, tmp_path: Path) -> None:
    engine = LocalEngine()

    class Impatient(NoRunCallbacks):
        def settled(self, result: ItemResult) -> None:
            engine.stop()

    job = EncodeJob(OutputStore(tmp_path), threads=1, readers=1)
    first = run_dataset(find_inputs([str(source)]), job, engine=engine, callbacks=Impatient())
    assert 1 <= first.done < 7
    rest = run(source, tmp_path)
    assert (rest.current, rest.done) == (first.done, 7 - first.done)


def test_an_exception_leaves_a_state_that_resumes(source: Path, tmp_path: Path) -> None:
    class Angry(NoRunCallbacks):
        def settled(self, result: ItemResult) -> None:
            raise KeyboardInterrupt

    job = EncodeJob(OutputStore(tmp_path / "out"), threads=1)
    with pytest.raises(KeyboardInterrupt):
        run_dataset(find_inputs([str(source)]), job, callbacks=Angry())
    run(source, tmp_path / "out")
    run(source, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_full_disk_ends_the_run(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: OutputStore, part: Path, name: str) -> int:
        raise OutputError("cannot write: the disk is full")

    monkeypatch.setattr(OutputStore, "publish", full)
    with pytest.raises(OutputError, match="disk is full"):
        run(source, tmp_path)


def test_the_output_folder_needs_a_parent(source: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        run(source, tmp_path / "no" / "such")


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--batch", "4", "--chunk", "5")])
def test_kill_and_resume(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Killed at random moments; test_killed_formats has every moment, without killing."""
    make_dataset(tmp_path / "in", 24)
    verdict = compare_after_kills(tmp_path / "in", tmp_path, 2, seed=1, options=options)
    assert verdict.differences == ()
    assert verdict.outputs == 26
