"""Energy and entropy of Haar subbands, level by level: where a domain's information lies.

The analysis behind the wavelet levels of WF-VAE (arXiv 2411.17459, figure 8b: energy and entropy
of each subband). `subband_clip` says how a clip is transformed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wfvae_cli.errors import InputError, UsageError
from wfvae_cli.stats.accumulate import FailedClip, clip_id
from wfvae_cli.stats.scale import json_lines, read_json
from wfvae_cli.stats.subband_clip import (
    BIN_WIDTH,
    NAMES,
    Kind,
    SubbandClip,
    SubbandSums,
    check_levels,
)

SCHEMA = "wfvae-subbands"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Subband:
    """One row of the analysis."""

    level: int
    """Level, from 1, the finest."""
    name: str
    energy: float
    """Mean squared coefficient, of pixels in [-1, 1]."""
    share: float
    """Share of the energy of all subbands of this level."""
    entropy: float
    """Shannon entropy in bits per coefficient, rounded to steps of `BIN_WIDTH`."""


class SubbandStats:
    """Subband sums over clips; merges exactly but for the rounding of the energies."""

    def __init__(self, kind: Kind, levels: int = 3, options: Mapping[str, Any] | None = None):
        """Start with no clips.

        Args:
            kind: `video` transforms in three dimensions, `image` each frame by itself.
            levels: how often the low band is transformed again, 1 to 6.
            options: JSON values for the report: what changes the frames of a clip.

        Raises:
            UsageError: `levels` is out of range.
        """
        check_levels(levels)
        self.kind: Kind = kind
        self.levels = levels
        self.options = dict(options or {})
        self.clip_ids: list[int] = []
        self.failed: list[FailedClip] = []
        self._sums = SubbandSums.empty(kind, levels)

    @property
    def clips(self) -> int:
        """Number of clips in the figures."""
        return len(self.clip_ids)

    def add(self, clip: SubbandClip) -> None:
        """Take in a complete clip of this kind and number of levels."""
        assert (clip.kind, clip.levels) == (self.kind, self.levels)
        self._sums.add(clip.sums)
        self.clip_ids.append(clip_id(clip.identity))

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
        """Compute the figures, level by level.

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
        """Give the figures and all that merging needs, one line for each field.

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


def _entropy(counts: NDArray[np.int64]) -> float:
    """Shannon entropy of a histogram in bits."""
    p = counts[counts > 0] / counts.sum()
    return float(np.sum(p * np.log2(1 / p)))
