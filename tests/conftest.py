"""Settings of every test: small models on a machine that may be busy."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator

import pytest
from hypothesis import settings

# The same examples at every run: a change is judged by what it changed. New ones are drawn with
# `pytest --hypothesis-profile=default`, as often as wanted.
settings.register_profile("same-examples", derandomize=True, deadline=None)
settings.load_profile("same-examples")

# Tiny tensors gain nothing from threads, and lose much when their threads wait for a busy core.
# Set before torch is imported, and inherited by the programs that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Every worker imports all tests, and tests start some two hundred programs: all of them share what
# the first one compiled, even in containers whose Python is told to keep nothing.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect tests without looking for garbage: modules and tests are there to stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_xdist_auto_num_workers(config: object) -> int:
    """One more than cores: many tests wait for programs, files or clocks."""
    del config
    return 1 + (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)
