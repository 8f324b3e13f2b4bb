"""Compare clips in files: two of them, or every pair of two directories."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from wfvae_cli.errors import InputError
from wfvae_cli.media.clip import ClipInfo, Frame
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import open_clip
from wfvae_cli.metrics.clip import ClipMetrics, ClipObserver, PairMetric, PairObserver
from wfvae_cli.metrics.pairs import Pair, pair_directories
from wfvae_cli.metrics.result import ClipResult, Comparison, FailedFile, FileResult, JsonValue


class SetMetric(PairObserver, Protocol):
    """A learned distance between all originals and all reconstructions (FID, FVD)."""

    def clip(self) -> AbstractContextManager[None]:
        """Everything observed within belongs to one clip, and is forgotten if it raises."""

    def to_json(self) -> dict[str, JsonValue]:
        """The distance under its name, and the number of samples beside it."""


@dataclass(frozen=True)
class Measures:
    """Metrics to measure beside PSNR, SSIM and flicker."""

    ms_ssim: bool = True
    lpips: PairMetric | None = None
    distances: tuple[SetMetric, ...] = ()
    """Shown every pair of frames; read their results when all clips are done."""
    frames: int | None = None
    """Number of frames that every clip must have, where a protocol says so."""

    @property
    def figures(self) -> dict[str, JsonValue]:
        """The distances over all frames so far, by their names, with their numbers of samples."""
        return {name: value for each in self.distances for name, value in each.to_json().items()}


_EVERYTHING = Sampling()
_USUAL = Measures()


def compare_clips(
    original: str | Path,
    reconstruction: str | Path,
    *,
    sampling: Sampling = _EVERYTHING,
    measures: Measures = _USUAL,
    observe: Callable[[ClipInfo], Sequence[ClipObserver]] | None = None,
    on_frame: Callable[[], None] | None = None,
) -> ClipResult:
    """Measure how a video or image differs from its original, one pair of frames in memory.

    Frames are paired by position; presentation times are not compared.

    Args:
        original: anything that `open_clip` reads.
        reconstruction: the same size and number of frames; the depth may differ.
        sampling: which frames to take, of both files alike.
        measures: what to compute beyond the usual scores.
        observe: makes observers once both clips are open, from the description of the original;
            each is closed with the result, or with None where there is none.
        on_frame: called after every pair of frames.

    Raises:
        InputError: a file cannot be read, or the clips differ in size or number of frames.
    """
    result: ClipResult | None = None
    with ExitStack() as stack:
        left = stack.enter_context(open_clip(original, sampling))
        right = stack.enter_context(open_clip(reconstruction, sampling))
        _check_sizes(original, left.info, reconstruction, right.info)
        observers = [] if observe is None else list(observe(left.info))
        stack.callback(lambda: _close(observers, result))
        for distance in measures.distances:
            stack.enter_context(distance.clip())
        everyone: list[PairObserver] = [*measures.distances, *observers]
        metrics = ClipMetrics(ms_ssim=measures.ms_ssim, lpips=measures.lpips, observers=everyone)
        for x, y in _pairs(original, iter(left), reconstruction, iter(right)):
            metrics.update(x.pixels, y.pixels)
            if on_frame is not None:
                on_frame()
        result = _checked(original, metrics.result(), measures.frames)
    return result


def compare_directories(
    original: Path,
    reconstruction: Path,
    *,
    sampling: Sampling = _EVERYTHING,
    measures: Measures = _USUAL,
    observe: Callable[[Pair, ClipInfo], Sequence[ClipObserver]] | None = None,
    on_file: Callable[[FileResult | FailedFile], None] | None = None,
) -> Comparison:
    """Compare every pair of files of two directories (see `pair_directories`).

    A pair that cannot be compared is reported and leaves no trace in any figure.

    Args:
        original: directory of the originals.
        reconstruction: directory of the reconstructions.
        sampling: which frames to take, of all files alike.
        measures: what to compute beyond the usual scores.
        observe: makes the observers of a pair, as for `compare_clips`.
        on_file: called after every file, with its result or why there is none.

    Returns:
        Results by file; with `failed` not empty the exit code should be 7.

    Raises:
        InputError: nothing could be compared.
    """
    pairing = pair_directories(original, reconstruction)
    files: list[FileResult] = []
    failed = list(pairing.unmatched)
    report = on_file or (lambda file: None)
    for file in failed:
        report(file)
    for pair in pairing.pairs:
        try:
            result = compare_clips(
                pair.original,
                pair.reconstruction,
                sampling=sampling,
                measures=measures,
                observe=None if observe is None else partial(observe, pair),
            )
        except InputError as error:
            failed.append(FailedFile(pair.name, str(error)))
            report(failed[-1])
            continue
        files.append(FileResult(pair.name, result))
        report(files[-1])
    if not files:
        first = failed[0]
        raise InputError(
            f"none of the {len(failed)} files could be compared; "
            f"the first, {first.name}: {first.error}"
        )
    return Comparison(tuple(files), tuple(failed))


def _close(observers: Sequence[ClipObserver], result: ClipResult | None) -> None:
    for observer in observers:
        observer.close(result)


def _checked(original: str | Path, result: ClipResult, frames: int | None) -> ClipResult:
    """Refuse a clip of fewer frames than a protocol takes."""
    if frames is not None and result.frames < frames:
        raise InputError(
            f"expected {frames} frames of {original}, as the protocol says, got {result.frames}"
        )
    return result


def _check_sizes(
    original: str | Path, left: ClipInfo, reconstruction: str | Path, right: ClipInfo
) -> None:
    if (left.width, left.height) != (right.width, right.height):
        raise InputError(
            f"{original} is {left.width}x{left.height} and {reconstruction} "
            f"{right.width}x{right.height}; only clips of one size can be compared: "
            "scale both to one size"
        )


def _pairs(
    original: str | Path, left: Iterator[Frame], reconstruction: str | Path, right: Iterator[Frame]
) -> Iterator[tuple[Frame, Frame]]:
    """Frames of equal position; an error after the shorter clip's last if one is longer."""
    pairs = 0
    while True:
        x, y = next(left, None), next(right, None)
        if x is None or y is None:
            break
        yield x, y
        pairs += 1
    if x is y:
        return
    # Containers lie about their frame counts: the rest of the longer one is counted.
    sides = ((x, left), (y, right))
    counts = [pairs + (frame is not None) + sum(1 for _ in rest) for frame, rest in sides]
    raise InputError(
        f"{original} has {counts[0]} frames and {reconstruction} {counts[1]}; only clips of "
        f"equal length can be compared: take the first {pairs} of both to compare those"
    )
