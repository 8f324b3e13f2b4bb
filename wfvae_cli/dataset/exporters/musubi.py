"""The latent cache of musubi-tuner (https://github.com/kohya-ss/musubi-tuner).

A video's file is `{name}_{position:05d}-{count:03d}_{W:04d}x{H:04d}_{arch}.safetensors`, an image's
the same without position and count. `W` and `H` are the pixels of the source, before scaling: the
trainer picks the bucket by them. It holds one tensor `latents_{F}x{H}x{W}_bfloat16`,
`[C, F, H, W]`: the normalised posterior mean for `wan` and `qi`, the mean as it is for `hv15`. The
trainer finds the name by splitting at underscores from the right, in one folder without folders.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from typing_extensions import override

from wfvae_cli.atomic import atomic_file
from wfvae_cli.dataset.config import WEIGHTS, EncodeConfig
from wfvae_cli.dataset.exporters.base import Exporter, Written
from wfvae_cli.dataset.exporters.content import check_content, stem_of
from wfvae_cli.dataset.exporters.spooled import SpooledOutput
from wfvae_cli.dataset.items import SUFFIXES, Item
from wfvae_cli.dataset.outputs import Existing, parse_options
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.dataset.windows import Window
from wfvae_cli.errors import InputError, LatentError, UsageError
from wfvae_cli.latents.file import CHECKSUM
from wfvae_cli.latents.header import encode_header, read_header
from wfvae_cli.latents.metadata import LatentMetadata
from wfvae_cli.latents.raw import Digest, write_all
from wfvae_cli.latents.strings import clean_text
from wfvae_cli.pipeline.encode import SOURCE_SIZE, LatentOutput
from wfvae_cli.pipeline.options import EncodeOptions

_log = logging.getLogger("wfvae")


class Architecture(NamedTuple):
    """Names that the trainer has for a model."""

    short: str
    """Name in file names."""
    full: str
    """Name in the files' metadata."""


ARCHITECTURES: Mapping[str, Architecture] = {
    "wan": Architecture("wan", "wan"),
    "qwenimage": Architecture("qi", "qwen_image"),
    "hunyuanvideo15": Architecture("hv15", "hunyuan_video_1_5"),
}
"""Architectures by the family of models here."""
_FORMAT_VERSION = "1.0.1"
_SUFFIX = ".safetensors"
_OURS = "wfvae_"
"""Prefix of metadata keys that musubi-tuner does not know."""


class MusubiFiles(Exporter):
    """Cache files in one folder, the `cache_directory` of a dataset."""

    def __init__(self, store: OutputStore, how: EncodeConfig) -> None:
        super().__init__(store, how)
        self._listed: dict[str, list[Path]] | None = None
        self._lock = threading.Lock()

    @override
    def check(self, items: Iterable[Item]) -> None:
        """Refuse items of one stem: folders and suffixes are no part of a cache file's name."""
        if self.store.url is not None:
            raise UsageError(
                f"{self.store.url}: the format musubi is written to a file system: mount the "
                "store, or write to a folder and copy it"
            )
        items = list(items)
        super().check(items)
        seen: dict[tuple[str, int, Window | None], Item] = {}
        for item in items:
            start = round(self.how.sampling_of(item).start * 1000)
            other = seen.setdefault((_name(item), start, item.window), item)
            if other != item:
                raise InputError(
                    f"{item.path} and {other.path} would both be {_name(item)!r} to musubi-tuner, "
                    "which knows neither suffixes nor folders: rename one, or give them ids in a "
                    "manifest"
                )
        images = sum(_is_image(item) for item in items)
        if 0 < images < len(items):
            _log.warning(
                "%s: %d images among %d videos: musubi-tuner's video dataset fails on an image's "
                "file, so encode them apart, into folders of their own (--include, --exclude)",
                self.store.root,
                images,
                len(items) - images,
            )

    @override
    def find(self, item: Item, known: ItemResult | None = None) -> Existing | None:
        """Look for an item's file among those of the folder."""
        with self._lock:
            if self._listed is None:
                self._listed = _list(self.store.root)
            candidates = self._listed.get(_name(item), [])
        found = (_read(path, item, self.store.root) for path in candidates)
        return next((each for each in found if each is not None), None)

    @override
    def open(
        self, item: Item, metadata: LatentMetadata, options: EncodeOptions
    ) -> LatentOutput[Written]:
        """Begin an item's file."""
        check_content(self.how.format, metadata)
        start = self.how.sampling_of(item).start
        position = round(Fraction(start) * (metadata.frame_rate or 0))
        if item.window is not None:
            position += item.window.start
        return _MusubiOutput(self.store, item, metadata, position)


class _MusubiOutput(SpooledOutput):
    def __init__(
        self, store: OutputStore, item: Item, metadata: LatentMetadata, position: int
    ) -> None:
        super().__init__(store, metadata, _SUFFIX)
        self._item, self._position = item, position

    def finish(
        self, frames: int, pts: Sequence[int] | None, last_duration: Fraction | None
    ) -> Written:
        del pts, last_duration  # the trainer counts frames
        info = self._metadata
        width, height = source_size(info)
        architecture = ARCHITECTURES[info.family]
        shape = self._shape
        size = "x".join(map(str, shape[1:]))
        strings = {
            "architecture": architecture.full,
            "width": str(width),
            "height": str(height),
            "format_version": _FORMAT_VERSION,
            f"{_OURS}item": clean_text(self._item.relative),
            f"{_OURS}frames": str(frames),
            f"{_OURS}{WEIGHTS}": info.model_sha256,
            **{_OURS + name: text for name, text in info.extra.items()},
        }
        window = ""
        if not info.is_image:
            strings["frame_count"] = str(frames)
            window = f"_{self._position:05d}-{frames:03d}"
        digest = Digest()
        self._spool.copy_to(digest)
        strings[_OURS + CHECKSUM] = digest.hexdigest()
        header = encode_header([(f"latents_{size}_bfloat16", "BF16", shape)], strings)
        with atomic_file(self._part) as file:
            write_all(file, header)
            self._spool.copy_to(file)
        size_of_source = f"_{width:04d}x{height:04d}_{architecture.short}"
        name = f"{_name(self._item)}{window}{size_of_source}{_SUFFIX}"
        written = self._store.publish(self._part, name)
        return Written(name, shape, written, digest.hexdigest())


def source_size(metadata: LatentMetadata) -> tuple[int, int]:
    """Width and height of the pictures of a clip's file, before scaling.

    Raises:
        UsageError: the header does not say them.
    """
    width, cross, height = metadata.extra.get(SOURCE_SIZE, "").partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise UsageError(
            f"{metadata.source or 'this clip'}: musubi-tuner picks buckets by the size of the "
            "source, which these latents do not record: encode the source again"
        )
    return int(width), int(height)


def _is_image(item: Item) -> bool:
    return PurePosixPath(item.path).suffix.lower() in SUFFIXES["image"]


def _name(item: Item) -> str:
    """Return an item's name, without folders and suffix."""
    return PurePosixPath(stem_of(item)).name


def _list(folder: Path) -> dict[str, list[Path]]:
    """List the cache files of a folder by the name of their item."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        parts = path.name.split("_")
        for name in ("_".join(parts[:-3]), "_".join(parts[:-2])):  # of a video, of an image
            found.setdefault(name, []).append(path)
    return found


def _read(path: Path, item: Item, root: Path) -> Existing | None:
    """Read what a cache file says of its making; None where it is damaged or another item's."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            header = read_header(file, size)
    except (LatentError, OSError):
        return None
    ours = {k.removeprefix(_OURS): v for k, v in header.metadata.items() if k.startswith(_OURS)}
    whole = size == header.data_start + header.data_bytes and len(header.tensors) == 1
    is_this = ours.get("item") == clean_text(item.relative)
    if not (whole and is_this and ours.get("frames", "").isdecimal()):
        return None
    return Existing(
        output=str(path.relative_to(root)),
        options={**parse_options(ours), WEIGHTS: ours.get(WEIGHTS, "")},
        source_sha256=ours.get("source_sha256", ""),
        frames=int(ours["frames"]),
        shape=next(iter(header.tensors.values())).shape,
        bytes=size,
        data_sha256=ours.get(CHECKSUM),
        kept={"bucket": ours.get("bucket")},
    )
