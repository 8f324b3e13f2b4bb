"""Turn chunks that arrive frame by frame into planes that lie one after another.

A model gives latents in time order, all channels of a chunk at once; the file wants channel after
channel, each over the whole clip. The transposition goes through one block of fixed size: a full
block is written to an anonymous temporary file with its planes apart, so that copying a plane out
reads one long run per block. A clip that fits in one block never touches the disk.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor

from wfvae_cli.latents.raw import (
    Writable,
    read_into,
    temporary_errors,
    temporary_file,
    write_all,
)

BLOCK_BYTES = 8 << 20
"""Bytes that a spool holds in memory; one frame of all planes where that is more."""


class PlaneSpool:
    """Collects PTHW chunks of a clip and writes them out as one contiguous PTHW array.

    Memory: one block, and while copying out one plane of a block, whatever the clip's length.

    Args:
        planes: P of every chunk.
        height: H of every chunk.
        width: W of every chunk.
        dtype: of every chunk.
        directory: where the temporary file goes if one is needed: best on the disk that has to
            hold the result anyway; None for the system's temporary directory.
        block_bytes: memory of a block.
    """

    def __init__(
        self,
        planes: int,
        height: int,
        width: int,
        dtype: torch.dtype,
        directory: Path | None,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        frame_bytes = planes * height * width * dtype.itemsize
        shape = (planes, max(1, block_bytes // frame_bytes), height, width)
        self._block = torch.empty(shape, dtype=dtype)
        self._filled = 0
        self._spooled_blocks = 0
        self._directory = directory
        self._file: io.FileIO | None = None

    @property
    def frames(self) -> int:
        """Frames appended so far."""
        return self._spooled_blocks * self._block.size(1) + self._filled

    def append(self, chunk: Tensor) -> None:
        """Take the next frames: PTHW on the CPU, of any T.

        Raises:
            OutputError: the temporary file cannot be written.
        """
        while chunk.size(1):
            if self._filled == self._block.size(1):
                self._spool_block()
            count = min(self._block.size(1) - self._filled, chunk.size(1))
            self._block[:, self._filled : self._filled + count] = chunk[:, :count]
            self._filled += count
            chunk = chunk[:, count:]

    def copy_to(self, target: Writable) -> None:
        """Write everything appended as one PTHW array, from front to back; may be repeated.

        Raises:
            OutputError: the temporary file cannot be read back.
            OSError: what `target` raises.
        """
        planes = self._block.size(0)
        run = memoryview(bytearray(_bytes_of(self._block[0]).nbytes if self._file else 0))
        for plane in range(planes):
            for block in range(self._spooled_blocks):
                self._read_run(run, (block * planes + plane) * len(run))
                write_all(target, run)
            if self._filled:
                write_all(target, _bytes_of(self._block[plane, : self._filled]))

    def close(self) -> None:
        """Remove the temporary file."""
        if self._file is not None:
            self._file.close()

    def _spool_block(self) -> None:
        if self._file is None:
            self._file = temporary_file(self._directory)
        with temporary_errors(self._directory):
            write_all(self._file, _bytes_of(self._block))
        self._spooled_blocks += 1
        self._filled = 0

    def _read_run(self, run: memoryview, position: int) -> None:
        assert self._file is not None
        with temporary_errors(self._directory):
            read_into(self._file, position, run)


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor of any dtype."""
    return tensor.view(torch.uint8).numpy().data.cast("B")
