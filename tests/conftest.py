"""Settings of every test: small models on a machine that may be busy."""

from __future__ import annotations

import os
import sys

from hypothesis import settings

# The same examples at every run: a change is judged by what it changed. New ones are drawn with
# `pytest --hypothesis-profile=default`, as often as wanted.
settings.register_profile("same-examples", derandomize=True, deadline=None)
settings.load_profile("same-examples")

# Tiny tensors gain nothing from threads, and lose much when their threads wait for a busy core.
# Set before torch is imported, and inherited by the programs that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_xdist_auto_num_workers(config: object) -> int:
    """One more than cores: many tests wait for programs, files or clocks."""
    del config
    return 1 + (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)
