"""Caches of one `torch.save` file a clip: those of the LTX-2 trainer and of SimpleTuner."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod

import torch
from torch import Tensor
from typing_extensions import override

from wfvae_cli.atomic import atomic_file
from wfvae_cli.dataset.config import WEIGHTS
from wfvae_cli.dataset.exporters.base import Exporter, Written
from wfvae_cli.dataset.exporters.content import check_content, stem_of
from wfvae_cli.dataset.exporters.pt_file import is_sound, read_strings, save_object
from wfvae_cli.dataset.exporters.spooled import SpooledOutput
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.outputs import Existing, parse_options
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.errors import InputError, LatentError, UsageError
from wfvae_cli.latents.metadata import LatentMetadata
from wfvae_cli.pipeline.encode import LatentOutput
from wfvae_cli.pipeline.options import EncodeOptions


class PtCache(Exporter):
    """Files of `torch.save`, in folders that mirror the inputs'."""

    @abstractmethod
    def name_of(self, item: Item) -> str:
        """Return the file of an item, relative to the output folder."""

    def stem_of(self, item: Item) -> str:
        """Return an item's name without suffix, by which the trainer looks for its file.

        The only window of a clip has the clip's name, so that the trainer finds it; each of
        several has its frames at the end of its name.
        """
        windows = self.how.windows_of(item)
        if item.window is None or (windows is not None and windows.is_single):
            return stem_of(item)
        return f"{stem_of(item)}_{item.window}"

    @abstractmethod
    def content(self, latents: Tensor, metadata: LatentMetadata) -> object:
        """Return the object that the trainer loads, of bfloat16 latents `[Z, T', H', W']`."""

    @override
    def check(self, items: Iterable[Item]) -> None:
        """Refuse stores that are no file system, and items whose files would have one name."""
        items = list(items)
        super().check(items)
        form = self.how.format
        if self.store.url is not None:
            raise UsageError(
                f"{self.store.url}: the format {form} is written to a file system: mount the "
                "store, or write to a folder and copy it"
            )
        seen: dict[str, Item] = {}
        for item in items:
            other = seen.setdefault(self.name_of(item), item)
            if other != item:
                raise InputError(
                    f"{item.path} and {other.path} would both be {stem_of(item)!r} in the format "
                    f"{form}, which knows neither suffixes nor parts of a file: rename one, or "
                    "give them ids in a manifest"
                )

    @override
    def find(self, item: Item, known: ItemResult | None = None) -> Existing | None:
        """Read the strings at the end of an item's file."""
        name = self.name_of(item)
        path = self.store.root / name
        strings = read_strings(path)
        if strings is None:
            return None
        try:
            metadata = LatentMetadata.from_strings(strings)
        except LatentError:
            return None
        made_of, window = metadata.extra.get("item", ""), metadata.extra.get("window")
        clip = made_of if window is None else made_of.removesuffix(f"_{window}")
        is_window = item.window is None and clip != made_of
        if item.relative != (clip if is_window else made_of):
            return None
        return Existing(
            output=name,
            options={**parse_options(metadata.extra), WEIGHTS: metadata.model_sha256},
            source_sha256=metadata.extra.get("source_sha256", ""),
            frames=metadata.frames,
            shape=metadata.latent_shape,
            bytes=path.stat().st_size,
            kept={"bucket": metadata.extra.get("bucket")},
            is_window=is_window,
        )

    @override
    def is_intact(self, output: ItemResult | Existing) -> bool:
        """Compare the data of a file with the checksums that its ZIP archive has."""
        assert output.output is not None, "only what is done has an output"
        return is_sound(self.store.root / output.output)

    @override
    def open(
        self, item: Item, metadata: LatentMetadata, options: EncodeOptions
    ) -> LatentOutput[Written]:
        """Begin an item's file."""
        check_content(self.how.format, metadata)
        return _PtOutput(self, item, metadata)


class _PtOutput(SpooledOutput):
    def __init__(self, exporter: PtCache, item: Item, metadata: LatentMetadata) -> None:
        named = replace(metadata, extra={**metadata.extra, "item": item.relative})
        super().__init__(exporter.store, named, ".pt")
        self._exporter, self._item = exporter, item

    def finish(
        self, frames: int, pts: Sequence[int] | None, last_duration: Fraction | None
    ) -> Written:
        del pts, last_duration  # the trainers count frames
        padded = self._metadata.strides.padded_frames(frames)
        metadata = replace(self._metadata, frames=frames, pad_frames=padded - frames)
        shape = self._shape
        planes = self._part.with_suffix(".planes")
        try:
            with planes.open("wb") as target:
                self._spool.copy_to(target)
            # Mapped, so that a long clip need not fit into memory.
            latents = torch.from_file(
                os.fspath(planes), shared=False, size=prod(shape), dtype=torch.bfloat16
            ).view(shape)
            value = self._exporter.content(latents, metadata)
            with atomic_file(self._part) as file:
                save_object(value, file, metadata.to_strings())
        finally:
            planes.unlink(missing_ok=True)
        name = self._exporter.name_of(self._item)
        return Written(name, shape, self._exporter.store.publish(self._part, name))
