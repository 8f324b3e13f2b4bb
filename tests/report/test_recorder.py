"""What is collected of clips that are open at once."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.report.clips import RUN, levels, noisy, page_of
from wfvae_cli.media.clip import ClipInfo
from wfvae_cli.metrics.compare import Measures
from wfvae_cli.models.base import LoadedModel, Posterior
from wfvae_cli.models.load import load_model
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.report.recorder import ModelRecorder, Worst
from wfvae_cli.report.report import Report, ReportModel

PLAN = ChunkPlan(2, 1)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(device="cpu")


def latents(seed: int) -> Posterior:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(1, 16, 2, 6, 8, generator=generator)
    return Posterior(mean, torch.zeros_like(mean) - 4)


def test_clips_that_are_open_at_once_are_kept_apart(tmp_path: Path, model: LoadedModel) -> None:
    info = ClipInfo(64, 48, frame_rate=Fraction(12))
    pairs = {name: (levels(4), noisy(levels(4), spread)) for name, spread in (("a", 2), ("b", 9))}
    with Report(tmp_path / "page", [ReportModel("m")], RUN) as report:
        recorder = ModelRecorder(
            "m", Measures(ms_ssim=False), report=(report, 0), worst=Worst(1, tmp_path / "stills")
        )
        recorder.loaded(model)
        records = {name: recorder.begin(name, info, PLAN) for name in ("a", "b", "c")}
        for chunk in range(2):
            for seed, (name, (x, y)) in enumerate(pairs.items()):
                records[name].encoded(latents(2 * seed + chunk), 2, 0.25)
                for frame in range(2 * chunk, 2 * chunk + 2):
                    records[name].metrics.update(x[frame], y[frame])
        records["c"].encoded(latents(9), 2, 0.25)
        records["c"].close(None)  # a clip that fails half-way is in no figure
        recorder.fail("c", "broken")
        for name in ("b", "a"):
            records[name].close(records[name].metrics.result())
        recorder.finish()
    comparison = recorder.comparison
    assert [file.name for file in comparison.files] == ["a", "b"]
    assert comparison.files[0].result.psnr > comparison.files[1].result.psnr
    assert [(file.name, file.error) for file in comparison.failed] == [("c", "broken")]
    page = page_of(tmp_path / "page")
    (shown,) = page["models"]
    every = np.concatenate([latents(seed).mean[0].reshape(16, -1) for seed in range(4)], axis=1)
    assert shown["latents"]["mean"] == pytest.approx(every.mean(axis=1).tolist(), abs=1e-6)
    assert (shown["facts"]["family"], shown["facts"]["model"]) == ("wfvae", "wfvae-tiny")
    first = page["files"][0]["results"][0]
    assert (first["seconds"], first["frames_per_second"]) == (0.5, 8.0)
    assert first["latent_bytes"] == 2 * latents(0).mean.numel() * 4
    assert len(list((tmp_path / "stills").iterdir())) == 2


def test_too_few_latents_leave_the_page_without_statistics(
    tmp_path: Path, model: LoadedModel
) -> None:
    with Report(tmp_path / "page", [ReportModel("m")], RUN) as report:
        recorder = ModelRecorder("m", Measures(ms_ssim=False), report=(report, 0))
        recorder.loaded(model)
        record = recorder.begin("a", ClipInfo(64, 48, is_image=True), PLAN)
        flat = torch.ones(1, 16, 1, 6, 8)
        record.encoded(Posterior(flat, flat), 1, 0.1)
        record.metrics.update(levels(1)[0], levels(1)[0])
        record.close(record.metrics.result())
        recorder.finish()
    assert page_of(tmp_path / "page")["models"][0]["latents"] is None
