"""`wfvae encode`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wfvae_cli.cli import options as o
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.run import reported

if TYPE_CHECKING:
    from wfvae_cli.latents.metadata import AppliedNormalization
    from wfvae_cli.models.base import LoadedModel

_EXAMPLES = """Examples:

    wfvae encode in.mp4 -o z.safetensors
    wfvae encode in.mp4 -o z.safetensors --start 10 --duration 5 --size 512x288
    ffmpeg -i in.mov -f matroska - | wfvae encode - -o - | wfvae decode - -o out.mp4
"""
_LATENTS = "Latents"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("encode", epilog=_EXAMPLES)(encode)


@reported
def encode(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help="A video, an image, a %05d frame pattern, or - for stdin."
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", help="A .safetensors file, or -.")
    ],
    model: o.Model = "wfvae-tiny",
    device: o.Device = "auto",
    dtype: o.DType = "auto",
    chunk: o.Chunk = None,
    posterior: Annotated[
        Literal["mean", "sample", "moments"],
        typer.Option(
            help="Store the posterior's mean, one sample of it, or mean and log-variance.",
            rich_help_panel=_LATENTS,
        ),
    ] = "mean",
    seed: Annotated[int, typer.Option(help="Of --posterior sample.", rich_help_panel=_LATENTS)] = 0,
    normalize: Annotated[
        bool,
        typer.Option(
            "--normalize",
            help="Store (z - shift) * scale with the config's values; decoding undoes it.",
            rich_help_panel=_LATENTS,
        ),
    ] = False,
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
    overwrite: o.Overwrite = False,
    json_output: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Turn a video or image into latents.

    The file says how to undo everything: frame rate or timestamps, size, padding, colours, and
    which weights made it.
    """
    console = Console(quiet, json_output)
    console.check_stdout(output)
    sampling = o.make_sampling(start, duration, frames, fps, size, fit, short_side)

    from wfvae_cli.atomic import check_output
    from wfvae_cli.codec.encode import EncodeOptions, encode_clip
    from wfvae_cli.media.reader import open_clip
    from wfvae_cli.models.load import load_model

    check_output(output, overwrite=overwrite)
    with open_clip(source, sampling) as reader:
        loaded = load_model(model, device=device, dtype=dtype, task="encode")
        encode_options = EncodeOptions(
            posterior=posterior,
            seed=seed,
            normalization=_config_normalization(loaded) if normalize else None,
            save_dtype=save_dtype,
            chunk=chunk,
        )
        with console.progress("encoding", reader.info.frames) as progress:
            done = encode_clip(
                reader,
                sys.stdout.buffer if output == "-" else output,
                loaded,
                options=encode_options,
                overwrite=overwrite,
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
            "seconds": round(done.seconds, 3),
        }
    )


def _config_normalization(model: LoadedModel) -> AppliedNormalization:
    from wfvae_cli.latents.metadata import AppliedNormalization
    from wfvae_cli.models.load import normalization_of

    normalization = normalization_of(model)
    return AppliedNormalization(normalization.shift, normalization.scale, source="config")
