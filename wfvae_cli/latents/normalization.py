"""The one place that applies a shift and a scale to latents, and undoes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wfvae_cli.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Normalization:
    """Per-channel shift and scale that give latents zero mean and unit variance.

    Normalised latents are `(z - shift) * scale`; decoding undoes it with `z / scale + shift`.
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def apply(self, latents: Tensor) -> Tensor:
        """Normalise latents, `[Z, T, H, W]` or BCTHW, of one channel for each shift."""
        shift, scale = self._per_channel(latents)
        return (latents - shift) * scale

    def undo(self, latents: Tensor) -> Tensor:
        """Give back the latents that `apply` made these of."""
        shift, scale = self._per_channel(latents)
        return latents / scale + shift

    def _per_channel(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        shift, scale = (latents.new_tensor(v).view(-1, 1, 1, 1) for v in (self.shift, self.scale))
        if latents.ndim not in (4, 5) or latents.size(-4) != len(shift):
            raise UsageError(
                f"expected latents [Z, T, H, W] or BCTHW with {len(shift)} channels, "
                f"got {latents.shape = }"
            )
        return shift, scale


@dataclass(frozen=True)
class AppliedNormalization(Normalization):
    """The normalisation that stored latents had applied; decoding undoes it."""

    source: str
    """Where the values come from: `config`, or the name and hash of a statistics file."""
