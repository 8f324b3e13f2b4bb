"""One-line summary of the model, device and chunking of a run."""

from __future__ import annotations

import os

import torch

from wfvae_cli.models.base import LoadedModel
from wfvae_cli.pipeline.plan import ChunkPlan


def describe_run(model: LoadedModel, plan: ChunkPlan) -> str:
    """Name the model, its family, device and type, how clips are cut, and a CPU's cores."""
    vae = model.vae
    if vae.whole_clip_only is not None:
        chunk = "whole clips"
    else:
        chunk = f"{vae.strides.frames_of(plan.first)} frames a chunk"
    parts = [f"{model.name} ({vae.family})", str(model.device), model.compute_dtype, chunk]
    if model.device.type == "cpu":
        parts.append(_cores(torch.get_num_threads()))
    return ", ".join(parts)


def _cores(threads: int) -> str:
    # Where a process may run is less than the machine has, in containers and batch systems.
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = here or 1
    if threads < cores:
        return f"{threads} of {cores} cores: --threads {cores} for more"
    return f"{threads} threads" if threads > 1 else "1 thread"
