"""What users choose of a dataset: which files, how they are worked on, and where."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Literal

from wfvae_cli.errors import UsageError
from wfvae_cli.option import Option
from wfvae_cli.pipeline.options import BatchOption

Format = Literal["files", "webdataset", "musubi", "ltx", "simpletuner", "energon"]
"""How latents are written: see `exporters`."""

_WHICH, _HOW, _WHERE = "Datasets: which files", "Datasets: how", "Datasets: where"
_DEFAULT_THREADS = 4


def default_threads() -> int:
    """Cores for a model on the CPU: what OMP_NUM_THREADS says, else 4 on any machine.

    The number decides the rounding, so it must depend neither on the machine nor on whether a
    clip comes alone.
    """
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) > 0 else _DEFAULT_THREADS


def default_readers() -> int:
    """Files that are opened and decoded at once, ahead of the model."""
    return min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Selection:
    """Which files of a dataset to take."""

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


Threads = Annotated[
    int | None,
    Option(
        "CPU cores that a model on the CPU computes with; rounding depends on it, so the same for "
        "one clip and for many. Default: 4, or OMP_NUM_THREADS.",
        "Model",
        metavar="K",
        least=1,
    ),
]


Readers = Annotated[
    int | None,
    Option("Files that are decoded at once, ahead of the model.", _HOW, metavar="N", least=1),
]


@dataclass(frozen=True)
class WorkOptions:
    """How a dataset is worked on."""

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
    """Where a dataset is worked on."""

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
        """Refuse what only Ray understands where it does not work."""
        if self.engine == "local" and (self.workers is not None or self.address is not None):
            raise UsageError("--workers and --address are for --engine ray: add it")


@dataclass(frozen=True)
class FormatOptions:
    """What a dataset's latents are written as."""

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
    ] = 1000
    shard_size: Annotated[
        int, Option("A tar shard this large takes no more.", _HOW, metavar="MIB", least=1)
    ] = 1024

    @property
    def chosen(self) -> Format:
        """The format, by whichever spelling.

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
