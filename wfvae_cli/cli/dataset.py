"""Commands on datasets: which inputs make one, how the run is shown, and how it ends."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from wfvae_cli.cli import run
from wfvae_cli.cli.buckets_view import tell_parts
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.params import options_given
from wfvae_cli.cli.paths import check_outputs
from wfvae_cli.cli.signals import Stopped
from wfvae_cli.dataset.isolation import Isolation, isolate
from wfvae_cli.dataset.options import (
    EngineOptions,
    Selection,
    WorkOptions,
    default_readers,
    default_threads,
)
from wfvae_cli.errors import PartialFailureError, UsageError
from wfvae_cli.media.options import DATASET_IMAGE_MEMORY, Sampling
from wfvae_cli.models.options import RunOptions
from wfvae_cli.pipeline.options import Limits

if TYPE_CHECKING:
    from wfvae_cli.dataset.engine import Engine
    from wfvae_cli.dataset.items import Item, Kind
    from wfvae_cli.dataset.job import DatasetJob
    from wfvae_cli.dataset.plan import Conflict
    from wfvae_cli.dataset.result import ItemResult
    from wfvae_cli.dataset.run import Summary


log = logging.getLogger("wfvae")

_OF_ONE_CLIP_TOO = frozenset(("--engine", "--format"))
"""Options of datasets whose values are for one clip, too, where no dataset is asked for."""
_OF_FILES = frozenset((".pt", ".pth", ".npy", ".npz", ".tar"))
"""Suffixes, beside those of media, of outputs that are files rather than folders."""


@dataclass(frozen=True)
class DatasetOptions:
    """Options of a command that concern the dataset."""

    selection: Selection
    work: WorkOptions
    limits: Limits
    engine: EngineOptions
    overwrite: bool
    isolation: Isolation = field(default_factory=Isolation)
    """Crashes of this run so far, where a supervising process restarts it."""

    def isolated(self) -> DatasetOptions:
        """Continue in a supervised child (`isolate`), where this process is the `wfvae` program."""
        watched = run.owns_process and self.engine.engine == "local"
        return replace(self, isolation=isolate()) if watched else self

    @property
    def conflict(self) -> Conflict:
        """Treatment of outputs that were made with different options.

        Raises:
            UsageError: the options contradict each other.
        """
        if self.work.keep and self.overwrite:
            raise UsageError("--keep and --overwrite contradict each other: choose one")
        return "keep" if self.work.keep else "overwrite" if self.overwrite else "refuse"

    def job_options(
        self,
        run_options: RunOptions,
        model: str,
        hwaccel: str = "none",
        image_memory: int | None = None,
    ) -> dict[str, Any]:
        """Return the options that all jobs have in common, by the names of `DatasetJob`."""
        return {
            "model": model,
            "device": run_options.device,
            "dtype": run_options.dtype,
            "compile": run_options.compile,
            "threads": self.work.threads or default_threads(),
            "readers": self.work.readers or default_readers(),
            "hwaccel": hwaccel,
            "image_memory": image_memory or DATASET_IMAGE_MEMORY,
            "limits": self.limits,
            "profile": self.work.profile,
        }


def is_dataset(
    sources: Sequence[str],
    output: str | None,
    options: DatasetOptions,
    suffixes: tuple[str, ...],
    *,
    example: str = "out/",
    asked: str | None = None,
) -> bool:
    """Return True where a dataset was asked for, by the inputs, the output or an option.

    Args:
        sources: inputs.
        output: the output; None where a command may do without.
        options: those that only a dataset has.
        suffixes: of single outputs, beside those of all media: no folder has them.
        example: of such a folder.
        asked: another option that asks for one, as it was given.

    Raises:
        UsageError: a dataset was asked for, and the input or the output cannot be one.
    """
    from wfvae_cli.dataset.items import SUFFIXES, is_single
    from wfvae_cli.dataset.remote import is_url

    if list(sources) == ["-"] or output == "-":
        if len(sources) > 1 or not is_single(sources[0]):
            raise UsageError("-o - takes one clip: give a folder for a dataset's outputs")
        if asked is not None:
            raise UsageError(
                f"{asked} needs files and a folder for its outputs, and cannot read or write a "
                f"pipe (-): give both, such as -o {example}"
            )
        if output is not None and output != "-" and output.endswith("/"):
            raise UsageError(
                f"-o {output} is a folder, and what comes through a pipe (-) has no name to be "
                f"given in it: name a file, such as -o {output}clip{suffixes[0]}"
            )
        _tell_unused(sources[0])
        return False
    folder = output is not None and (
        output.endswith("/") or Path(output).is_dir() or is_url(output)
    )
    is_many = len(sources) > 1 or not is_single(sources[0])
    if options.selection.shard is not None:
        asked = asked or "--shard"
    if options.engine.engine != "local":
        asked = asked or f"--engine {options.engine.engine}"
    many = is_many or asked is not None
    of_files = _OF_FILES.union(suffixes, *SUFFIXES.values())
    if many and not folder and output is not None and Path(output).suffix.lower() in of_files:
        why = "a folder, a list, a pattern, several inputs or a store (s3://) make a dataset"
        if not is_many:
            why = f"with {asked} the outputs go into a folder, even those of one clip"
        raise UsageError(
            f"-o {output} names one file, but {why}: give a folder, such as -o {example}"
        )
    if not many and not folder:
        _tell_unused(sources[0])
    return many or folder


def _tell_unused(source: str) -> None:
    """Say which options of the command line are for datasets, where there is one clip."""
    unused = [flag for flag in options_given("Datasets") if flag not in _OF_ONE_CLIP_TOO]
    if unused:
        log.info(
            "%s: not used, since %s is one clip, and such options are for datasets",
            ", ".join(unused),
            source,
        )


def tell_unused_fit(sampling: Sampling, *, with_buckets: bool = False) -> None:
    """Say that `--fit` changes nothing where no size gives pictures another aspect."""
    if "--fit" in options_given() and sampling.size is None and not with_buckets:
        log.info(
            "--fit %s: not used, since nothing changes the aspect of pictures without --size",
            sampling.fit,
        )


def use_threads(device: str, threads: int | None) -> None:
    """Compute a single clip with as many threads as a dataset's: they decide the rounding."""
    import torch

    from wfvae_cli.models.load import resolve_device

    if resolve_device(device).type == "cpu":
        torch.set_num_threads(threads or default_threads())


def list_items(
    sources: Sequence[str],
    selection: Selection,
    kinds: Collection[Kind] = ("video", "image"),
) -> list[Item]:
    """List the items that a user chose."""
    from wfvae_cli.dataset.items import find_inputs

    return find_inputs(
        sources,
        kinds=kinds,
        include=selection.include or (),
        exclude=selection.exclude or (),
        limit=selection.limit,
    )


def run_job(
    sources: Sequence[str],
    output: str | None,
    job: DatasetJob,
    options: DatasetOptions,
    console: Console,
    kinds: Collection[Kind] = ("video", "image"),
    *,
    items: Sequence[Item] | None = None,
    on_result: Callable[[ItemResult], None] | None = None,
) -> None:
    """Do what is left to do of a dataset, and say how it goes.

    Args:
        sources: where the items are.
        output: what messages call the output folder; None where nothing is written.
        job: what is done with the items.
        options: which items, and how they are worked on.
        console: where to say it.
        kinds: of files, what is taken of folders.
        items: those of `sources`, where they have been listed.
        on_result: called with every result.

    Raises:
        PartialFailureError: some files failed.
        Stopped: Ctrl-C ended it early.
    """
    from wfvae_cli.cli.dataset_view import DatasetView
    from wfvae_cli.dataset.run import MANIFEST, measure_dataset, run_dataset
    from wfvae_cli.dataset.shard import Shard

    selection, work = options.selection, options.work
    conflict = options.conflict
    shard = None if selection.shard is None else Shard.parse(selection.shard)
    if items is None:
        items = list_items(sources, selection, kinds)
    if output is not None:
        manifest = f"{MANIFEST}{shard.suffix if shard else ''}.jsonl"
        check_outputs([Path(output) / manifest], sources)
    engine = make_engine(options.engine, options.isolation)
    view = DatasetView(console, output or job.model, on_result)
    with view, _stopping(engine, console) as interrupted:
        if output is None:
            summary = measure_dataset(
                items if shard is None else shard.of(items),
                job,
                engine=engine,
                max_failures=work.max_failures,
                callbacks=view,
            )
        else:
            summary = run_dataset(
                items,
                job,
                engine=engine,
                shard=shard,
                conflict=conflict,
                max_failures=work.max_failures,
                verify=work.verify,
                callbacks=view,
            )
    view.conclude(summary, profile=work.profile)
    if interrupted:
        raise Stopped(signal.SIGINT)
    tell_parts(console, summary)
    _judge(summary, is_recorded=output is not None)


def make_engine(options: EngineOptions, isolation: Isolation | None = None) -> Engine:
    """Make the engine that was asked for; `isolation` is for this process."""
    from wfvae_cli.dataset.engine import LocalEngine

    if options.engine == "local":
        return LocalEngine(isolation)

    from wfvae_cli.dataset.ray_engine import RayEngine

    return RayEngine(address=options.address, workers=options.workers)


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


def _judge(summary: Summary, *, is_recorded: bool) -> None:
    if summary.failed:
        kinds = ", ".join(f"{count} {kind}" for kind, count in summary.failures.most_common())
        where, again = ", see manifest.jsonl", "; the same command tries them again"
        if not is_recorded:
            where = again = ""
        if summary.stopped:
            raise PartialFailureError(
                f"stopped: {summary.stopped}; {summary.done + summary.current} done, "
                f"{summary.failed} failed ({kinds}), {summary.not_attempted} not attempted{where}"
                f"{again}"
            )
        raise PartialFailureError(
            f"{summary.failed} of {summary.items} files failed ({kinds}){where}; "
            f"{summary.done + summary.current} done{again}"
        )
