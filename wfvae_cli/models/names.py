"""Values of `--model`: an embedded or published name, a path, or a repository on the Hub."""

from __future__ import annotations

import contextlib
import difflib
import re
from pathlib import Path

from wfvae_cli.errors import LatentError, WeightsError
from wfvae_cli.models.published import (
    PUBLISHED,
    HubSource,
    PublishedModel,
    find_published,
)
from wfvae_cli.strides import Strides

PICKLE_SUFFIXES = (".ckpt", ".pth", ".pt", ".bin", ".pkl")
"""Suffixes of checkpoints that only `wfvae convert` reads."""
_FILE_SUFFIXES = (".safetensors", ".json", *PICKLE_SUFFIXES)
_REPOSITORY = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/(?P<subfolder>.+))?")


def find_source(model: str) -> Path | HubSource:
    """Say where the weights called `model` are, without touching the network.

    Args:
        model: one of the names in `PUBLISHED`; else a path that exists; else
            `owner/repo[/subfolder][@revision]`. A known name wins over a file of that name, so
            that a stray folder never replaces the default (`./NAME` is the folder); a path that
            exists wins over a repository.

    Raises:
        WeightsError: it is none of these.
    """
    published = find_published(model)
    if published is not None:
        return _published_source(published)
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # not a valid path
        path = Path(model).expanduser()
        if model and path.exists():
            return path
    repository, _, revision = model.partition("@")
    match = _REPOSITORY.fullmatch(repository.rstrip("/"))
    if match is None or repository.endswith(_FILE_SUFFIXES):
        raise WeightsError(_unknown(model))
    return HubSource(match["repo"], match["subfolder"] or "", revision or None)


def embedded_folder(name: str) -> Path:
    """Find the folder of the embedded model `name`: in the installed package, or in a checkout."""
    package = Path(__file__).resolve().parents[1]
    folders = (package / "weights" / name, package.parent / "weights" / name)
    for folder in folders:
        if folder.is_dir():
            return folder
    raise WeightsError(
        f"the embedded model {name} is not in this installation (looked for {folders[0]} and "
        f"{folders[1]}): install the package again"
    )


def check_could_have_made(name: str, family: str, channels: int, strides: Strides) -> None:
    """Refuse latents that a published model cannot have made, before it is downloaded.

    Args:
        name: the model as the user gave it; one that has no name here is not checked.
        family: of the model that made the latent file, by its header; the others likewise.
        channels: of the latents.
        strides: of that model.

    Raises:
        LatentError: the model called `name` makes other latents.
    """
    entry = find_published(name)
    if entry is None or (entry.family, entry.channels, entry.strides) == (
        family,
        channels,
        strides,
    ):
        return
    raise LatentError(
        f"these latents were made by a model of the family {family} with {channels} channels and "
        f"strides {strides}, but {name!r} is {entry.family} with {entry.channels} channels and "
        f"strides {entry.strides}: give the model that made it with --model"
    )


def _published_source(entry: PublishedModel) -> Path | HubSource:
    if entry.source is None:
        return embedded_folder(entry.name)
    if entry.pickle is not None:
        folder = entry.source.subfolder
        raise WeightsError(
            f"{entry.name} is published as {entry.pickle}, a pickle, which is not executed: make "
            "safetensors of it once, and give DIR to --model:\n"
            f'  hf download {entry.source.repo} --include "{folder}/*" --local-dir DOWNLOADED\n'
            f"  wfvae convert DOWNLOADED/{folder}/{entry.pickle} -o DIR"
        )
    return entry.source


def _unknown(model: str) -> str:
    names = [entry.name for entry in PUBLISHED]
    near = difflib.get_close_matches(model.lower(), names, n=1, cutoff=0.5)
    nearest = f" Did you mean {near[0]}?" if near else ""
    return (
        f"no model {model!r}: there is no such file or folder, and it is not one of the names "
        f"{', '.join(names)}.{nearest} A folder with config.json and safetensors, a .safetensors "
        f"file, or owner/repo[/subfolder][@revision] on the Hugging Face Hub will do too"
    )
