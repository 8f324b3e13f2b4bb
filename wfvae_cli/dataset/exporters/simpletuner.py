"""The VAE cache of SimpleTuner (https://github.com/bghira/SimpleTuner).

`FOLDER/{SHA-256 of the stem}.pt` is `torch.save` of a bare tensor `[C, F', H', W']`: the normalised
mode of the posterior, which is its mean. Folders are those below the trainer's
`instance_data_dir`.
"""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath

from torch import Tensor
from typing_extensions import override

from wfvae_cli.dataset.exporters.pt_cache import PtCache
from wfvae_cli.dataset.items import Item
from wfvae_cli.latents.metadata import LatentMetadata


class SimpleTunerFiles(PtCache):
    """The files of a `cache_dir_vae`."""

    @override
    def name_of(self, item: Item) -> str:
        """Return the file name that the trainer looks for."""
        path = PurePosixPath(self.stem_of(item))
        return str(path.with_name(f"{hash_of(path.name)}.pt"))

    @override
    def content(self, latents: Tensor, metadata: LatentMetadata) -> Tensor:
        """Return the latents, which SimpleTuner stores as a bare tensor."""
        return latents


def hash_of(stem: str) -> str:
    """Return the name that the trainer has for a file, by its name without folder and suffix."""
    return hashlib.sha256(stem.encode("utf-8", "surrogateescape")).hexdigest()
