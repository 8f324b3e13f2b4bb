"""Energy of each Haar subband that came back: the losses of a wavelet VAE, level by level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wfvae_cli.metrics.result import JsonValue
from wfvae_cli.metrics.views import Picture
from wfvae_cli.stats.subband_clip import NAMES, Kind, SubbandClip, SubbandSums

LEVELS = 3


class _Energies(SubbandSums):
    """Sums of squares only: the histograms behind entropies take most of the time."""

    def count(self, level: int, coefficients: NDArray[np.float64]) -> None:
        self.squares[level] += np.einsum("bn,bn->b", coefficients, coefficients)


@dataclass
class EnergyKept:
    """Sums of squared coefficients per level and band, of originals and of reconstructions."""

    kind: Kind
    original: NDArray[np.float64]
    """`[levels, bands]`."""
    reconstruction: NDArray[np.float64]

    def add(self, other: EnergyKept) -> None:
        """Take in those of another clip of this kind."""
        assert self.kind == other.kind
        self.original += other.original
        self.reconstruction += other.reconstruction

    def to_json(self) -> dict[str, JsonValue]:
        """Per level and band: its share of the original's energy, and what part came back.

        A band without energy has `kept` null. Noise adds energy: `kept` can be above 1.
        """
        levels: list[JsonValue] = []
        for original, reconstruction in zip(self.original, self.reconstruction, strict=True):
            total = float(original.sum())
            levels.append(
                [
                    {
                        "name": name,
                        "share": x / total if total else 0.0,
                        "kept": y / x if x > 1e-9 * total else None,
                    }
                    for name, x, y in zip(
                        NAMES[self.kind], original.tolist(), reconstruction.tolist(), strict=True
                    )
                ]
            )
        return {"kind": self.kind, "levels": levels}


class EnergyClip:
    """Takes the pairs of frames of one clip."""

    def __init__(self, name: str, kind: Kind) -> None:
        """Start a clip: `video` is transformed in three dimensions, `image` in two."""
        self._sides = [SubbandClip(name, kind, LEVELS) for _ in range(2)]
        for side in self._sides:
            side.sums = _Energies.empty(kind, LEVELS)

    def add(self, original: Picture, reconstruction: Picture) -> None:
        """Take the next pair of frames, uint8 HWC RGB."""
        for side, picture in zip(self._sides, (original, reconstruction), strict=True):
            frame = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)
            side.update(frame[:, None].float().div(127.5).sub(1))

    def result(self) -> EnergyKept:
        """The energies of the clip, which ends with this."""
        for side in self._sides:
            side.end()
        original, reconstruction = (np.stack(side.sums.squares) for side in self._sides)
        return EnergyKept(self._sides[0].kind, original, reconstruction)
