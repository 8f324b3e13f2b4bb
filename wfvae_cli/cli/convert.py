"""`wfvae convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wfvae_cli.cli import options as o
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.run import reported

_EXAMPLES = """Example:

    wfvae convert merged.ckpt -o my-vae --config config.json
    wfvae roundtrip in.mp4 --model my-vae
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("convert", epilog=_EXAMPLES)(convert)


@reported
def convert(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="A .ckpt, .pth or .bin file of torch.save.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write into.")
    ],
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its config.json, unless that lies beside CKPT."),
    ] = None,
    overwrite: o.Overwrite = False,
    json_output: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Turn a training checkpoint into safetensors and config.json.

    Takes the moving average of the weights (EMA) where there is one. Nothing in the checkpoint is
    executed: a file that needs code to be loaded is refused.
    """
    from wfvae_cli.models.convert import convert as convert_checkpoint

    console = Console(quiet, json_output)
    done = convert_checkpoint(checkpoint, output, config=config, overwrite=overwrite)
    console.say(
        f"{done.output}: {done.family}, {done.parameters / 1e6:.1f} M parameters in "
        f"{done.tensors} tensors from {done.source}"
    )
    console.result(
        {
            "input": str(checkpoint),
            "output": str(done.output),
            "family": done.family,
            "source": done.source,
            "tensors": done.tensors,
            "parameters": done.parameters,
        }
    )
