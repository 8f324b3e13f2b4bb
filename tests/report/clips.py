"""Reports of small made-up clips."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wfvae_cli.metrics.clip import ClipMetrics
from wfvae_cli.metrics.result import ClipResult
from wfvae_cli.report.report import Report, ReportModel, ReportRun

Frames = NDArray[np.uint8]
HOSTILE = '<img src=x onerror="window.hit=1">\'#100% é 日本.mp4'
RUN = ReportRun("A <b>title</b>", "wfvae compare 'a b' c", {"wfvae": "1"}, {"size": "64x48"})


def levels(count: int, height: int = 48, width: int = 64) -> Frames:
    """Flat frames, each brighter than the one before."""
    values = np.arange(count, dtype=np.uint8) * np.uint8(8) + np.uint8(40)
    return np.broadcast_to(values[:, None, None, None], (count, height, width, 3)).copy()


def noisy(frames: Frames, spread: float, seed: int = 0, bad: int | None = None) -> Frames:
    """Noise on every frame, and five times as much on number `bad`."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, spread, frames.shape)
    if bad is not None:
        noise[bad] *= 5
    return (frames + noise).round().clip(0, 255).astype(np.uint8)


def feed(
    report: Report,
    name: str,
    model: int,
    pairs: tuple[Frames, Frames],
    *,
    image: bool = False,
    chunks: tuple[int, ...] = (),
) -> ClipResult:
    """Send a clip through a report as a roundtrip does."""
    clip = report.clip(name, model, frame_rate=None if image else Fraction(12), image=image)
    metrics = ClipMetrics(ms_ssim=False, observers=[clip])
    for original, reconstruction in zip(*pairs, strict=True):
        metrics.update(original, reconstruction)
    clip.describe(seconds=0.5, latent_bytes=2048, chunks=chunks)
    result = metrics.result()
    clip.close(result)
    return result


def two_models(folder: Path) -> Path:
    """A page of two models: three videos, a picture, and a file that failed."""
    models = [ReportModel("wan <2.1>", {"SHA-256": "ab" * 32}), ReportModel("tiny")]
    with Report(folder, models, RUN) as report:
        for number, name in enumerate(("b.mp4", HOSTILE, "sub/a.mp4")):
            x = levels(12)
            for model in range(2):
                spread = (3, 9, 6)[number] + model
                feed(report, name, model, (x, noisy(x, spread, bad=7)), chunks=(0, 5, 9))
        x = levels(1)
        for model in range(2):
            feed(report, "still.png", model, (x, noisy(x, 2 + model)), image=True)
        report.fail("bad <i>.mp4", 0, "cannot be read: <script>window.hit=1</script>")
        report.set_distances(0, {"fid": 3.25, "fid_samples": 37})
        report.set_distances(1, {"fid": 2.5, "fid_samples": 37})
    return folder


def page_of(folder: Path) -> dict[str, Any]:
    """What a page shows, as its script has it."""
    text = (folder / "report.js").read_text("utf-8").strip()
    assert text.startswith("wfReport.page({") and text.endswith(");")
    values: dict[str, Any] = json.loads(text.removeprefix("wfReport.page(").removesuffix(");"))
    return values
