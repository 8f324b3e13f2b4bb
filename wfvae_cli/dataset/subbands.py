"""Takes the statistics of the frames' subbands over a dataset, in this process."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

from wfvae_cli.dataset.config import EncodeConfig
from wfvae_cli.dataset.prefetch import Limits, Pieces, Reading, Task, settled
from wfvae_cli.dataset.reorder import failed_clip, in_order
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.dataset.source import at_hand, check_unchanged
from wfvae_cli.media.options import Sampling
from wfvae_cli.stats.accumulate import FailedClip
from wfvae_cli.stats.collect_subbands import analyse_clip
from wfvae_cli.stats.draw import Draw, Source
from wfvae_cli.stats.subband_clip import Kind, SubbandClip


@dataclass(frozen=True)
class SubbandAnalysis:
    """Analyses clips, several at once."""

    kind: Kind
    levels: int
    draw: Draw = field(default_factory=Draw)
    sampling: Sampling = field(default_factory=Sampling)
    """Of all clips; manifests name parts of their own."""
    readers: int = 2
    hwaccel: str = "none"
    """What decodes videos, as `open_clip` takes it."""
    limits: Limits = field(default_factory=Limits)

    def analyse(self, sources: Sequence[Source]) -> Iterator[SubbandClip | FailedClip]:
        """Analyse clips, which have different names, and give the results in their order."""
        for outcome in in_order(sources, self._outcomes):
            yield outcome.clip if isinstance(outcome, _Analysed) else failed_clip(outcome)

    def _outcomes(self, tasks: Iterator[Task]) -> Generator[ItemResult, None, None]:
        return settled(self._read, tasks, self.readers, self.limits)

    def _read(self, task: Task, reading: Reading) -> Pieces:
        item = task.item
        with at_hand(item, reading.touch) as (path, marked):
            sampling = EncodeConfig(sampling=self.sampling).sampling_of(item)
            source = Source(path, item.relative, sampling, self.hwaccel)
            clip = analyse_clip(source, self.kind, self.levels, self.draw, reading.touch)
            check_unchanged(item, marked)
        yield _Analysed(item.relative, item.path, "done", clip=clip)


@dataclass(frozen=True)
class _Analysed(ItemResult):
    """A clip that is analysed."""

    clip: SubbandClip = field(kw_only=True)
