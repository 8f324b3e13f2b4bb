"""Read a latent file: its header when it is opened, its latents slice by slice."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, BinaryIO

from wfvae_cli.errors import InputError, LatentError, OutputError
from wfvae_cli.latents.header import (
    SAFETENSORS_DTYPES,
    Header,
    LatentDtype,
    TensorEntry,
    read_header,
)
from wfvae_cli.latents.metadata import SCHEMA, LatentMetadata
from wfvae_cli.latents.raw import read_into, temporary_errors, temporary_file, write_all
from wfvae_cli.unreadable import why_unreadable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

_COPY_BYTES = 1 << 20
_MOST_TIMESTAMPS = 1 << 24
"""Maximum frames of a clip of variable rate, six days at 30 fps: its times are kept in memory."""
CHECKSUM = "data_sha256"
"""The header's string that holds the SHA-256 of everything behind the header."""
_DTYPES: dict[str, LatentDtype] = {short: name for name, short in SAFETENSORS_DTYPES.items()}


class LatentFile:
    """An open latent file: checked in full when opened, except for its numbers.

    Opening reads the header only and loads neither torch nor numpy. Reading goes through one file
    position: threads and forked processes each open their own.

    Example:
        with LatentFile("z.safetensors") as file:
            print(file.metadata.frames, file.shape)
            first = file.read(0, 1)

    Args:
        source: a path; or a binary stream such as stdin's, which is copied to a temporary file.

    Raises:
        LatentError: the file is missing, damaged, not a latent file, or of another version.
        OutputError: no room to copy a stream.
    """

    name: str
    """Name in messages: the path, or the stream's name."""
    metadata: LatentMetadata
    _header: Header
    _file: io.FileIO
    _data_start: int

    def __init__(self, source: str | os.PathLike[str] | BinaryIO) -> None:
        if isinstance(source, (str, os.PathLike)):
            self.name = os.fspath(source)
            with _named(self.name):
                self._open(Path(source))
        else:
            self.name = str(getattr(source, "name", "stream"))
            with _named(self.name):
                self._open_stream(source)

    def _open(self, path: Path) -> None:
        with contextlib.ExitStack() as unless_kept:
            file = unless_kept.enter_context(path.open("rb", buffering=0))
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):  # a pipe by name, such as the shell's <(...)
                self._open_stream(file)
                return
            self._header = _read_header(file, status.st_size)
            self.metadata = _check_layout(self._header)
            with _remedied():
                self._header.check_size(status.st_size)
            self._file, self._data_start = file, self._header.data_start
            unless_kept.pop_all()

    def _open_stream(self, stream: IO[bytes]) -> None:
        self._header = _read_header(stream, None)
        self.metadata = _check_layout(self._header)
        self._file, self._data_start = _spool(stream, self._header), 0

    def __enter__(self) -> LatentFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`[Z, T', H', W']` of the latents."""
        return self.metadata.latent_shape

    @property
    def latent_frames(self) -> int:
        """T', the number of latent frames."""
        return self.shape[1]

    @property
    def dtype(self) -> LatentDtype:
        """Type that the latents are stored in."""
        return _DTYPES[self._header.tensors["latents"].dtype]

    @property
    def has_pts(self) -> bool:
        """True where the frames have timestamps of their own: the rate is variable."""
        return "pts" in self._header.tensors

    @property
    def data_sha256(self) -> str | None:
        """SHA-256 of the data as they were written; None where an older wfvae wrote the file."""
        return self._header.metadata.get(CHECKSUM)

    def verify(self) -> bool:
        """Compare the data with the checksum in the header; reads the whole file.

        Returns:
            Whether there is a checksum to compare with: older files have none.

        Raises:
            LatentError: the data are not those that were written.
        """
        expected = self.data_sha256
        if expected is None:
            return False
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(min(_COPY_BYTES, self._header.data_bytes)))
        for offset in range(0, self._header.data_bytes, _COPY_BYTES):
            piece = buffer[: self._header.data_bytes - offset]
            self._read_into(piece, offset)
            digest.update(piece)
        if digest.hexdigest() != expected:
            raise LatentError(
                f"{self.name}: its data differ from the checksum in its header: the file is "
                "damaged; copy it or encode the source again"
            )
        return True

    @property
    def has_logvar(self) -> bool:
        """True where the posterior's log-variance is stored beside its mean."""
        return "logvar" in self._header.tensors

    def read(self, start: int = 0, stop: int | None = None, *, check_finite: bool = True) -> Tensor:
        """Read latent frames `start` to `stop` (exclusive; the end where None).

        Returns:
            `[Z, stop - start, H', W']` on the CPU, in the stored dtype.

        Raises:
            LatentError: the file got shorter, or `check_finite` and a value is NaN or infinite.
        """
        return self._read("latents", start, stop, check_finite)

    def read_logvar(
        self, start: int = 0, stop: int | None = None, *, check_finite: bool = True
    ) -> Tensor:
        """Read the log-variance of latent frames, as `read` does the mean.

        Raises:
            LatentError: as `read`, or the file holds none.
        """
        if not self.has_logvar:
            raise LatentError(
                f"{self.name}: holds the posterior's {self.metadata.posterior} without its "
                "log-variance; encode the source with --posterior moments"
            )
        return self._read("logvar", start, stop, check_finite)

    def chunks(self, size: int, *, check_finite: bool = True) -> Iterator[Tensor]:
        """Read the latents from front to back, `size` latent frames at a time, the last fewer."""
        if size < 1:
            raise ValueError(f"expected chunks of at least 1 latent frame, got {size}")
        for start in range(0, self.latent_frames, size):
            stop = min(start + size, self.latent_frames)
            yield self.read(start, stop, check_finite=check_finite)

    @functools.cached_property
    def pts(self) -> NDArray[np.int64] | None:
        """Time of each frame in units of the metadata's `time_base`; None at a constant rate.

        Read at first use, 8 bytes a frame; the array is read-only.

        Raises:
            LatentError: times that do not increase.
        """
        import numpy as np

        entry = self._header.tensors.get("pts")
        if entry is None:
            return None
        times = np.empty(entry.shape, dtype="<i8")
        self._read_into(times.data.cast("B"), entry.begin)
        if (times[1:] <= times[:-1]).any():
            raise LatentError(
                f"{self.name}: its timestamps (pts) do not increase: the file is damaged"
            )
        result = times.astype(np.int64, copy=False)
        result.setflags(write=False)
        return result

    def _read(self, name: str, start: int, stop: int | None, check_finite: bool) -> Tensor:
        import torch

        channels, total, height, width = self.shape
        stop = total if stop is None else stop
        if not 0 <= start < stop <= total:
            raise ValueError(
                f"expected latent frames within 0 to {total}, got {start} to {stop} of {self.name}"
            )
        storage: torch.dtype = getattr(torch, self.dtype)
        result = torch.empty((channels, stop - start, height, width), dtype=storage)
        flat = result.view(torch.uint8).view(channels, -1).numpy()
        begin = self._header.tensors[name].begin
        frame_bytes = height * width * storage.itemsize
        for channel in range(channels):
            self._read_into(flat[channel].data, begin + (channel * total + start) * frame_bytes)
        if check_finite:
            self._check_finite(name, result, start)
        return result

    def _check_finite(self, name: str, values: Tensor, start: int) -> None:
        frame = first_non_finite(values)
        if frame is not None:
            raise LatentError(
                f"{self.name}: its {name} hold a NaN or an infinity in latent frame "
                f"{start + frame} of {self.latent_frames}: encode the source again"
            )

    def _read_into(self, target: memoryview, offset: int) -> None:
        """Fill `target` from `offset` of the data."""
        with _named(self.name):
            try:
                read_into(self._file, self._data_start + offset, target)
            except EOFError as error:
                raise LatentError(
                    f"became shorter while it was read ({error}); encode the source again"
                ) from None


def is_latent_file(path: str | os.PathLike[str]) -> bool:
    """Tell by its header if a file is a latent file of any schema version, complete or not."""
    try:
        with Path(path).open("rb", buffering=0) as file:
            header = read_header(file, os.fstat(file.fileno()).st_size)
    except OSError:
        return False
    return header.metadata.get("schema") == SCHEMA


def first_non_finite(latents: Tensor) -> int | None:
    """The first latent frame of CTHW `latents` that holds a NaN or an infinity."""
    finite = latents.isfinite()
    if finite.all():
        return None
    return int((~finite).nonzero()[:, 1].min())


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Make every failure to read an input a LatentError that starts with its name."""
    try:
        yield
    except LatentError as error:
        raise LatentError(f"{name}: {error}") from None
    except (InputError, OutputError):  # of a standard stream, which says what it is
        raise
    except OSError as error:
        why = why_unreadable(name, "a latent file, as wfvae encode writes it", error)
        raise LatentError(f"{name}: {why}") from error


@contextlib.contextmanager
def _remedied() -> Iterator[None]:
    """Add what to do to an error that says what is wrong with a header."""
    try:
        yield
    except LatentError as error:
        raise LatentError(f"{error}; give a whole file that wfvae encode wrote") from None


def _read_header(stream: IO[bytes], file_bytes: int | None) -> Header:
    with _remedied():
        return read_header(stream, file_bytes)


def _check_layout(header: Header) -> LatentMetadata:
    """Check that the tensors are those that the metadata describes."""
    if header.metadata.get("schema") != SCHEMA:
        raise LatentError(
            "expected latents written by wfvae, got a safetensors file without their metadata, "
            f"that holds the tensors: {header.describe_tensors()}"
        )
    metadata = LatentMetadata.from_strings(header.metadata)
    latents = _tensor(header, "latents", metadata.latent_shape, tuple(_DTYPES))
    if metadata.posterior == "moments":
        _tensor(header, "logvar", latents.shape, (latents.dtype,))
    elif "logvar" in header.tensors:
        raise LatentError(
            f"holds the tensor 'logvar', but its metadata says posterior {metadata.posterior!r} "
            "and not 'moments': the file is damaged"
        )
    if "pts" in header.tensors:
        _tensor(header, "pts", (metadata.frames,), ("I64",))
        if metadata.frames > _MOST_TIMESTAMPS:
            raise LatentError(
                f"holds timestamps of {metadata.frames} frames, and at most {_MOST_TIMESTAMPS} "
                "are read: encode the source in parts, or at a constant rate (--fps)"
            )
    return metadata


def _tensor(
    header: Header, name: str, shape: tuple[int, ...], dtypes: tuple[str, ...]
) -> TensorEntry:
    entry = header.tensors.get(name)
    if entry is None:
        raise LatentError(f"lacks the tensor {name!r}, it holds: {header.describe_tensors()}")
    if entry.shape != shape or entry.dtype not in dtypes:
        raise LatentError(
            f"by its metadata, {name!r} should be {list(shape)} in {' or '.join(dtypes)}, but it "
            f"is {list(entry.shape[:8])} in {entry.dtype[:16]!r}: the file is damaged"
        )
    return entry


def _spool(stream: IO[bytes], header: Header) -> io.FileIO:
    """Copy a stream's data to a temporary file, and see that it ends where it should."""
    missing = header.data_bytes
    file = temporary_file(None)
    try:
        while piece := stream.read(min(_COPY_BYTES, missing + 1)):
            missing -= len(piece)
            if missing < 0:
                raise LatentError(
                    f"its header describes {header.data_bytes} bytes of data, and more follow: "
                    "something was appended to it, or it is damaged"
                )
            with temporary_errors(None):
                write_all(file, piece)
        if missing:
            raise LatentError(
                f"ended {missing} bytes before the {header.data_bytes} bytes of data that its "
                "header describes: what writes it failed, or it is truncated"
            )
    except BaseException:
        file.close()
        raise
    return file
