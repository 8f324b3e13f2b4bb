"""Tar shards: what is in them, and that they come out the same however the run went."""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.dataset.clips import contents, write_clip, write_image
from tests.dataset.kill_and_resume import compare_after_kills
from wfvae_cli.dataset.config import EncodeConfig, TarFormat
from wfvae_cli.dataset.encode_job import EncodeJob
from wfvae_cli.dataset.engine import LocalEngine
from wfvae_cli.dataset.exporters.webdataset import key_of
from wfvae_cli.dataset.items import find_inputs
from wfvae_cli.dataset.manifest import last_results
from wfvae_cli.dataset.plan import Conflict
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.dataset.run import NoRunCallbacks, Summary, run_dataset
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.errors import OutputError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.pipeline.options import EncodeOptions

webdataset = pytest.importorskip("webdataset", reason="the extra webdataset is not installed")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten files, of which the third is broken."""
    folder = tmp_path_factory.mktemp("source")
    for i in range(5):
        write_clip(folder / f"a/clip.{i}.mp4", 5, seed=i)
    for i in range(4):
        write_image(folder / f"b/{i}.png", seed=i)
    (folder / "a/clip.1b.mp4").write_text("no video")
    return folder


def run(
    source: Path,
    output: Path,
    config: EncodeConfig | None = None,
    form: TarFormat | None = None,
    conflict: Conflict = "refuse",
) -> Summary:
    config = replace(config or EncodeConfig(), format="webdataset", tar=form or TarFormat(clips=4))
    job = EncodeJob(OutputStore(output), config, threads=1)
    return run_dataset(find_inputs([str(source)]), job, conflict=conflict)


def test_shards_hold_latent_files_and_json(source: Path, tmp_path: Path) -> None:
    summary = run(source, tmp_path)
    assert (summary.done, summary.failed) == (9, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "latents-000000-000.tar",
        "latents-000000.json",
        "latents-000001-000.tar",
        "latents-000001.json",
        "latents-000002-000.tar",
        "latents-000002.json",
        "manifest.jsonl",
    ]
    samples = list(
        webdataset.WebDataset(str(tmp_path / "latents-000000-000.tar"), shardshuffle=False)
    )
    names = [json.loads(sample["json"])["item"] for sample in samples]
    assert names == ["a/clip.0.mp4", "a/clip.1.mp4", "a/clip.2.mp4"]
    assert samples[0]["__key__"] == key_of(names[0]) == "a/clip%2E0%2Emp4"
    latents = safetensors.torch.load(samples[0]["safetensors"])["latents"]
    assert latents.shape == (16, 2, 3, 4)
    (tmp_path / "one.safetensors").write_bytes(samples[0]["safetensors"])
    with LatentFile(tmp_path / "one.safetensors") as file:
        assert torch.equal(file.read(), latents)
        assert file.metadata.source == "clip.0.mp4"
    last = last_results(tmp_path / "manifest.jsonl")
    assert last["a/clip.2.mp4"].output == "latents-000000-000.tar"
    assert last["a/clip.1b.mp4"].status == "failed"


def test_shards_are_bounded(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path, form=TarFormat(clips=100, max_bytes=6000))
    tars = sorted(tmp_path.glob("*.tar"))
    assert [tar.name for tar in tars] == [f"latents-000000-{i:03d}.tar" for i in range(len(tars))]
    assert len(tars) > 2
    members = []
    for tar in tars:
        with tarfile.open(tar) as box:
            members += box.getmembers()
    assert len(members) == 18
    assert {member.mtime for member in members} == {0}


def test_a_finished_run_is_left_alone_and_tries_failures_again(
    source: Path, tmp_path: Path
) -> None:
    run(source, tmp_path)
    before = contents(tmp_path, "latents-*")
    summary = run(source, tmp_path)
    assert (summary.current, summary.done, summary.failed) == (9, 0, 1)
    assert contents(tmp_path, "latents-*") == before


def test_a_failure_that_is_repaired_gets_a_shard_behind_the_others(
    source: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(source, tmp_path / "in")
    run(folder, tmp_path / "out")
    before = contents(tmp_path / "out", "latents-*")
    write_clip(folder / "a/clip.1b.mp4", 5, seed=9)
    summary = run(folder, tmp_path / "out")
    assert (summary.current, summary.done) == (9, 1)
    after = contents(tmp_path / "out", "latents-*")
    assert after.keys() - before.keys() == {"latents-000003-000.tar", "latents-000003.json"}
    assert {name: after[name] for name in before} == before
    assert run(folder, tmp_path / "out").current == 10


def test_an_interrupted_run_ends_in_the_same_shards(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "whole")
    for stop_after in (2, 1, 3):
        engine, seen = LocalEngine(), list[ItemResult]()

        class Impatient(NoRunCallbacks):
            def settled(
                self,
                result: ItemResult,
                seen: list[ItemResult] = seen,
                engine: LocalEngine = engine,
                most: int = stop_after,
            ) -> None:
                seen.append(result)
                if len(seen) >= most:
                    engine.stop()

        config = EncodeConfig(format="webdataset", tar=TarFormat(clips=4))
        job = EncodeJob(OutputStore(tmp_path / "parts"), config, threads=1, readers=1)
        items = find_inputs([str(source)])
        run_dataset(items, job, engine=engine, callbacks=Impatient())
    run(source, tmp_path / "parts")
    assert contents(tmp_path / "whole", "*.tar") == contents(tmp_path / "parts", "*.tar")
    assert not (tmp_path / "parts/.wfvae-clips").exists()


def test_clips_that_a_killed_run_left_beside_their_shard_go(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path)
    left = tmp_path / ".wfvae-clips/run/a/clip.0.mp4.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"whatever")
    assert run(source, tmp_path).current == 9
    assert not (tmp_path / ".wfvae-clips").exists()


def test_a_lost_or_damaged_shard_is_made_again(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path)
    before = contents(tmp_path, "*.tar")
    (tmp_path / "latents-000000-000.tar").unlink()
    cut = tmp_path / "latents-000002-000.tar"
    cut.write_bytes(cut.read_bytes()[:-512])
    assert run(source, tmp_path).done == 5
    assert contents(tmp_path, "*.tar") == before


def test_other_options_are_refused(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path)
    other = EncodeConfig(EncodeOptions(save_dtype="float16"))
    with pytest.raises(OutputError, match="save_dtype: float32, now float16"):
        run(source, tmp_path, other)
    kept = run(source, tmp_path, other, conflict="keep")
    assert (kept.skipped, kept.done) == (9, 0)
    assert run(source, tmp_path, other, conflict="overwrite").done == 9
    assert run(source, tmp_path, other).current == 9


@pytest.mark.slow
def test_kill_and_resume(source: Path, tmp_path: Path) -> None:
    options = ["--format", "webdataset", "--shard-clips", "4"]
    verdict = compare_after_kills(source, tmp_path, kills=1, seed=3, options=options)
    assert verdict.differences == ()
    assert verdict.outputs == 6
