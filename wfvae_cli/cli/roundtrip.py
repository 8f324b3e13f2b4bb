"""`wfvae roundtrip`."""

from __future__ import annotations

from typing import Annotated, Literal

from wfvae_cli.cli import measuring as m
from wfvae_cli.cli import roundtrip_work as w
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.dataset import DatasetOptions, tell_unused_fit
from wfvae_cli.dataset.options import EngineOptions, Selection, WorkOptions
from wfvae_cli.media.options import Hwaccel, ImageMemory, Sampling, VideoOptions
from wfvae_cli.models.options import DEFAULT_MODEL, ModelNames, RunOptions
from wfvae_cli.option import Argument, Option
from wfvae_cli.pipeline.options import ChunkOptions, Limits

EXAMPLES = """
    wfvae roundtrip in.mp4 -o out.mp4
    wfvae roundtrip in.mp4 --short-side 256 --report frames.json --plot frames.png
    wfvae roundtrip in.mp4 --worst 8 stills/ --ms-ssim
    wfvae roundtrip in.mp4 -o both.mp4 --compare side-by-side
    wfvae roundtrip videos/ -o out/ --html report/
    wfvae roundtrip videos/ --model wf-vae-l-16chn --model wan-2.1 --html report/ --lpips
"""


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
            "A video, an image, a %05d frame pattern, or - for stdout; a dataset's folder, with "
            "one in it for each of several models. Without it clips are only measured.",
            flags=("--output", "-o"),
            metavar="OUT",
            common=True,
        ),
    ] = None,
    model: ModelNames = None,
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
    of each file are in OUT/manifest.jsonl, and the same command resumes; where a page, plot or
    learned metric is asked for, files that are up to date go through the model again for it, and
    are not written again.
    """
    from wfvae_cli.media.hwaccel import check

    console.check_stdout(output)
    check(hwaccel)
    tell_unused_fit(sampling)
    job = w.Roundtrip(
        sources=sources,
        output=output,
        models=tuple(model or (DEFAULT_MODEL,)),
        run=run,
        chunks=chunks,
        targets=targets,
        learned=learned,
        sampling=sampling,
        video=video,
        dataset=DatasetOptions(selection, work, limits, engine, targets.overwrite),
        compare=compare,
        audio=audio,
        hwaccel=hwaccel,
        image_memory=max_image_memory,
        ms_ssim=ms_ssim,
    )
    if job.is_dataset:
        w.run_many(console, job)
    else:
        w.run_one(console, job)
