"""The files of a page: what it shows of all clips and of each, its style sheet and scripts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from wfvae_cli.metrics.result import CLIP_METRICS, LABELS, JsonValue, summarise
from wfvae_cli.metrics.views import ERROR_SCALE
from wfvae_cli.report.clip import ClipEntry, script_json
from wfvae_cli.report.energy import EnergyKept
from wfvae_cli.report.media import MAX_FRAMES, MAX_SIDE
from wfvae_cli.stats.report import StatsReport
from wfvae_cli.stats.scale import FORMULAS

if TYPE_CHECKING:
    from wfvae_cli.models.base import LoadedModel

INDEX, DATA = "index.html", "report.js"
_ASSETS = ("report.css", "dom.js", "table.js", "curves.js", "viewer.js", "sections.js", "main.js")


@dataclass(frozen=True)
class ReportModel:
    """A column group of the page: a model, or reconstructions from elsewhere."""

    name: str
    facts: Mapping[str, JsonValue] = field(default_factory=dict)
    """Identity of the model: family, SHA-256 of the weights, dtype, chunk, folder, …"""
    latents: StatsReport | None = None
    """Statistics of its latents."""

    @classmethod
    def of(
        cls,
        model: LoadedModel,
        latents: StatsReport | None = None,
        facts: Mapping[str, JsonValue] | None = None,
    ) -> ReportModel:
        """The column group of a model that is run here.

        Args:
            model: whose name, family, weights, device and type the page gives.
            latents: statistics of its latents.
            facts: what else identifies the run, such as its chunk and tile.
        """
        own: dict[str, JsonValue] = {
            "family": model.vae.family,
            "SHA-256 of the weights": model.sha256,
            "device": str(model.device),
            "dtype": model.compute_dtype,
        }
        return cls(model.name, {**own, **(facts or {})}, latents)


@dataclass(frozen=True)
class ReportRun:
    """Facts that it takes to repeat the run."""

    title: str
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    notes: Sequence[str] = ()
    """Further sentences for the page, such as the protocol that was followed."""


@dataclass(frozen=True)
class Findings:
    """Results of one model's clips."""

    entries: Mapping[str, ClipEntry]
    """Entries by the clip's name."""
    errors: Mapping[str, str]
    """Reason why there is no entry, by the clip's name."""
    distances: Mapping[str, JsonValue]


def write_page(
    folder: Path, models: Sequence[ReportModel], run: ReportRun, findings: Sequence[Findings]
) -> None:
    """Write all files of a page but the clips' media, and give those their places.

    Args:
        folder: holds the folders of the entries.
        models: the column groups.
        run: what the page says of the run.
        findings: of each model.

    Raises:
        OSError: a file cannot be written.
    """
    names = sorted({name for each in findings for name in (*each.entries, *each.errors)})
    files = [
        _write_clip(folder, f"{place:04d}", name, findings)
        for place, name in enumerate(names, start=1)
    ]
    page = {
        "title": run.title,
        "command": run.command,
        "versions": dict(run.versions),
        "options": dict(run.options),
        "notes": list(run.notes),
        "labels": LABELS,
        "error_scale": ERROR_SCALE,
        "max_side": MAX_SIDE,
        "max_frames": MAX_FRAMES,
        "models": [_model(model, each) for model, each in zip(models, findings, strict=True)],
        "files": files,
    }
    (folder / DATA).write_text(f"wfReport.page({script_json(page)});\n", "utf-8")
    source = resources.files("wfvae_cli.report") / "assets"
    (folder / "assets").mkdir()
    for name in _ASSETS:
        (folder / "assets" / name).write_bytes((source / name).read_bytes())
    (folder / INDEX).write_bytes((source / INDEX).read_bytes())


def _write_clip(folder: Path, key: str, name: str, findings: Sequence[Findings]) -> JsonValue:
    """Gather a clip's files of all models in one folder; what the table says of it."""
    results: list[JsonValue] = []
    facts: dict[str, JsonValue] = {}
    details: list[str] = []
    target = folder / "clips" / key
    for each in findings:
        entry = each.entries.get(name)
        if entry is None:
            results.append({"error": each.errors[name]} if name in each.errors else None)
            details.append("null")
            continue
        results.append(entry.summary)
        details.append(entry.take_detail())
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(entry.folder.iterdir()):
            if not (target / path.name).exists():
                path.rename(target / path.name)
        shutil.rmtree(entry.folder)
        facts = {**entry.facts, **facts}
    if facts:
        script = f"wfReport.clip({script_json(key)}, [{','.join(details)}]);\n"
        (target / "clip.js").write_text(script, "utf-8")
    return {"name": name, **facts, "id": key, "results": results}


def _model(model: ReportModel, findings: Findings) -> JsonValue:
    """A model, and its scores over all clips."""
    summaries: dict[str, JsonValue] = {}
    for name in (*CLIP_METRICS, "frames_per_second", "latent_bytes"):
        values = [_number(entry.summary.get(name)) for entry in findings.entries.values()]
        present = [value for value in values if value is not None]
        if present:
            summaries[name] = summarise(present).to_json()
    return {
        "name": model.name,
        "facts": dict(model.facts),
        "summary": summaries,
        "distances": dict(findings.distances),
        "latents": None if model.latents is None else _latents(model.latents),
        "energy": _energies(list(findings.entries.values())),
    }


def _energies(entries: Sequence[ClipEntry]) -> list[JsonValue]:
    """Sum the energies of videos and of images, each over all clips."""
    sums: dict[str, EnergyKept] = {}
    # In the order of names: sums of floating point depend on the order.
    for entry in sorted(entries, key=lambda entry: entry.name):
        energy = entry.energy
        if energy.kind not in sums:
            zero = (energy.original * 0, energy.reconstruction * 0)
            sums[energy.kind] = EnergyKept(energy.kind, *zero)
        sums[energy.kind].add(energy)
    return [sums[kind].to_json() for kind in sorted(sums, reverse=True)]


def _latents(report: StatsReport) -> JsonValue:
    s = report.summary
    return {
        "model": report.model.name,
        "sha256": report.model.sha256,
        "clips": s.clips,
        "count": s.count,
        "mean": list(s.mean),
        "std": list(s.std),
        "kl": None if s.kl is None else list(s.kl),
        "kl_total": s.kl_total,
        "global_mean": s.global_mean,
        "global_std": s.global_std,
        "factors": s.factors.to_json(),
        "formulas": dict(FORMULAS),
        "correlation": [list(row) for row in s.correlation],
    }


def _number(value: object) -> float | None:
    if value == "inf":
        return float("inf")
    return float(value) if isinstance(value, int | float) else None
