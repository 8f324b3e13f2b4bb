"""A dataset from inputs to latents: resumed, isolated, the same whatever the way."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.dataset.broken import KINDS, lying_frames, make_broken, without_rate
from tests.dataset.clips import contents, write_clip, write_image
from tests.dataset.kill_and_resume import compare_after_kills, make_dataset
from wfvae_cli.codec.batch import encode_batch
from wfvae_cli.codec.chunks import FrameChunk
from wfvae_cli.codec.encode import EncodeOptions, encode_clip
from wfvae_cli.dataset.inputs import find_inputs
from wfvae_cli.dataset.ledger import last_outcomes
from wfvae_cli.dataset.outcome import Outcome
from wfvae_cli.dataset.place import Place
from wfvae_cli.dataset.plan import Conflict
from wfvae_cli.dataset.read_ahead import Limits
from wfvae_cli.dataset.recipe import Recipe, derived_seed
from wfvae_cli.dataset.run import LocalEngine, Summary, Unobserved, encode_dataset
from wfvae_cli.dataset.shard import Shard
from wfvae_cli.dataset.tar_shards import TarFormat
from wfvae_cli.dataset.worker import EncodeJob
from wfvae_cli.errors import OutputError, UsageError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.media.clip import Sampling
from wfvae_cli.models.base import LoadedModel, Posterior
from wfvae_cli.models.load import load_model


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven clips and stills, no two of one name below their folders."""
    folder = tmp_path_factory.mktemp("source")
    for i in range(3):
        write_clip(folder / f"clip{i}.mp4", 5, seed=i)
    write_clip(folder / "clip0.mkv", 9, seed=4)
    write_clip(folder / "deep" / "clip0.mp4", 42, seed=5)
    write_image(folder / "still0.png", seed=6)
    write_image(folder / "still1.png", seed=7)
    return folder


@pytest.fixture
def copy(source: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(source, tmp_path / "in"))


def run(
    source: Path,
    output: Path,
    recipe: Recipe | None = None,
    *,
    shard: Shard | None = None,
    conflict: Conflict = "refuse",
    limits: Limits | None = None,
    readers: int = 2,
    max_failures: int | None = None,
) -> Summary:
    job = EncodeJob(
        Place(output), recipe or Recipe(), threads=1, readers=readers, limits=limits or Limits()
    )
    return encode_dataset(
        find_inputs([str(source)]),
        job,
        shard=shard,
        conflict=conflict,
        max_failures=max_failures,
    )


def test_every_clip_is_what_encoding_it_alone_gives(source: Path, tmp_path: Path) -> None:
    summary = run(source, tmp_path / "out")
    assert (summary.done, summary.failed, summary.frames) == (7, 0, 68)
    found = contents(tmp_path / "out")
    assert list(found) == [
        "clip0.mkv.safetensors",
        "clip0.mp4.safetensors",
        "clip1.mp4.safetensors",
        "clip2.mp4.safetensors",
        "deep/clip0.mp4.safetensors",
        "still0.png.safetensors",
        "still1.png.safetensors",
    ]
    encode_clip(source / "deep/clip0.mp4", tmp_path / "alone.safetensors", load_model())
    with (
        LatentFile(tmp_path / "alone.safetensors") as alone,
        LatentFile(tmp_path / "out/deep/clip0.mp4.safetensors") as there,
    ):
        assert torch.equal(alone.read(), there.read())
        assert replace(there.metadata, extra={}) == alone.metadata


def test_the_manifest_tells_of_every_item(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert len(lines) == 7
    line = next(line for line in lines if line["item"] == "deep/clip0.mp4")
    assert line["input"] == str(source / "deep/clip0.mp4")
    assert line["output"] == "deep/clip0.mp4.safetensors"
    assert (line["status"], line["frames"], line["error"]) == ("done", 42, None)
    assert line["shape"] == [16, 12, 3, 4]
    assert line["seconds"] > 0


def test_a_second_run_touches_nothing(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    summary = run(source, tmp_path)
    assert (summary.done, summary.current) == (0, 7)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == {
        path: time for path, time in before.items() if path.suffix == ".safetensors"
    }


def test_what_is_missing_or_damaged_is_redone(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path)
    before = contents(tmp_path)
    (tmp_path / "clip1.mp4.safetensors").unlink()
    cut = tmp_path / "clip2.mp4.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    summary = run(source, tmp_path)
    assert (summary.done, summary.current) == (2, 5)
    assert contents(tmp_path) == before


def test_a_lost_manifest_is_made_up_for_by_content(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    (tmp_path / "manifest.jsonl").unlink()
    summary = run(source, tmp_path)
    assert (summary.done, summary.frames) == (7, 68)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert len(last_outcomes(tmp_path / "manifest.jsonl")) == 7


def test_a_source_that_changed_is_redone_and_one_that_was_touched_is_not(
    copy: Path, tmp_path: Path
) -> None:
    run(copy, tmp_path / "out")
    before = contents(tmp_path / "out")
    os.utime(copy / "clip0.mp4", (1, 1))
    data = bytearray((copy / "still0.png").read_bytes())
    write_image(copy / "still0.png", seed=99)
    assert len(data) == (copy / "still0.png").stat().st_size  # noise: only its content differs
    summary = run(copy, tmp_path / "out")
    assert summary.current == 5
    after = contents(tmp_path / "out")
    assert [name for name in before if before[name] != after[name]] == ["still0.png.safetensors"]
    assert run(copy, tmp_path / "out").current == 7


def test_bytes_do_not_depend_on_the_time_of_change_or_the_folder(
    copy: Path, source: Path, tmp_path: Path
) -> None:
    for path in copy.rglob("*.*"):
        os.utime(path, (5, 5))
    run(copy, tmp_path / "a")
    run(source, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_other_options_are_refused_with_the_difference(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path)
    before = contents(tmp_path)
    other = Recipe(EncodeOptions(save_dtype="bfloat16"), Sampling(frames=5))
    message = r"7 outputs .* frames: unset, now 5; save_dtype: float32, now bfloat16 \(7 files, "
    with pytest.raises(OutputError, match=message):
        run(source, tmp_path, other)
    assert contents(tmp_path) == before
    summary = run(source, tmp_path, other, conflict="keep")
    assert (summary.done, summary.skipped) == (0, 7)
    assert contents(tmp_path) == before
    assert run(source, tmp_path, other, conflict="overwrite").done == 7
    assert run(source, tmp_path, other).current == 7
    with LatentFile(tmp_path / "deep/clip0.mp4.safetensors") as file:
        assert (file.dtype, file.metadata.frames) == ("bfloat16", 5)


def test_kept_outputs_are_skipped_in_the_manifest(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path)
    run(source, tmp_path, Recipe(EncodeOptions(chunk=9)), conflict="keep")
    last = last_outcomes(tmp_path / "manifest.jsonl")
    assert {outcome.status for outcome in last.values()} == {"skipped"}
    assert last["clip0.mp4"].error == "kept, made otherwise: chunk: auto, now 9"
    assert run(source, tmp_path).done == 7  # by content: they were up to date all along


def test_broken_files_fail_with_their_reason_and_stop_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    names = make_broken(folder)
    lying_frames(folder / "lying.mp4")
    without_rate(folder / "without-rate.y4m")
    summary = run(folder, tmp_path / "out")
    assert (summary.failed, summary.done) == (len(KINDS), 2)
    assert summary.failures == {"unreadable": len(KINDS)}
    last = last_outcomes(tmp_path / "out" / "manifest.jsonl")
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
    recipe = Recipe(EncodeOptions(chunk=9))
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


@pytest.mark.parametrize("limits", [Limits(stall=0.4), Limits(time=0.4, stall=None)])
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
    def poisoned(model: LoadedModel, clips: Sequence[FrameChunk], size: int) -> list[Posterior]:
        first, *others = encode_batch(model, clips, size)
        return [Posterior(first.mean * float("nan"), first.logvar), *others]

    monkeypatch.setattr("wfvae_cli.dataset.pipeline.encode_batch", poisoned)
    summary = run(source, tmp_path, Recipe(batch=8))
    # three shapes that are short enough for batches, one clip of each poisoned
    assert (summary.done, summary.failures) == (4, {"bad latents": 3})
    assert len(contents(tmp_path)) == 4


@pytest.mark.parametrize("batch", [3, "auto"])
def test_batches_equal_single_clips_to_rounding(
    source: Path, tmp_path: Path, batch: int | str
) -> None:
    run(source, tmp_path / "single")
    run(source, tmp_path / "batch", Recipe(batch="auto" if batch == "auto" else int(batch)))
    for name in contents(tmp_path / "single"):
        with (
            LatentFile(tmp_path / "single" / name) as one,
            LatentFile(tmp_path / "batch" / name) as many,
        ):
            torch.testing.assert_close(many.read(), one.read(), rtol=0, atol=1e-5)


def test_a_batch_mate_changes_no_byte(source: Path, tmp_path: Path) -> None:
    recipe = Recipe(EncodeOptions(posterior="sample", seed=3), batch=3)
    run(source, tmp_path / "all", recipe, readers=1)
    run(source, tmp_path / "left", recipe, readers=3)
    (tmp_path / "left" / "clip1.mp4.safetensors").unlink()
    (tmp_path / "left" / "still1.png.safetensors").unlink()
    run(source, tmp_path / "left", recipe)
    assert contents(tmp_path / "all") == contents(tmp_path / "left")


def test_samples_have_a_noise_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_image(folder / "a.png", seed=1)
    shutil.copy(folder / "a.png", folder / "b.png")
    recipe = Recipe(EncodeOptions(posterior="sample", seed=7))
    run(folder, tmp_path / "out", recipe)
    with (
        LatentFile(tmp_path / "out/a.png.safetensors") as a,
        LatentFile(tmp_path / "out/b.png.safetensors") as b,
    ):
        assert not torch.equal(a.read(), b.read())
        assert a.metadata.seed == derived_seed(7, "a.png") != b.metadata.seed


def test_shards_are_disjoint_complete_and_stable(source: Path, tmp_path: Path) -> None:
    items = find_inputs([str(source)])
    shares = [Shard(i, 3).of(items) for i in range(3)]
    assert sorted(item.relative for share in shares for item in share) == sorted(
        item.relative for item in items
    )
    assert set(Shard(1, 3).of(items[::2])) <= set(shares[1])
    for i in range(3):
        run(source, tmp_path / "shards", shard=Shard(i, 3))
    run(source, tmp_path / "whole")
    assert contents(tmp_path / "shards") == contents(tmp_path / "whole")
    assert len(list((tmp_path / "shards").glob("manifest-0000?-of-00003.jsonl"))) == 3


@pytest.mark.parametrize("text", ["", "3", "3/3", "-1/3", "a/b", "0/0"])
def test_shards_that_do_not_exist(text: str) -> None:
    with pytest.raises(UsageError, match="I/N"):
        Shard.parse(text)


def test_two_runs_do_not_share_an_output(source: Path, tmp_path: Path) -> None:
    class Second(Unobserved):
        def settled(self, outcome: Outcome) -> None:
            with pytest.raises(OutputError, match="another run is writing here"):
                run(source, tmp_path)

    job = EncodeJob(Place(tmp_path), threads=1)
    assert encode_dataset(find_inputs([str(source)], limit=1), job, observer=Second()).done == 1


def test_stopping_finishes_what_has_begun(source: Path, tmp_path: Path) -> None:
    engine = LocalEngine()

    class Impatient(Unobserved):
        def settled(self, outcome: Outcome) -> None:
            engine.stop()

    job = EncodeJob(Place(tmp_path), threads=1, readers=1)
    first = encode_dataset(find_inputs([str(source)]), job, engine=engine, observer=Impatient())
    assert 1 <= first.done < 7
    rest = run(source, tmp_path)
    assert (rest.current, rest.done) == (first.done, 7 - first.done)


def test_an_exception_leaves_a_state_that_resumes(source: Path, tmp_path: Path) -> None:
    class Angry(Unobserved):
        def settled(self, outcome: Outcome) -> None:
            raise KeyboardInterrupt

    job = EncodeJob(Place(tmp_path / "out"), threads=1)
    with pytest.raises(KeyboardInterrupt):
        encode_dataset(find_inputs([str(source)]), job, observer=Angry())
    run(source, tmp_path / "out")
    run(source, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_full_disk_ends_the_run(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Place, part: Path, name: str) -> int:
        raise OutputError("cannot write: the disk is full")

    monkeypatch.setattr(Place, "publish", full)
    with pytest.raises(OutputError, match="disk is full"):
        run(source, tmp_path)


def test_the_output_folder_needs_a_parent(source: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        run(source, tmp_path / "no" / "such")


def test_outputs_in_a_store(source: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="the extra fsspec is not installed")
    store, name = fsspec.filesystem("memory"), "clip0.mp4.safetensors"
    url = f"memory://{tmp_path.name}/z"
    place, items = Place.of(url), find_inputs([str(source)])
    run(source, tmp_path / "local")
    expected = contents(tmp_path / "local")
    try:
        assert encode_dataset(items, EncodeJob(place, threads=1)).done == 7
        assert {each: store.cat_file(f"{url}/{each}") for each in expected} == expected
        assert encode_dataset(items, EncodeJob(place, threads=1)).current == 7
        store.rm(f"{url}/manifest.jsonl")
        store.pipe(f"{url}/{name}", expected[name][:-4])
        assert encode_dataset(items, EncodeJob(place, threads=1)).done == 7
        assert store.cat_file(f"{url}/{name}") == expected[name]
        lines = store.cat_file(f"{url}/manifest.jsonl").splitlines()
        assert {json.loads(line)["status"] for line in lines} == {"done"}
        with pytest.raises(UsageError, match=r"tar shards .* file system"):
            encode_dataset(items, EncodeJob(place, threads=1), tar=TarFormat())
    finally:
        store.rm(f"/{tmp_path.name}", recursive=True)
        shutil.rmtree(place.root)


def test_inputs_in_a_store(source: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="the extra fsspec is not installed")
    store = fsspec.filesystem("memory")
    store.put(str(source), f"/{tmp_path.name}/in", recursive=True)
    run(source, tmp_path / "local")
    try:
        job = EncodeJob(Place(tmp_path / "z"), threads=1)
        items = find_inputs([f"memory://{tmp_path.name}/in"])
        assert encode_dataset(items, job).done == 7
        assert contents(tmp_path / "z") == contents(tmp_path / "local")
        assert encode_dataset(items, job).current == 7
        bad = f"memory:///{tmp_path.name}/in/deep/bad.mp4"
        store.pipe(bad, b"no video")
        items = find_inputs([f"memory://{tmp_path.name}/in"])
        assert encode_dataset(items, job).failed == 1
        error = last_outcomes(tmp_path / "z/manifest.jsonl")["deep/bad.mp4"].error or ""
        assert error.startswith(f"{bad}: ")
    finally:
        store.rm(f"/{tmp_path.name}", recursive=True)


def test_kill_and_resume(tmp_path: Path) -> None:
    make_dataset(tmp_path / "in", 24)
    verdict = compare_after_kills(tmp_path / "in", tmp_path, kills=2, seed=1)
    assert verdict.differences == ()
    assert verdict.outputs == 26
