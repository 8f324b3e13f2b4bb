"""The report of `wfvae stats`: a JSON file that trainers read and that merges with others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfvae_cli.errors import InputError, UsageError
from wfvae_cli.stats.accumulate import LatentStats
from wfvae_cli.stats.scale import (
    FORMULAS,
    SCHEMA,
    SCHEMA_VERSION,
    json_lines,
    read_json,
    read_stats_object,
)
from wfvae_cli.stats.summary import Summary, summarise

if TYPE_CHECKING:
    from wfvae_cli.latents.normalization import Normalization
    from wfvae_cli.strides import Strides


@dataclass(frozen=True)
class ModelIdentity:
    """The model whose latents these are."""

    name: str
    sha256: str
    """SHA-256 of the weights, in hex."""
    family: str


@dataclass(frozen=True)
class ExpectedModel:
    """The model whose latents are expected, and what its config says of them."""

    identity: ModelIdentity
    normalization: Normalization | None
    strides: Strides


@dataclass(frozen=True)
class StatsReport:
    """Statistics with all that is needed to reproduce and to merge them."""

    model: ModelIdentity
    stats: LatentStats
    options: Mapping[str, Any] = field(default_factory=dict)
    """JSON values: what changes the latents of a clip, such as size, dtype and posterior. Parts
    that are to be merged must agree on them, so no paths, limits or numbers of workers."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """JSON values: what else reproduces the report, such as sources, seed and version."""

    @cached_property
    def summary(self) -> Summary:
        """Every figure.

        Raises:
            InputError: there is no clip, or a channel is constant.
        """
        return summarise(self.stats)

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over the sorted identities of the clips that count."""
        digest = hashlib.sha256()
        for number in sorted(self.stats.clip_ids):
            digest.update(number.to_bytes(8, "big"))
        return digest.hexdigest()

    def to_json(self) -> str:
        """The report as a JSON object, one line for each field; equal reports, equal bytes.

        Raises:
            InputError: as `summary`.
        """
        figures = self.summary.to_json()
        state = self.stats.to_state()
        failed, histogram = state.pop("failed"), state.pop("histogram")
        fields = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "model": asdict(self.model),
            "options": dict(sorted(self.options.items())),
            "dataset": {"fingerprint": self.fingerprint, "clips": self.stats.clips},
            "run": dict(self.run),
            **figures,
            "formulas": dict(FORMULAS),
            "failed": failed,
            "histogram": histogram,
            "state": state,
        }
        return json_lines(fields)

    @classmethod
    def load(cls, path: Path) -> StatsReport:
        """Read a report that `to_json` wrote.

        Raises:
            InputError: the file is missing, damaged, something else, or of another version.
        """
        values = read_stats_object(read_json(path), path)
        try:
            state = {**values["state"], "failed": values["failed"]}
            state["histogram"] = values["histogram"]
            return cls(
                model=ModelIdentity(**values["model"]),
                stats=LatentStats.from_state(state),
                options=dict(values["options"]),
                run=dict(values["run"]),
            )
        except (
            KeyError,
            TypeError,
            ValueError,
            IndexError,
            AttributeError,
            OverflowError,
        ) as error:
            raise InputError(
                f"{path}: expected a complete statistics file, got a damaged one ({error!r}); "
                "write it anew with wfvae stats -o"
            ) from error


def merge_reports(reports: Sequence[StatsReport]) -> StatsReport:
    """Combine reports of disjoint parts of a dataset: the answer that all of it would give.

    Counts are exact and sums equal to rounding. The order does not matter: the parts are put
    into that of their fingerprints first, so that even the bytes are the same.

    Args:
        reports: at least one; their statistics must not be used any more.

    Raises:
        UsageError: they are of different models or options, or share clips.
    """
    if not reports:
        raise UsageError("expected at least one report to merge, got none")
    first = reports[0]
    for other in reports[1:]:
        _check_same(first, other)
    seen: set[int] = set()
    for report in reports:
        ids = set(report.stats.clip_ids)
        if shared := len(seen & ids):
            raise UsageError(
                f"expected reports of different clips, but {shared} clips are in more than one; "
                "merge parts that do not overlap, or run wfvae stats on all files at once"
            )
        seen |= ids
    merged = LatentStats()
    parts = sorted(reports, key=lambda report: report.fingerprint)
    runs = [dict(report.run) for report in parts]
    for report in parts:
        merged.merge(report.stats)
    names = sorted({report.model.name for report in reports})
    model = ModelIdentity(names[0], first.model.sha256, first.model.family)
    return StatsReport(model, merged, first.options, {"merged": runs})


def _check_same(a: StatsReport, b: StatsReport) -> None:
    if a.model.sha256 != b.model.sha256:
        raise UsageError(
            f"expected reports of one model, got {a.model.name} ({a.model.sha256[:12]}) and "
            f"{b.model.name} ({b.model.sha256[:12]}); their latents have nothing in common"
        )
    if a.options != b.options:
        keys = sorted(k for k in {*a.options, *b.options} if a.options.get(k) != b.options.get(k))
        differing = ", ".join(f"{k}: {a.options.get(k)!r} and {b.options.get(k)!r}" for k in keys)
        raise UsageError(f"expected reports with the same options, got {differing}")
