"""The `wfvae` program: its commands and what they have in common."""

from __future__ import annotations

from typing import Annotated

import typer

from wfvae_cli import __version__
from wfvae_cli.cli import bench, compare, convert, decode, encode, info, models, roundtrip, stats
from wfvae_cli.cli.params import add_command
from wfvae_cli.cli.program import Program

app = typer.Typer(
    name="wfvae",
    cls=Program,
    help="Turn videos and images into the latents of a video VAE and back.\n\n"
    "Exact, streaming, and constant in memory: every frame comes back, however long the clip.",
    epilog="Exit codes: 0 done, 1 our bug, 2 usage, 3 input, 4 weights, 5 output, "
    "6 memory or device, 7 some files of many failed, 130 interrupted.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
add_command(app, encode.encode, encode.EXAMPLES)
add_command(app, decode.decode, decode.EXAMPLES)
add_command(app, roundtrip.roundtrip, roundtrip.EXAMPLES)
add_command(app, compare.compare, compare.EXAMPLES)
add_command(app, stats.stats, stats.EXAMPLES)
add_command(app, info.info, info.EXAMPLES)
add_command(app, models.models, models.EXAMPLES)
add_command(app, bench.bench, bench.EXAMPLES)
add_command(app, convert.convert, convert.EXAMPLES)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wfvae {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    del version  # its callback has printed and left
