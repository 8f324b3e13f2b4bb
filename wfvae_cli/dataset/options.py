"""Options of commands on datasets: files, work, engine and formats."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Literal

from wfvae_cli.dataset.buckets import (
    Bucket,
    Buckets,
    auto_buckets,
    check_buckets,
    parse_buckets,
    parse_frames,
)
from wfvae_cli.dataset.windows import Windows
from wfvae_cli.errors import UsageError
from wfvae_cli.media.options import parse_size
from wfvae_cli.option import Option
from wfvae_cli.pipeline.options import BatchOption
from wfvae_cli.strides import Strides

Format = Literal["files", "webdataset", "musubi", "ltx", "simpletuner", "energon"]
"""Names of the formats of latents, one exporter each."""
TAR_FORMATS: tuple[Format, ...] = ("webdataset", "energon")
"""Formats of tar shards."""

_PARTS = "Buckets and windows"
_WHICH, _HOW, _WHERE = "Datasets: which files", "Datasets: how", "Datasets: where"
_DEFAULT_THREADS = 4
_MOST_THREADS = 1024
"""Threads for which any machine has address space: with more, OpenMP ends the process."""
_BUCKET_STEP = 32
_SHARD_CLIPS, _SHARD_SIZE = 1000, 1024


def default_threads() -> int:
    """Return the cores for a model on the CPU: OMP_NUM_THREADS, else 4 on any machine.

    The number decides the rounding, so it must depend neither on the machine nor on whether a
    clip comes alone.
    """
    said = os.environ.get("OMP_NUM_THREADS", "")
    if not said.isdecimal() or int(said) < 1:
        return _DEFAULT_THREADS
    return min(int(said), _MOST_THREADS)


def default_readers() -> int:
    """Files that are opened and decoded at once, ahead of the model."""
    return min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Selection:
    """Selection of a dataset's files."""

    include: Annotated[
        list[str] | None, Option("Take only names that match one.", _WHICH, metavar="GLOB")
    ] = None
    exclude: Annotated[
        list[str] | None, Option("Leave out names that match.", _WHICH, metavar="GLOB")
    ] = None
    limit: Annotated[int | None, Option("Take at most this many files.", _WHICH, metavar="N")] = (
        None
    )
    shard: Annotated[
        str | None,
        Option(
            "Take share I (from 0) of N, by the hash of each name: for job arrays.",
            _WHICH,
            metavar="I/N",
        ),
    ] = None


NoCaptions = Annotated[
    bool,
    Option(
        "Leave sidecars aside: clip.txt and clip.json beside clip.mp4.",
        _HOW,
        flags=("--no-captions",),
    ),
]
DryRun = Annotated[
    bool,
    Option(
        "Say what would be done, and about how long it would take; write nothing.",
        _HOW,
        flags=("--dry-run",),
    ),
]


@dataclass(frozen=True)
class PartOptions:
    """Windows and buckets of clips."""

    buckets: Annotated[
        tuple[Bucket, ...] | str | None,
        Option(
            "Bring every clip to the nearest of these shapes, width x height x frames: scaled and "
            "cropped as --fit says. What fits none is skipped. auto: see --bucket-area.",
            _PARTS,
            metavar="WxHxF,...|auto",
            parse=parse_buckets,
            common=True,
        ),
    ] = None
    bucket_area: Annotated[
        tuple[int, int] | None,
        Option(
            "With --buckets auto: the most pixels of a bucket, such as 960x544; its aspects go "
            "from 1:4 to 4:1.",
            _PARTS,
            metavar="WxH",
            parse=parse_size,
        ),
    ] = None
    bucket_step: Annotated[
        int,
        Option(
            "With --buckets auto: sides are multiples of it.", _PARTS, metavar="PIXELS", least=1
        ),
    ] = _BUCKET_STEP
    bucket_frames: Annotated[
        tuple[int, ...] | None,
        Option(
            "With --buckets auto: frames of buckets, such as 1,17,33,49.",
            _PARTS,
            metavar="F,...",
            parse=parse_frames,
        ),
    ] = None
    no_upscale: Annotated[
        bool, Option("Skip clips that their bucket would enlarge.", _PARTS, flags=("--no-upscale",))
    ] = False
    windows: Annotated[
        Windows | None,
        Option(
            "Take parts of every clip, each an output of its own: head:N, middle:N, all:N (every "
            "N frames), uniform:K:N (K of them, spread evenly) or slide:N:STRIDE. With --buckets N "
            "may be left out.",
            _PARTS,
            metavar="MODE[:N]",
            parse=Windows.parse,
            common=True,
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuse options that do not fit `--buckets`."""
        asked = self.bucket_area is not None or self.bucket_frames is not None
        if asked and self.buckets != "auto":
            raise UsageError("--bucket-area and --bucket-frames are for --buckets auto: add it")
        if self.buckets == "auto" and None in (self.bucket_area, self.bucket_frames):
            raise UsageError(
                "--buckets auto needs --bucket-area, such as 960x544, and --bucket-frames, such as "
                "1,17,33,49"
            )
        if self.bucket_step != _BUCKET_STEP and self.buckets != "auto":
            raise UsageError("--bucket-step is for --buckets auto: add it, or leave the step out")
        if self.no_upscale and self.buckets is None:
            raise UsageError("--no-upscale is about --buckets: add them")

    @property
    def asked(self) -> str | None:
        """The option that asks to cut clips; None where none does."""
        if self.buckets is not None:
            return "--buckets"
        return None if self.windows is None else "--windows"

    def chosen(self, strides: Strides) -> Buckets | None:
        """Return the buckets that a model of these strides encodes without padding.

        Raises:
            UsageError: it would have to pad some.
        """
        if self.buckets is None:
            return None
        if isinstance(self.buckets, str):
            assert self.bucket_area is not None and self.bucket_frames is not None
            shapes = auto_buckets(self.bucket_area, self.bucket_step, self.bucket_frames, strides)
        else:
            shapes = list(self.buckets)
        check_buckets(shapes, strides)
        return Buckets.of(shapes, upscale=not self.no_upscale)


Threads = Annotated[
    int | None,
    Option(
        "CPU cores that a model on the CPU computes with; rounding depends on it, so the same for "
        "one clip and for many. Default: 4, or OMP_NUM_THREADS.",
        "Model",
        metavar="K",
        least=1,
        most=_MOST_THREADS,
    ),
]


Readers = Annotated[
    int | None,
    Option("Files that are decoded at once, ahead of the model.", _HOW, metavar="N", least=1),
]


@dataclass(frozen=True)
class WorkOptions:
    """Options of working on a dataset."""

    batch: BatchOption = 1
    threads: Threads = None
    readers: Readers = None
    max_failures: Annotated[
        int | None, Option("Stop once so many files have failed.", _HOW, metavar="N", least=1)
    ] = None
    keep: Annotated[
        bool,
        Option(
            "Leave outputs that were made with different options; --overwrite makes them anew.",
            _HOW,
        ),
    ] = False
    verify: Annotated[
        bool,
        Option(
            "Read the outputs that are there, and make those again whose data are damaged.", _HOW
        ),
    ] = False
    profile: Annotated[
        bool,
        Option(
            "Say how the time was spent: waiting for input, in the model, waiting for output.",
            _HOW,
        ),
    ] = False


@dataclass(frozen=True)
class EngineOptions:
    """Options of the engine that works on a dataset."""

    engine: Annotated[
        Literal["local", "ray"], Option("This process, or workers on Ray.", _WHERE)
    ] = "local"
    address: Annotated[
        str | None,
        Option(
            "Of a Ray cluster, or auto; by default RAY_ADDRESS, or one on this machine.", _WHERE
        ),
    ] = None
    workers: Annotated[
        int | None,
        Option(
            "On Ray. Default: one for each GPU, or for each --threads cores.",
            _WHERE,
            metavar="N",
            least=1,
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuse Ray's options with another engine."""
        if self.engine == "local" and (self.workers is not None or self.address is not None):
            raise UsageError("--workers and --address are for --engine ray: add it")


@dataclass(frozen=True)
class FormatOptions:
    """Format of a dataset's latents."""

    format: Annotated[
        Format,
        Option(
            "Latent files, tar shards for the webdataset library, or the cache of a trainer: "
            "musubi-tuner, LTX-2, SimpleTuner, or Energon's shards.",
            _HOW,
        ),
    ] = "files"
    layout: Annotated[
        Literal["wfvae", "musubi"],
        Option("Old spelling: --format.", _HOW, hidden=True),
    ] = "wfvae"
    shard_clips: Annotated[
        int,
        Option(
            "Clips that make a group of tar shards, which is written when all are encoded.",
            _HOW,
            metavar="N",
            least=1,
        ),
    ] = _SHARD_CLIPS
    shard_size: Annotated[
        int, Option("A tar shard this large takes no more.", _HOW, metavar="MIB", least=1)
    ] = _SHARD_SIZE

    def __post_init__(self) -> None:
        """Refuse options of tar shards with formats that make none."""
        is_default = (self.shard_clips, self.shard_size) == (_SHARD_CLIPS, _SHARD_SIZE)
        if not is_default and self.chosen not in TAR_FORMATS:
            raise UsageError(
                f"--shard-clips and --shard-size are for tar shards (--format "
                f"{' or '.join(TAR_FORMATS)}), and --format is {self.chosen}: leave them out, or "
                "choose one of these"
            )

    @property
    def chosen(self) -> Format:
        """The format, by either spelling of the option.

        Raises:
            UsageError: the two contradict each other.
        """
        if self.layout == "wfvae" or self.format == "musubi":
            return self.format
        if self.format == "webdataset":
            raise UsageError(
                "--layout musubi is an old spelling of --format musubi, which makes no tar shards: "
                "leave one of the two out"
            )
        return "musubi"
