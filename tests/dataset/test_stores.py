"""Datasets that come from, and go to, what fsspec reaches."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.dataset.clips import contents
from tests.dataset.conftest import run
from wfvae_cli.dataset.config import EncodeConfig
from wfvae_cli.dataset.encode_job import EncodeJob
from wfvae_cli.dataset.items import find_inputs
from wfvae_cli.dataset.manifest import last_results
from wfvae_cli.dataset.run import run_dataset
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.errors import UsageError


def test_outputs_in_a_store(source: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="the extra fsspec is not installed")
    store, name = fsspec.filesystem("memory"), "clip0.mp4.safetensors"
    url = f"memory://{tmp_path.name}/z"
    place, items = OutputStore.of(url), find_inputs([str(source)])
    run(source, tmp_path / "local")
    expected = contents(tmp_path / "local")
    try:
        assert run_dataset(items, EncodeJob(place, threads=1)).done == 7
        assert {each: store.cat_file(f"{url}/{each}") for each in expected} == expected
        assert run_dataset(items, EncodeJob(place, threads=1)).current == 7
        store.rm(f"{url}/manifest.jsonl")
        store.pipe(f"{url}/{name}", expected[name][:-4])
        assert run_dataset(items, EncodeJob(place, threads=1)).done == 7
        assert store.cat_file(f"{url}/{name}") == expected[name]
        lines = store.cat_file(f"{url}/manifest.jsonl").splitlines()
        assert {json.loads(line)["status"] for line in lines} == {"done"}
        with pytest.raises(UsageError, match=r"tar shards .* file system"):
            run_dataset(items, EncodeJob(place, EncodeConfig(format="webdataset"), threads=1))
    finally:
        store.rm(f"/{tmp_path.name}", recursive=True)
        shutil.rmtree(place.root)


def test_inputs_in_a_store(source: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="the extra fsspec is not installed")
    store = fsspec.filesystem("memory")
    store.put(str(source), f"/{tmp_path.name}/in", recursive=True)
    run(source, tmp_path / "local")
    try:
        job = EncodeJob(OutputStore(tmp_path / "z"), threads=1)
        items = find_inputs([f"memory://{tmp_path.name}/in"])
        assert run_dataset(items, job).done == 7
        assert contents(tmp_path / "z") == contents(tmp_path / "local")
        assert run_dataset(items, job).current == 7
        bad = f"memory:///{tmp_path.name}/in/deep/bad.mp4"
        store.pipe(bad, b"no video")
        items = find_inputs([f"memory://{tmp_path.name}/in"])
        assert run_dataset(items, job).failed == 1
        error = last_results(tmp_path / "z/manifest.jsonl")["deep/bad.mp4"].error or ""
        assert error.startswith(f"{bad}: ")
    finally:
        store.rm(f"/{tmp_path.name}", recursive=True)
