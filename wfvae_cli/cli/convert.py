"""`wfvae convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wfvae_cli.cli import options as o
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.run import reported

_EXAMPLES = """Examples:

    wfvae convert merged.ckpt -o my-vae --config config.json
    wfvae convert Wan2.1_VAE.pth -o wan
    wfvae convert wfvae2-video/ -o wfvae2-image --to-image
    wfvae roundtrip in.mp4 --model my-vae
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("convert", epilog=_EXAMPLES)(convert)


@reported
def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CKPT",
            help="A .ckpt, .pth or .bin file of torch.save; or safetensors, a file or a folder.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write into.")
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Its config.json, unless that lies beside CKPT. Wan's VAEs need none.",
        ),
    ] = None,
    to_image: Annotated[
        bool,
        typer.Option(
            "--to-image",
            help="Derive an image checkpoint from a second-generation WF-VAE for video: what that "
            "computes for a clip of one frame, as a starting point for training on images.",
        ),
    ] = False,
    overwrite: o.Overwrite = False,
    json_output: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Turn a checkpoint into safetensors and config.json.

    Takes the moving average of the weights (EMA) where there is one. Nothing in the checkpoint is
    executed: a file that needs code to be loaded is refused.
    """
    from wfvae_cli.models.convert import convert as convert_checkpoint

    console = Console(quiet, json_output)
    done = convert_checkpoint(
        checkpoint, output, config=config, overwrite=overwrite, image=to_image
    )
    console.say(
        f"{done.output}: {done.family}, {done.parameters / 1e6:.1f} M parameters in "
        f"{done.tensors} tensors from {done.source}"
    )
    for note in done.notes:
        console.say(f"  {note}")
    distance = done.still_distance
    if distance is not None:
        console.say(
            f"  on still images: latents differ by {distance.latents:.2g} of their size; from "
            f"equal latents, frames by {distance.frames:.2g} on the scale of [-1, 1] "
            f"({distance.psnr:.1f} dB)"
        )
    console.result(
        {
            "input": str(checkpoint),
            "output": str(done.output),
            "family": done.family,
            "source": done.source,
            "tensors": done.tensors,
            "parameters": done.parameters,
            "notes": list(done.notes),
            "still_distance": None if distance is None else distance.as_dict(),
        }
    )
