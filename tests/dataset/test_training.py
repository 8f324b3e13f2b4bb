"""Latents as a trainer gets them, from files and from shards."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import wfvae_cli
from tests.dataset.clips import write_clip
from wfvae_cli.dataset.config import EncodeConfig, TarFormat
from wfvae_cli.dataset.encode_job import EncodeJob
from wfvae_cli.dataset.items import find_inputs
from wfvae_cli.dataset.run import run_dataset
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.dataset.training import LatentDataset
from wfvae_cli.errors import InputError, LatentError, UsageError, WeightsError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.latents.normalization import AppliedNormalization
from wfvae_cli.models.load import load_model, normalization_of
from wfvae_cli.pipeline.options import EncodeOptions
from wfvae_cli.stats.accumulate import LatentStats
from wfvae_cli.stats.report import ModelIdentity, StatsReport


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for i in range(6):
        write_clip(folder / f"part{i % 2}" / f"{i}.mp4", 13, seed=i)
    return folder


@pytest.fixture(scope="module")
def encoded(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The means of the six clips."""
    return encode(source, tmp_path_factory.mktemp("encoded") / "z")


def encode(
    source: Path, output: Path, options: EncodeOptions | None = None, tar: TarFormat | None = None
) -> Path:
    config = EncodeConfig(options or EncodeOptions())
    if tar is not None:
        config = replace(config, format="webdataset", tar=tar)
    run_dataset(find_inputs([str(source)]), EncodeJob(OutputStore(output), config, threads=1))
    return output


def test_files_are_read_in_order(encoded: Path) -> None:
    dataset = LatentDataset(encoded)
    assert len(dataset) == 6
    names = [sample["item"] for sample in DataLoader(dataset, batch_size=None)]
    assert names[0] == "part0/0.mp4.safetensors"
    assert names == sorted(names)
    with LatentFile(encoded / "part0/0.mp4.safetensors") as file:
        assert torch.equal(dataset[0]["latents"], file.read())
    assert dataset[0]["frames"] == 13
    assert wfvae_cli.LatentDataset is LatentDataset


def test_shards_give_what_files_give(source: Path, encoded: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset", reason="the extra webdataset is not installed")
    files = LatentDataset(encoded)
    shards = LatentDataset(encode(source, tmp_path / "tar", tar=TarFormat(clips=4)))
    assert len(shards) == len(files)
    assert [shards[i]["item"] for i in range(6)] == [
        files[i]["item"].removesuffix(".safetensors") for i in range(6)
    ]
    assert all(torch.equal(shards[i]["latents"], files[i]["latents"]) for i in range(6))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_read_batches(encoded: Path, workers: int) -> None:
    dataset = LatentDataset(encoded, frames=2, seed=5)
    batches = list(DataLoader(dataset, batch_size=3, num_workers=workers))
    assert [batch["latents"].shape for batch in batches] == [(3, 16, 2, 3, 4)] * 2
    expected = torch.stack([dataset[i]["latents"] for i in range(3)])
    assert torch.equal(batches[0]["latents"], expected)  # whoever reads a clip


def test_windows_and_epochs(encoded: Path) -> None:
    dataset = LatentDataset(encoded, frames=1)
    first = [dataset[i]["latents"] for i in range(6)]
    again = [dataset[i]["latents"] for i in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    dataset.set_epoch(1)
    later = [dataset[i]["latents"] for i in range(6)]
    assert not all(torch.equal(a, b) for a, b in zip(first, later, strict=True))
    with pytest.raises(InputError, match="no clip has 9 latent frames"):
        LatentDataset(encoded, frames=9)
    with pytest.raises(UsageError, match="at least 1"):
        LatentDataset(encoded, frames=0)


def test_moments_are_sampled(source: Path, tmp_path: Path) -> None:
    dataset = LatentDataset(encode(source, tmp_path / "z", EncodeOptions(posterior="moments")))
    with LatentFile(tmp_path / "z/part0/0.mp4.safetensors") as file:
        mean, logvar = file.read(), file.read_logvar()
    draws = []
    for epoch in range(40):
        dataset.set_epoch(epoch)
        draws.append((dataset[0]["latents"] - mean) / torch.exp(0.5 * logvar))
    noise = torch.stack(draws)
    assert noise.mean().abs() < 0.05
    assert (noise.std() - 1).abs() < 0.05


def test_normalisation_by_the_header(source: Path, encoded: Path, tmp_path: Path) -> None:
    values = normalization_of(load_model())
    applied = AppliedNormalization(values.shift, values.scale, "config")
    raw = LatentDataset(encoded)
    done = encode(source, tmp_path / "done", EncodeOptions(normalization=applied))
    shift = torch.tensor(values.shift).view(-1, 1, 1, 1)
    scale = torch.tensor(values.scale).view(-1, 1, 1, 1)
    expected = (raw[0]["latents"] - shift) * scale
    assert torch.equal(LatentDataset(done, normalize="header")[0]["latents"], expected)
    torch.testing.assert_close(LatentDataset(done)[0]["latents"], raw[0]["latents"])
    with pytest.raises(LatentError, match="not normalised"):
        LatentDataset(encoded, normalize="header")[0]


def test_normalisation_by_statistics(encoded: Path, tmp_path: Path) -> None:
    raw = LatentDataset(encoded)
    stats = LatentStats()
    for sample in DataLoader(raw, batch_size=None):
        stats.add_clip(sample["item"], [(sample["latents"], None)])
    with LatentFile(encoded / "part0/0.mp4.safetensors") as file:
        sha256 = file.metadata.model_sha256
    path = tmp_path / "stats.json"
    path.write_text(StatsReport(ModelIdentity("wfvae-tiny", sha256, "wfvae"), stats).to_json())
    dataset = LatentDataset(encoded, normalize=path)
    values = torch.cat([dataset[i]["latents"].flatten(1) for i in range(6)], dim=1)
    torch.testing.assert_close(values.mean(1), torch.zeros(16), rtol=0, atol=1e-5)
    torch.testing.assert_close(values.std(1, correction=0), torch.ones(16), rtol=0, atol=1e-4)
    path.write_text(StatsReport(ModelIdentity("other", "0" * 64, "wfvae"), stats).to_json())
    with pytest.raises(WeightsError, match="model that encodes"):
        LatentDataset(encoded, normalize=path)


def test_what_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none"):
        LatentDataset(tmp_path)
    (tmp_path / "x.tar").write_text("no tar")
    with pytest.raises(LatentError, match="not a tar shard"):
        LatentDataset(tmp_path)


def test_a_clip_that_is_there_twice_is_told(encoded: Path, source: Path, tmp_path: Path) -> None:
    both = Path(shutil.copytree(encoded, tmp_path / "both"))
    encode(source, tmp_path / "tars", tar=TarFormat())
    for path in (tmp_path / "tars").glob("*.tar"):
        shutil.copy(path, both)
    with pytest.raises(LatentError, match="both hold"):
        LatentDataset(both)
