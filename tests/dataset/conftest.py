"""A small dataset, and a run over it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.dataset.clips import write_clip, write_image
from wfvae_cli.dataset.config import EncodeConfig
from wfvae_cli.dataset.encode_job import EncodeJob
from wfvae_cli.dataset.items import find_inputs
from wfvae_cli.dataset.plan import Conflict
from wfvae_cli.dataset.run import Summary, run_dataset
from wfvae_cli.dataset.shard import Shard
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.models.options import DEFAULT_MODEL
from wfvae_cli.pipeline.options import Limits


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
    config: EncodeConfig | None = None,
    *,
    model: str | Path = DEFAULT_MODEL,
    shard: Shard | None = None,
    conflict: Conflict = "refuse",
    limits: Limits | None = None,
    readers: int = 2,
    max_failures: int | None = None,
) -> Summary:
    job = EncodeJob(
        OutputStore(output),
        config or EncodeConfig(),
        model=str(model),
        threads=1,
        readers=readers,
        limits=limits or Limits(),
    )
    return run_dataset(
        find_inputs([str(source)]),
        job,
        shard=shard,
        conflict=conflict,
        max_failures=max_failures,
    )
