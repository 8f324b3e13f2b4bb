"""`wfvae encode` for a dataset: what its options mean, and how the run ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

from wfvae_cli.cli.console import Console
from wfvae_cli.cli.dataset_options import check_engine
from wfvae_cli.cli.paths import check_outputs
from wfvae_cli.cli.signals import Stopped
from wfvae_cli.errors import PartialFailureError, UsageError, WeightsError

if TYPE_CHECKING:
    from wfvae_cli.dataset.run import Engine, Summary
    from wfvae_cli.dataset.tar_shards import TarFormat
    from wfvae_cli.dataset.worker import EncodeJob
    from wfvae_cli.media.clip import Sampling
    from wfvae_cli.models.base import Normalization
    from wfvae_cli.pipeline.batch import Batch
    from wfvae_cli.pipeline.encode import EncodeOptions


_OF_FILES = frozenset((".pt", ".pth", ".npy", ".npz", ".tar"))
"""Suffixes, beside those of media, that nobody gives a folder: who names one means a file."""


@dataclass(frozen=True)
class Request:
    """What one clip and a dataset have in common."""

    model: str
    device: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    compile: bool
    options: EncodeOptions
    sampling: Sampling
    normalize: bool
    stats: Path | None
    overwrite: bool
    hwaccel: str

    def normalized(self, model_sha256: str, of_config: Normalization | None) -> EncodeOptions:
        """The options with the shift and scale that `--normalize` asks for.

        Raises:
            WeightsError: the config has none, or the statistics are another model's.
        """
        if not self.normalize:
            return self.options

        from wfvae_cli.latents.metadata import AppliedNormalization
        from wfvae_cli.stats.scale import load_normalization

        if self.stats is not None:
            stored = load_normalization(self.stats, model_sha256=model_sha256)
            applied = AppliedNormalization(stored.shift, stored.scale, stored.identity)
        elif of_config is not None:
            applied = AppliedNormalization(of_config.shift, of_config.scale, "config")
        else:
            raise WeightsError(
                f"{self.model} cannot normalise latents: its config.json gives no shift and "
                "scale; measure them with wfvae stats, and give its file with --stats"
            )
        return replace(self.options, normalization=applied)


@dataclass(frozen=True)
class Flags:
    """The options that only a dataset has."""

    include: Sequence[str]
    exclude: Sequence[str]
    limit: int | None
    shard: str | None
    format: Literal["files", "webdataset"]
    shard_clips: int
    shard_size: int
    layout: Literal["wfvae", "musubi"]
    batch: str
    readers: int | None
    threads: int | None
    time_limit: float | None
    stall_limit: float
    max_failures: int | None
    keep: bool
    verify: bool
    engine: Literal["local", "ray"]
    address: str | None
    workers: int | None
    profile: bool

    def is_dataset(self, sources: Sequence[str], output: str) -> bool:
        """Whether what was asked for is a dataset, by its inputs, its output or an option.

        Raises:
            UsageError: it is one, and the output is not a place for one.
        """
        from wfvae_cli.dataset.items import SUFFIXES, is_single
        from wfvae_cli.dataset.remote import is_url

        if sources == ["-"] or output == "-":
            if len(sources) > 1 or not is_single(sources[0]):
                raise UsageError("-o - takes one clip: give a folder for a dataset's latents")
            return False
        folder = output.endswith("/") or Path(output).is_dir() or is_url(output)
        many = len(sources) > 1 or not is_single(sources[0]) or self._asked
        of_files = _OF_FILES.union(*SUFFIXES.values())
        if many and not folder and Path(output).suffix.lower() in of_files:
            raise UsageError(
                f"-o {output} names one file, but a folder, a list, a pattern or several inputs "
                "make a dataset: give a folder, such as -o latents/"
            )
        return many or folder

    @property
    def _asked(self) -> bool:
        chosen = self.shard, self.engine != "local", self.format != "files", self.layout != "wfvae"
        return any(chosen)

    @property
    def batch_size(self) -> Batch:
        """`--batch` as a number, or `auto`."""
        if self.batch == "auto":
            return "auto"
        if not self.batch.isdecimal():
            raise UsageError(f"expected --batch to be a number or auto, got {self.batch!r}")
        return int(self.batch)


def encode_dataset(
    sources: Sequence[str], output: str, request: Request, flags: Flags, console: Console
) -> None:
    """Encode what is missing of a dataset, and say how it goes.

    Raises:
        PartialFailureError: some files could not be encoded.
        Stopped: Ctrl-C ended it early.
    """
    if flags.keep and request.overwrite:
        raise UsageError("--keep and --overwrite contradict each other: choose one")
    if request.compile and request.sampling.size is None:
        raise UsageError("--compile suits clips of one size: say which with --size")

    from wfvae_cli.cli.dataset_view import DatasetView
    from wfvae_cli.dataset import run
    from wfvae_cli.dataset.items import find_inputs
    from wfvae_cli.dataset.shard import Shard

    if isinstance(request.options.tile, int):
        console.note(f"in overlapping tiles of {request.options.tile} pixels: not exact")
    shard = None if flags.shard is None else Shard.parse(flags.shard)
    items = find_inputs(sources, include=flags.include, exclude=flags.exclude, limit=flags.limit)
    check_outputs([Path(output) / f"{run.MANIFEST}{shard.suffix if shard else ''}.jsonl"], sources)
    tar, job = _tar(flags), _job(output, request, flags)
    engine = _engine(flags)
    with DatasetView(console, output) as view, _stopping(engine, console) as interrupted:
        summary = run.encode_dataset(
            items,
            job,
            engine=engine,
            shard=shard,
            tar=tar,
            conflict="keep" if flags.keep else "overwrite" if request.overwrite else "refuse",
            max_failures=flags.max_failures,
            verify=flags.verify,
            observer=view,
        )
    view.conclude(summary, profile=flags.profile)
    if interrupted:
        raise Stopped(signal.SIGINT)
    _judge(summary)


def _job(output: str, request: Request, flags: Flags) -> EncodeJob:
    from wfvae_cli.dataset.config import EncodeConfig
    from wfvae_cli.dataset.prefetch import Limits
    from wfvae_cli.dataset.run import default_readers, default_threads
    from wfvae_cli.dataset.store import OutputStore
    from wfvae_cli.dataset.worker import EncodeJob

    options, family = _options(request, flags)
    recipe = EncodeConfig(
        options=options, sampling=request.sampling, batch=flags.batch_size, layout=flags.layout
    )
    if flags.layout == "musubi":
        _check_musubi(family, request.model)
    return EncodeJob(
        place=OutputStore.of(output),
        recipe=recipe,
        model=request.model,
        device=request.device,
        dtype=request.dtype,
        compile=request.compile,
        threads=flags.threads or default_threads(),
        readers=flags.readers or default_readers(),
        hwaccel=request.hwaccel,
        limits=Limits(time=flags.time_limit, stall=flags.stall_limit),
        profile=flags.profile,
    )


def _tar(flags: Flags) -> TarFormat | None:
    if flags.format == "files":
        return None
    if flags.layout != "wfvae":
        raise UsageError("musubi-tuner reads files, no tar shards: leave --format webdataset out")

    from wfvae_cli.dataset.tar_shards import TarFormat

    return TarFormat(clips=flags.shard_clips, max_bytes=flags.shard_size << 20)


def _options(request: Request, flags: Flags) -> tuple[EncodeOptions, str | None]:
    """The options, with what only the checkpoint knows, and its family where it was looked at.

    Its weights are not loaded for it.
    """
    if flags.layout == "musubi":
        options = replace(request.options, save_dtype="bfloat16")
        request = replace(request, options=options, normalize=True)
    if not request.normalize:
        return request.options, None

    from wfvae_cli.models.base import Normalization
    from wfvae_cli.models.load import describe_checkpoint

    facts = describe_checkpoint(request.model)
    found = facts["normalization"]
    of_config = None if found is None else Normalization(found["shift"], found["scale"])
    return request.normalized(facts["sha256"], of_config), facts["family"]


def _check_musubi(family: str | None, model: str) -> None:
    if family != "wan":
        raise UsageError(
            f"--layout musubi is the cache of musubi-tuner's Wan training, and {model} is of the "
            f"family {family}: give a Wan VAE, such as --model wan-2.1"
        )


def _engine(flags: Flags) -> Engine:
    from wfvae_cli.dataset.run import LocalEngine

    check_engine(flags.engine, flags.address, flags.workers)
    if flags.engine == "local":
        return LocalEngine()

    from wfvae_cli.dataset.ray_engine import RayEngine

    return RayEngine(address=flags.address, workers=flags.workers)


@contextmanager
def _stopping(engine: Engine, console: Console) -> Iterator[list[int]]:
    """Let the first Ctrl-C finish what has begun, and the second one end it.

    Yields:
        A list that is empty until the first Ctrl-C.
    """
    interrupted: list[int] = []

    def handle(signum: int, frame: FrameType | None) -> None:
        del frame
        if interrupted:
            signal.signal(signum, before)
            signal.raise_signal(signum)
        interrupted.append(signum)
        engine.stop()
        console.note("finishing the current files; Ctrl-C again stops now")

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupted
    finally:
        # Once interrupted, the program is about to end by itself, and with the right code.
        signal.signal(signal.SIGINT, signal.SIG_IGN if interrupted else before)


def _judge(summary: Summary) -> None:
    if summary.failed:
        kinds = ", ".join(f"{count} {kind}" for kind, count in summary.failures.most_common())
        if summary.stopped:
            raise PartialFailureError(
                f"stopped: {summary.stopped}; {summary.done + summary.current} done, "
                f"{summary.failed} failed ({kinds}), {summary.not_attempted} not attempted, see "
                "manifest.jsonl; the same command goes on"
            )
        raise PartialFailureError(
            f"{summary.failed} of {summary.items} files failed ({kinds}), see manifest.jsonl; the "
            "others are done; the same command tries them again"
        )
