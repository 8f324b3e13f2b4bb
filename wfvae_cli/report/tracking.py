"""Scores and statistics as runs of TensorBoard and Weights & Biases, written without a network."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from wfvae_cli.errors import MissingExtraError, OutputError, UsageError
from wfvae_cli.latents.strings import clean_text
from wfvae_cli.metrics.result import CLIP_METRICS, FRAME_METRICS, Comparison, JsonValue
from wfvae_cli.stats.report import StatsReport

Kind = Literal["tensorboard", "wandb"]


@dataclass(frozen=True)
class Target:
    """Destination of runs: `tensorboard:DIR` or `wandb:PROJECT`."""

    kind: Kind
    name: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read what `--log-to` says.

        Raises:
            UsageError: it says neither.
        """
        kind, _, name = text.partition(":")
        for known in get_args(Kind):
            if kind == known and name:
                return cls(known, name)
        raise UsageError(f"--log-to: expected tensorboard:DIR or wandb:PROJECT, got {text!r}")

    def check(self) -> None:
        """Fail before the work where nothing could be logged.

        Raises:
            MissingExtraError: the library is not installed.
            OutputError: the folder is a file.
        """
        _library(self.kind)
        if self.kind == "tensorboard" and Path(self.name).is_file():
            raise OutputError(f"--log-to: expected a folder, got the file {self.name}")


class Run(Protocol):
    """One run of an experiment tracker."""

    def summary(self, values: Mapping[str, float]) -> None:
        """Log figures of the whole run."""

    def series(self, name: str, values: list[float | None]) -> None:
        """Log a curve, one value a step; None and infinities leave a gap."""

    def table(self, name: str, columns: list[str], rows: list[list[object]]) -> None:
        """Log a table."""

    def close(self) -> None:
        """Write what is left."""


def log_comparison(
    target: Target,
    label: str,
    comparison: Comparison,
    distances: Mapping[str, JsonValue],
    config: Mapping[str, JsonValue],
) -> None:
    """Log the scores of one set of reconstructions as a run.

    Of a single clip the curves are over its frames, of several over the files by name.

    Args:
        target: where to.
        label: name of the run.
        comparison: the scores.
        distances: `fid` and `fvd`, where they were taken.
        config: what to record beside them.

    Raises:
        MissingExtraError: the library is not installed.
        OutputError: it cannot write.
    """
    config = {k: clean_text(v) if isinstance(v, str) else v for k, v in config.items()}
    run = _open(target, clean_text(label), config)
    try:
        summary = {f"mean/{k}": s.mean for k, s in comparison.summaries.items()}
        summary |= {f"p5/{k}": s.p5 for k, s in comparison.summaries.items()}
        summary |= {k: float(v) for k, v in distances.items() if isinstance(v, int | float)}
        run.summary({k: v for k, v in summary.items() if math.isfinite(v)})
        if len(comparison.files) == 1:
            frames = comparison.files[0].result.per_frame
            for name in FRAME_METRICS:
                run.series(f"frame/{name}", [getattr(frame, name) for frame in frames])
        else:
            for name in CLIP_METRICS:
                run.series(f"file/{name}", [getattr(f.result, name) for f in comparison.files])
        rows: list[list[object]] = [
            [
                clean_text(file.name),
                file.result.frames,
                *(getattr(file.result, k) for k in CLIP_METRICS),
            ]
            for file in comparison.files
        ]
        run.table("files", ["file", "frames", *CLIP_METRICS], rows)
    finally:
        run.close()


def log_stats(target: Target, report: StatsReport) -> None:
    """Log a latent space as a run: figures over all channels, and curves over the channels.

    Raises:
        MissingExtraError: the library is not installed.
        OutputError: it cannot write.
        InputError: the report is empty.
    """
    s = report.summary
    run = _open(target, report.model.name, {"model": report.model.name, **report.options})
    try:
        figures: dict[str, float] = {
            "latents/global_mean": s.global_mean,
            "latents/global_std": s.global_std,
            "latents/clips": s.clips,
            "latents/beyond_3_sigma": s.beyond_3_sigma.share,
        }
        if s.kl_total is not None:
            figures["latents/kl_total"] = s.kl_total
        run.summary(figures)
        curves = {"mean": s.mean, "std": s.std, "skewness": s.skewness, "kurtosis": s.kurtosis}
        if s.kl is not None:
            curves["kl"] = s.kl
        for name, values in curves.items():
            run.series(f"channel/{name}", list(values))
        factors = s.factors.to_json()
        rows: list[list[object]] = [
            [c, s.mean[c], s.std[c], factors["scale"][c]] for c in range(len(s.mean))
        ]
        run.table("channels", ["channel", "mean", "std", "scale"], rows)
    finally:
        run.close()


def _open(target: Target, label: str, config: Mapping[str, Any]) -> Run:
    library = _library(target.kind)
    try:
        if target.kind == "wandb":
            return _Wandb(library, target.name, label, config)
        return _TensorBoard(library, Path(target.name) / _folder_name(label), config)
    except OSError as error:
        raise OutputError(f"cannot log to {target.kind}:{target.name}: {error}") from error


def _library(kind: Kind) -> Any:
    module = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}[kind]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(kind, kind, f"--log-to {kind}") from error


def _folder_name(label: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in label) or "run"


class _TensorBoard:
    """Event files in a folder of their own."""

    def __init__(self, library: Any, folder: Path, config: Mapping[str, Any]) -> None:
        self._writer = library.SummaryWriter(str(folder))
        lines = "".join(f"| {key} | {_cell(value)} |\n" for key, value in config.items())
        self._writer.add_text("config", f"| key | value |\n|---|---|\n{lines}")

    def summary(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value)

    def series(self, name: str, values: list[float | None]) -> None:
        for step, value in enumerate(values):
            if value is not None and math.isfinite(value):
                self._writer.add_scalar(name, value, step)

    def table(self, name: str, columns: list[str], rows: list[list[object]]) -> None:
        lines = [columns, ["---"] * len(columns), *([_cell(each) for each in row] for row in rows)]
        self._writer.add_text(name, "\n".join("| " + " | ".join(line) + " |" for line in lines))

    def close(self) -> None:
        self._writer.close()


def _cell(value: object) -> str:
    """A value in a table of Markdown, in which names of files must not become markup."""
    text = (
        f"{value:.4f}" if isinstance(value, float) else clean_text(str(value), keep_controls=True)
    )
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#|!" else c for c in text.replace("\n", " "))


class _Wandb:
    """A run of a project; offline unless `WANDB_MODE` says otherwise."""

    def __init__(self, library: Any, project: str, label: str, config: Mapping[str, Any]) -> None:
        mode = os.environ.get("WANDB_MODE", "offline")
        self._library = library
        self._run = library.init(project=project, name=label, config=dict(config), mode=mode)

    def summary(self, values: Mapping[str, float]) -> None:
        self._run.summary.update(dict(values))

    def series(self, name: str, values: list[float | None]) -> None:
        axis = f"{name}/step"
        self._run.define_metric(name, step_metric=axis)
        for step, value in enumerate(values):
            if value is not None and math.isfinite(value):
                self._run.log({name: value, axis: step})

    def table(self, name: str, columns: list[str], rows: list[list[object]]) -> None:
        self._run.log({name: self._library.Table(columns=columns, data=rows)})

    def close(self) -> None:
        self._run.finish()
