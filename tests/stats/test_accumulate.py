from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stats.conftest import latents
from wfvae_cli.errors import LatentError
from wfvae_cli.stats.accumulate import ClipStats, LatentStats, file_identity
from wfvae_cli.stats.summary import summarise


@settings(deadline=None, max_examples=15)
@given(
    frames=st.lists(st.integers(1, 6), min_size=2, max_size=6),
    chunk=st.integers(1, 7),
    order=st.randoms(use_true_random=False),
)
def test_streaming_equals_numpy(frames: list[int], chunk: int, order) -> None:  # type: ignore[no-untyped-def]  # hypothesis' Random
    clips = [latents(seed, frames=t) for seed, t in enumerate(frames)]
    logvars = [latents(seed + 100, frames=t) - 1 for seed, t in enumerate(frames)]
    parts = []
    for k, (z, v) in enumerate(zip(clips, logvars, strict=True)):
        part, clip = LatentStats(), ClipStats(str(k))
        for start in range(0, z.shape[1], chunk):
            clip.update(z[:, start : start + chunk], v[:, start : start + chunk])
        assert part.add(clip)
        parts.append(part)
    while len(parts) > 1:
        order.shuffle(parts)
        taken = parts.pop()
        parts[-1].merge(taken)
    s = summarise(parts[0])

    x = np.concatenate([z.reshape(4, -1) for z in clips], axis=1).astype(np.float64)
    w = np.concatenate([v.reshape(4, -1) for v in logvars], axis=1).astype(np.float64)
    d = x - x.mean(axis=1, keepdims=True)
    assert (s.clips, s.count) == (len(frames), x.shape[1])
    assert s.mean == pytest.approx(x.mean(axis=1), rel=1e-9)
    assert s.std == pytest.approx(x.std(axis=1), rel=1e-9)
    assert s.skewness == pytest.approx(
        (d**3).mean(axis=1) / x.std(axis=1) ** 3, rel=1e-9, abs=1e-12
    )
    kurtosis = (d**4).mean(axis=1) / x.var(axis=1) ** 2 - 3
    assert s.kurtosis == pytest.approx(kurtosis, rel=1e-9, abs=1e-11)
    assert s.minimum == tuple(x.min(axis=1))
    assert s.maximum == tuple(x.max(axis=1))
    assert np.array(s.correlation) == pytest.approx(np.corrcoef(x), rel=1e-9, abs=1e-12)
    assert s.global_mean == pytest.approx(x.mean(), rel=1e-9)
    assert s.global_std == pytest.approx(x.std(), rel=1e-9)
    assert s.factors.scaling_factor == pytest.approx(1 / x.std(), rel=1e-9)
    kl = 0.5 * (x * x + np.exp(w) - 1 - w)
    assert s.kl == pytest.approx(kl.mean(axis=1), rel=1e-9)
    assert s.kl_total == pytest.approx(kl.sum(axis=0).mean(), rel=1e-9)
    for tail, sigmas in ((s.beyond_3_sigma, 3), (s.beyond_5_sigma, 5)):
        exact = (np.abs(d) > sigmas * x.std(axis=1, keepdims=True)).mean()
        assert abs(tail.share - exact) <= tail.error + 1e-15


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_tensors_of_any_dtype_count_as_their_values(dtype: torch.dtype) -> None:
    z = torch.from_numpy(latents(0)).to(dtype)
    stats = LatentStats()
    stats.add_clip("a", [(z.requires_grad_(), None)])
    assert stats.moments.mean == pytest.approx(
        z.detach().double().flatten(1).mean(dim=1).numpy(), rel=1e-12
    )
    assert summarise(stats).kl is None


def test_a_clip_with_nan_is_named_and_left_out_whole() -> None:
    good, bad = latents(0), latents(1)
    bad[2, 1, 0, 0], bad[0, 2, 1, 1] = np.nan, np.inf
    stats, alone = LatentStats(), LatentStats()
    alone.add_clip("good.mp4", [(good, None)])
    assert stats.add_clip("good.mp4", [(good, None)])
    assert not stats.add_clip("bad.mp4", [(bad[:, :1], None), (bad[:, 1:], None)])
    assert not stats.add_clip("logvar.mp4", [(good, np.full_like(good, -np.inf))])
    assert stats.to_state() | {"failed": []} == alone.to_state()
    assert [(f.name, f.non_finite) for f in stats.failed] == [
        ("bad.mp4", 2),
        ("logvar.mp4", good.size),
    ]
    assert "2 NaN or infinite" in stats.failed[0].reason


def test_clips_without_latents_are_named_and_left_out() -> None:
    stats = LatentStats()
    stats.fail("a.mp4", "truncated")
    assert not stats.add_clip("empty.mp4", [])
    assert stats.clips == 0
    assert [(f.name, f.reason) for f in stats.failed] == [
        ("a.mp4", "truncated"),
        ("empty.mp4", "no latents"),
    ]


def test_two_clips_can_be_interleaved() -> None:
    a, b = latents(0), latents(1)
    one, two = ClipStats("a"), ClipStats("b")
    for t in range(a.shape[1]):
        one.update(a[:, t : t + 1])
        two.update(b[:, t : t + 1])
    stats, whole = LatentStats(), LatentStats()
    assert stats.add(one)
    assert stats.add(two)
    whole.add_clip("a", [(a, None)])
    whole.add_clip("b", [(b, None)])
    assert stats.moments.mean == pytest.approx(whole.moments.mean, rel=1e-12)


def test_shapes_that_do_not_fit_are_refused() -> None:
    stats = LatentStats()
    stats.add_clip("a", [(latents(0), None)])
    with pytest.raises(LatentError, match=r"c\.mp4: latents must have 4 channels .* got 6"):
        stats.add_clip("c.mp4", [(latents(0, channels=6), None)])
    with pytest.raises(LatentError, match=r"\[Z, t, H, W\].*got \(4, 6, 6\)"):
        stats.add_clip("d", [(latents(0)[:, 0], None)])
    with pytest.raises(LatentError, match="one shape"):
        stats.add_clip("e", [(latents(0), latents(0, frames=2))])
    with pytest.raises(LatentError, match="every chunk or with none"):
        stats.add_clip("f", [(latents(0), None), (latents(0), latents(1))])
    with pytest.raises(LatentError, match="every chunk must have 4 channels"):
        stats.add_clip("g", [(latents(0), None), (latents(0, channels=6), None)])
    assert stats.clips == 1


def test_memory_is_flat_over_clips() -> None:
    stats = LatentStats()
    clips = [latents(seed) for seed in range(10)]

    def peak(count: int) -> int:
        tracemalloc.reset_peak()
        for k in range(count):
            stats.add_clip(str(k), [(clips[k % 10], None)])
        return tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    try:
        first = peak(10)
        assert peak(600) < first * 1.05 + 16 * 600
    finally:
        tracemalloc.stop()


def test_file_identity_sees_both_ends_the_size_and_the_window(tmp_path: Path) -> None:
    data = bytearray(300_000)
    names = {}
    for name, at in (("a", None), ("copy", None), ("start", 5), ("end", 299_999)):
        changed = bytearray(data)
        if at is not None:
            changed[at] = 1
        (tmp_path / name).write_bytes(changed)
        names[name] = file_identity(tmp_path / name)
    assert names["a"] == names["copy"]
    assert len(set(names.values())) == 3
    assert file_identity(tmp_path / "a", window="0-17") != names["a"]


def test_accumulating_needs_no_torch() -> None:
    code = (
        "import sys, wfvae_cli.stats.report, wfvae_cli.stats.table, wfvae_cli.report.latent_plot\n"
    )
    code += "sys.exit(bool({'torch', 'av', 'matplotlib'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("latent", "logvar", "reason"),
    [
        (1e31, 0.0, "a latent of 1e+31"),
        (0.0, 1000.0, "a log-variance of 1e+03"),
        (0.0, -1e30, "a log-variance of -1e+30"),
        (-3e38, 1000.0, "a latent of 3e+38"),
    ],
)
def test_a_clip_with_an_absurd_value_is_named_and_left_out(
    latent: float, logvar: float, reason: str
) -> None:
    rng = np.random.default_rng(0)
    stats = LatentStats()
    good = rng.normal(size=(2, 3, 2, 2))
    assert stats.add_clip("good", [(good, np.zeros_like(good))])
    bad, bad_logvar = good.copy(), np.zeros_like(good)
    bad[1, 2, 1, 1], bad_logvar[1, 2, 1, 0] = latent, logvar
    assert not stats.add_clip("bad", [(bad, bad_logvar), (good, np.zeros_like(good))])
    (failed,) = stats.failed
    assert failed.name == "bad"
    assert reason in failed.reason
    assert stats.clips == 1
    assert stats.kl is not None
    assert np.isfinite(stats.kl).all()
