"""Energy and entropy of Haar subbands, level by level: where a domain's information lies.

The analysis behind the wavelet levels of WF-VAE (arXiv 2411.17459, figure 8b: energy and entropy
of each subband). A level's low band is the next level's input, as in the model's encoder, and
with the encoder's filters: 2x2x2 blocks with a copy of the first frame in front for videos, 2x2
blocks for images. The three colours are taken together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from wfvae_cli.errors import InputError, UsageError
from wfvae_cli.stats.accumulate import FailedClip, clip_id
from wfvae_cli.stats.scale import json_lines, read_json

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["video", "image"]

SCHEMA = "wfvae-subbands"
SCHEMA_VERSION = 1
BIN_WIDTH = 2 / 255
"""Coefficients are rounded to whole steps of 8-bit pixels before their entropy is taken."""
NAMES: Mapping[Kind, tuple[str, ...]] = {
    "video": ("LLL", "LLH", "LHL", "LHH", "HLL", "HLH", "HHL", "HHH"),
    "image": ("LL", "HL", "LH", "HH"),
}
"""In the order of the transforms; letters are (time,) height, width, H a difference."""
_GAIN: Mapping[Kind, float] = {"video": 8 * 0.3536, "image": 2.0}
"""By how much a level's low band can be larger than its input."""


@dataclass(frozen=True)
class Subband:
    """One row of the analysis."""

    level: int
    """From 1, the finest."""
    name: str
    energy: float
    """Mean squared coefficient, of pixels in [-1, 1]."""
    share: float
    """Of the energy of all subbands of this level."""
    entropy: float
    """Shannon entropy in bits per coefficient, rounded to steps of `BIN_WIDTH`."""


class SubbandStats:
    """Subband sums over clips; merges exactly but for the rounding of the energies.

    Clips come in chunks of any number of frames: `begin_clip`, `update`, `end_clip`. Up to
    `2**levels - 1` frames of a video are held back for the next chunk. A clip's end is padded
    with its last frame, right and bottom with edge pixels, to whole blocks, and the padding
    counts too.
    """

    def __init__(self, kind: Kind, levels: int = 3, options: Mapping[str, Any] | None = None):
        """Start with no clips.

        Args:
            kind: `video` transforms in three dimensions, `image` each frame by itself.
            levels: how often the low band is transformed again, 1 to 6.
            options: JSON values for the report: what changes the frames of a clip.

        Raises:
            UsageError: `levels` is out of range.
        """
        if not 1 <= levels <= 6:
            raise UsageError(f"expected 1 to 6 wavelet levels, got {levels}")
        self.kind: Kind = kind
        self.levels = levels
        self.options = dict(options or {})
        self.clip_ids: list[int] = []
        self.failed: list[FailedClip] = []
        self._sums = _Sums.empty(kind, levels)
        self._open: _Clip | None = None

    @property
    def clips(self) -> int:
        """How many clips are in the figures."""
        return len(self.clip_ids)

    def begin_clip(self, name: str, identity: str | None = None) -> None:
        """Start a clip; `identity` tells it from others, as in `LatentStats`."""
        assert self._open is None, "the clip before was neither ended nor aborted"
        number = clip_id(name if identity is None else identity)
        self._open = _Clip(name, number, _Sums.empty(self.kind, self.levels))

    def update(self, frames: Tensor) -> None:
        """Add the open clip's next frames.

        Args:
            frames: [3, t, H, W], floating point, RGB in [-1, 1]; t >= 1, and H and W the same
                throughout a clip.

        Raises:
            InputError: the shape is another.
        """
        import torch

        clip = self._open
        assert clip is not None, "begin_clip comes first"
        expected = "any H, W" if clip.held is None else f"{tuple(clip.held.shape[2:])}"
        held = clip.held
        if (
            frames.ndim != 4
            or 0 in frames.shape
            or (held is not None and frames.shape[2:] != held.shape[2:])
        ):
            raise InputError(
                f"{clip.name}: expected frames [3, t, H, W] with {expected}, got "
                f"{tuple(frames.shape)}; frames of one clip must have one size"
            )
        x = frames.detach().cpu().float()
        clip.tail = x[:, -1:].clone()
        if held is not None:
            x = torch.cat((held, x), dim=1)
        spare = 0
        if self.kind == "video":
            spare = (x.shape[1] - (1 if held is None else 0)) % 2**self.levels
        ready = x.shape[1] - spare
        if ready:
            self._transform(x[:, :ready], clip.sums, first=held is None)
        clip.held = x[:, ready:].clone()

    def end_clip(self) -> bool:
        """Take the open clip in; False where it had no frames and is in `failed` instead."""
        import torch

        clip, self._open = self._open, None
        assert clip is not None, "begin_clip comes first"
        if clip.held is None or clip.tail is None:
            self.fail(clip.name, "no frames")
            return False
        if waiting := clip.held.shape[1]:
            missing = -waiting % 2**self.levels
            whole = torch.cat((clip.held, clip.tail.expand(-1, missing, -1, -1)), dim=1)
            self._transform(whole, clip.sums, first=False)
        self._sums.add(clip.sums)
        self.clip_ids.append(clip.number)
        return True

    def abort_clip(self, reason: str) -> None:
        """Drop the open clip and name it as failed."""
        clip, self._open = self._open, None
        assert clip is not None, "begin_clip comes first"
        self.fail(clip.name, reason)

    def fail(self, name: str, reason: str) -> None:
        """Name a clip that could not be read."""
        self.failed.append(FailedClip(name, reason))

    def merge(self, other: SubbandStats) -> None:
        """Take in all that `other` has seen.

        Raises:
            UsageError: the two differ in kind, levels or options, or share clips.
        """
        mine = (self.kind, self.levels, self.options)
        theirs = (other.kind, other.levels, other.options)
        if mine != theirs:
            raise UsageError(
                f"expected subband statistics of one kind, number of levels and options, got "
                f"{mine} and {theirs}"
            )
        if shared := len({*self.clip_ids} & {*other.clip_ids}):
            raise UsageError(
                f"expected subband statistics of different clips, but {shared} clips are in "
                "both; merge parts that do not overlap"
            )
        self._sums.add(other._sums)
        self.clip_ids += other.clip_ids
        self.failed += other.failed

    def subbands(self) -> tuple[Subband, ...]:
        """The figures, level by level.

        Raises:
            InputError: there is no clip.
        """
        if not self.clips:
            raise InputError(
                f"no clip to analyse ({len(self.failed)} failed): give videos or images that "
                "can be read"
            )
        rows = []
        for level, (squares, counts) in enumerate(
            zip(self._sums.squares, self._sums.counts, strict=True), start=1
        ):
            total = math.fsum(squares.tolist())
            for name, square, row in zip(NAMES[self.kind], squares.tolist(), counts, strict=True):
                share = square / total if total else 0.0
                rows.append(Subband(level, name, square / int(row.sum()), share, _entropy(row)))
        return tuple(rows)

    def to_json(self) -> str:
        """The figures and all that merging needs, one line for each field.

        Raises:
            InputError: there is no clip.
        """
        fields: dict[str, Any] = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "kind": self.kind,
            "levels": self.levels,
            "bin_width": BIN_WIDTH,
            "clips": self.clips,
            "options": dict(sorted(self.options.items())),
            "subbands": [asdict(row) for row in self.subbands()],
            "failed": [asdict(f) for f in sorted(self.failed, key=lambda f: (f.name, f.reason))],
            "clip_ids": [f"{number:016x}" for number in sorted(self.clip_ids)],
            "state": self._sums.to_state(),
        }
        return json_lines(fields)

    @classmethod
    def load(cls, path: Path) -> SubbandStats:
        """Read what `to_json` wrote.

        Raises:
            InputError: the file is missing, damaged, something else, or of another version.
        """
        values = json.loads(read_json(path))
        version = (SCHEMA, SCHEMA_VERSION)
        if not isinstance(values, dict) or (
            (values.get("schema"), values.get("schema_version")) != version
        ):
            raise InputError(
                f"{path}: expected a file that wfvae stats --subbands -o wrote, schema version "
                f"{SCHEMA_VERSION}"
            )
        try:
            stats = cls(values["kind"], values["levels"], values["options"])
            stats.clip_ids = [int(number, 16) for number in values["clip_ids"]]
            stats.failed = [FailedClip(**failed) for failed in values["failed"]]
            stats._sums.add_state(values["state"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(
                f"{path}: expected a complete file, got a damaged one ({error!r}); write it anew"
            ) from error
        return stats

    def _transform(self, frames: Tensor, sums: _Sums, *, first: bool) -> None:
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
            sums.count(level, rows.double().numpy())
            low = bands[:, : frames.shape[0]]


@dataclass
class _Clip:
    """A clip on its way."""

    name: str
    number: int
    sums: _Sums
    held: Tensor | None = None
    """[3, t, H, W]: frames that do not fill a block yet; None before the first chunk."""
    tail: Tensor | None = None
    """[3, 1, H, W]: the latest frame."""


@dataclass
class _Sums:
    """Per level, for each band: the sum of squares, and counts of rounded coefficients."""

    squares: list[NDArray[np.float64]]
    counts: list[NDArray[np.int64]]

    @classmethod
    def empty(cls, kind: Kind, levels: int) -> _Sums:
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

    def add(self, other: _Sums) -> None:
        for mine, theirs in zip(self.squares, other.squares, strict=True):
            mine += theirs
        for counts, more in zip(self.counts, other.counts, strict=True):
            counts += more

    def to_state(self) -> list[dict[str, Any]]:
        """As JSON values; each band's counts start at a bin, its empty ends trimmed."""
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
        for squares, counts, level in zip(self.squares, self.counts, state, strict=True):
            squares += np.asarray(level["squares"], dtype=np.float64)
            for row, (first, found) in zip(counts, level["counts"], strict=True):
                row[first : first + len(found)] += np.asarray(found, dtype=np.int64)


def _entropy(counts: NDArray[np.int64]) -> float:
    """Shannon entropy of a histogram in bits."""
    p = counts[counts > 0] / counts.sum()
    return float(np.sum(p * np.log2(1 / p)))
