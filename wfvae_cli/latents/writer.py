"""Write a latent file chunk by chunk, in memory that does not grow with the clip."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wfvae_cli.atomic import atomic_file, check_output, reported
from wfvae_cli.errors import LatentError
from wfvae_cli.latents.file import CHECKSUM, first_non_finite
from wfvae_cli.latents.header import SAFETENSORS_DTYPES, LatentDtype, encode_header
from wfvae_cli.latents.metadata import LatentMetadata
from wfvae_cli.latents.raw import Digest, Writable, write_all
from wfvae_cli.latents.spool import PlaneSpool


class LatentWriter:
    """Writes one clip's latents; nothing appears under the file's name before `finish`.

    Leaving the context without `finish`, or with an exception, leaves no file.

    Example:
        with LatentWriter(path, metadata) as writer:
            for latents in chunks:
                writer.append(latents)
            writer.finish(frames)

    Args:
        target: a path, or a binary stream such as stdout's, which need not be seekable.
        metadata: what is known of the clip; `finish` fills in `frames`, `pad_frames`
            and `last_duration`.
        dtype: type that latents are stored in.
        overwrite: whether `target` may exist.

    Raises:
        OutputError: the file exists, or its directory is missing or not writable.
    """

    def __init__(
        self,
        target: str | os.PathLike[str] | BinaryIO,
        metadata: LatentMetadata,
        dtype: LatentDtype = "float32",
        *,
        overwrite: bool = False,
    ) -> None:
        self._target = Path(target) if isinstance(target, (str, os.PathLike)) else target
        directory = None
        if isinstance(self._target, Path):
            check_output(self._target, overwrite=overwrite)
            # beside the target, whose disk must have the room anyway; not in /dev, for /dev/stdout
            if self._target.is_file() or not self._target.exists():
                directory = Path(os.path.realpath(self._target)).parent
        self._metadata = metadata
        self._dtype: LatentDtype = dtype
        self._storage: torch.dtype = getattr(torch, dtype)
        self._overwrite = overwrite
        channels, _, height, width = metadata.latent_shape
        planes = 2 * channels if metadata.posterior == "moments" else channels
        self._spool = PlaneSpool(planes, height, width, self._storage, directory)
        self.data_sha256: str | None = None
        """SHA-256 of the file's data, as its header has it; None before `finish`."""

    def __enter__(self) -> LatentWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def latent_frames(self) -> int:
        """Latent frames appended so far."""
        return self._spool.frames

    def append(self, latents: Tensor, logvar: Tensor | None = None) -> None:
        """Take the next latent frames.

        Args:
            latents: `[Z, t, H', W']`, floating point, on any device.
            logvar: alike, exactly where the metadata's posterior is `moments`.

        Raises:
            LatentError: a value is NaN, infinite, or too large for the stored dtype.
            OutputError: no room for the temporary file.
        """
        if (logvar is not None) != (self._metadata.posterior == "moments"):
            raise ValueError(
                "log-variance must come with the latents exactly where the posterior is 'moments', "
                f"and this one is {self._metadata.posterior!r}"
            )
        stored = self._convert(latents, "latent")
        if logvar is not None:
            stored = torch.cat((stored, self._convert(logvar, "log-variance")))
        self._spool.append(stored)

    def _convert(self, values: Tensor, what: str) -> Tensor:
        channels, _, height, width = self._metadata.latent_shape
        if values.dim() != 4 or (values.size(0), *values.shape[2:]) != (channels, height, width):
            raise ValueError(
                f"expected {what}s of shape [{channels}, t, {height}, {width}], "
                f"got {list(values.shape)}"
            )
        stored = values.detach().to("cpu", self._storage)
        frame = first_non_finite(stored)
        if frame is not None:
            position = self.latent_frames + frame
            if values[:, frame].isfinite().all():
                raise LatentError(
                    f"a {what} of {values[:, frame].abs().max():g} in latent frame {position} is "
                    f"beyond the range of {self._dtype}: store bfloat16 or float32"
                )
            raise LatentError(
                f"the model gave a {what} that is NaN or infinite in latent frame {position}: look "
                "at the input there, or compute in float32"
            )
        return stored

    def finish(
        self,
        frames: int,
        pts: Sequence[int] | NDArray[np.int64] | None = None,
        last_duration: Fraction | None = None,
    ) -> None:
        """Write the file: whole, or not at all.

        Args:
            frames: frames of the clip before padding.
            pts: with a variable frame rate, each frame's time in units of `time_base`.
            last_duration: seconds that the last frame is shown, where that is not usual.

        Raises:
            LatentError: `pts` do not increase.
            OutputError: the file cannot be written.
        """
        strides = self._metadata.strides
        if frames < 1 or strides.latent_frames(frames) != self.latent_frames:
            raise ValueError(
                f"{frames} frames at temporal stride {strides.time} do not make the "
                f"{self.latent_frames} latent frames that were appended"
            )
        metadata = replace(
            self._metadata,
            frames=frames,
            pad_frames=strides.padded_frames(frames) - frames,
            last_duration=last_duration,
        )
        times = None if pts is None else _checked_pts(pts, frames).astype("<i8")
        checksum = self._checksum(times)
        header = self._header(metadata, checksum, has_pts=times is not None)
        if isinstance(self._target, Path):
            with atomic_file(self._target, overwrite=self._overwrite) as file:
                write_all(file, header)
                self._write_data(file, times)
        else:
            with reported(getattr(self._target, "name", "the latents")):
                write_all(self._target, header)
                self._write_data(self._target, times)
                self._target.flush()
        self.data_sha256 = checksum

    def _checksum(self, pts: NDArray[np.int64] | None) -> str:
        # The header comes first and holds it, and a pipe cannot be written backwards: the data
        # are gone through twice, the second time from the page cache where they were spooled.
        digest = Digest()
        self._write_data(digest, pts)
        return digest.hexdigest()

    def _header(self, metadata: LatentMetadata, checksum: str, *, has_pts: bool) -> bytes:
        dtype, shape = SAFETENSORS_DTYPES[self._dtype], metadata.latent_shape
        names = ["latents", "logvar"] if metadata.posterior == "moments" else ["latents"]
        # int64 first, so that it stays aligned behind the header
        tensors = [("pts", "I64", (metadata.frames,))] if has_pts else []
        return encode_header(
            tensors + [(name, dtype, shape) for name in names],
            {**metadata.to_strings(), CHECKSUM: checksum},
        )

    def _write_data(self, file: Writable, pts: NDArray[np.int64] | None) -> None:
        if pts is not None:
            write_all(file, pts.tobytes())
        self._spool.copy_to(file)

    def close(self) -> None:
        """Remove the temporary file; without `finish` before it, nothing is written."""
        self._spool.close()


def _checked_pts(pts: Sequence[int] | NDArray[np.int64], frames: int) -> NDArray[np.int64]:
    times = np.asarray(pts, dtype=np.int64)
    if times.shape != (frames,):
        raise ValueError(f"expected one time for each of {frames} frames, got {list(times.shape)}")
    if (np.diff(times) <= 0).any():
        frame = int(np.argmax(np.diff(times) <= 0)) + 1
        raise LatentError(
            f"frame {frame} is shown at {times[frame]}, not after the one before it at "
            f"{times[frame - 1]}: timestamps must increase"
        )
    return times
