"""One latent file a clip, the canonical form: the source's name with `.safetensors` behind it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from wfvae_cli.dataset import remote
from wfvae_cli.dataset.config import WEIGHTS
from wfvae_cli.dataset.exporters.base import Exporter, Written
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.outputs import Existing, parse_options
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.errors import LatentError
from wfvae_cli.latents.file import CHECKSUM, LatentFile
from wfvae_cli.latents.header import read_header
from wfvae_cli.latents.metadata import LatentMetadata
from wfvae_cli.latents.writer import LatentWriter
from wfvae_cli.pipeline.encode import LatentOutput
from wfvae_cli.pipeline.options import EncodeOptions

SUFFIX = ".safetensors"


class LatentFiles(Exporter):
    """Latent files in folders that mirror the inputs'."""

    def find(self, item: Item, known: ItemResult | None = None) -> Existing | None:
        """Read the header of an item's file."""
        name = item.relative + SUFFIX
        if self.store.url is not None:
            return _read_remote(f"{self.store.url}/{name}", name)
        return _read_local(self.store.root / name, name)

    def open(
        self, item: Item, metadata: LatentMetadata, options: EncodeOptions
    ) -> LatentOutput[Written]:
        """Begin an item's file, in the hidden folder."""
        return LatentFileOutput(self.store, item.relative + SUFFIX, metadata, options)


class LatentFileOutput:
    """A latent file that gets its name once it is complete."""

    def __init__(
        self, store: OutputStore, name: str, metadata: LatentMetadata, options: EncodeOptions
    ) -> None:
        self._store, self._name, self._part = store, name, store.part()
        self._channels, _, self._height, self._width = metadata.latent_shape
        self._writer = LatentWriter(self._part, metadata, options.save_dtype)

    @property
    def latent_frames(self) -> int:
        """Latent frames appended so far."""
        return self._writer.latent_frames

    def append(self, latents: Tensor, logvar: Tensor | None) -> None:
        """Take the next latent frames."""
        self._writer.append(latents, logvar)

    def finish(
        self, frames: int, pts: Sequence[int] | None, last_duration: Fraction | None
    ) -> Written:
        """Complete the file, and give it its name."""
        self._writer.finish(frames, pts, last_duration)
        size = self._store.publish(self._part, self._name)
        shape = (self._channels, self._writer.latent_frames, self._height, self._width)
        return Written(self._name, shape, size, self._writer.data_sha256)

    def close(self) -> None:
        """Remove what is not complete."""
        self._writer.close()
        self._part.unlink(missing_ok=True)


def _read_local(path: Path, name: str) -> Existing | None:
    """Read what a latent file says of its making; None where it is missing or damaged."""
    try:
        with LatentFile(path) as file:
            metadata, checksum = file.metadata, file.data_sha256
        return _existing(name, metadata, path.stat().st_size, checksum)
    except (LatentError, OSError):
        return None


def _read_remote(url: str, name: str) -> Existing | None:
    """Read the same of a file in a store, from its header alone."""
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
        kept={"bucket": metadata.extra.get("bucket")},
    )
