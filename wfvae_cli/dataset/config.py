"""Configs: every option that decides an output's bytes, and the difference of two configs."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from typing_extensions import override

from wfvae_cli.dataset.buckets import Buckets
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.options import Format
from wfvae_cli.dataset.trainer_formats import TRAINER_FORMATS, TrainerFormat
from wfvae_cli.dataset.windows import Windows
from wfvae_cli.errors import UsageError
from wfvae_cli.media.options import Sampling, VideoOptions
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.pipeline.options import Batch, DecodedPart, EncodeOptions, Tile, check_batch

WEIGHTS = "model_sha256"
"""The option that the weights' hash is compared as."""
_TEXTS = "caption_and_columns"
"""The option that the hash of a clip's caption and columns is compared as."""


@dataclass(frozen=True)
class ModelFingerprint:
    """The model that a worker runs, as far as bytes depend on it."""

    model_sha256: str
    compute_dtype: str
    threads: int | None
    """Cores that the CPU computes with, which changes the rounding; None on other devices."""
    compiled: bool = False
    """True where its chunks are compiled, which changes the rounding, too."""

    @classmethod
    def of(cls, model: LoadedModel, threads: int) -> ModelFingerprint:
        """Return the fingerprint of a loaded model."""
        used = threads if model.device.type == "cpu" else None
        return cls(model.sha256, model.compute_dtype, used, model.vae.compiled is not None)


@dataclass(frozen=True)
class TarFormat:
    """Limits of tar shards."""

    clips: int = 1000
    """Clips of a group, all encoded before its shards are written."""
    max_bytes: int = 1 << 30
    """Size at which a shard takes no further clip."""


class Config(ABC):
    """Options of working on a dataset's items, as far as bytes depend on them."""

    @property
    @abstractmethod
    def batch(self) -> Batch:
        """Clips that go through the model together."""

    @property
    @abstractmethod
    def chunk(self) -> int | None:
        """Frames of a clip's first chunk."""

    @property
    @abstractmethod
    def tile(self) -> Tile:
        """Pixels of a tile's side, or whether there may be tiles."""

    @abstractmethod
    def values(self, item: Item) -> dict[str, object]:
        """Return every option that decides an item's bytes, by name; None for what is not set."""

    def recorded(self, item: Item, model: ModelFingerprint) -> dict[str, str]:
        """Return options as they are recorded and compared; the weights are recorded apart."""
        values = {
            **self.values(item),
            "chunk": self.chunk or "auto",
            "batch": self.batch,
            "tile": self.tile if isinstance(self.tile, int) else None,
            "compute_dtype": model.compute_dtype,
            "threads": model.threads,
            "compile": "on" if model.compiled else None,
        }
        return {name: str(value) for name, value in values.items() if value is not None}

    def fingerprint(self, item: Item, model: ModelFingerprint) -> str:
        """Hash an item's options and the weights to 16 hexadecimal digits."""
        text = json.dumps(self.recorded(item, model), sort_keys=True)
        return hashlib.sha256(f"{model.model_sha256}|{text}".encode()).hexdigest()[:16]

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            UsageError: it does.
        """
        check_batch(self.batch, self.tile)


def sampling_of(sampling: Sampling, item: Item) -> Sampling:
    """Return the frames of an item to take: its own part of the file, where it names one."""
    return replace(
        sampling,
        start=item.start or sampling.start,
        duration=sampling.duration if item.duration is None else item.duration,
        frames=item.frames or sampling.frames,
    )


def _sampling_values(sampling: Sampling) -> dict[str, object]:
    values = asdict(sampling)
    if sampling.size is None:
        del values["fit"]
    return values


_LAYOUTS = {"files": "wfvae", "webdataset": "wfvae", "musubi": "musubi-2"}
"""Recorded name of a format, where it is not the format's own name."""


@dataclass(frozen=True)
class EncodeConfig(Config):
    """Options of encoding the clips of a dataset."""

    options: EncodeOptions = field(default_factory=EncodeOptions)
    sampling: Sampling = field(default_factory=Sampling)
    batch: Batch = 1
    format: Format = "files"
    tar: TarFormat = field(default_factory=TarFormat)
    buckets: Buckets | None = None
    windows: Windows | None = None

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        self.check()
        self._check_parts()
        trainer = TRAINER_FORMATS.get(self.format)
        if trainer is not None:
            self._check_trainer(trainer)

    def _check_parts(self) -> None:
        sampling = self.sampling
        if self.buckets is not None and (sampling.size or sampling.short_side):
            raise UsageError("--buckets decides the size: leave --size and --short-side out")
        frames = None if self.windows is None else self.windows.frames
        if self.windows is not None and frames is None and self.buckets is None:
            raise UsageError(
                f"--windows {self.windows} does not say how many frames a window has: add them, "
                "or --buckets"
            )
        if frames is not None and self.buckets is not None:
            counts = sorted({bucket.frames for bucket in self.buckets.shapes})
            if frames not in counts:
                raise UsageError(
                    f"--windows {self.windows} asks for {frames} frames, and no bucket has them "
                    f"(there are {', '.join(map(str, counts))}): leave the number out, or add a "
                    "bucket"
                )

    def windows_of(self, item: Item) -> Windows | None:
        """Return the windows of an item to take: its own, where its manifest names some."""
        return item.windows or self.windows

    def _check_trainer(self, trainer: TrainerFormat) -> None:
        check_posterior(self.format, self.options)
        if self.options.save_dtype != trainer.dtype:
            raise UsageError(
                f"--format {self.format} stores {trainer.dtype}, got a save_dtype of "
                f"{self.options.save_dtype}"
            )

    @property
    @override
    def chunk(self) -> int | None:
        return self.options.chunk

    @property
    @override
    def tile(self) -> Tile:
        return self.options.tile

    def sampling_of(self, item: Item) -> Sampling:
        """Return the frames of an item to take."""
        return sampling_of(self.sampling, item)

    def options_of(self, item: Item, model: ModelFingerprint, source_sha256: str) -> EncodeOptions:
        """Return the encode options of an item, with what its header records of its making.

        Each clip has a seed of its own: see `clip_seed`.
        """
        extra = {
            "options": json.dumps(self.recorded(item, model), sort_keys=True),
            "source_sha256": source_sha256,
        }
        start = self.sampling_of(item).start
        window = 0 if item.window is None else item.window.start
        seed = clip_seed(self.options.seed, item.path, source_sha256, start, window)
        if item.window is not None:
            extra["window"] = str(item.window)
        if item.caption is not None:
            extra["caption"] = item.caption
        if item.columns:
            extra["columns"] = json.dumps(item.columns, sort_keys=True)
        return replace(self.options, seed=seed, extra=extra)

    @override
    def values(self, item: Item) -> dict[str, object]:
        normalization = self.options.normalization
        values: dict[str, object] = {
            **_sampling_values(self.sampling_of(item)),
            "posterior": self.options.posterior,
            "normalization": "none" if normalization is None else normalization.source,
            "save_dtype": self.options.save_dtype,
            # Tar shards hold latent files; the name is that of the version before --format, whose
            # cache files for musubi-tuner were named by the size of what was encoded.
            "layout": _LAYOUTS.get(self.format, self.format),
        }
        if self.options.posterior == "sample":
            values["seed"] = self.options.seed
        return values | self._part_values(item)

    def _part_values(self, item: Item) -> dict[str, object]:
        values: dict[str, object] = {"windows": self.windows_of(item)}
        if self.buckets is not None:
            values["buckets"] = self.buckets
            values["fit"] = self.sampling.fit
            values["upscale"] = None if self.buckets.upscale else "off"
        if item.caption is not None or item.columns:
            # Headers hold them, so that a caption that was edited makes other bytes.
            said = json.dumps([item.caption, item.columns], sort_keys=True)
            values[_TEXTS] = hashlib.sha256(said.encode()).hexdigest()[:16]
        return values


def check_posterior(form: Format, options: EncodeOptions) -> None:
    """Refuse anything but the mean in a trainer's format.

    Raises:
        UsageError: another part of the posterior is asked for.
    """
    if options.posterior != "mean":
        raise UsageError(
            f"--format {form} stores the posterior's mean: leave --posterior "
            f"{options.posterior} out"
        )


@dataclass(frozen=True)
class DecodeConfig(Config):
    """Options of decoding the latent files of a dataset."""

    video: VideoOptions = field(default_factory=VideoOptions)
    chunk: int | None = None
    tile: Tile = "auto"
    batch: Batch = 1
    force: bool = False
    """True to decode latents of other weights, too."""
    part: DecodedPart = field(default_factory=DecodedPart)
    """Frames to write."""

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        self.check()

    @override
    def values(self, item: Item) -> dict[str, object]:
        part = {"start": self.part.start or None, "frames": self.part.frames}
        return {"job": "decode", **asdict(self.video), **part}


@dataclass(frozen=True)
class RoundtripConfig(Config):
    """Options of taking the clips of a dataset to latents and back."""

    video: VideoOptions = field(default_factory=VideoOptions)
    sampling: Sampling = field(default_factory=Sampling)
    compare: Literal["side-by-side", "diff"] | None = None
    audio: Literal["copy", "none"] = "copy"
    ms_ssim: bool = False
    chunk: int | None = None
    tile: Tile = "auto"
    batch: Batch = 1

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        self.check()

    def sampling_of(self, item: Item) -> Sampling:
        """Return the frames of an item to take."""
        return sampling_of(self.sampling, item)

    @override
    def values(self, item: Item) -> dict[str, object]:
        """Return every option that decides an item's bytes and scores."""
        return {
            "job": "roundtrip",
            **asdict(self.video),
            **_sampling_values(self.sampling_of(item)),
            "compare": self.compare,
            "audio": self.audio,
            "ms_ssim": self.ms_ssim or None,
        }


def clip_seed(seed: int, path: str, source_sha256: str, start: float, window: int = 0) -> int:
    """Derive the seed of one clip's noise from the common one.

    With one seed for all, every clip of a shape would get the same noise. The file's own name, its
    content and the start decide, and no folder, so that a clip gets the same alone and among
    others. Headers record the seed that was used: those of earlier versions came from the name
    below the dataset's folder.

    Args:
        seed: what the user said.
        path: of the file, or its URL.
        source_sha256: hash of the file's content.
        start: seconds of the file that are skipped.
        window: frames that come before its window.

    Returns:
        0 to 2**63 - 1.
    """
    name = path.rpartition("/")[2]
    text = f"{seed}:{name}:{source_sha256}:{start:g}" + (f":{window}" if window else "")
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def difference(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Name every option that differs, as `posterior: mean, now sample`; empty where none does."""
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))

    def shown(values: Mapping[str, str], name: str) -> str:
        value = values.get(name, "unset")
        return value[:12] if name == WEIGHTS else value

    return "; ".join(
        "caption or columns: edited, added or taken away"  # recorded as a hash, which says nothing
        if name == _TEXTS
        else f"{name}: {shown(old, name)}, now {shown(new, name)}"
        for name in names
    )
