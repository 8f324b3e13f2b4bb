"""The audit of a cache, from its files to a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wfvae_cli.audit.cache import Cache
from wfvae_cli.audit.entry import CacheEntry
from wfvae_cli.audit.hypotheses import ScaleVerdict, judge_scale, known_normalization
from wfvae_cli.audit.measure import (
    LOADER_LIMIT,
    CacheFigures,
    ClipFigures,
    find_misfits,
    find_mixed_shapes,
    find_outliers,
    measure,
)
from wfvae_cli.audit.reencode import Comparison, compare_clip
from wfvae_cli.audit.sheets import write_sheet
from wfvae_cli.audit.sources import Sources
from wfvae_cli.dataset.trainer_formats import Content
from wfvae_cli.errors import InputError, WfvaeError
from wfvae_cli.latents.normalization import Normalization
from wfvae_cli.models.base import LoadedModel

_OTHER_WEIGHTS = "made by other weights"
_CLEARLY = 2.0
"""A hypothesis this many times nearer than what the format says is a problem."""


@dataclass(frozen=True)
class KnownModel:
    """Facts on the model that made a cache, known without its weights."""

    name: str | None
    channels: int | None
    normalization: Normalization | None
    family: str | None = None
    sha256: str | None = None
    """Hash of its weights, where they are at hand."""


@dataclass
class AuditReport:
    """Findings of an audit."""

    cache: Cache
    model: KnownModel
    clips: list[ClipFigures]
    figures: CacheFigures | None
    scale: ScaleVerdict
    problems: list[str] = field(default_factory=list)
    """Problems of the cache as a whole."""
    comparisons: list[Comparison] = field(default_factory=list)
    sheets: list[Path] = field(default_factory=list)

    @property
    def by_clip(self) -> Mapping[str, tuple[str, ...]]:
        """Every problem of the clips that have any, in order."""
        found = {clip.entry.name: clip.problems for clip in self.clips}
        for each in self.comparisons:
            found[each.entry.name] = (*found[each.entry.name], *each.problems)
        return {name: tuple(dict.fromkeys(each)) for name, each in found.items() if each}

    @property
    def claimed(self) -> Content | None:
        """Raw or normalised latents, where the format or the headers of all clips say so."""
        contents = {clip.entry.content for clip in self.clips if clip.count}
        return next(iter(contents)) if len(contents) == 1 else None

    @property
    def is_sound(self) -> bool:
        """True where nothing is wrong; outliers are reported, but are no fault by themselves."""
        return not self.problems and not self.by_clip

    def to_json(self) -> dict[str, Any]:
        """Give the report as JSON values."""
        by_clip = self.by_clip
        return {
            "cache": str(self.cache.path),
            "format": self.cache.format,
            "model": self.model.name,
            "clips": len(self.clips),
            "sound": self.is_sound,
            "problems": self.problems,
            "scale": {
                "verdict": self.scale.verdict,
                "evidence": self.scale.evidence,
                "distances": dict(self.scale.distances),
            },
            "mean": None if self.figures is None else list(self.figures.mean),
            "std": None if self.figures is None else list(self.figures.std),
            "files": [
                {
                    "name": clip.entry.name,
                    "format": clip.entry.format,
                    "shape": list(clip.entry.shape),
                    "dtype": clip.entry.dtype,
                    "bytes": clip.entry.bytes,
                    "nan": clip.nan,
                    "infinite": clip.infinite,
                    "largest": clip.largest,
                    "outlier": clip.outlier,
                    "problems": list(by_clip.get(clip.entry.name, ())),
                }
                for clip in self.clips
            ],
            "comparisons": [each.to_json() for each in self.comparisons],
            "sheets": [str(path) for path in self.sheets],
        }


def audit_cache(
    cache: Cache, model: KnownModel, progress: Callable[[int], None] = lambda done: None
) -> AuditReport:
    """Read every clip of a cache, and say what is wrong with each and with all.

    Args:
        cache: from `open_cache`.
        model: what is known of the model that made it.
        progress: called after every clip with 1.
    """
    weights = _expected_weights(cache.entries, model)
    mixed = {**find_misfits(cache.entries), **find_mixed_shapes(cache.entries)}
    clips: list[ClipFigures] = []
    first: int | None = None
    for entry in cache.entries:
        clip = measure(entry, model.channels)
        extra = [mixed[entry.name]] if entry.name in mixed else []
        info = entry.metadata
        if weights is not None and info is not None and info.model_sha256 != weights:
            others = model.name if model.sha256 is not None else "the other clips'"
            extra.append(
                f"{_OTHER_WEIGHTS} than {others}: by its header, those of {info.model} with "
                f"SHA-256 {info.model_sha256[:12]}"
            )
        if entry.format != cache.format and entry.read is not None:
            extra.append(f"a file of {entry.format} among those of {cache.format}")
        if clip.count:
            first = first or len(clip.mean)
            if len(clip.mean) != first and model.channels is None:
                extra.append(f"{len(clip.mean)} channels, the clips before have {first}")
        clips.append(replace(clip, problems=(*clip.problems, *extra)))
        progress(1)
    outliers = find_outliers(clips)
    clips = [replace(clip, outlier=outliers.get(clip.entry.name)) for clip in clips]
    figures = _figures(clips)
    scale = ScaleVerdict("unknown", {})
    if figures is not None:
        scale = judge_scale(figures.mean, figures.std, model.normalization)
    report = AuditReport(cache, model, clips, figures, scale)
    report.problems += _scale_problems(report)
    return report


def _expected_weights(entries: Sequence[CacheEntry], model: KnownModel) -> str | None:
    """Return the hash that all headers should have: the model's, or the one of most clips."""
    if model.sha256 is not None:
        return model.sha256
    found = Counter(each.metadata.model_sha256 for each in entries if each.metadata is not None)
    return found.most_common(1)[0][0] if found else None


def _figures(clips: Sequence[ClipFigures]) -> CacheFigures | None:
    """Take the figures of a cache; one clip that stands out would hide what all others are."""
    readable = [clip for clip in clips if clip.count]
    usable = [c for c in readable if c.outlier is None and c.largest <= LOADER_LIMIT] or readable
    if not usable:
        return None
    figures = CacheFigures(len(usable[0].mean))
    for clip in usable:
        if len(clip.mean) == figures.channels:
            figures.add(clip)
    return figures


def compare_with_sources(
    report: AuditReport, sources: Sources, model: LoadedModel, most: int
) -> int:
    """Encode the sources of up to `most` clips again, and add what is found to the report.

    Returns:
        How many clips have no source that their name tells.

    Raises:
        InputError: no clip has one.
    """
    unknown = 0
    usable = [c.entry for c in report.clips if c.count and not (c.nan or c.infinite)]
    for entry in _spread(usable, most):
        if len(report.comparisons) == most:
            break
        source = sources.find(entry)
        if source is None:
            unknown += 1
            continue
        try:
            report.comparisons.append(compare_clip(entry, source, model))
        except WfvaeError as error:
            report.problems.append(f"{entry.name}: cannot be compared: {error}")
    _clear_weights(report)
    if not report.comparisons and unknown:
        raise InputError(
            f"{report.cache.path}: the names of its clips lead to none of the sources"
            + (
                " (finetrainers keeps no names)"
                if report.cache.format == "finetrainers"
                else ": give the folder that they were made from with --source"
            )
        )
    return unknown


def _clear_weights(report: AuditReport) -> None:
    """Take back that clips were made by other weights, where the model gives the same latents.

    A checkpoint has another hash in another file, as where a `.pth` was converted.
    """
    same = {
        each.entry.metadata.model_sha256
        for each in report.comparisons
        if each.entry.metadata is not None and each.found.kind in ("equal", "sample")
    }
    for index, clip in enumerate(report.clips):
        info = clip.entry.metadata
        if info is not None and info.model_sha256 in same:
            left = tuple(p for p in clip.problems if not p.startswith(_OTHER_WEIGHTS))
            report.clips[index] = replace(clip, problems=left)


def write_sheets(
    report: AuditReport,
    model: LoadedModel,
    most: int,
    folder: Path,
    sources: Sources | None,
    *,
    overwrite: bool,
) -> None:
    """Write contact sheets of up to `most` clips, and add them to the report.

    Raises:
        OutputError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    readable = [clip.entry for clip in report.clips if clip.count]
    for entry in _spread(readable, most)[:most]:
        content = content_of(entry, report.scale)
        source = None if sources is None else sources.find(entry)
        try:
            sheet = write_sheet(entry, content, model, folder, source, overwrite=overwrite)
        except InputError as error:
            report.problems.append(f"{entry.name}: cannot be decoded: {error}")
            continue
        report.sheets.append(sheet)


def known_model(entries: tuple[CacheEntry, ...]) -> KnownModel:
    """Say what a cache's own names and headers tell of its model."""
    infos = [entry.metadata for entry in entries if entry.metadata is not None]
    families = Counter(entry.family for entry in entries if entry.family is not None)
    family = families.most_common(1)[0][0] if families else None
    if infos:
        info = infos[0]
        applied = info.normalization
        of_header = None if applied is None else Normalization(applied.shift, applied.scale)
        normalization = of_header or known_normalization(family)
        return KnownModel(info.model, info.channels, normalization, family)
    published = known_normalization(family)
    channels = None if published is None else len(published.shift)
    return KnownModel(None, channels, published, family)


def content_of(entry: CacheEntry, scale: ScaleVerdict) -> Content:
    """Return what latents are, by the format where it says so, else by the figures."""
    if entry.content is not None:
        return entry.content
    return "normalised" if scale.verdict == "normalised" else "raw"


def _scale_problems(report: AuditReport) -> list[str]:
    """Say where the figures contradict what the format says of its latents."""
    claimed = report.claimed
    distances, verdict = report.scale.distances, report.scale.verdict
    if claimed is None or verdict in ("unknown", "undecided"):
        return []
    near = distances.get(verdict, 0.0)
    if verdict == claimed or distances[claimed] < _CLEARLY * near:
        return []
    return [
        f"latents look {verdict}, where {claimed} ones are expected (distance {near:.2f} against "
        f"{distances[claimed]:.2f})"
    ]


def _spread(entries: list[CacheEntry], most: int) -> list[CacheEntry]:
    """Give all of them, beginning with `most` that lie evenly over the cache."""
    step = max(1, len(entries) // max(1, most))
    rest = [entry for index, entry in enumerate(entries) if index % step]
    return entries[::step] + rest
