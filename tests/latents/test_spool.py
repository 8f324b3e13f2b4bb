from __future__ import annotations

import io
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wfvae_cli.errors import OutputError
from wfvae_cli.latents.spool import PlaneSpool


@given(
    st.lists(st.integers(0, 7), max_size=8),
    st.integers(1, 4),
    st.integers(1, 600),
    st.sampled_from((torch.float32, torch.float16, torch.bfloat16)),
)
@settings(deadline=None, max_examples=100)
def test_any_chunks_and_block_come_out_transposed(
    counts: list[int], planes: int, block_bytes: int, dtype: torch.dtype
) -> None:
    whole = torch.randn(planes, sum(counts), 2, 3).to(dtype)
    spool = PlaneSpool(planes, 2, 3, dtype, None, block_bytes)
    for chunk in torch.split(whole, counts, dim=1):
        spool.append(chunk)
    assert spool.frames == sum(counts)
    first, second = io.BytesIO(), io.BytesIO()
    spool.copy_to(first)
    spool.copy_to(second)
    spool.close()
    assert first.getvalue() == whole.contiguous().view(torch.uint8).numpy().tobytes()
    assert second.getvalue() == first.getvalue()


def test_short_clips_never_touch_the_disk(tmp_path: Path) -> None:
    spool = PlaneSpool(4, 8, 8, torch.float32, tmp_path / "missing")
    spool.append(torch.zeros(4, 100, 8, 8))
    spool.copy_to(io.BytesIO())


def test_the_temporary_file_has_no_name_and_its_directory_is_reported(tmp_path: Path) -> None:
    spool = PlaneSpool(1, 1, 1, torch.float32, tmp_path, block_bytes=4)
    spool.append(torch.zeros(1, 3, 1, 1))
    assert list(tmp_path.iterdir()) == []
    missing = PlaneSpool(1, 1, 1, torch.float32, tmp_path / "missing", block_bytes=4)
    with pytest.raises(OutputError, match=r"temporary file for latents in .*missing"):
        missing.append(torch.zeros(1, 3, 1, 1))


def test_a_full_disk_is_an_output_error(tmp_path: Path) -> None:
    spool = PlaneSpool(1, 64, 64, torch.float32, tmp_path, block_bytes=1 << 14)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 15, limits[1]))
    try:
        with pytest.raises(OutputError, match="temporary file for latents") as caught:
            spool.append(torch.zeros(1, 10, 64, 64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(tmp_path) in str(caught.value)


MEASURE = """
import resource, sys, torch
from pathlib import Path
from wfvae_cli.latents.spool import PlaneSpool

def write(chunks):
    spool = PlaneSpool(16, 32, 32, torch.float32, Path(sys.argv[1]))
    for _ in range(chunks):
        spool.append(torch.zeros(16, 16, 32, 32))
    with open("/dev/null", "wb") as target:
        spool.copy_to(target)
    spool.close()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

print(write(16), write(160))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    short, long = map(int, done.stdout.split())
    # 160 chunks are 160 MiB; the short clip of 16 MiB already needs the spool
    assert long - short < 4 << 10, f"{short} KiB for 16 chunks, {long} KiB for 160"
