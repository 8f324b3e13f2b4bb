"""Latents in, one chunk of one clip at a time; sums out, that merge to the same answer.

A clip counts as a whole or not at all: one with a NaN or infinite latent is named in `failed`
and left out, so that no average rests on part of a clip. All sums are float64; counts are exact
for any grouping and order, sums to rounding. Memory does not grow with the latents: 8 bytes a
clip are kept to recognise it again, and a few words for each one that failed.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wfvae_cli.errors import LatentError
from wfvae_cli.stats.moments import ClipSpread, Floats, Moments, Precision
from wfvae_cli.stats.sketch import Histogram, QuantileSketch

if TYPE_CHECKING:
    from torch import Tensor

    Latents = Tensor | NDArray[Any]

BLOCK = 1 << 14
"""Latent positions that are worked on at once, in float64: what bounds the working memory."""
LARGEST_LATENT = 1e30
"""Magnitude above which a latent is damage: its fourth power must stay finite, summed."""
LARGEST_LOGVAR = 100.0
"""The same of a log-variance; posteriors are clamped to -30 … 20 when they are sampled."""
SAMPLE = 1 << 16
"""Bytes at each end of a file that tell it from others of the same size."""


@dataclass(frozen=True)
class FailedClip:
    """A clip that is in no figure."""

    name: str
    reason: str
    non_finite: int = 0
    """Number of NaN or infinite values that it held."""


class ClipStats:
    """The statistics of one clip while its chunks arrive. Several may be open at once."""

    def __init__(self, name: str, identity: str | None = None) -> None:
        """Start a clip.

        Args:
            name: what messages and the report call it.
            identity: what tells it from every other clip, such as `file_identity` gives; the
                name where there is nothing better.
        """
        self.name = name
        self.identity = name if identity is None else identity
        self.non_finite = 0
        self.damage: str | None = None
        """The first value that no model gives, for a message."""
        self.moments: Moments | None = None
        self.kl: Floats | None = None
        """[Z]: sums over positions, in nats; None where the clip has no log-variance."""
        self._histogram: Histogram | None = None
        self._sketch: QuantileSketch | None = None
        self._has_logvar: bool | None = None

    def update(self, mean: Latents, logvar: Latents | None = None) -> None:
        """Add the clip's next chunk.

        Args:
            mean: [Z, t, H, W], any floating dtype, not normalised.
            logvar: the posterior's log-variance in the same shape, if known.

        Raises:
            LatentError: the shapes differ from each other or from earlier chunks, or only some
                chunks have a log-variance.
        """
        values = _as_matrix(mean, self.name)
        if self.moments is not None and len(self.moments.mean) != len(values):
            raise LatentError(
                f"{self.name}: every chunk must have {len(self.moments.mean)} channels like "
                f"the first, got {len(values)}"
            )
        if self._has_logvar not in (None, logvar is not None):
            raise LatentError(f"{self.name}: give a log-variance with every chunk or with none")
        self._has_logvar = logvar is not None
        variances = None
        if logvar is not None:
            variances = _as_matrix(logvar, self.name)
            if variances.shape != values.shape:
                raise LatentError(
                    f"{self.name}: mean and log-variance must have one shape, got "
                    f"{tuple(mean.shape)} and {tuple(logvar.shape)}"
                )
        for start in range(0, values.shape[1], BLOCK):
            block = values[:, start : start + BLOCK].astype(np.float64)
            rest = None
            if variances is not None:
                rest = variances[:, start : start + BLOCK].astype(np.float64)
            self._add_block(block, rest)

    @property
    def histogram(self) -> Histogram:
        """Histogram of the clip's latents, of which there is at least one."""
        assert self._histogram is not None
        return self._histogram

    @property
    def sketch(self) -> QuantileSketch:
        """Quantile sketch of the clip's latents, of which there is at least one."""
        assert self._sketch is not None
        return self._sketch

    def _add_block(self, values: Floats, logvar: Floats | None) -> None:
        bad = values.size - int(np.count_nonzero(np.isfinite(values)))
        if logvar is not None:
            bad += logvar.size - int(np.count_nonzero(np.isfinite(logvar)))
        self.non_finite += bad
        if self.non_finite or self._is_absurd(values, logvar):
            return
        moments = Moments.of(values)
        self.moments = moments if self.moments is None else self.moments.merged(moments)
        if self._histogram is None or self._sketch is None:
            self._histogram = Histogram.empty(len(values))
            self._sketch = QuantileSketch.empty(len(values))
        self._histogram.update(values)
        self._sketch.update(values)
        if logvar is not None:
            # KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1 - log s^2) / 2.
            kl = 0.5 * (values * values + np.exp(logvar) - 1 - logvar).sum(axis=1)
            self.kl = kl if self.kl is None else self.kl + kl

    def _is_absurd(self, values: Floats, logvar: Floats | None) -> bool:
        """Return True where a finite value would make the sums infinite or meaningless."""
        if self.damage is None:
            largest = float(np.abs(values).max())
            if largest > LARGEST_LATENT:
                self.damage = f"a latent of {largest:.3g}"
        if self.damage is None and logvar is not None:
            largest = float(logvar.flat[np.abs(logvar).argmax()])
            if abs(largest) > LARGEST_LOGVAR:
                self.damage = f"a log-variance of {largest:.3g}"
        return self.damage is not None


class LatentStats:
    """The statistics of every clip so far.

    Example:
        >>> stats = LatentStats()
        >>> stats.add_clip("a", [(np.zeros((4, 1, 2, 2)), None), (np.ones((4, 1, 2, 2)), None)])
        True
        >>> stats.moments.mean.tolist()
        [0.5, 0.5, 0.5, 0.5]
    """

    def __init__(self) -> None:
        self.clip_ids = array("Q")
        """64 bits of the hash of each clip's identity, in the order of arrival."""
        self.failed: list[FailedClip] = []
        self.kl: Floats | None = None
        """[Z]: sums over the positions of clips with a log-variance, in nats."""
        self.kl_count = 0
        """Number of those positions."""
        self._moments: Moments | None = None
        self._spread: ClipSpread | None = None
        self._histogram: Histogram | None = None
        self._sketch: QuantileSketch | None = None

    @classmethod
    def of_clip(
        cls,
        number: int,
        moments: Moments,
        histogram: Histogram,
        sketch: QuantileSketch,
        kl: Floats | None,
    ) -> LatentStats:
        """Make the statistics of one clip of its parts; `number` is its `clip_id`."""
        stats = cls()
        stats.clip_ids.append(number)
        stats._moments, stats._spread = moments, ClipSpread.of_clip(moments)
        stats._histogram, stats._sketch = histogram, sketch
        if kl is not None:
            stats.kl, stats.kl_count = kl, moments.count
        return stats

    @property
    def clips(self) -> int:
        """Number of clips in the figures."""
        return len(self.clip_ids)

    @property
    def moments(self) -> Moments:
        """The moments of all latents; there must be a clip."""
        assert self._moments is not None
        return self._moments

    @property
    def histogram(self) -> Histogram:
        """The fixed histogram of all latents; there must be a clip."""
        assert self._histogram is not None
        return self._histogram

    @property
    def sketch(self) -> QuantileSketch:
        """The quantile sketch of all latents; there must be a clip."""
        assert self._sketch is not None
        return self._sketch

    def add_clip(
        self,
        name: str,
        chunks: Iterable[tuple[Latents, Latents | None]],
        identity: str | None = None,
    ) -> bool:
        """Add a clip from its chunks of mean and log-variance: see `ClipStats` and `add`."""
        clip = ClipStats(name, identity)
        for mean, logvar in chunks:
            clip.update(mean, logvar)
        return self.add(clip)

    def add(self, clip: ClipStats) -> bool:
        """Take in a complete clip.

        Returns:
            Whether it counts; False where it is in `failed` instead, for being empty or
            holding values that are NaN, infinite or absurd.

        Raises:
            LatentError: it has another number of channels than the clips before.
        """
        if clip.non_finite:
            self.failed.append(
                FailedClip(clip.name, f"{clip.non_finite} NaN or infinite values", clip.non_finite)
            )
            return False
        if clip.damage is not None:
            self.fail(clip.name, f"{clip.damage}, which no model gives: encode it again")
            return False
        if clip.moments is None:
            self.fail(clip.name, "no latents")
            return False
        one = LatentStats.of_clip(
            clip_id(clip.identity), clip.moments, clip.histogram, clip.sketch, clip.kl
        )
        try:
            self.merge(one)
        except LatentError as error:
            raise LatentError(f"{clip.name}: {error}") from None
        return True

    def fail(self, name: str, reason: str) -> None:
        """Name a clip that could not be read or encoded."""
        self.failed.append(FailedClip(name, reason))

    def merge(self, other: LatentStats) -> None:
        """Take in all that `other` has seen; `other` must not be used any more.

        Raises:
            LatentError: the two differ in their number of channels.
        """
        if self._moments is None or self._spread is None:
            self._moments, self._spread = other._moments, other._spread
            self._histogram, self._sketch = other._histogram, other._sketch
        elif other._moments is not None and other._spread is not None:
            channels = len(self._moments.mean)
            if len(other._moments.mean) != channels:
                raise LatentError(
                    f"latents must have {channels} channels like those before, got "
                    f"{len(other._moments.mean)}; use one dataset and model for one report"
                )
            self._moments = self._moments.merged(other._moments)
            self._spread = self._spread.merged(other._spread, self._moments.mean)
            self.histogram.merge(other.histogram)
            self.sketch.merge(other.sketch)
        if other.kl is not None:
            self.kl = other.kl if self.kl is None else self.kl + other.kl
            self.kl_count += other.kl_count
        self.clip_ids.extend(other.clip_ids)
        self.failed.extend(other.failed)

    def precision(self) -> Precision:
        """Precision of each channel's mean and std by now: cheap enough to ask after every clip."""
        if self._moments is None or self._spread is None:
            return Precision(0, (), ())
        return self._spread.precision(self._moments)

    def to_state(self) -> dict[str, Any]:
        """Everything that merging needs, as JSON values; clips and failures are sorted."""
        state: dict[str, Any] = {
            "clip_ids": [f"{number:016x}" for number in sorted(self.clip_ids)],
            "failed": [asdict(f) for f in sorted(self.failed, key=lambda f: (f.name, f.reason))],
            "kl": None if self.kl is None else self.kl.tolist(),
            "kl_count": self.kl_count,
        }
        if self._moments is not None and self._spread is not None:
            state["moments"] = self._moments.to_state()
            state["spread"] = self._spread.to_state()
            state["histogram"] = self.histogram.to_state()
            state["sketch"] = self.sketch.to_state()
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> LatentStats:
        """Undo `to_state`.

        Raises:
            KeyError, TypeError, ValueError: the state is damaged or of another version.
        """
        stats = cls()
        stats.clip_ids.extend(int(number, 16) for number in state["clip_ids"])
        stats.failed.extend(FailedClip(**failed) for failed in state["failed"])
        stats.kl = None if state["kl"] is None else np.asarray(state["kl"], dtype=np.float64)
        stats.kl_count = int(state["kl_count"])
        if "moments" in state:
            stats._moments = Moments.from_state(state["moments"])
            stats._spread = ClipSpread.from_state(state["spread"])
            stats._histogram = Histogram.from_state(state["histogram"])
            stats._sketch = QuantileSketch.from_state(state["sketch"])
        return stats


def clip_id(identity: str) -> int:
    """64 bits that stand for a clip's identity; a million clips collide with a chance of 3e-8."""
    digest = hashlib.sha256(identity.encode(errors="surrogateescape"))
    return int.from_bytes(digest.digest()[:8], "big")


def file_identity(path: Path, window: str = "", begin: int = 0, size: int | None = None) -> str:
    """Compute a key of a file's content, wherever it lies, without reading all of it.

    Args:
        path: the video, image or latent file.
        window: which part of it was used, such as a start and a number of frames.
        begin: where the content begins in the file, which holds others, too.
        size: bytes of the content; None for all of the file.

    Returns:
        SHA-256, in hex, of the size, the first and the last 64 KiB, and the window.
    """
    size = path.stat().st_size if size is None else size
    digest = hashlib.sha256(f"{size}|{window}|".encode())
    with path.open("rb") as file:
        for start in (0, max(0, size - SAMPLE)):
            file.seek(begin + start)
            digest.update(file.read(min(SAMPLE, size)))
    return digest.hexdigest()


def _as_matrix(x: Latents, name: str) -> NDArray[Any]:
    """`x`, [Z, t, H, W] on any device, as a [Z, n] array in memory; bfloat16 becomes float32."""
    if x.ndim != 4 or 0 in x.shape:
        raise LatentError(
            f"{name}: latents must be [Z, t, H, W] with nothing empty, got {tuple(x.shape)}"
        )
    if not isinstance(x, np.ndarray):
        x = x.detach().cpu()
        x = (x.float() if x.itemsize < 4 else x).numpy()
    return x.reshape(len(x), -1)
