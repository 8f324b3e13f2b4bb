"""Habits of SVT-AV1 that its options do not change."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_LOG = "SVT_LOG"
_ERRORS = "1"


@contextlib.contextmanager
def tamed() -> Iterator[None]:
    """Open encoders inside: the process keeps its priority, and settings are not printed.

    Where SVT-AV1 is run by root, as in containers, it gives the thread that opens it and all its
    own the highest real-time priority (`svt_create_thread` in its svt_threads.c), for good and for
    whatever these start: nothing else on the machine gets more than a twentieth of a core.
    """
    os.environ.setdefault(_LOG, _ERRORS)
    if not hasattr(os, "sched_getscheduler"):  # Linux alone has real-time policies to undo
        yield
        return
    own, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    before = _real_time_threads()
    try:
        yield
    finally:
        for thread in _real_time_threads() - before:
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setscheduler(thread, own, parameters)


def _real_time_threads() -> set[int]:
    """Numbers of this process's threads that run by a real-time policy."""
    found = set()
    with contextlib.suppress(FileNotFoundError):  # no /proc
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                if os.sched_getscheduler(int(task.name)) in (os.SCHED_FIFO, os.SCHED_RR):
                    found.add(int(task.name))
    return found
