"""Options that only a dataset has, of `wfvae encode` and some of `wfvae stats`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from wfvae_cli.errors import UsageError

_WHICH, _HOW, _WHO = "Datasets: which files", "Datasets: how", "Datasets: who does it"

Include = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Take only names that match one.", rich_help_panel=_WHICH),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Leave out names that match.", rich_help_panel=_WHICH),
]
Limit = Annotated[
    int | None, typer.Option(help="Take at most this many files.", rich_help_panel=_WHICH)
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Take share I (from 0) of N, by the hash of each name: for job arrays.",
        rich_help_panel=_WHICH,
    ),
]
Format = Annotated[
    Literal["files", "webdataset"],
    typer.Option(
        "--format",
        help="A file for every clip, or tar shards for the webdataset library.",
        rich_help_panel=_HOW,
    ),
]
ShardClips = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Clips that make a group of tar shards, which is written when all are encoded.",
        rich_help_panel=_HOW,
    ),
]
ShardSize = Annotated[
    int,
    typer.Option(
        min=1, metavar="MIB", help="A tar shard this large takes no more.", rich_help_panel=_HOW
    ),
]
LayoutOption = Annotated[
    Literal["wfvae", "musubi"],
    typer.Option(
        "--layout",
        help="Our latent files, or the cache files that musubi-tuner reads.",
        rich_help_panel=_HOW,
    ),
]
BatchOption = Annotated[
    str,
    typer.Option(
        "--batch",
        metavar="N|auto",
        help="Clips and images of one shape that go through the model together.",
        rich_help_panel=_HOW,
    ),
]
Readers = Annotated[
    int | None,
    typer.Option(
        min=1, help="Files that are decoded at once, ahead of the model.", rich_help_panel=_HOW
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="K",
        help="CPU cores that a model on the CPU computes with; part of the recorded options, "
        "because rounding depends on it. Default: 4, or OMP_NUM_THREADS.",
        rich_help_panel=_HOW,
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Give up a file that takes longer to read and decode.",
        rich_help_panel=_HOW,
    ),
]
StallLimit = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        help="Give up a file that gives nothing for so long.",
        rich_help_panel=_HOW,
    ),
]
MaxFailures = Annotated[
    int | None,
    typer.Option(min=1, help="Stop once so many files have failed.", rich_help_panel=_HOW),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Read the outputs that are there, and encode those again whose data are damaged.",
        rich_help_panel=_HOW,
    ),
]
Keep = Annotated[
    bool,
    typer.Option(
        "--keep",
        help="Leave outputs that were made with other options; --overwrite makes them anew.",
        rich_help_panel=_HOW,
    ),
]
ProfileOption = Annotated[
    bool,
    typer.Option(
        "--profile",
        help="Say how the time was spent: waiting for input, in the model, waiting for output.",
        rich_help_panel=_HOW,
    ),
]
EngineOption = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="This process, or workers on Ray.", rich_help_panel=_WHO),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Of a Ray cluster, or auto; by default RAY_ADDRESS, or one on this machine.",
        rich_help_panel=_WHO,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="On Ray. Default: one for each GPU, or for each --threads cores.",
        rich_help_panel=_WHO,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Put one JSON object on stdout; for a dataset, one on a line for every event.",
        rich_help_panel="Messages",
    ),
]


def check_engine(engine: str, address: str | None, workers: int | None) -> None:
    """Refuse what only Ray understands where it does not work.

    Raises:
        UsageError: there is such an option.
    """
    if engine == "local" and (workers is not None or address is not None):
        raise UsageError("--workers and --address are for --engine ray: add it")
