from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.stats.conftest import MODEL, Make
from wfvae_cli.errors import InputError, UsageError
from wfvae_cli.stats.accumulate import LatentStats
from wfvae_cli.stats.report import StatsReport, merge_reports


def test_json_has_what_trainers_read(make_report: Make) -> None:
    report = make_report()
    report.stats.fail("x.mp4", "truncated")
    values = json.loads(report.to_json())
    for name in ("latents_mean", "latents_std", "shift", "scale", "kl", "min", "skewness"):
        assert len(values[name]) == 4, name
        assert all(isinstance(x, float) for x in values[name]), name
    z = np.array(values["latents_mean"])
    assert values["shift"] == values["latents_mean"]
    assert np.array(values["scale"]) * values["latents_std"] == pytest.approx(np.ones(4))
    assert values["scaling_factor"] == pytest.approx(1 / values["global_std"])
    assert values["shift_factor"] == pytest.approx(z.mean())
    assert (values["clips"], values["count"]) == (12, 12 * 3 * 6 * 6)
    assert values["model"] == {"name": "tiny", "sha256": "ab" * 32, "family": "wfvae"}
    assert values["options"] == {"size": "48x48"}
    assert values["failed"] == [{"name": "x.mp4", "reason": "truncated", "non_finite": 0}]
    assert sum(values["histogram"]["counts"][0]) == values["count"]
    assert set(values["quantiles"]) >= {"0.01", "0.5", "0.99"}
    assert values["precision"]["worst"] > 0


def test_round_trip_gives_the_same_bytes(make_report: Make, tmp_path: Path) -> None:
    text = make_report().to_json()
    (tmp_path / "a.json").write_text(text)
    assert StatsReport.load(tmp_path / "a.json").to_json() == text
    assert make_report().to_json() == text


def test_merged_files_equal_the_whole_in_any_order(make_report: Make, tmp_path: Path) -> None:
    parts = [range(5), range(5, 6), range(6, 12)]
    for k, seeds in enumerate(parts):
        (tmp_path / f"{k}.json").write_text(make_report(seeds).to_json())

    def merged(*order: int) -> StatsReport:
        return merge_reports([StatsReport.load(tmp_path / f"{k}.json") for k in order])

    assert merged(0, 1, 2).to_json() == merged(2, 0, 1).to_json()
    found, whole = json.loads(merged(0, 1, 2).to_json()), json.loads(make_report().to_json())
    assert found["dataset"] == whole["dataset"]
    assert found["histogram"] == whole["histogram"]
    assert found["state"]["sketch"] == whole["state"]["sketch"]
    assert found["quantiles"] == whole["quantiles"]
    for name in ("latents_mean", "latents_std", "scale", "kl", "skewness", "kurtosis"):
        assert found[name] == pytest.approx(whole[name], rel=1e-9), name
    assert found["precision"]["mean"] == pytest.approx(whole["precision"]["mean"], rel=1e-9)
    assert np.array(found["correlation"]) == pytest.approx(np.array(whole["correlation"]))


def test_what_does_not_belong_together_is_not_merged(make_report: Make) -> None:
    a, b = make_report(range(5)), make_report(range(5, 9))
    with pytest.raises(UsageError, match="1 clips are in more than one"):
        merge_reports([make_report(range(6)), make_report(range(5, 9))])
    with pytest.raises(UsageError, match="one model, got tiny"):
        merge_reports([a, replace(b, model=replace(MODEL, sha256="cd" * 32))])
    with pytest.raises(UsageError, match="size: '48x48' and '64x64'"):
        merge_reports([a, replace(b, options={"size": "64x64"})])
    with pytest.raises(UsageError, match="at least one"):
        merge_reports([])


def test_an_unknown_precision_is_null(make_report: Make) -> None:
    values = json.loads(make_report(range(3)).to_json())
    assert values["precision"]["worst"] is None
    assert values["precision"]["mean"] == [None] * 4


def test_an_empty_report_is_an_error() -> None:
    with pytest.raises(InputError, match="no clip"):
        StatsReport(MODEL, LatentStats()).to_json()


def test_damaged_files_are_refused(make_report: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(InputError, match="no such file"):
        StatsReport.load(path)
    text = make_report().to_json()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match="expected JSON"):
        StatsReport.load(path)
    path.write_text("[1, 2]")
    with pytest.raises(InputError, match=r"wfvae stats -o wrote"):
        StatsReport.load(path)
    values = json.loads(text)
    path.write_text(json.dumps({**values, "schema_version": 9}))
    with pytest.raises(InputError, match="schema version 1, got 9"):
        StatsReport.load(path)
    del values["state"]["spread"]
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match="damaged"):
        StatsReport.load(path)
