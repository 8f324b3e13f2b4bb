"""The work of `wfvae roundtrip` once its options are known: clips, datasets, several models."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wfvae_cli.cli import measuring as m
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.dataset import DatasetOptions, is_dataset, run_job, use_threads
from wfvae_cli.cli.output import display
from wfvae_cli.cli.paths import check_outputs
from wfvae_cli.cli.run import import_torch
from wfvae_cli.cli.scores import Side, Subject, summary, write
from wfvae_cli.errors import PartialFailureError, UsageError
from wfvae_cli.heap import keep_freed_memory
from wfvae_cli.media.options import Sampling, VideoOptions
from wfvae_cli.models.options import RunOptions
from wfvae_cli.pipeline.options import ChunkOptions, check_batch

if TYPE_CHECKING:
    from wfvae_cli.dataset.result import ItemResult
    from wfvae_cli.metrics.result import JsonValue
    from wfvae_cli.pipeline.roundtrip import RoundtripResult
    from wfvae_cli.report.recorder import ModelRecorder
    from wfvae_cli.report.report import Report

_SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".png", ".jpg")


@dataclass(frozen=True)
class Roundtrip:
    """Inputs and options of the command."""

    sources: Sequence[str]
    output: str | None
    models: tuple[str, ...]
    run: RunOptions
    chunks: ChunkOptions
    targets: m.Targets
    learned: m.Learned
    sampling: Sampling
    video: VideoOptions
    dataset: DatasetOptions
    compare: Literal["side-by-side", "diff"] | None
    audio: Literal["copy", "none"]
    hwaccel: str
    image_memory: int | None
    ms_ssim: bool

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        if len(set(self.models)) < len(self.models):
            raise UsageError(f"--model: expected different models, got {', '.join(self.models)}")
        if self.compare is not None and self.output is None:
            raise UsageError("--compare needs an output to write: add -o")
        if len(self.models) > 1:
            if "-" in (*self.sources, self.output):
                raise UsageError("several models cannot share a pipe: give files")
            if self.output is not None and self.output.endswith(_SUFFIXES):
                raise UsageError(
                    f"-o {self.output} names one file, but several models need a folder, such as "
                    "-o out/"
                )

    @cached_property
    def is_dataset(self) -> bool:
        """True where there may be several files."""
        several = "several models" if len(self.models) > 1 else None
        return is_dataset(self.sources, self.output, self.dataset, _SUFFIXES, asked=several)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Short names of the models, which are names of folders as well."""
        return model_labels(self.models)

    @property
    def subject(self) -> Subject:
        """Inputs of the comparison."""
        first = m.title_of(self.sources[0].rstrip("/"))
        rest = len(self.sources) - 1
        title = first if not rest else f"{first} and {rest} more"
        original = self.sources[0] if not rest else title
        return Subject(original, title, self.labels, self.is_dataset, self.targets)

    @property
    def is_recorded(self) -> bool:
        """True where more of a dataset is wanted than its outputs and its manifest."""
        asked = self.targets.names or self.learned.names
        return bool(asked) or self.output is None or len(self.models) > 1

    def output_of(self, label: str) -> str | None:
        """A dataset's folder of one model."""
        if self.output is None or len(self.models) == 1:
            return self.output
        return f"{self.output.rstrip('/')}/{label}"

    def recorder(self, report: Report | None, index: int) -> ModelRecorder:
        """Make the recorder of a model's clips, and load the learned metrics."""
        from wfvae_cli.report.recorder import ModelRecorder, Worst

        label, worst = self.labels[index], None
        if self.targets.worst is not None:
            count, folder = self.targets.worst
            folder = folder / label if len(self.models) > 1 else folder
            worst = Worst(count, folder, self.targets.overwrite)
        return ModelRecorder(
            label,
            self.learned.measures(self.run.device, ms_ssim=self.ms_ssim),
            worst=worst,
            report=None if report is None else (report, index),
        )


def model_labels(names: Sequence[str]) -> tuple[str, ...]:
    """Short names of models, fit for folders: as many last parts of a path as tell them apart."""
    paths = [Path(name.removesuffix(".safetensors")).parts for name in names]
    for count in range(1, max(map(len, paths)) + 1):
        labels = tuple("-".join(path[-count:]).replace("/", "") for path in paths)
        if len(set(labels)) == len(labels):
            return labels
    return tuple(f"{number}-{path[-1]}" for number, path in enumerate(paths, start=1))


def run_one(console: Console, job: Roundtrip) -> None:
    """Take one clip through one model."""
    from wfvae_cli.atomic import check_output
    from wfvae_cli.media.audio import has_sound
    from wfvae_cli.media.reader import open_clip
    from wfvae_cli.media.suffixes import is_playlist
    from wfvae_cli.metrics.result import Comparison, FileResult

    (source,), output, targets, learned = job.sources, job.output, job.targets, job.learned
    check_outputs(
        [output, targets.report, targets.plot],
        [source, learned.lpips_weights, learned.fid_weights, learned.fvd_weights],
        job.models[0],
    )
    if output is not None:
        check_output(output, overwrite=targets.overwrite)
    targets.check()
    check_batch(job.dataset.work.batch, job.chunks.tile)
    if source == "-" and output is not None and job.audio == "copy":
        console.note("a pipe can be read only once: its sound, if it has any, is not copied")
    elif is_playlist(source) and output is not None and job.audio == "copy":
        console.note("the sound of what a playlist names, if it has any, is not copied")
    opened = open_clip(
        source, job.sampling, hwaccel=job.hwaccel, image_memory=job.image_memory, trusted=True
    )
    with opened as reader, _report(job) as report:
        recorder = job.recorder(report, 0)
        import_torch()
        from wfvae_cli.pipeline.roundtrip import roundtrip_clip

        loaded = job.run.load(job.models[0])
        use_threads(job.run.device, job.dataset.work.threads)
        keep_freed_memory(loaded.nbytes)
        with console.progress("roundtrip", reader.info.frames) as progress:
            done = roundtrip_clip(
                reader,
                output,
                loaded,
                video=job.video,
                audio_from=source if job.audio == "copy" and has_sound(source) else None,
                compare=job.compare,
                recorder=recorder,
                chunk=job.chunks.chunk,
                tile=job.chunks.tile,
                batch=job.dataset.work.batch,
                overwrite=targets.overwrite,
                progress=progress,
            )
        recorder.finish()
    facts: dict[str, JsonValue] = {
        "input": source,
        "output": output,
        "model": loaded.name,
        "tile": done.tile,
        "seconds": round(done.seconds, 3),
    }
    comparison = Comparison((FileResult(m.title_of(source), done.metrics),), ())
    side = Side(job.labels[0], comparison, recorder.measures.figures, facts)
    write(console, job.subject, [side])
    _tell(console, job, done, side)
    console.result(summary(job.subject, [side]))


def run_many(console: Console, job: Roundtrip) -> None:
    """Take a dataset through one model after the other.

    Raises:
        PartialFailureError: some files failed; everything is written.
    """
    if job.is_recorded and job.dataset.engine.engine != "local":
        asked = [*job.targets.names, *job.learned.names]
        asked += ["a run without -o" if job.output is None else "several --model"]
        raise UsageError(
            f"--engine ray writes outputs only, and {asked[0]} needs the frames in this process: "
            "leave it out, or run wfvae compare on the outputs"
        )
    check_outputs([job.targets.report, job.targets.plot], job.sources)
    dataset = job.dataset.isolated()  # before the checks, which may import PyTorch
    if dataset.isolation.is_retry:
        # All was checked before the crash, and some stills may have been written since.
        job = replace(job, targets=replace(job.targets, overwrite=True))
    else:
        job.targets.check()
    if not job.is_recorded:
        _run_model(console, job, dataset, 0, None)
        return
    if job.output is not None and len(job.models) > 1:
        from wfvae_cli.dataset.store import OutputStore, create_root

        create_root(OutputStore.of(job.output))
    sides, failures = [], []
    with _report(job) as report:
        for index, label in enumerate(job.labels):
            recorder = job.recorder(report, index)
            try:
                _run_model(console, job, dataset, index, recorder)
            except PartialFailureError as error:
                failures.append(f"{label}: {error}" if len(job.labels) > 1 else str(error))
            recorder.finish()
            if recorder.comparison.files:
                sides.append(_side(job, index, recorder))
    if sides:
        _conclude(console, job, sides)
    if failures:
        raise PartialFailureError("; ".join(failures))


def _run_model(
    console: Console,
    job: Roundtrip,
    dataset: DatasetOptions,
    index: int,
    recorder: ModelRecorder | None,
) -> None:
    from wfvae_cli.dataset.config import RoundtripConfig
    from wfvae_cli.dataset.roundtrip_job import RoundtripJob
    from wfvae_cli.dataset.store import OutputStore

    chunks, output = job.chunks, job.output_of(job.labels[index])
    config = RoundtripConfig(
        job.video, job.sampling, job.compare, job.audio, job.ms_ssim,
        chunks.chunk, chunks.tile, dataset.work.batch,
    )  # fmt: skip

    def on_result(result: ItemResult) -> None:
        if recorder is not None and result.status != "done":
            recorder.fail(result.item, result.error or result.status)

    run_job(
        job.sources,
        output,
        RoundtripJob(
            OutputStore.of(output or "."),
            config,
            recorder,
            output is not None,
            **dataset.job_options(job.run, job.models[index], job.hwaccel, job.image_memory),
        ),
        dataset,
        console,
        on_result=on_result,
    )


@contextmanager
def _report(job: Roundtrip) -> Iterator[Report | None]:
    """The page, written when all models are done; None where none is wanted."""
    if job.targets.html is None:
        yield None
        return
    from wfvae_cli.cli.compare_work import describe_options
    from wfvae_cli.report.report import Report, ReportModel, ReportRun
    from wfvae_cli.report.versions import versions

    options: dict[str, JsonValue] = {
        "originals": job.subject.original,
        **describe_options(job.sampling, job.learned, ms_ssim=job.ms_ssim),
        "chunk": job.chunks.chunk or "suits the resolution",
        "tile": str(job.chunks.tile),
        "batch": str(job.dataset.work.batch),
    }
    run = ReportRun(
        title=job.subject.heading,
        command=shlex.join(["wfvae", *sys.argv[1:]]),
        versions=versions(),
        options=options,
        notes=(
            "Scores are of the decoded frames, before any video encoder. frames/s is of encoding "
            "and decoding alone; latents' size is that of float32.",
        ),
    )
    models = [ReportModel(label) for label in job.labels]
    with Report(job.targets.html, models, run, overwrite=job.targets.overwrite) as report:
        yield report


def _side(job: Roundtrip, index: int, recorder: ModelRecorder) -> Side:
    label = job.labels[index]
    facts: dict[str, JsonValue] = {
        "original": job.subject.original,
        "reconstruction": job.output_of(label),
        "model": recorder.identity.name,
        "model_sha256": recorder.identity.sha256,
    }
    return Side(label, recorder.comparison, recorder.measures.figures, facts)


def _conclude(console: Console, job: Roundtrip, sides: Sequence[Side]) -> None:
    from wfvae_cli.cli.scores_view import show

    write(console, job.subject, sides)
    show(console, job.subject, sides)
    console.result({"event": "scores", **summary(job.subject, sides)})


def _tell(console: Console, job: Roundtrip, done: RoundtripResult, side: Side) -> None:
    from wfvae_cli.cli.scores_view import describe_distances

    scores = done.metrics
    console.say(
        f"{display(job.output or 'measured')}: {scores.frames} frames of {scores.width}x"
        f"{scores.height} in {done.seconds:.1f} s ({scores.frames / done.seconds:.1f} frames/s)"
    )
    console.say(m.describe_scores(scores))
    for line in describe_distances(side.distances):
        console.say(line)
