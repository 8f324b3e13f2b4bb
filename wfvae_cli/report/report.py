"""A folder that shows in any browser, offline, what one or several VAEs lose.

    report/index.html        the page
    report/report.js         what it shows of all clips
    report/assets/           its style sheet and scripts
    report/clips/0001/       a clip: thumbnail, small copies, crops, and clip.js with its curves

Nothing is fetched: data are in scripts, since browsers forbid pages of a file system to read
files. Files have names of ours, never those of clips.
"""

from __future__ import annotations

import secrets
import shutil
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from wfvae_cli.atomic import check_directory, output_error
from wfvae_cli.errors import OutputError
from wfvae_cli.metrics.result import CLIP_METRICS, LABELS, JsonValue, summarise
from wfvae_cli.metrics.views import ERROR_SCALE
from wfvae_cli.report.clip import ClipEntry, ReportClip, script_json
from wfvae_cli.report.energy import EnergyKept
from wfvae_cli.report.media import MAX_FRAMES, MAX_SIDE
from wfvae_cli.stats.report import StatsReport
from wfvae_cli.stats.scale import FORMULAS

if TYPE_CHECKING:
    from wfvae_cli.models.base import LoadedModel

_ASSETS = ("report.css", "dom.js", "table.js", "curves.js", "viewer.js", "sections.js", "main.js")
_MARK = "report.js"
"""A folder with this file and `index.html` is a report, which `overwrite` may replace."""


@dataclass(frozen=True)
class ReportModel:
    """A column group of the page: a model, or reconstructions from elsewhere."""

    name: str
    facts: Mapping[str, JsonValue] = field(default_factory=dict)
    """What identifies it: family, SHA-256 of the weights, dtype, chunk, folder, …"""
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
    """What it takes to repeat the run."""

    title: str
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    notes: Sequence[str] = ()
    """Further sentences for the page, such as the protocol that was followed."""


class Report:
    """Collects clips and writes the folder when its `with` block ends well.

    Clips of several models may be open at once, and close on any thread.

    Example:
        >>> with Report(Path("report"), [ReportModel("wan-2.1")], run) as report:  # doctest: +SKIP
        ...     clip = report.clip("a.mp4", 0, frame_rate=Fraction(24))
        ...     metrics = ClipMetrics(observers=[clip])
        ...     for original, reconstruction in pairs:
        ...         metrics.update(original, reconstruction)
        ...     clip.describe(seconds=2.5, latent_bytes=65536, chunks=[0, 17])
        ...     clip.close(metrics.result())
    """

    def __init__(
        self,
        folder: Path,
        models: Sequence[ReportModel],
        run: ReportRun,
        *,
        overwrite: bool = False,
    ) -> None:
        """Start a report.

        Args:
            folder: what to write; made at the end.
            models: at least one; clips name them by their place.
            run: what the page says of the run.
            overwrite: whether a report that is there may be replaced.

        Raises:
            OutputError: see `check_report_folder`.
        """
        check_report_folder(folder, overwrite=overwrite)
        self._folder = folder = folder.resolve()  # `.` has no name to put a part beside
        self._models = tuple(models)
        self._run = run
        self._overwrite = overwrite
        self._part = folder.with_name(f".{folder.name[:48]}.{secrets.token_hex(4)}.part")
        self._lock = threading.Lock()
        self._started = 0
        self._entries: defaultdict[str, dict[int, ClipEntry]] = defaultdict(dict)
        self._errors: defaultdict[str, dict[int, str]] = defaultdict(dict)
        self._distances: dict[int, Mapping[str, JsonValue]] = {}

    def __enter__(self) -> Report:
        try:
            self._part.mkdir()
        except OSError as error:
            raise output_error(self._folder, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._publish()
        finally:
            shutil.rmtree(self._part, ignore_errors=True)

    def clip(
        self, name: str, model: int, *, frame_rate: Fraction | None, image: bool = False
    ) -> ReportClip:
        """Start a clip: an observer that takes its frames.

        Args:
            name: the same for every model; files are listed by it.
            model: place of the model.
            frame_rate: frames per second, None if it has none.
            image: whether it is a single picture.
        """
        with self._lock:
            folder = self._part / f"new-{self._started}"
            self._started += 1
            with_original = not any("original" in e.facts for e in self._entries[name].values())
        folder.mkdir()
        return ReportClip(
            name, model, folder, frame_rate=frame_rate, image=image,
            with_original=with_original, on_close=self._take,
        )  # fmt: skip

    def fail(self, name: str, model: int, error: str) -> None:
        """Name a clip that this model has no figures of, and why."""
        with self._lock:
            self._errors[name][model] = error

    def set_distances(self, model: int, distances: Mapping[str, JsonValue]) -> None:
        """Give distances over all clips: `fid`, `fvd`, and their `…_samples`."""
        with self._lock:
            self._distances[model] = dict(distances)

    def _take(self, entry: ClipEntry | None, clip: ReportClip) -> None:
        if entry is None:
            return
        with self._lock:
            self._entries[clip.name][entry.model] = entry

    def _publish(self) -> None:
        """Write the page and give the folder its name."""
        names = sorted({*(n for n, e in self._entries.items() if e), *self._errors})
        files = [self._write_clip(place, name) for place, name in enumerate(names, start=1)]
        page = {
            "title": self._run.title,
            "command": self._run.command,
            "versions": dict(self._run.versions),
            "options": dict(self._run.options),
            "notes": list(self._run.notes),
            "labels": LABELS,
            "error_scale": ERROR_SCALE,
            "max_side": MAX_SIDE,
            "max_frames": MAX_FRAMES,
            "models": [self._model(number) for number in range(len(self._models))],
            "files": files,
        }
        try:
            (self._part / _MARK).write_text(f"wfReport.page({script_json(page)});\n", "utf-8")
            source = resources.files("wfvae_cli.report") / "assets"
            assets = self._part / "assets"
            assets.mkdir()
            for name in _ASSETS:
                (assets / name).write_bytes((source / name).read_bytes())
            (self._part / "index.html").write_bytes((source / "index.html").read_bytes())
            self._move()
        except OSError as error:
            raise output_error(self._folder, error) from error

    def _move(self) -> None:
        check_report_folder(self._folder, overwrite=self._overwrite)
        if self._folder.exists():
            old = self._part.with_suffix(".old")
            self._folder.rename(old)
            self._part.rename(self._folder)
            shutil.rmtree(old)
        else:
            self._part.rename(self._folder)

    def _write_clip(self, place: int, name: str) -> JsonValue:
        """Gather a clip's files of all models in one folder; what the table says of it."""
        entries, errors = self._entries.get(name, {}), self._errors.get(name, {})
        key = f"{place:04d}"
        folder = self._part / "clips" / key
        results: list[JsonValue] = [
            entries[m].summary if m in entries else {"error": errors[m]} if m in errors else None
            for m in range(len(self._models))
        ]
        if not entries:
            return {"id": key, "name": name, "results": results}
        folder.mkdir(parents=True)
        facts: dict[str, JsonValue] = {}
        details: dict[int, str] = {}
        for number in sorted(entries):
            entry = entries[number]
            details[number] = entry.take_detail()
            for path in sorted(entry.folder.iterdir()):
                if not (folder / path.name).exists():
                    path.rename(folder / path.name)
            shutil.rmtree(entry.folder)
            facts = {**entry.facts, **facts}
        shown = [details.get(m, "null") for m in range(len(self._models))]
        script = f"wfReport.clip({script_json(key)}, [{','.join(shown)}]);\n"
        (folder / "clip.js").write_text(script, "utf-8")
        return {**facts, "id": key, "results": results}

    def _model(self, number: int) -> JsonValue:
        """A model, and its scores over all clips."""
        model = self._models[number]
        entries = [e[number] for e in self._entries.values() if number in e]
        summaries: dict[str, JsonValue] = {}
        for name in (*CLIP_METRICS, "frames_per_second", "latent_bytes"):
            values = [_number(entry.summary.get(name)) for entry in entries]
            present = [value for value in values if value is not None]
            if present:
                summaries[name] = summarise(present).to_json()
        return {
            "name": model.name,
            "facts": dict(model.facts),
            "summary": summaries,
            "distances": dict(self._distances.get(number, {})),
            "latents": None if model.latents is None else _latents(model.latents),
            "energy": _energies(entries),
        }


def check_report_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Fail early where a report could not be written.

    Raises:
        OutputError: the folder is there and is no report, or is one and `overwrite` is false, or
            the folder that is to hold it is missing or not writable.
    """
    check_directory(folder.parent, folder)
    if folder.is_dir() and any(folder.iterdir()):
        is_report = (folder / _MARK).is_file() and (folder / "index.html").is_file()
        if not is_report:
            raise OutputError(
                f"{folder} holds files that are no report; give the name of a new folder"
            )
        if not overwrite:
            raise OutputError(f"{folder} holds a report; choose another name or add --overwrite")
    elif folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; give the name of a new folder")


def _energies(entries: Sequence[ClipEntry]) -> list[JsonValue]:
    """Of videos and of images, each over all clips."""
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
