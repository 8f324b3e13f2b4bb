from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.metrics.test_result import clip
from tests.stats.conftest import Make, make_report
from wfvae_cli.errors import MissingExtraError, OutputError, UsageError
from wfvae_cli.metrics.result import Comparison, FileResult
from wfvae_cli.report.tracking import Target, log_comparison, log_stats

__all__ = ["make_report"]  # a fixture

ONE = Comparison((FileResult("a.mp4", clip(30.0)),), ())
TWO = Comparison((FileResult("<b>|a.mp4", clip(30.0)), FileResult("b", replace(clip(34.0)))), ())


def read(folder: Path) -> Any:
    """The scalars of a run of TensorBoard, by name."""
    module = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="needs tensorboard (extra tensorboard)",
    )
    events = module.EventAccumulator(str(folder))
    events.Reload()
    return events


def values(events: Any, name: str) -> list[tuple[int, Any]]:
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars(name)]


def test_a_clip_is_a_run_with_curves_over_its_frames(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard (extra tensorboard)")
    target = Target.parse(f"tensorboard:{tmp_path / 'runs'}")
    target.check()
    log_comparison(target, "wan/2.1", ONE, {"fid": 3.5, "fid_samples": 9}, {"original": "a.mp4"})
    events = read(tmp_path / "runs" / "wan_2.1")
    assert values(events, "mean/psnr") == [(0, 30.0)]
    assert values(events, "frame/psnr") == [(1, 30.0)]  # frame 0 is identical
    assert values(events, "frame/ssim") == [(0, 1.0), (1, 0.9)]
    assert values(events, "fid") == [(0, 3.5)]


def test_files_are_the_steps_of_many_clips(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard (extra tensorboard)")
    log_comparison(Target("tensorboard", str(tmp_path)), "m", TWO, {}, {})
    events = read(tmp_path / "m")
    assert values(events, "file/psnr") == [(0, 30.0), (1, 34.0)]
    assert values(events, "mean/psnr") == [(0, 32.0)]
    table = events.Tensors("files/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "\\<b\\>\\|a.mp4" in table  # a name is no markup


def test_statistics_are_a_run_with_curves_over_the_channels(
    tmp_path: Path, make_report: Make
) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard (extra tensorboard)")
    report = make_report()
    log_stats(Target("tensorboard", str(tmp_path)), report)
    events = read(tmp_path / "tiny")
    assert values(events, "channel/mean") == list(enumerate(report.summary.mean))
    assert values(events, "latents/global_std") == [(0, report.summary.global_std)]


class _FakeWandb:
    """What the code calls of wandb, recorded."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.summary: dict[str, float] = {}

    def init(self, **arguments: Any) -> _FakeWandb:
        self.calls.append(arguments)
        return self

    def define_metric(self, name: str, step_metric: str) -> None:
        self.calls.append((name, step_metric))

    def log(self, values: dict[str, Any]) -> None:
        self.calls.append(values)

    def finish(self) -> None:
        self.calls.append("finish")

    def Table(self, columns: list[str], data: list[list[object]]) -> Any:  # noqa: N802
        return columns, data


def test_wandb_runs_offline_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = _FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    log_comparison(Target.parse("wandb:vae"), "m", TWO, {"fid": None}, {"original": "a"})
    assert fake.calls[0] == {
        "project": "vae", "name": "m", "config": {"original": "a"}, "mode": "offline"
    }  # fmt: skip
    assert fake.summary["mean/psnr"] == 32.0 and "fid" not in fake.summary
    assert {"file/psnr": 34.0, "file/psnr/step": 1} in fake.calls
    assert fake.calls[-1] == "finish"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    log_comparison(Target("wandb", "vae"), "m", ONE, {}, {})
    assert [call["mode"] for call in fake.calls if isinstance(call, dict) and "mode" in call] == [
        "offline", "disabled"
    ]  # fmt: skip


def test_wandb_itself_writes_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs wandb (extra wandb)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    log_comparison(Target("wandb", "vae"), "m", TWO, {}, {"original": "a"})
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert list(run.glob("run-*.wandb"))
    tables = list(run.rglob("*.table.json"))
    assert json.loads(tables[0].read_text())["data"][0][0] == "<b>|a.mp4"


@pytest.mark.parametrize("text", ["tensorboard", "tensorboard:", "mlflow:x", ""])
def test_other_targets_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="tensorboard:DIR or wandb:PROJECT"):
        Target.parse(text)


def test_what_is_missing_shows_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"wfvae\[wandb\]"):
        Target("wandb", "x").check()
    pytest.importorskip("tensorboard", reason="needs tensorboard (extra tensorboard)")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="got the file"):
        Target("tensorboard", str(tmp_path / "file")).check()
