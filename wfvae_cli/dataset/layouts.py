"""How one clip's latents become a file: names, content, and what is there already."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from wfvae_cli.dataset import remote
from wfvae_cli.dataset.config import WEIGHTS
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.errors import LatentError
from wfvae_cli.latents.file import CHECKSUM, LatentFile, first_non_finite
from wfvae_cli.latents.header import read_header
from wfvae_cli.latents.metadata import LatentMetadata
from wfvae_cli.latents.writer import LatentWriter
from wfvae_cli.pipeline.encode import EncodeOptions

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Existing:
    """An output that is complete, and what it says of its making."""

    output: str
    options: Mapping[str, str]
    """Every option that decided its bytes, and the weights' hash."""
    source_sha256: str
    frames: int
    shape: tuple[int, ...]
    bytes: int
    data_sha256: str | None = None


@dataclass(frozen=True)
class Written:
    """A file that has been given its name."""

    output: str
    shape: tuple[int, ...]
    bytes: int
    data_sha256: str | None = None


class ClipOutput(Protocol):
    """One clip's file while it is written; left without `finish`, nothing is there."""

    @property
    def latent_frames(self) -> int:
        """Latent frames appended so far."""

    def append(self, latents: Tensor, logvar: Tensor | None) -> None:
        """Take the next `[Z, t, H', W']`."""

    def finish(self, frames: int, pts: Sequence[int] | None) -> Written:
        """Complete the file, and give it its name."""

    def close(self) -> None:
        """Let go of what is not complete."""


class Layout(Protocol):
    """A way to name and write outputs."""

    def check(self, items: Iterable[Item]) -> None:
        """Refuse items whose outputs would have one name.

        Raises:
            InputError: there are some.
        """

    def find(self, item: Item) -> Existing | None:
        """The complete output of an item; None where there is none, or a damaged one."""

    def open(self, item: Item, metadata: LatentMetadata, options: EncodeOptions) -> ClipOutput:
        """Start an item's output."""


class LatentFiles:
    """One latent file a clip, its source's name with `.safetensors` behind it."""

    def __init__(self, place: OutputStore) -> None:
        self._place = place

    def check(self, items: Iterable[Item]) -> None:
        """See `Layout`: names of items are names of files."""

    def find(self, item: Item) -> Existing | None:
        """See `Layout`."""
        name = item.relative + SUFFIX
        if self._place.url is not None:
            return _read_remote(f"{self._place.url}/{name}", name)
        return _read_local(self._place.root / name, name)

    def open(self, item: Item, metadata: LatentMetadata, options: EncodeOptions) -> ClipOutput:
        """See `Layout`."""
        return _LatentOutput(self._place, item.relative + SUFFIX, metadata, options)


class _LatentOutput:
    def __init__(
        self, place: OutputStore, name: str, metadata: LatentMetadata, options: EncodeOptions
    ) -> None:
        self._place, self._name, self._part = place, name, place.part()
        self._channels, _, self._height, self._width = metadata.latent_shape
        self._writer = LatentWriter(self._part, metadata, options.save_dtype)

    @property
    def latent_frames(self) -> int:
        return self._writer.latent_frames

    def append(self, latents: Tensor, logvar: Tensor | None) -> None:
        self._writer.append(latents, logvar)

    def finish(self, frames: int, pts: Sequence[int] | None) -> Written:
        self._writer.finish(frames, pts)
        size = self._place.publish(self._part, self._name)
        shape = (self._channels, self._writer.latent_frames, self._height, self._width)
        return Written(self._name, shape, size, self._writer.data_sha256)

    def close(self) -> None:
        self._writer.close()
        self._part.unlink(missing_ok=True)


def _read_local(path: Path, name: str) -> Existing | None:
    """What a latent file says of its making; None where it is missing or damaged."""
    try:
        with LatentFile(path) as file:
            metadata, checksum = file.metadata, file.data_sha256
        return _existing(name, metadata, path.stat().st_size, checksum)
    except (LatentError, OSError):
        return None


def _read_remote(url: str, name: str) -> Existing | None:
    """The same of a file in a store, from its header alone."""
    size = remote.size(url)
    if size is None:
        return None
    with remote.open_remote(url) as file:
        try:
            header = read_header(file, size)
            metadata = LatentMetadata.from_strings(header.metadata)
        except LatentError:
            return None
    whole = size == header.data_start + header.data_bytes
    return _existing(name, metadata, size, header.metadata.get(CHECKSUM)) if whole else None


def _existing(name: str, metadata: LatentMetadata, size: int, checksum: str | None) -> Existing:
    """A file without our options, such as one of `encode` for a single clip, differs in all."""
    return Existing(
        output=name,
        options={**parse_options(metadata.extra), WEIGHTS: metadata.model_sha256},
        source_sha256=metadata.extra.get("source_sha256", ""),
        frames=metadata.frames,
        shape=metadata.latent_shape,
        bytes=size,
        data_sha256=checksum,
    )


def parse_options(strings: Mapping[str, str]) -> dict[str, str]:
    """The options that a header records; nothing where they are missing or garbled."""
    try:
        values = json.loads(strings.get("options", "{}"))
    except (ValueError, RecursionError):
        return {}
    return {str(k): str(v) for k, v in values.items()} if isinstance(values, dict) else {}


def check_finite(latents: Tensor, first: int) -> None:
    """Refuse NaN and infinity in `[Z, t, H', W']`; `first` is the number of its first frame.

    Raises:
        LatentError: there is one.
    """
    frame = first_non_finite(latents)
    if frame is not None:
        raise LatentError(
            f"the model gave a latent that is NaN or infinite in latent frame {first + frame}: "
            "look at the input there, or compute in float32"
        )
