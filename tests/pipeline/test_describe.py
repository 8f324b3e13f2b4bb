"""The line that says what a run is done with."""

from __future__ import annotations

import os

import pytest
import torch

from wfvae_cli.models.load import load_model
from wfvae_cli.pipeline.describe import describe_run
from wfvae_cli.pipeline.plan import ChunkPlan


def test_model_device_type_chunk_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(device="cpu")
    plan = ChunkPlan.of(model, 17, 64, 64)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(64), raising=False)
    line = "wfvae-tiny (wfvae), cpu, float32, 17 frames a chunk, 4 of 64 cores: --threads 64"
    assert describe_run(model, plan) == f"{line} for more"
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(4), raising=False)
    assert describe_run(model, plan).endswith(", 17 frames a chunk, 4 threads")
