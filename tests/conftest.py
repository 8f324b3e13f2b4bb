"""Settings of every test: small models on a machine that may be busy."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from wfvae_cli.models.base import LoadedModel, Task
    from wfvae_cli.models.options import DType, RunOptions

# The same examples at every run: a change is judged by what it changed. New ones are drawn with
# `pytest --hypothesis-profile=default`, as often as wanted.
settings.register_profile("same-examples", derandomize=True, deadline=None)
settings.load_profile("same-examples")

# Tiny tensors gain nothing from threads, and lose much when their threads wait for a busy core.
# Set before torch is imported, and inherited by the programs that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as `wfvae_cli` has it where it comes first
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Every worker imports all tests, and tests start some two hundred programs: all of them share what
# the first one compiled, even in containers whose Python is told to keep nothing.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session", autouse=True)
def _embedded_model_is_loaded_once() -> Iterator[None]:
    """Let the commands and datasets of this process share the embedded model.

    A model holds weights only, so that they may, and loading it takes longer than most of them.
    Models given by path are loaded each time, and so is all that is to be compiled or converted.
    """
    # Here, since they import torch, which the process that starts the workers does not need.
    from wfvae_cli.models.load import load_model
    from wfvae_cli.models.options import DEFAULT_MODEL, RunOptions

    shared = cache(load_model)

    def load(name: str, *, dtype: DType, compile: bool, **options: Any) -> LoadedModel:
        plain = name == DEFAULT_MODEL and dtype in ("auto", "float32") and not compile
        return (shared if plain else load_model)(name, dtype=dtype, compile=compile, **options)

    def load_to_run(run: RunOptions, name: str, task: Task = "both") -> LoadedModel:
        return load(name, device=run.device, dtype=run.dtype, task=task, compile=run.compile)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunOptions, "load", load_to_run)
        patch.setattr("wfvae_cli.dataset.engine.load_model", load)
        patch.setattr("wfvae_cli.dataset.dry_run.load_model", load)
        yield


@pytest.fixture(scope="session", autouse=True)
def _weights_without_values_are_not_initialised() -> Iterator[None]:
    """Draw no random weights on the meta device, where models are built, in half the time.

    Such weights have no values before a checkpoint's take their place.
    """
    from torch.nn.modules.conv import _ConvNd

    initialise = _ConvNd.reset_parameters

    def reset_parameters(conv: _ConvNd) -> None:
        if not conv.weight.is_meta:
            initialise(conv)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_ConvNd, "reset_parameters", reset_parameters)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect tests without looking for garbage: modules and tests are there to stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the modules of no folder: at the end, all would wait for a long one of them."""
    items.sort(key=lambda item: item.path.parent != config.rootpath / "tests")


def pytest_xdist_auto_num_workers(config: object) -> int:
    """One more than cores: many tests wait for programs, files or clocks."""
    del config
    return 1 + (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)
