import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.metrics.test_clip import clips
from wfvae_cli.errors import MissingExtraError, WeightsError
from wfvae_cli.metrics.frechet import (
    FrechetDistance,
    clip_fvd,
    inception_fid,
    is_torchscript,
    load_torchscript,
)
from wfvae_cli.metrics.pixels import Pixels
from wfvae_cli.metrics.result import FrameScores

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

SCORES = FrameScores(0, 30.0)


@pytest.fixture(autouse=True)
def _torchmetrics() -> None:
    """Import it when a test runs: it takes longer than all other modules of the tests together."""
    pytest.importorskip("torchmetrics.image.fid", exc_type=ImportError)


class FrameFeatures(nn.Module):
    """Five seeded features of a uint8 picture, after checking what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 5, stride=3)

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.uint8
        features: Tensor = self.conv(x.float() / 255)
        return features.relu().mean(dim=(2, 3))


class ClipFeatures(nn.Module):
    """Four seeded features of a float clip; class scores unless told otherwise, as I3D."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (2, 5, 5), stride=(1, 3, 3))

    def forward(self, x: Tensor, rescale: bool = False, return_features: bool = False) -> Tensor:
        assert x.dtype == torch.float32 and rescale
        convolved: Tensor = self.conv(x / 255)
        features = convolved.relu().mean(dim=(2, 3, 4))
        return features if return_features else features[:, :1]


def saved(network: nn.Module, path: Path) -> Path:
    script: Any = torch.jit.script(network)
    script.save(str(path))
    return path


@pytest.fixture
def frame_features(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    return saved(FrameFeatures(), tmp_path / "frames.pt")


@pytest.fixture
def clip_features(tmp_path: Path) -> Path:
    torch.manual_seed(2)
    return saved(ClipFeatures(), tmp_path / "clips.pt")


def observe(distance: FrechetDistance, x: Pixels, y: Pixels) -> None:
    with distance.clip():
        for original, reconstruction in zip(x, y, strict=True):
            distance.observe(SCORES, original, reconstruction)


def reference(x: np.ndarray, y: np.ndarray) -> float:
    """Compute the Fréchet distance of two sets of features, `[N, D]`, in NumPy."""
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(cov_x @ cov_y).astype(complex)).real.sum()
    shift = np.square(x.mean(0) - y.mean(0)).sum()
    return float(shift + np.trace(cov_x) + np.trace(cov_y) - 2 * root)


def features_of(path: Path, batches: list[Tensor], **switches: bool) -> np.ndarray:
    load: Any = torch.jit.load
    network = load(str(path))
    with torch.no_grad():
        return np.concatenate([network(batch, **switches).double().numpy() for batch in batches])


def test_fid_over_local_features_is_the_frechet_distance(frame_features: Path) -> None:
    fid = inception_fid(frame_features)
    x, y = clips(7), clips(5, height=30, width=41, seed=9)
    observe(fid, *x)
    observe(fid, *y)  # another size

    def frames(side: int) -> list[Tensor]:
        pictures = [*x[side], *y[side]]
        return [torch.from_numpy(p).permute(2, 0, 1)[None] for p in pictures]

    expected = reference(*(features_of(frame_features, frames(side)) for side in (0, 1)))
    assert fid.samples == 12
    assert fid.compute() == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert fid.to_json() == {"fid": fid.compute(), "fid_samples": 12}


def test_clips_that_are_open_at_once_add_up(clip_features: Path) -> None:
    whole, merged = clip_fvd(clip_features, window=3), clip_fvd(clip_features, window=3)
    pairs = [clips(7), clips(8, seed=9), clips(2, seed=4)]  # the last one has no whole window
    for pair in pairs:
        observe(whole, *pair)
    parts = [merged.part() for _ in pairs]
    for frame in range(8):
        for part, (x, y) in zip(parts, pairs, strict=True):
            if frame < len(x):
                part.observe(SCORES, x[frame], y[frame])
    for part in parts:
        merged.merge(part)
    assert merged.samples == whole.samples == 4
    assert merged.compute() == pytest.approx(whole.compute(), rel=1e-9)


def test_fvd_takes_whole_windows_and_asks_for_features(clip_features: Path) -> None:
    fvd = clip_fvd(clip_features, window=3)
    x, y = clips(14)  # four windows, two frames over
    observe(fvd, x, y)

    def windows(clip: Pixels) -> list[Tensor]:
        return [
            torch.from_numpy(clip[i : i + 3]).permute(3, 0, 1, 2)[None].float()
            for i in range(0, 12, 3)
        ]

    switches = {"rescale": True, "return_features": True}
    features = [features_of(clip_features, windows(clip), **switches) for clip in (x, y)]
    assert features[0].shape == (4, 4)
    assert fvd.samples == 4
    assert fvd.compute() == pytest.approx(reference(*features), rel=1e-6, abs=1e-9)


def test_identical_sets_are_at_no_distance(frame_features: Path) -> None:
    fid = inception_fid(frame_features)
    x, _ = clips(20)
    observe(fid, x, x)
    assert fid.compute() == pytest.approx(0, abs=1e-9)


def test_deep_frames_reach_the_network_in_eight_bits(frame_features: Path) -> None:
    shallow, deep = inception_fid(frame_features), inception_fid(frame_features)
    x, y = clips(6)
    observe(shallow, x, y)
    observe(deep, x.astype(np.uint16) * np.uint16(257), y.astype(np.uint16) * np.uint16(257))
    assert deep.compute() == shallow.compute()


def test_windows_do_not_reach_across_clips(clip_features: Path) -> None:
    fvd = clip_fvd(clip_features, window=3)
    for seed in range(3):
        observe(fvd, *clips(2, seed=seed))
    assert fvd.samples == 0 and fvd.compute() is None
    assert fvd.to_json() == {"fvd": None, "fvd_samples": 0}


@pytest.mark.parametrize("good_first", [False, True])
def test_a_clip_that_fails_leaves_no_trace(frame_features: Path, good_first: bool) -> None:
    with_failure, without = inception_fid(frame_features), inception_fid(frame_features)
    good, other = clips(5, seed=1), clips(4, seed=2)
    if good_first:
        observe(with_failure, *good)
        observe(without, *good)

    def fail() -> None:
        with with_failure.clip():
            with_failure.observe(SCORES, good[1][0], good[0][0])
            raise RuntimeError("the file is broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail()
    observe(with_failure, *other)
    observe(without, *other)
    assert with_failure.samples == without.samples
    assert with_failure.compute() == without.compute()


def test_one_sample_has_no_distance(frame_features: Path) -> None:
    fid = inception_fid(frame_features)
    observe(fid, *clips(1))
    assert fid.samples == 1 and fid.compute() is None


def test_an_extractor_that_cannot_take_frames_is_an_error(clip_features: Path) -> None:
    with pytest.raises(WeightsError, match=r"extractor of fid failed on torch\.uint8 of shape"):
        observe(inception_fid(clip_features), *clips(1))


def test_an_extractor_without_a_feature_axis_is_an_error() -> None:
    fid = FrechetDistance("fid", lambda batch: batch.float())
    with pytest.raises(WeightsError, match=r"expected features of shape \(1, D\)"):
        observe(fid, *clips(1))


def test_what_is_not_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pth"
    torch.save({"w": torch.zeros(2)}, path)
    assert not is_torchscript(path)
    with pytest.raises(WeightsError, match="expected TorchScript"):
        load_torchscript(path)
    with pytest.raises(WeightsError, match="found none"):
        load_torchscript(tmp_path / "absent.pt")


def test_damaged_torchscript_is_an_error(frame_features: Path) -> None:
    content = frame_features.read_bytes()
    frame_features.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError):
        load_torchscript(frame_features)


def test_without_torchmetrics_the_message_names_the_extra(
    frame_features: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(MissingExtraError, match=r"torchmetrics.*wfvae\[metrics\]"):
        inception_fid(frame_features)


def test_without_torch_fidelity_the_message_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(MissingExtraError, match=r"FID needs torch_fidelity.*wfvae\[metrics\]"):
        inception_fid()
