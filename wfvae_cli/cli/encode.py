"""`wfvae encode`: one clip here, a dataset in `encode_dataset`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from wfvae_cli.cli import dataset_options as d
from wfvae_cli.cli import options as o
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.encode_dataset import Flags, Request, encode_dataset
from wfvae_cli.cli.run import reported
from wfvae_cli.errors import UsageError

_EXAMPLES = """Examples:

    wfvae encode in.mp4 -o z.safetensors
    wfvae encode in.mp4 -o z.safetensors --start 10 --duration 5 --size 512x288
    ffmpeg -i in.mov -f matroska - | wfvae encode - -o - | wfvae decode - -o out.mp4
    wfvae encode videos/ -o latents/ --short-side 256 --batch auto
    wfvae encode list.csv -o latents/ --shard 3/16
    wfvae encode videos/ -o shards/ --format webdataset --engine ray
"""
_LATENTS = "Latents"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("encode", epilog=_EXAMPLES)(encode)


@reported
def encode(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="A video, an image, a %05d frame pattern, or - for stdin. Or a dataset: "
            "directories, globs, manifests (.txt, .csv, .jsonl), several files, or URLs of these.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="OUT", help="A .safetensors file, or -; a dataset's folder."
        ),
    ],
    model: o.Model = "wfvae-tiny",
    device: o.Device = "auto",
    dtype: o.DType = "auto",
    chunk: o.Chunk = None,
    tile: o.TileOption = "auto",
    compile: o.Compile = False,
    posterior: Annotated[
        Literal["mean", "sample", "moments"],
        typer.Option(
            help="Store the posterior's mean, one sample of it, or mean and log-variance.",
            rich_help_panel=_LATENTS,
        ),
    ] = "mean",
    seed: Annotated[
        int,
        typer.Option(
            help="Of --posterior sample; a dataset's clips derive one each.",
            rich_help_panel=_LATENTS,
        ),
    ] = 0,
    normalize: Annotated[
        bool,
        typer.Option(
            "--normalize",
            help="Store (z - shift) * scale with the config's values, or those of --stats; "
            "decoding undoes it.",
            rich_help_panel=_LATENTS,
        ),
    ] = False,
    stats: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Take shift and scale from a file of wfvae stats, with --normalize.",
            rich_help_panel=_LATENTS,
        ),
    ] = None,
    save_dtype: Annotated[
        Literal["float32", "float16", "bfloat16"],
        typer.Option(help="What latents are stored as.", rich_help_panel=_LATENTS),
    ] = "float32",
    start: o.Start = 0.0,
    duration: o.Duration = None,
    frames: o.Frames = None,
    fps: o.Fps = None,
    size: o.Size = None,
    fit: o.Fit = "crop",
    short_side: o.ShortSide = None,
    hwaccel: o.Hwaccel = "none",
    include: d.Include = None,
    exclude: d.Exclude = None,
    limit: d.Limit = None,
    shard: d.ShardOption = None,
    format_: d.Format = "files",
    shard_clips: d.ShardClips = 1000,
    shard_size: d.ShardSize = 1024,
    layout: d.LayoutOption = "wfvae",
    batch: d.BatchOption = "1",
    readers: d.Readers = None,
    threads: d.Threads = None,
    time_limit: d.TimeLimit = None,
    stall_limit: d.StallLimit = 300.0,
    max_failures: d.MaxFailures = None,
    keep: d.Keep = False,
    verify: d.Verify = False,
    engine: d.EngineOption = "local",
    address: d.Address = None,
    workers: d.Workers = None,
    profile: d.ProfileOption = False,
    overwrite: o.Overwrite = False,
    json_output: d.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Turn a video, an image or a whole dataset into latents.

    A latent file says how to undo everything: frame rate or timestamps, size, padding, colours,
    and which weights made it. A dataset is resumed by the same command: only what is missing is
    done, a file that cannot be read is recorded in OUT/manifest.jsonl, and the run goes on.
    """
    console = Console(quiet, json_output)
    console.check_stdout(output)
    sampling = o.make_sampling(start, duration, frames, fps, size, fit, short_side)
    o.check_hwaccel(hwaccel)
    if stats is not None and not normalize:
        raise UsageError("--stats says what --normalize applies: add --normalize")

    from wfvae_cli.pipeline.encode import EncodeOptions

    request = Request(
        model=model,
        device=device,
        dtype=dtype,
        options=EncodeOptions(
            posterior=posterior,
            seed=seed,
            save_dtype=save_dtype,
            chunk=chunk,
            tile=o.parse_tile(tile),
        ),
        compile=compile,
        sampling=sampling,
        normalize=normalize,
        stats=stats,
        overwrite=overwrite,
        hwaccel=hwaccel,
    )
    flags = Flags(
        include=include or (),
        exclude=exclude or (),
        limit=limit,
        shard=shard,
        format=format_,
        shard_clips=shard_clips,
        shard_size=shard_size,
        layout=layout,
        batch=batch,
        readers=readers,
        threads=threads,
        time_limit=time_limit,
        stall_limit=stall_limit,
        max_failures=max_failures,
        keep=keep,
        verify=verify,
        engine=engine,
        address=address,
        workers=workers,
        profile=profile,
    )
    if flags.is_dataset(sources, output):
        encode_dataset(sources, output, request, flags, console)
    else:
        _encode_one(sources[0], output, request, console)


def _encode_one(source: str, output: str, request: Request, console: Console) -> None:
    from wfvae_cli.atomic import check_output
    from wfvae_cli.cli.paths import check_latents_name, check_outputs
    from wfvae_cli.media.reader import open_clip
    from wfvae_cli.models.load import load_model
    from wfvae_cli.pipeline.encode import encode_clip

    check_outputs([output], [source, request.stats], request.model)
    check_latents_name(output)
    check_output(output, overwrite=request.overwrite)
    with open_clip(source, request.sampling, hwaccel=request.hwaccel) as reader:
        loaded = load_model(
            request.model,
            device=request.device,
            dtype=request.dtype,
            task="encode",
            compile=request.compile,
        )
        options = request.normalized(loaded.sha256, loaded.vae.normalization)
        with console.progress("encoding", reader.info.frames) as progress:
            done = encode_clip(
                reader,
                sys.stdout.buffer if output == "-" else output,
                loaded,
                options=options,
                overwrite=request.overwrite,
                progress=progress,
            )
    shape = "x".join(map(str, done.latent_shape))
    console.say(
        f"{o.display(output)}: {done.frames} frames of {done.width}x{done.height} as {shape} "
        f"latents in {done.seconds:.1f} s ({done.frames / done.seconds:.1f} frames/s)"
    )
    console.result(
        {
            "input": source,
            "output": output,
            "model": loaded.name,
            "model_sha256": loaded.sha256,
            "frames": done.frames,
            "width": done.width,
            "height": done.height,
            "shape": list(done.latent_shape),
            "tile": done.tile,
            "seconds": round(done.seconds, 3),
        }
    )
