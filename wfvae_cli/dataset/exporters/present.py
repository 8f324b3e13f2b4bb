"""Formats that an output folder holds already: two of one dataset would give clips twice."""

from __future__ import annotations

import os
import re
from pathlib import Path

from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.errors import OutputError

_SHARD_NAME = re.compile(r"latents(-\d{5}-of-(?P<count>\d{5}))?-\d{6}-\d{3,}\.tar")
_FILE_SUFFIX = ".safetensors"


def check_format(store: OutputStore, *, is_tar: bool) -> None:
    """Refuse a folder that holds outputs of another format, which readers would give twice.

    Args:
        store: the output folder, as this run, which may be one share of several, uses it.
        is_tar: whether this run writes tar shards.

    Raises:
        OutputError: there are files where shards are to come, shards where files are, or shards
            of the dataset cut into another number of shares.
    """
    root = store.root
    if store.url is not None or not root.is_dir():
        return
    remedy = "readers would give clips twice: choose another -o, or move these away"
    with os.scandir(root) as entries:
        matches = [match for entry in entries if (match := _SHARD_NAME.fullmatch(entry.name))]
    if matches and not is_tar:
        raise OutputError(
            f"{root} holds tar shards, such as {matches[0][0]}, and files would come beside them; "
            f"{remedy}, or add --format webdataset"
        )
    if not is_tar:
        return
    ours = store.run.rpartition("-of-")[2] if "-of-" in store.run else ""
    for match in matches:
        if (match["count"] or "") != ours:
            raise OutputError(
                f"{root} holds tar shards of {_shares(match['count'])}, such as {match[0]}, and "
                f"this run writes those of {_shares(ours)}; {remedy}"
            )
    file = _first_latent_file(root)
    if file is not None:
        raise OutputError(
            f"{root} holds latent files, such as {file}, and tar shards would come beside them; "
            f"{remedy}, or leave --format webdataset out"
        )


def _shares(count: str | None) -> str:
    return f"one of {int(count)} shares" if count else "the whole dataset"


def _first_latent_file(root: Path) -> str | None:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.endswith(_FILE_SUFFIX) and not name.startswith("."):
                return str(Path(folder, name).relative_to(root))
    return None
