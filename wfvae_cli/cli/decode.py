"""`wfvae decode`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from wfvae_cli.cli import options as o
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.run import reported
from wfvae_cli.heap import keep_freed_memory

_EXAMPLES = """Examples:

    wfvae decode z.safetensors -o out.mp4
    wfvae decode z.safetensors -o out.mkv --codec ffv1 --audio-from in.mp4
    wfvae decode z.safetensors -o frames/%05d.png
    wfvae decode z.safetensors -o - | ffplay -
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("decode", epilog=_EXAMPLES)(decode)


@reported
def decode(
    source: Annotated[
        str, typer.Argument(metavar="LATENTS", help="A latent file, or - for stdin.")
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="A video, an image, a %05d frame pattern, or - for stdout.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="What made the latents; by default the name that they carry.",
            rich_help_panel="Model",
        ),
    ] = None,
    device: o.Device = "auto",
    dtype: o.DType = "auto",
    chunk: o.Chunk = None,
    tile: o.TileOption = "auto",
    compile: o.Compile = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Decode latents that other weights of the same shape made.",
            rich_help_panel="Model",
        ),
    ] = False,
    audio_from: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Copy this file's sound track in.", rich_help_panel="Output"
        ),
    ] = None,
    codec: o.Codec = None,
    crf: o.Crf = None,
    pix_fmt: o.PixFmt = None,
    container: o.Container = None,
    overwrite: o.Overwrite = False,
    json_output: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Turn latents back into a video or image.

    Size, frame rate or timestamps, colours, bit depth and aspect come from the latent file.
    """
    console = Console(quiet, json_output)
    console.check_stdout(output)

    from wfvae_cli.atomic import check_output
    from wfvae_cli.cli.paths import check_outputs
    from wfvae_cli.latents.file import LatentFile

    video, tiles = o.make_video_options(codec, crf, pix_fmt, container), o.parse_tile(tile)
    check_outputs([output], [source, audio_from], model)
    check_output(output, overwrite=overwrite)
    with LatentFile(sys.stdin.buffer if source == "-" else source) as file:
        from wfvae_cli.models.hub import source_named_by_file
        from wfvae_cli.models.load import load_model
        from wfvae_cli.pipeline.decode import decode_clip

        loaded = load_model(
            model or source_named_by_file(file.metadata.model),
            device=device,
            dtype=dtype,
            task="decode",
            compile=compile,
        )
        keep_freed_memory(loaded.nbytes)
        with console.progress("decoding", file.metadata.frames) as progress:
            done = decode_clip(
                file,
                output,
                loaded,
                video=video,
                audio_from=audio_from,
                chunk=chunk,
                tile=tiles,
                force=force,
                overwrite=overwrite,
                progress=progress,
            )
    console.say(
        f"{o.display(output)}: {done.frames} frames of {done.width}x{done.height} "
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
