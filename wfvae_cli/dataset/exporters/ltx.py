"""The latents of the LTX-2 trainer (https://github.com/Lightricks/LTX-2, `packages/ltx-trainer`).

`.precomputed/latents/TREE.pt` is `torch.save` of a dict: `latents` `[128, F', H', W']` bfloat16,
the normalised mean; `num_frames`, `height` and `width` count latents; `fps` is the clip's rate, 1
of an image. The trainer pairs it with the text in `.precomputed/conditions/TREE.pt`.
"""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from wfvae_cli.dataset.exporters.pt_cache import PtCache
from wfvae_cli.dataset.items import Item
from wfvae_cli.errors import UsageError
from wfvae_cli.latents.metadata import LatentMetadata

FOLDER = ".precomputed/latents"


class LtxFiles(PtCache):
    """The files of a `.precomputed` folder."""

    @override
    def name_of(self, item: Item) -> str:
        """Return the file that the trainer pairs with the text of the same name."""
        return f"{FOLDER}/{self.stem_of(item)}.pt"

    @override
    def content(self, latents: Tensor, metadata: LatentMetadata) -> dict[str, Tensor | int | float]:
        """Return the dict that the trainer's dataset loads.

        Raises:
            UsageError: a clip without a frame rate, which the trainer needs.
        """
        if metadata.frame_rate is None and not metadata.is_image:
            raise UsageError(
                "the format ltx needs a frame rate, and this clip has none: give --fps"
            )
        _, frames, height, width = latents.shape
        return {
            "latents": latents,
            "num_frames": frames,
            "height": height,
            "width": width,
            "fps": 1.0 if metadata.frame_rate is None else float(metadata.frame_rate),
        }
