"""`wfvae convert-cache`."""

from __future__ import annotations

from typing import Annotated

from wfvae_cli.cli.console import Console
from wfvae_cli.cli.paths import on_this_machine
from wfvae_cli.dataset.options import Format
from wfvae_cli.models.options import model_option
from wfvae_cli.option import Argument, Option

EXAMPLES = """
    wfvae convert-cache latents/ -o cache/ --format musubi
    wfvae convert-cache cache/ -o latents/ --format files --model wan-2.1
"""


def convert_cache(
    source: Annotated[
        str, Argument("FROM", "A cache, as wfvae audit takes it: a folder or a file of latents.")
    ],
    output: Annotated[
        str, Option("The folder to write into.", flags=("--output", "-o"), metavar="DIR")
    ],
    format: Annotated[Format, Option("What to write, as wfvae encode --format.", common=True)],
    console: Console,
    model: Annotated[
        str | None,
        model_option("The model that made it, unless its headers say enough."),
    ] = None,
) -> None:
    """Write one cache in another's format, without encoding again.

    Latents are normalised, or a normalisation is undone, as the format wants them. Refused is what
    cannot be: a sample where the mean is stored, a source's size or frame rate that is not known.
    The same command continues a conversion that was interrupted.
    """
    from wfvae_cli.audit.cache import open_cache
    from wfvae_cli.audit.convert import convert_entries

    target = on_this_machine(output)
    cache = open_cache(on_this_machine(source))
    with console.progress("converting", len(cache.entries), "clips") as progress:
        done = convert_entries(cache, target, format, model, progress)
    console.say(
        f"{output}: {done.written} clips of {cache.format} as {format}"
        + (f", {done.current} already up to date" if done.current else "")
    )
    console.result(
        {
            "input": source,
            "output": output,
            "from": cache.format,
            "format": format,
            "written": done.written,
            "current": done.current,
        }
    )
