"""`wfvae decode`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from wfvae_cli.cli.console import Console
from wfvae_cli.cli.dataset import DatasetOptions, is_dataset, list_items, run_job, use_threads
from wfvae_cli.cli.output import Overwrite, display
from wfvae_cli.cli.paths import on_this_machine
from wfvae_cli.cli.run import import_torch
from wfvae_cli.dataset.options import EngineOptions, Selection, WorkOptions
from wfvae_cli.errors import LatentError, UsageError
from wfvae_cli.heap import keep_freed_memory
from wfvae_cli.media.options import VideoOptions
from wfvae_cli.models.options import RunOptions, model_option
from wfvae_cli.option import Argument, Option
from wfvae_cli.pipeline.options import ChunkOptions, DecodedPart, Limits, check_batch

if TYPE_CHECKING:
    from wfvae_cli.dataset.items import Item, Kind

EXAMPLES = """
    wfvae decode z.safetensors -o out.mp4
    wfvae decode z.safetensors -o out.mkv --codec ffv1 --audio-from in.mp4
    wfvae decode z.safetensors -o frames/%05d.png
    wfvae decode z.safetensors -o frame.png --start 10 --frames 1
    wfvae decode z.safetensors -o - | ffplay -
    wfvae decode latents/ -o videos/
"""
_SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".png", ".jpg", ".safetensors")


_KINDS: tuple[Kind, ...] = ("latents",)


def decode(
    sources: Annotated[
        list[str],
        Argument(
            "LATENTS...",
            "A latent file, or - for stdin. Or a dataset: directories, globs, lists, several "
            "files, or URLs of these.",
        ),
    ],
    output: Annotated[
        str,
        Option(
            "A video, an image, a %05d frame pattern, or - for stdout; a dataset's folder.",
            flags=("--output", "-o"),
            metavar="OUT",
        ),
    ],
    run: RunOptions,
    chunks: ChunkOptions,
    part: DecodedPart,
    video: VideoOptions,
    selection: Selection,
    work: WorkOptions,
    limits: Limits,
    engine: EngineOptions,
    console: Console,
    model: Annotated[
        str | None,
        model_option("What made the latents; by default the name that they carry."),
    ] = None,
    force: Annotated[
        bool, Option("Decode latents that other weights of the same shape made.", "Model")
    ] = False,
    audio_from: Annotated[
        str | None,
        Option("Copy this file's sound track in; for one clip.", "Output", metavar="FILE"),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn latents back into videos and images.

    Size, frame rate or timestamps, colours, bit depth and aspect come from the latent file. Of a
    dataset, a/x.mp4.safetensors becomes a/x.mp4, and images PNG; it is resumed by the same command.
    """
    console.check_stdout(output)
    dataset = DatasetOptions(selection, work, limits, engine, overwrite)
    if not is_dataset(sources, output, dataset, _SUFFIXES):
        source = sources[0] if sources[0] == "-" else str(on_this_machine(sources[0]))
        _decode_one(
            source, output, console, run, chunks, part, video, work, model, audio_from,
            force=force, overwrite=overwrite,
        )  # fmt: skip
        return
    dataset = dataset.isolated()
    if audio_from is not None:
        raise UsageError("--audio-from is for one clip: leave it out")

    from wfvae_cli.dataset.config import DecodeConfig
    from wfvae_cli.dataset.decode_job import DecodeJob
    from wfvae_cli.dataset.store import OutputStore
    from wfvae_cli.models.hub import source_named_by_file

    config = DecodeConfig(video, chunks.chunk, chunks.tile, work.batch, force, part)
    items = list_items(sources, selection, _KINDS)
    found = model or source_named_by_file(_model_of(items))
    job = DecodeJob(OutputStore.of(output), config, **dataset.job_options(run, found))
    run_job(sources, output, job, dataset, console, _KINDS, items=items)


def _model_of(items: Sequence[Item]) -> str:
    """Read which model made a dataset, of the first file that can be read."""
    from wfvae_cli.dataset.source import at_hand
    from wfvae_cli.errors import InputError
    from wfvae_cli.latents.file import LatentFile

    for item in items:
        try:
            with at_hand(item, lambda: None) as (path, _), LatentFile(path) as file:
                return file.metadata.model
        except InputError:
            continue  # the run will say why
    raise LatentError(
        f"none of {len(items)} files can be read as latents, the first one being {items[0].path}: "
        "expected latent files of wfvae encode (wfvae convert-cache FROM -o TO --format files "
        "makes them of a trainer's cache)"
    )


def _decode_one(
    source: str,
    output: str,
    console: Console,
    run: RunOptions,
    chunks: ChunkOptions,
    part: DecodedPart,
    video: VideoOptions,
    work: WorkOptions,
    model: str | None,
    audio_from: str | None,
    *,
    force: bool,
    overwrite: bool,
) -> None:
    from wfvae_cli.atomic import check_output
    from wfvae_cli.cli.paths import check_outputs
    from wfvae_cli.latents.file import LatentFile

    check_outputs([output], [source, audio_from], model)
    check_output(output, overwrite=overwrite)
    check_batch(work.batch, chunks.tile)
    with LatentFile(sys.stdin.buffer if source == "-" else source) as file:
        from wfvae_cli.models.hub import source_named_by_file
        from wfvae_cli.models.names import check_could_have_made

        made, name = file.metadata, model or file.metadata.model
        check_could_have_made(name, made.family, made.channels, made.strides)
        import_torch()
        from wfvae_cli.pipeline.decode import decode_clip

        loaded = run.load(model or source_named_by_file(name), "decode")
        use_threads(run.device, work.threads)
        keep_freed_memory(loaded.nbytes)
        total = min(file.metadata.frames, part.frames or file.metadata.frames)
        with console.progress("decoding", total) as progress:
            done = decode_clip(
                file,
                output,
                loaded,
                part=part,
                video=video,
                audio_from=audio_from,
                chunk=chunks.chunk,
                tile=chunks.tile,
                batch=work.batch,
                force=force,
                overwrite=overwrite,
                progress=progress,
            )
    console.say(
        f"{display(output)}: {done.frames} frames of {done.width}x{done.height} "
        f"in {done.seconds:.1f} s ({done.frames / done.seconds:.1f} frames/s)"
    )
    console.result(
        {
            "input": source,
            "output": output,
            "model": loaded.name,
            "frames": done.frames,
            "width": done.width,
            "height": done.height,
            "tile": done.tile,
            "seconds": round(done.seconds, 3),
        }
    )
