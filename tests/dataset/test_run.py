"""A dataset from inputs to latents: resumed, isolated, the same whatever the way."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.dataset.clips import contents, write_image
from tests.dataset.conftest import run
from wfvae_cli.dataset import encode_job
from wfvae_cli.dataset.config import EncodeConfig
from wfvae_cli.dataset.encode_job import EncodeJob
from wfvae_cli.dataset.items import find_inputs
from wfvae_cli.dataset.manifest import last_results
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.dataset.run import NoRunCallbacks, run_dataset
from wfvae_cli.dataset.shard import Shard
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.errors import OutputError, UsageError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import ClipReader
from wfvae_cli.models.load import load_model
from wfvae_cli.pipeline.encode import encode_clip
from wfvae_cli.pipeline.options import EncodeOptions


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
        assert replace(there.metadata, extra=alone.metadata.extra) == alone.metadata


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
    assert len(last_results(tmp_path / "manifest.jsonl")) == 7


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
    other = EncodeConfig(EncodeOptions(save_dtype="bfloat16"), Sampling(frames=5))
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
    run(source, tmp_path, EncodeConfig(EncodeOptions(chunk=9)), conflict="keep")
    last = last_results(tmp_path / "manifest.jsonl")
    assert {outcome.status for outcome in last.values()} == {"skipped"}
    assert last["clip0.mp4"].error == "kept, made with different options: chunk: auto, now 9"
    assert run(source, tmp_path).done == 7  # by content: they were up to date all along


@pytest.mark.parametrize("batch", [3, "auto"])
def test_batches_equal_single_clips_to_rounding(
    source: Path, tmp_path: Path, batch: int | str
) -> None:
    run(source, tmp_path / "single")
    run(source, tmp_path / "batch", EncodeConfig(batch="auto" if batch == "auto" else int(batch)))
    for name in contents(tmp_path / "single"):
        with (
            LatentFile(tmp_path / "single" / name) as one,
            LatentFile(tmp_path / "batch" / name) as many,
        ):
            torch.testing.assert_close(many.read(), one.read(), rtol=0, atol=1e-5)


def test_a_batch_mate_changes_no_byte(source: Path, tmp_path: Path) -> None:
    recipe = EncodeConfig(EncodeOptions(posterior="sample", seed=3), batch=3)
    run(source, tmp_path / "all", recipe, readers=1)
    run(source, tmp_path / "left", recipe, readers=3)
    (tmp_path / "left" / "clip1.mp4.safetensors").unlink()
    (tmp_path / "left" / "still1.png.safetensors").unlink()
    run(source, tmp_path / "left", recipe)
    assert contents(tmp_path / "all") == contents(tmp_path / "left")


@pytest.mark.parametrize("batch", [1, 3])
def test_colours_left_to_the_device_change_no_byte(
    source: Path, tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(source, tmp_path / "host", EncodeConfig(batch=batch))
    left: list[str] = []

    def leave(device: torch.device, reader: ClipReader) -> None:
        reader.leave_conversion()
        left.append(reader.name)

    monkeypatch.setattr(encode_job, "convert_on", leave)
    run(source, tmp_path / "device", EncodeConfig(batch=batch))
    assert len(left) == 7
    assert contents(tmp_path / "host") == contents(tmp_path / "device")


def test_samples_have_a_noise_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_image(folder / "a.png", seed=1)
    shutil.copy(folder / "a.png", folder / "b.png")
    recipe = EncodeConfig(EncodeOptions(posterior="sample", seed=7))
    run(folder, tmp_path / "out", recipe)
    with (
        LatentFile(tmp_path / "out/a.png.safetensors") as a,
        LatentFile(tmp_path / "out/b.png.safetensors") as b,
    ):
        assert not torch.equal(a.read(), b.read())
        assert a.metadata.seed != b.metadata.seed


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
    class Second(NoRunCallbacks):
        def settled(self, result: ItemResult) -> None:
            with pytest.raises(OutputError, match="another run is writing here"):
                run(source, tmp_path)

    job = EncodeJob(OutputStore(tmp_path), threads=1)
    assert run_dataset(find_inputs([str(source)], limit=1), job, callbacks=Second()).done == 1
