"""The interface of exporters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from wfvae_cli.dataset.config import EncodeConfig
from wfvae_cli.dataset.exporters.present import check_format
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.options import TAR_FORMATS
from wfvae_cli.dataset.outputs import Outputs
from wfvae_cli.dataset.store import OutputStore, check_inputs
from wfvae_cli.errors import LatentError
from wfvae_cli.latents.file import first_non_finite
from wfvae_cli.latents.metadata import LatentMetadata
from wfvae_cli.pipeline.encode import LatentOutput
from wfvae_cli.pipeline.options import EncodeOptions


@dataclass(frozen=True)
class Written:
    """A file that has been given its name."""

    output: str
    shape: tuple[int, ...]
    bytes: int
    data_sha256: str | None = None
    """Checksum of the data, as its header has it."""


class Exporter(Outputs):
    """A writer of finished clips.

    In a worker, `open` writes clips and `find` looks at one. In the run, `begin` finds what is
    left to do, and `settle` and `flush` put clips in place that need others for it. By default
    each clip is a file of its own, in place once it is written.
    """

    how: EncodeConfig

    def __init__(self, store: OutputStore, how: EncodeConfig) -> None:
        super().__init__(store, how)

    @override
    def check(self, items: Iterable[Item]) -> None:
        """Refuse outputs that would replace inputs, or stand beside those of another format."""
        check_inputs(self.store, items)
        check_format(self.store, is_tar=self.how.format in TAR_FORMATS)

    @abstractmethod
    def open(
        self, item: Item, metadata: LatentMetadata, options: EncodeOptions
    ) -> LatentOutput[Written]:
        """Begin an item's output."""


def check_finite(latents: Tensor, first: int) -> None:
    """Refuse NaN and infinity in `[Z, t, H', W']`; `first` is the number of its first frame.

    Raises:
        LatentError: there is one.
    """
    frame = first_non_finite(latents)
    if frame is not None:
        raise LatentError(
            f"the model gave a latent that is NaN or infinite in latent frame {first + frame}: "
            "look at the input there, or compute in float32"
        )
