"""What is freed goes back to the system, or stays, as asked."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, psutil
from wfvae_cli.heap import keep_freed_memory, return_freed_memory

libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
resident = lambda: psutil.Process().memory_info().rss / 2**20

def use(size, count):
    blocks = [libc.malloc(size << 20) for _ in range(count)]
    for block in blocks:
        ctypes.memset(block, 1, size << 20)
    for block in blocks:
        libc.free(ctypes.c_void_p(block))

keep_freed_memory()
before = resident()
use(4, 25)
print(resident() - before)
return_freed_memory()
print(resident() - before)
use(40, 3)
print(resident() - before)
keep_freed_memory(model_bytes=2**30)
use(20, 5)
print(resident() - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="no other C library is told what to keep"
)
def test_small_blocks_are_kept_until_they_are_returned_and_large_ones_are_not() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    kept, returned, large, beside_a_large_model = map(float, done.stdout.split())
    assert kept > 90, "25 blocks of 4 MiB"
    assert returned < 10
    assert large < 10
    assert beside_a_large_model < 10
