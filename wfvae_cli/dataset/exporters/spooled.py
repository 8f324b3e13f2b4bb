"""What the outputs of trainers' formats have in common: a mean in bfloat16, spooled to disk."""

from __future__ import annotations

import torch
from torch import Tensor

from wfvae_cli.dataset.exporters.base import check_finite
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.latents.metadata import LatentMetadata
from wfvae_cli.latents.spool import PlaneSpool


class SpooledOutput:
    """One clip's latents until their number is known; a format adds `finish`.

    Args:
        store: where the output goes.
        metadata: of the clip.
        suffix: of the file that is being written.
    """

    def __init__(self, store: OutputStore, metadata: LatentMetadata, suffix: str) -> None:
        self._store, self._metadata = store, metadata
        self._part = store.part(suffix)
        self._channels, _, self._height, self._width = metadata.latent_shape
        self._spool = PlaneSpool(
            self._channels, self._height, self._width, torch.bfloat16, store.work
        )

    @property
    def latent_frames(self) -> int:
        """Latent frames appended so far."""
        return self._spool.frames

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        """`[Z, T', H', W']` of what was appended."""
        return self._channels, self._spool.frames, self._height, self._width

    def append(self, latents: Tensor, logvar: Tensor | None) -> None:
        """Take the next `[Z, t, H', W']`."""
        assert logvar is None, "these formats store the mean"
        stored = latents.detach().to("cpu", torch.bfloat16)
        check_finite(stored, self.latent_frames)
        self._spool.append(stored)

    def close(self) -> None:
        """Remove what is not complete."""
        self._spool.close()
        self._part.unlink(missing_ok=True)
