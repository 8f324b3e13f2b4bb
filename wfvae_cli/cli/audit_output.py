"""Tables of `wfvae audit`: the verdict and its evidence first, then clips and channels."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from wfvae_cli.cli.tables import print_facts, print_table

if TYPE_CHECKING:
    from wfvae_cli.audit.audit import AuditReport
    from wfvae_cli.audit.entry import CacheEntry
    from wfvae_cli.audit.measure import ClipFigures

_ROWS = 30
"""Clips in the table, those with problems first."""
_PROBLEMS = 10
"""Problems that are spelled out."""
_LONGEST = 60
"""Characters of a problem in the table of clips."""
_HASH = re.compile(r"([0-9a-f]{12})[0-9a-f]{52}")


def print_report(report: AuditReport) -> None:
    """Print what an audit found on stdout."""
    print_facts({**_facts(report), **_problems(report)})
    if report.comparisons:
        compared = [(_name(each.entry), each.verdict) for each in report.comparisons]
        print_table(("clip", "beside its source"), compared, words=("beside its source",))
    _print_hypotheses(report)
    _print_clips(report)
    _print_channels(report)
    if report.sheets:
        print_table(("contact sheet",), [(str(path),) for path in report.sheets])


def _facts(report: AuditReport) -> dict[str, str]:
    clips, bad = len(report.clips), len(report.by_clip)
    model, scale = report.model, report.scale
    named = model.name or "not named"
    if model.name is None and model.family is not None:
        named += f", but of the family {model.family}"
    if report.is_sound:
        verdict = "nothing wrong was found"
    elif bad:
        verdict = f"something is wrong with {bad} of {clips} clips"
    else:
        verdict = "something is wrong with the cache as a whole"
    facts = {
        "cache": f"{report.cache.path}: {report.cache.format}, {_counted(clips)}",
        "model": named,
        "verdict": verdict,
        "latents are": scale.verdict if scale.distances else "not judged",
    }
    if report.claimed is not None and scale.verdict in ("raw", "normalised"):
        is_so = report.claimed == scale.verdict
        facts["latents are"] += (
            ", as expected" if is_so else f", where {report.claimed} ones are expected"
        )
    facts["evidence"] = scale.evidence or _why_unknown(report)
    outliers = sum(clip.outlier is not None for clip in report.clips)
    if outliers:
        facts["outliers"] = f"{_counted(outliers)}, left out of the figures; no fault by itself"
    return facts


def _why_unknown(report: AuditReport) -> str:
    model = report.model
    if report.figures is None:
        return "no clip can be read"
    if model.normalization is None and model.name is None:
        return "nothing says which model made the cache: give it with --model"
    if model.normalization is None:
        return f"{model.name} gives no shift and scale to compare with"
    return (
        f"shift and scale are known for {len(model.normalization.shift)} channels, and the latents "
        f"have {report.figures.channels}: give the model that made them with --model"
    )


def _problems(report: AuditReport) -> dict[str, str]:
    """Give each problem once, those of most clips first."""
    found: dict[str, list[str]] = {}
    for clip in report.clips:
        for problem in report.by_clip.get(clip.entry.name, ()):
            found.setdefault(problem, []).append(_name(clip.entry))
    shared = sorted(found.items(), key=lambda pair: -len(pair[1]))
    texts = list(report.problems)
    for problem, names in shared:
        where = names[0] if len(names) == 1 else f"{len(names):,} clips, such as {names[0]}"
        texts.append(f"{where}: {problem}")
    shown = texts if len(texts) <= _PROBLEMS else texts[: _PROBLEMS - 1]
    facts = {f"problem {number}": text for number, text in enumerate(shown, 1)}
    if len(shown) < len(texts):
        facts["problems"] = f"{len(texts) - len(shown):,} more, of fewer clips (--json: all)"
    return facts


def _print_hypotheses(report: AuditReport) -> None:
    from wfvae_cli.audit.hypotheses import HYPOTHESES

    distances = report.scale.distances
    if not distances:
        return
    # One factor that is free fits nearly always: it says little, and comes last.
    fixed = [name for name in distances if name in HYPOTHESES]
    free = [name for name in distances if name not in HYPOTHESES]
    rows = [(name, HYPOTHESES[name], f"{distances[name]:.2f}") for name in fixed]
    rows += [(name, "the one factor that fits best", f"{distances[name]:.2f}") for name in free]
    print_table(
        ("hypothesis", "what was done", "distance"),
        rows,
        words=("what was done",),
        title="distances: 0 fits exactly, 0.1 to 0.7 is usual, since datasets differ",
    )


def _print_clips(report: AuditReport) -> None:
    def rank(clip: ClipFigures) -> int:
        return 0 if clip.entry.name in report.by_clip else 1 if clip.outlier else 2

    rows = []
    for clip in sorted(report.clips, key=rank)[:_ROWS]:
        entry, told = clip.entry, report.by_clip.get(clip.entry.name, ())
        shape = "x".join(map(str, entry.shape))
        words = "; ".join(told) or (f"outlier: {clip.outlier}" if clip.outlier else "ok")
        if len(words) > _LONGEST:
            words = words[: _LONGEST - 1] + "…"
        bad = str(clip.nan + clip.infinite)
        rows.append((_name(entry), shape, entry.dtype, f"{entry.bytes:,}", bad, words))
    title = None
    if len(report.clips) > _ROWS:
        title = f"{_ROWS} of {len(report.clips):,} clips, those with problems first (--json: all)"
    header = ("clip", "shape", "dtype", "bytes", "NaN, inf", "verdict")
    print_table(header, rows, words=("verdict",), title=title)


def _print_channels(report: AuditReport) -> None:
    if report.figures is None:
        return
    figures = list(zip(report.figures.mean, report.figures.std, strict=True))
    rows = [[str(c), f"{mean:.4f}", f"{std:.4f}"] for c, (mean, std) in enumerate(figures)]
    header = ["channel", "mean", "std"]
    normalization = report.model.normalization
    if normalization is not None and len(normalization.shift) == len(rows):
        header += ["mean of raw", "std of raw"]
        for row, shift, scale in zip(rows, normalization.shift, normalization.scale, strict=True):
            row += [f"{shift:.4f}", f"{1 / abs(scale):.4f}"]
    print_table(header, rows)


def _name(entry: CacheEntry) -> str:
    """Return a clip's name; of one that is a hash, its first digits and the source."""
    name = _HASH.sub(r"\1…", entry.name)
    if name != entry.name and entry.metadata is not None and entry.metadata.source:
        window = entry.metadata.extra.get("window")
        return f"{name} ({entry.metadata.source}{f', {window}' if window else ''})"
    return name


def _counted(clips: int) -> str:
    return "1 clip" if clips == 1 else f"{clips:,} clips"
