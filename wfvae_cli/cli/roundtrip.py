"""`wfvae roundtrip`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from wfvae_cli.cli import measuring as m
from wfvae_cli.cli import options as o
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.dataset import DatasetOptions, is_dataset, run_job, use_threads
from wfvae_cli.dataset.options import EngineOptions, Selection, WorkOptions
from wfvae_cli.errors import UsageError
from wfvae_cli.heap import keep_freed_memory
from wfvae_cli.media.options import Hwaccel, ImageMemory, Sampling, VideoOptions
from wfvae_cli.models.options import DEFAULT_MODEL, ModelName, RunOptions
from wfvae_cli.option import Argument, Option
from wfvae_cli.pipeline.options import ChunkOptions, Limits

if TYPE_CHECKING:
    from wfvae_cli.metrics.result import JsonValue
    from wfvae_cli.pipeline.roundtrip import RoundtripResult

EXAMPLES = """
    wfvae roundtrip in.mp4 -o out.mp4
    wfvae roundtrip in.mp4 --short-side 256 --report frames.json --plot frames.png
    wfvae roundtrip in.mp4 --worst 8 stills/ --ms-ssim
    wfvae roundtrip in.mp4 -o both.mp4 --compare side-by-side
    wfvae roundtrip videos/ -o out/
"""
_SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".png", ".jpg")


def roundtrip(
    sources: Annotated[
        list[str],
        Argument(
            "INPUT...",
            "A video, an image, a %05d frame pattern, or - for stdin. Or a dataset: directories, "
            "globs, manifests (.txt, .csv, .jsonl), several files, or URLs of these.",
        ),
    ],
    run: RunOptions,
    chunks: ChunkOptions,
    targets: m.Targets,
    sampling: Sampling,
    learned: m.Learned,
    video: VideoOptions,
    selection: Selection,
    work: WorkOptions,
    limits: Limits,
    engine: EngineOptions,
    console: Console,
    output: Annotated[
        str | None,
        Option(
            "A video, an image, a %05d frame pattern, or - for stdout; a dataset's folder. Without "
            "it one clip is only measured.",
            flags=("--output", "-o"),
            metavar="OUT",
            common=True,
        ),
    ] = None,
    model: ModelName = DEFAULT_MODEL,
    compare: Annotated[
        Literal["side-by-side", "diff"] | None,
        Option(
            "Write the original beside the reconstruction, or their amplified difference.",
            "Output",
        ),
    ] = None,
    audio: Annotated[
        Literal["copy", "none"],
        Option("Copy the sound track without re-encoding, or leave it out.", "Output"),
    ] = "copy",
    hwaccel: Hwaccel = "none",
    max_image_memory: ImageMemory = None,
    ms_ssim: Annotated[bool, Option("MS-SSIM too, which takes time.", "Metrics")] = False,
) -> None:
    """Encode, decode, and measure what was lost.

    Scores compare the decoded frames, clamped and rounded, with the frames that were encoded:
    before the video encoder of OUT, which loses something of its own. Of a dataset, the scores
    of each file are in OUT/manifest.jsonl, and the same command resumes.
    """
    from wfvae_cli.media.hwaccel import check

    console.check_stdout(output)
    check(hwaccel)
    dataset = DatasetOptions(selection, work, limits, engine, targets.overwrite)
    if not is_dataset(sources, output, dataset, _SUFFIXES):
        _roundtrip_one(
            sources[0], output, console, run, chunks, targets, sampling, learned, video, work,
            model, compare, audio, hwaccel, max_image_memory, ms_ssim=ms_ssim,
        )  # fmt: skip
        return
    if output is None:
        raise UsageError("a dataset needs a folder for its outputs and scores: add -o out/")
    _check_dataset(targets, learned)
    dataset = dataset.isolated()

    from wfvae_cli.dataset.config import RoundtripConfig
    from wfvae_cli.dataset.roundtrip_job import RoundtripJob
    from wfvae_cli.dataset.store import OutputStore

    config = RoundtripConfig(
        video, sampling, compare, audio, ms_ssim, chunks.chunk, chunks.tile, work.batch
    )
    options = dataset.job_options(run, model, hwaccel, max_image_memory)
    run_job(
        sources, output, RoundtripJob(OutputStore.of(output), config, **options), dataset, console
    )


def _check_dataset(targets: m.Targets, learned: m.Learned) -> None:
    """Refuse what only one clip has.

    Raises:
        UsageError: some was asked for.
    """
    given = {
        "--report": targets.report,
        "--plot": targets.plot,
        "--worst": targets.worst,
        "--lpips": learned.lpips or learned.lpips_weights,
        "--fid": learned.fid or learned.fid_weights,
        "--fvd-weights": learned.fvd_weights,
    }
    names = ", ".join(name for name, value in given.items() if value)
    if names:
        raise UsageError(
            f"{names}: for one clip; of a dataset, scores are in manifest.jsonl, and wfvae compare "
            "measures its outputs"
        )


def _roundtrip_one(
    source: str,
    output: str | None,
    console: Console,
    run: RunOptions,
    chunks: ChunkOptions,
    targets: m.Targets,
    sampling: Sampling,
    learned: m.Learned,
    video: VideoOptions,
    work: WorkOptions,
    model: str,
    compare: Literal["side-by-side", "diff"] | None,
    audio: Literal["copy", "none"],
    hwaccel: str,
    image_memory: int | None,
    *,
    ms_ssim: bool,
) -> None:
    from wfvae_cli.atomic import check_output
    from wfvae_cli.cli.paths import check_outputs
    from wfvae_cli.dataset.config import check_batch
    from wfvae_cli.media.audio import has_sound
    from wfvae_cli.media.opening import is_playlist
    from wfvae_cli.media.reader import open_clip
    from wfvae_cli.pipeline.roundtrip import roundtrip_clip

    check_outputs(
        [output, targets.report, targets.plot],
        [source, learned.lpips_weights, learned.fid_weights, learned.fvd_weights],
        model,
    )
    if output is not None:
        check_output(output, overwrite=targets.overwrite)
    targets.check()
    check_batch(work.batch, chunks.tile)
    if source == "-" and output is not None and audio == "copy":
        console.note("a pipe can be read only once: its sound, if it has any, is not copied")
    elif is_playlist(source) and output is not None and audio == "copy":
        console.note("the sound of what a playlist names, if it has any, is not copied")
    with open_clip(
        source, sampling, hwaccel=hwaccel, image_memory=image_memory, trusted=True
    ) as reader:
        measures = learned.measures(run.device, ms_ssim=ms_ssim)
        loaded = run.load(model)
        use_threads(run.device, work.threads)
        keep_freed_memory(loaded.nbytes)
        stills = targets.stills(m.title_of(source))
        with console.progress("roundtrip", reader.info.frames) as progress:
            done = roundtrip_clip(
                reader,
                output,
                loaded,
                video=video,
                audio_from=source if audio == "copy" and has_sound(source) else None,
                compare=compare,
                metrics=m.clip_metrics(measures, stills),
                chunk=chunks.chunk,
                tile=chunks.tile,
                batch=work.batch,
                overwrite=targets.overwrite,
                progress=progress,
            )
    facts: dict[str, JsonValue] = {
        "input": source,
        "output": output,
        "model": loaded.name,
        "tile": done.tile,
        **m.distances(measures),
    }
    targets.write(
        console,
        done.metrics,
        f"{m.title_of(source)} through {loaded.name}",
        stills,
        {**facts, "seconds": round(done.seconds, 3)},
    )
    _tell(console, done, output, m.describe_distances(measures))
    console.result({**facts, **done.metrics.to_json(), "seconds": round(done.seconds, 3)})


def _tell(
    console: Console, done: RoundtripResult, output: str | None, distances: str | None
) -> None:
    scores = done.metrics
    console.say(
        f"{o.display(output or 'measured')}: {scores.frames} frames of {scores.width}x"
        f"{scores.height} in {done.seconds:.1f} s ({scores.frames / done.seconds:.1f} frames/s)"
    )
    console.say(m.describe_scores(scores))
    if distances is not None:
        console.say(distances)
