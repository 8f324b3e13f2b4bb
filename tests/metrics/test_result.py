import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfvae_cli.metrics.result import (
    ClipResult,
    Comparison,
    FailedFile,
    FileResult,
    FrameScores,
    finite_mean,
    summarise,
)

WORST = FrameScores(1, 30.0, 0.9, None, 33.0)


def clip(psnr: float, ssim: float | None = 0.9) -> ClipResult:
    return ClipResult(
        frames=2,
        width=64,
        height=48,
        bits=8,
        psnr=psnr,
        psnr_mse=psnr,
        ssim=ssim,
        ms_ssim=None,
        flicker_psnr=33.0,
        lpips=None,
        identical_frames=0,
        worst_frame=WORST,
        per_frame=(FrameScores(0, math.inf, 1.0), WORST),
    )


@settings(deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=40))
def test_summaries_are_numpys(values: list[float]) -> None:
    summary = summarise(values)
    assert summary.mean == pytest.approx(np.mean(values), abs=1e-9)
    percentiles = np.percentile(values, [50, 5, 95])
    assert (summary.median, summary.p5, summary.p95) == pytest.approx(percentiles, abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.sampled_from([1.0, 2.0, math.inf]), min_size=1, max_size=12))
def test_infinite_values_never_make_a_nan(values: list[float]) -> None:
    summary = summarise(values)
    assert not any(math.isnan(v) for v in (summary.mean, summary.median, summary.p5, summary.p95))
    assert summary.p5 <= summary.median <= summary.p95


def test_the_mean_leaves_out_what_is_infinite_or_missing() -> None:
    assert finite_mean([1.0, math.inf, None, 3.0]) == 2.0
    assert finite_mean([math.inf, None]) == math.inf
    assert finite_mean([None]) is None


def test_a_clip_as_json_is_strict_json_with_the_scores_at_the_top() -> None:
    text = json.dumps(clip(math.inf, None).to_json(per_frame=True), allow_nan=False)
    content = json.loads(text)
    assert content["psnr"] == "inf" and content["ssim"] is None
    assert content["frames"] == 2 and content["width"] == 64
    assert content["worst_frame"] == {
        "index": 1,
        "psnr": 30.0,
        "ssim": 0.9,
        "ms_ssim": None,
        "flicker_psnr": 33.0,
        "lpips": None,
    }
    assert [frame["psnr"] for frame in content["per_frame"]] == ["inf", 30.0]
    assert "per_frame" not in clip(30).to_json()


def test_a_comparison_summarises_its_files() -> None:
    files = tuple(FileResult(f"{psnr}.mp4", clip(psnr)) for psnr in (40.0, 20.0, 30.0))
    files += (FileResult("same.mp4", replace(clip(math.inf, 1.0), lpips=0.0)),)
    comparison = Comparison(files, (FailedFile("bad.mp4", "is empty"),))
    content = json.loads(json.dumps(comparison.to_json(worst=2), allow_nan=False))
    assert content["psnr"] == 30.0
    assert content["summary"]["psnr"]["median"] == 35.0
    assert content["summary"]["psnr"]["p95"] == "inf"
    assert content["ssim"] == pytest.approx((0.9 * 3 + 1) / 4)
    assert content["ms_ssim"] is None and "ms_ssim" not in content["summary"]
    assert content["lpips"] == 0.0
    assert content["worst_files"] == ["20.0.mp4", "30.0.mp4"]
    assert content["files"] == 4 and content["frames"] == 8
    assert [file["name"] for file in content["per_file"]] == [file.name for file in files]
    assert content["failed"] == [{"name": "bad.mp4", "error": "is empty"}]


def test_results_load_neither_torch_nor_av() -> None:
    code = (
        "import sys, wfvae_cli.metrics.result, wfvae_cli.metrics.views, wfvae_cli.metrics.report;"
        "print(sorted({'torch', 'av', 'matplotlib', 'torchmetrics'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
