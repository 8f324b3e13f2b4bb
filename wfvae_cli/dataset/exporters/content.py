"""Checks and helpers that the exporters of trainers' caches share."""

from __future__ import annotations

from pathlib import PurePosixPath

from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.trainer_formats import TRAINER_FORMATS
from wfvae_cli.errors import UsageError
from wfvae_cli.latents.metadata import LatentMetadata


def check_content(form: str, metadata: LatentMetadata) -> None:
    """Refuse latents that a trainer's cache must not hold.

    Args:
        form: the name that `--format` gives the cache.
        metadata: of the latents.

    Raises:
        UsageError: they are another family's, a sample, or differ in normalisation.
    """
    wanted = TRAINER_FORMATS[form].content_of(metadata.family, metadata.model)
    if metadata.posterior != "mean":
        raise UsageError(
            f"the format {form} stores the posterior's mean, got its {metadata.posterior}"
        )
    found = "raw" if metadata.normalization is None else "normalised"
    if found != wanted:
        raise UsageError(f"the format {form} stores {wanted} latents, got {found} ones")


def stem_of(item: Item) -> str:
    """Return a clip's name without the suffix, which trainers take off, too; folders stay.

    All windows of a clip have the clip's own name here.
    """
    if item.id is not None:
        return item.id
    name = item.relative
    if item.window is not None:
        name = name.removesuffix(f"_{item.window}")
    if item.start or item.duration is not None:
        name = name.rpartition("@")[0]
    return str(PurePosixPath(name).with_suffix(""))
