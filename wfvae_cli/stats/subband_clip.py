"""The Haar subbands of one clip, level by level, while its frames arrive.

A level's low band is the next level's input, as in the model's encoder, and with the encoder's
filters: 2x2x2 blocks with a copy of the first frame in front for videos, 2x2 blocks for images.
The three colours are taken together.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from wfvae_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["video", "image"]

BIN_WIDTH = 2 / 255
"""Coefficients are rounded to whole steps of 8-bit pixels before their entropy is taken."""
NAMES: Mapping[Kind, tuple[str, ...]] = {
    "video": ("LLL", "LLH", "LHL", "LHH", "HLL", "HLH", "HHL", "HHH"),
    "image": ("LL", "HL", "LH", "HH"),
}
"""Names in the order of the transforms; letters are (time,) height, width, H a difference."""
_GAIN: Mapping[Kind, float] = {"video": 8 * 0.3536, "image": 2.0}
"""Largest gain of a level's low band over its input."""


@dataclass
class SubbandSums:
    """Per level, for each band: the sum of squares, and counts of rounded coefficients."""

    squares: list[NDArray[np.float64]]
    counts: list[NDArray[np.int64]]

    @classmethod
    def empty(cls, kind: Kind, levels: int) -> SubbandSums:
        """No coefficients."""
        bands = len(NAMES[kind])
        # One spare bin at either end for pixels just outside of [-1, 1].
        reach = [math.ceil(_GAIN[kind] ** level / BIN_WIDTH) + 1 for level in range(1, levels + 1)]
        return cls(
            [np.zeros(bands) for _ in reach],
            [np.zeros((bands, 2 * r + 1), dtype=np.int64) for r in reach],
        )

    def count(self, level: int, coefficients: NDArray[np.float64]) -> None:
        """Add `coefficients`, [bands, n]."""
        counts = self.counts[level]
        bands, width = counts.shape
        reach = width // 2
        steps = np.clip(np.rint(coefficients / BIN_WIDTH), -reach, reach).astype(np.int64)
        flat = (steps + reach + (np.arange(bands) * width)[:, None]).ravel()
        counts += np.bincount(flat, minlength=counts.size).reshape(counts.shape)
        self.squares[level] += np.einsum("bn,bn->b", coefficients, coefficients)

    def add(self, other: SubbandSums) -> None:
        """Take in what `other` counted."""
        for mine, theirs in zip(self.squares, other.squares, strict=True):
            mine += theirs
        for counts, more in zip(self.counts, other.counts, strict=True):
            counts += more

    def to_state(self) -> list[dict[str, Any]]:
        """Return JSON values; each band's counts start at a bin, its empty ends trimmed."""
        state = []
        for squares, counts in zip(self.squares, self.counts, strict=True):
            rows = []
            for row in counts:
                used = np.flatnonzero(row)
                first, end = int(used[0]), int(used[-1]) + 1
                rows.append([first, row[first:end].tolist()])
            state.append({"squares": squares.tolist(), "counts": rows})
        return state

    def add_state(self, state: list[Mapping[str, Any]]) -> None:
        """Take in what `to_state` gave."""
        for squares, counts, level in zip(self.squares, self.counts, state, strict=True):
            squares += np.asarray(level["squares"], dtype=np.float64)
            for row, (first, found) in zip(counts, level["counts"], strict=True):
                row[first : first + len(found)] += np.asarray(found, dtype=np.int64)


class SubbandClip:
    """The subband sums of one clip, which comes in chunks of any number of frames.

    Up to `2**levels - 1` frames of a video are held back for the next chunk. A clip's end is
    padded with its last frame, right and bottom with edge pixels, to whole blocks, and the
    padding counts too.
    """

    def __init__(self, name: str, kind: Kind, levels: int = 3, identity: str | None = None) -> None:
        """Start a clip.

        Args:
            name: what messages and the report call it.
            kind: `video` transforms in three dimensions, `image` each frame by itself.
            levels: how often the low band is transformed again, 1 to 6.
            identity: what tells it from every other clip, as of `ClipStats`.

        Raises:
            UsageError: `levels` is out of range.
        """
        check_levels(levels)
        self.name = name
        self.identity = name if identity is None else identity
        self.kind: Kind = kind
        self.levels = levels
        self.sums = SubbandSums.empty(kind, levels)
        self._held: Tensor | None = None
        """[3, t, H, W]: frames that do not fill a block yet; None before the first chunk."""
        self._tail: Tensor | None = None
        """[3, 1, H, W]: the latest frame."""

    def update(self, frames: Tensor) -> None:
        """Add the next frames.

        Args:
            frames: [3, t, H, W], floating point, RGB in [-1, 1]; t >= 1, and H and W the same
                throughout a clip.

        Raises:
            InputError: the shape is another.
        """
        import torch

        held = self._held
        expected = "any H, W" if held is None else f"{tuple(held.shape[2:])}"
        if (
            frames.ndim != 4
            or 0 in frames.shape
            or (held is not None and frames.shape[2:] != held.shape[2:])
        ):
            raise InputError(
                f"{self.name}: expected frames [3, t, H, W] with {expected}, got "
                f"{tuple(frames.shape)}; frames of one clip must have one size"
            )
        x = frames.detach().cpu().float()
        self._tail = x[:, -1:].clone()
        if held is not None:
            x = torch.cat((held, x), dim=1)
        spare = 0
        if self.kind == "video":
            spare = (x.shape[1] - (1 if held is None else 0)) % 2**self.levels
        ready = x.shape[1] - spare
        if ready:
            self._transform(x[:, :ready], first=held is None)
        self._held = x[:, ready:].clone()

    def end(self) -> None:
        """Take in the frames that were held back.

        Raises:
            InputError: there were no frames at all.
        """
        import torch

        if self._held is None or self._tail is None:
            raise InputError(f"{self.name}: no frames")
        if waiting := self._held.shape[1]:
            missing = -waiting % 2**self.levels
            whole = torch.cat((self._held, self._tail.expand(-1, missing, -1, -1)), dim=1)
            self._transform(whole, first=False)

    def pack(self) -> bytes:
        """Compress the sums of a complete clip; no digit is lost."""
        values: dict[str, Any] = {"name": self.name, "kind": self.kind, "levels": self.levels}
        values |= {"identity": self.identity, "sums": self.sums.to_state()}
        return zlib.compress(json.dumps(values).encode(), level=1)

    @classmethod
    def unpack(cls, data: bytes) -> SubbandClip:
        """Undo `pack`."""
        values = json.loads(zlib.decompress(data))
        sums = values.pop("sums")
        clip = cls(**values)
        clip.sums.add_state(sums)
        return clip

    def _transform(self, frames: Tensor, *, first: bool) -> None:
        """Add the coefficients of all levels of whole blocks of [3, t, H, W]."""
        import torch
        from torch.nn import functional

        from wfvae_cli.nn.haar import haar_2d, haar_3d

        h, w = frames.shape[2:]
        block = 2**self.levels
        low = functional.pad(frames, (0, -w % block, 0, -h % block), mode="replicate")[None]
        for level in range(self.levels):
            if self.kind == "video":
                # As in the encoder, every level puts a copy of its own first frame in front.
                bands = haar_3d(torch.cat((low[:, :, :1], low), dim=2) if first else low)
            else:
                bands = haar_2d(low)
            # Subband-major channels: each band's colours, frames and pixels form one row.
            rows = bands[0].reshape(len(NAMES[self.kind]), -1)
            self.sums.count(level, rows.double().numpy())
            low = bands[:, : frames.shape[0]]


def check_levels(levels: int) -> None:
    """Refuse a number of wavelet levels that has no meaning.

    Raises:
        UsageError: it is out of range.
    """
    if not 1 <= levels <= 6:
        raise UsageError(f"expected 1 to 6 wavelet levels, got {levels}")
