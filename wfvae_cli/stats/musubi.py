"""Latents in the cache files of musubi-tuner (https://github.com/kohya-ss/musubi-tuner).

A file holds one tensor `latents_{F}x{H}x{W}_{dtype}`, the normalised mean of the posterior. It
names no model: whose latents these are, and how they were normalised, has to be told.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
from typing import TYPE_CHECKING

from wfvae_cli.errors import LatentError
from wfvae_cli.latents.header import ITEM_BYTES, SAFETENSORS_DTYPES, Header, read_header
from wfvae_cli.latents.raw import read_into
from wfvae_cli.unreadable import why_unreadable

if TYPE_CHECKING:
    from torch import Tensor

    from wfvae_cli.stats.report import ExpectedModel

_NAME = re.compile(r"latents_\d+x\d+x\d+_\w+")
_DTYPES = {short: name for name, short in SAFETENSORS_DTYPES.items()}
_OURS = "wfvae_"
"""Before the keys of the metadata that `wfvae encode` adds."""


def is_musubi(path: str) -> bool:
    """Tell whether a file is such a cache, by its header; False where it has none."""
    try:
        header = _header(path)
    except (LatentError, OSError):
        return False
    return "schema" not in header.metadata and any(map(_NAME.fullmatch, header.tensors))


class MusubiCache:
    """An open cache file; a context.

    Args:
        path: the file.
        expected: the model that made it.

    Raises:
        LatentError: it is damaged, of another model, or nobody says of which.
    """

    has_logvar = False

    def __init__(self, path: str, expected: ExpectedModel | None) -> None:
        self._path = path
        try:
            header = _header(path)
            self._file = io.FileIO(path)
        except OSError as error:
            why = why_unreadable(path, "a cache file of musubi-tuner", error)
            raise LatentError(f"{path}: {why}") from error
        try:
            self._read_header(header, expected)
        except BaseException:
            self._file.close()
            raise

    def _read_header(self, header: Header, expected: ExpectedModel | None) -> None:
        name = next(filter(_NAME.fullmatch, header.tensors))
        entry = header.tensors[name]
        if len(entry.shape) != 4 or entry.dtype not in _DTYPES or not math.prod(entry.shape):
            raise LatentError(
                f"{self._path}: expected {name!r} to be [C, F, H, W] of float32, float16 or "
                f"bfloat16, got {list(entry.shape)} of {entry.dtype}"
            )
        if os.fstat(self._file.fileno()).st_size < header.data_start + header.data_bytes:
            raise LatentError(f"{self._path}: truncated; copy it or make the cache again")
        channels, frames, height, width = entry.shape
        self.shape = channels, frames, height, width
        self._dtype, self._begin = entry.dtype, header.data_start + entry.begin
        if expected is None:
            raise LatentError(
                f"{self._path}: a cache of musubi-tuner does not say which model made it: name it "
                "with --model"
            )
        if expected.normalization is None:
            raise LatentError(
                f"{self._path}: its latents are normalised, and the config of "
                f"{expected.identity.name} does not say by what"
            )
        ours = {key: text for key, text in header.metadata.items() if key.startswith(_OURS)}
        options = json.loads(ours.get(f"{_OURS}options", "{}"))
        if options.get("normalization", "config") != "config":
            raise LatentError(
                f"{self._path}: normalised by {options['normalization']}, which is not at hand: "
                "take the statistics of latent files, or of the videos"
            )
        sha256 = ours.get(f"{_OURS}model_sha256", expected.identity.sha256)
        if sha256 != expected.identity.sha256:
            raise LatentError(
                f"{self._path}: made by the weights {sha256[:12]}, where {expected.identity.name} "
                f"has {expected.identity.sha256[:12]}: name the model that made it with --model"
            )
        if channels != len(expected.normalization.shift):
            raise LatentError(
                f"{self._path}: has {channels} channels, where {expected.identity.name} makes "
                f"{len(expected.normalization.shift)}"
            )
        self.applied, self.model = expected.normalization, expected.identity
        self.strides = expected.strides
        self.compute_dtype = str(options.get("compute_dtype", "unknown"))

    def __enter__(self) -> MusubiCache:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def read(self, start: int, stop: int, *, check_finite: bool) -> Tensor:
        """Read latent frames `start` to `stop` (exclusive), `[C, stop - start, H, W]`."""
        import torch

        channels, total, height, width = self.shape
        result = torch.empty(
            (channels, stop - start, height, width), dtype=getattr(torch, _DTYPES[self._dtype])
        )
        flat = result.view(torch.uint8).view(channels, -1).numpy()
        size = height * width * ITEM_BYTES[self._dtype]
        for channel in range(channels):
            try:
                offset = self._begin + (channel * total + start) * size
                read_into(self._file, offset, flat[channel].data)
            except (OSError, EOFError) as error:
                raise LatentError(f"{self._path}: cannot be read: {error}") from error
        return result

    def read_logvar(self, start: int, stop: int, *, check_finite: bool) -> Tensor:
        """Never called: there is none."""
        raise NotImplementedError


def _header(path: str) -> Header:
    with io.FileIO(path) as file:
        return read_header(file, os.fstat(file.fileno()).st_size)
