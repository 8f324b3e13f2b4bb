"""Policy of the C library for memory that was freed: kept for the next tensor, or given back.

Only speed and the size of the process depend on it. Where the library is not glibc, nothing is
done.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD = -1  # glibc's malloc.h
_M_MMAP_THRESHOLD = -3

_LARGE_MODEL = 256 << 20
"""Bytes of weights from which arithmetic outweighs page faults: the decoder of WF-VAE-L has 950
MiB, both halves of `wfvae-tiny` have 20."""


def keep_freed_memory(model_bytes: int = 0) -> None:
    """Keep what tensors free for the next ones, all but large blocks; for this process.

    Every chunk asks for the same sizes again, and memory that was given back must be faulted in
    page by page. But large blocks leave holes in the heap that others do not fit into. Beside a
    large model's arithmetic the faults take no time to speak of, so there more is given back.

    Args:
        model_bytes: of the weights of the model that will run.
    """
    if libc := _glibc():
        # 32 MiB is the most that glibc takes.
        libc.mallopt(_M_MMAP_THRESHOLD, (16 if model_bytes >= _LARGE_MODEL else 32) << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def return_freed_memory() -> None:
    """Give back what is free now: at the end of something that freed much, and will not return."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # musl
        return None
    return libc if hasattr(libc, "malloc_trim") else None  # musl behind another's name
