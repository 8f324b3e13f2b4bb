"""Fréchet distances between the features of originals and reconstructions: FID and FVD.

The distance itself and its running sums are torchmetrics' `FrechetInceptionDistance`; here are
only the feature extractors and the bookkeeping of clips. Sums are kept in float64 on the CPU, so
memory does not grow with the number of frames.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from wfvae_cli.errors import WeightsError
from wfvae_cli.metrics.extras import load_tensors, published_weights, require
from wfvae_cli.metrics.pixels import Pixels
from wfvae_cli.metrics.result import FrameScores, JsonValue, json_number

Extractor: TypeAlias = Callable[[Tensor], Tensor]
"""Pictures, uint8 `[N, 3, H, W]`, or clips, float32 `[N, 3, T, H, W]` in [0, 255], to `[N, D]`."""


class FrechetDistance:
    """Fréchet distance over windows of frames: of 1 frame for FID, of several for FVD.

    Pixels reach the extractor in 8 bits. Windows do not overlap, and a clip's frames beyond its
    last whole window are not used. With fewer samples than features the estimate is biased
    upwards: compare such figures only at equal numbers of samples.
    """

    def __init__(self, name: str, extractor: Extractor, *, window: int = 1) -> None:
        """Start with no samples.

        Args:
            name: key of the result: `fid`, `fvd`.
            extractor: makes features of frames (`window` 1) or of clips of `window` frames.
            window: frames in a sample.

        Raises:
            MissingExtraError: torchmetrics is missing.
        """
        _torchmetrics()  # missing it should show before hours of frames, not after
        self.name = name
        self.window = window
        self._extractor = extractor
        self._metric: Any = None
        self._pending: list[tuple[Pixels, Pixels]] = []

    @contextmanager
    def clip(self) -> Iterator[None]:
        """Everything observed within belongs to one clip, and is forgotten if it raises."""
        self._pending.clear()
        before = (
            None
            if self._metric is None
            else {name: value.clone() for name, value in self._metric.metric_state.items()}
        )
        try:
            yield
        except BaseException:
            if before is None:
                self._metric = None
            else:
                for name, value in before.items():
                    setattr(self._metric, name, value)
            raise
        finally:
            self._pending.clear()

    def observe(self, scores: FrameScores, original: Pixels, reconstruction: Pixels) -> None:
        """Take the clip's next pair of frames.

        Args:
            scores: of this pair; they play no part.
            original: HWC RGB, uint8 or uint16.
            reconstruction: the same size.

        Raises:
            WeightsError: the extractor does not take such input, or gives no features.
        """
        self._pending.append((original.copy(), reconstruction.copy()))
        if len(self._pending) < self.window:
            return
        for real, side in ((True, 0), (False, 1)):
            features = self._features([pair[side] for pair in self._pending])
            if self._metric is None:
                self._metric = _running_sums(features.shape[1])
            self._metric.update(features, real=real)
        self._pending.clear()

    def part(self) -> FrechetDistance:
        """An empty distance with this extractor, for one clip of several that are open at once."""
        return FrechetDistance(self.name, self._extractor, window=self.window)

    def merge(self, part: FrechetDistance) -> None:
        """Take in the samples of a `part`, which must not be used any more."""
        if self._metric is None or part._metric is None:
            self._metric = self._metric or part._metric
            return
        for name, value in part._metric.metric_state.items():  # sums, all of them
            setattr(self._metric, name, getattr(self._metric, name) + value)

    @property
    def samples(self) -> int:
        """Windows taken so far, of originals and reconstructions each."""
        return 0 if self._metric is None else int(self._metric.real_features_num_samples)

    def compute(self) -> float | None:
        """The squared Fréchet distance; None with fewer than two samples."""
        return None if self.samples < 2 else float(self._metric.compute())

    def to_json(self) -> dict[str, JsonValue]:
        """The distance under its name, and the number of samples beside it."""
        return {self.name: json_number(self.compute()), f"{self.name}_samples": self.samples}

    def _features(self, frames: list[Pixels]) -> Tensor:
        pictures = torch.from_numpy(np.stack([_eight_bit(frame) for frame in frames]))
        if self.window == 1:
            batch = pictures.permute(0, 3, 1, 2).contiguous()
        else:
            batch = pictures.permute(3, 0, 1, 2).unsqueeze(0).float()
        try:
            with torch.inference_mode():
                features = self._extractor(batch)
        except (RuntimeError, torch.jit.Error) as error:
            raise WeightsError(
                f"the feature extractor of {self.name} failed on {batch.dtype} of shape "
                f"{tuple(batch.shape)}: {str(error).strip().splitlines()[-1]}"
            ) from error
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 1:
            found = tuple(features.shape) if isinstance(features, Tensor) else type(features)
            raise WeightsError(
                f"expected features of shape (1, D) from the extractor of {self.name}, got {found}"
            )
        # Sums start as ordinary tensors, and those cannot be updated with inference ones.
        return features.detach().clone().double().cpu()


def inception_fid(
    weights: Path | None = None, *, device: str | torch.device = "cpu"
) -> FrechetDistance:
    """FID (Heusel et al. 2017) of frames: torch-fidelity's Inception v3, 2048 features.

    Between originals and reconstructions this is the rFID of the autoencoder papers.

    Args:
        weights: torch-fidelity's `weights-inception-2015-12-05-6726825d.pth`, or another
            extractor as TorchScript (uint8 `[N, 3, H, W]` to `[N, D]`); by default PyTorch's
            cache, or else a download.
        device: where to compute features.

    Raises:
        MissingExtraError: torchmetrics or torch-fidelity is missing.
        WeightsError: the weights cannot be had, or are something else.
    """
    if weights is not None and is_torchscript(weights):
        return FrechetDistance("fid", load_torchscript(weights, device=device))
    inception = require(
        "torch_fidelity.feature_extractor_inceptionv3", extra="metrics", purpose="FID"
    )
    metrics = _torchmetrics()
    url: str = inception.URL_INCEPTION_V3
    remedy = f"give {url.rpartition('/')[2]}, as published at {url}, or TorchScript"
    if weights is None:
        weights = published_weights(url, option="--fid-weights FILE")
    else:
        # torch-fidelity unpickles anything: a file that is not mere tensors must not reach it.
        load_tensors(weights, remedy=remedy)
    try:
        whole = metrics.FrechetInceptionDistance(
            feature=2048, feature_extractor_weights_path=str(weights)
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(f"{weights} does not fit Inception v3 ({reason}): {remedy}") from error
    network = whole.inception.to(device)
    return FrechetDistance("fid", lambda batch: network(batch.to(device)))


def clip_fvd(
    weights: Path, *, window: int = 16, device: str | torch.device = "cpu"
) -> FrechetDistance:
    """FVD-style distance (Unterthiner et al. 2018) over features of short clips.

    Args:
        weights: extractor as TorchScript, float32 `[N, 3, T, H, W]` in [0, 255] to `[N, D]`,
            such as the `i3d_torchscript.pt` in use with StyleGAN-V.
        window: frames in a sample.
        device: where to compute features.

    Raises:
        MissingExtraError: torchmetrics is missing.
        WeightsError: the file is missing or not TorchScript.
    """
    assert window > 1
    return FrechetDistance("fvd", load_torchscript(weights, device=device), window=window)


def is_torchscript(path: Path) -> bool:
    """Return True where a file is a TorchScript archive, not a state dict or anything else."""
    try:
        return any(name.split("/")[1:2] == ["code"] for name in zipfile.ZipFile(path).namelist())
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile):  # of damaged names, too
        return False


def load_torchscript(path: Path, *, device: str | torch.device = "cpu") -> Extractor:
    """Load a local TorchScript feature extractor; it is code, and runs as such.

    The published detectors return class scores unless told otherwise: `return_features`,
    `rescale` and `resize` are switched on where the network has these arguments.

    Raises:
        WeightsError: the file is missing or not TorchScript.
    """
    if not path.is_file():
        raise WeightsError(f"expected a TorchScript file, found none at {path}")
    if not is_torchscript(path):
        raise WeightsError(
            f"expected TorchScript (torch.jit.save) in {path}, got something else; "
            "a state dict alone does not say how features are computed"
        )
    try:
        network: Any = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]  # torch's own
    except RuntimeError as error:
        raise WeightsError(f"cannot load {path}: {str(error).splitlines()[0]}") from error
    network.eval()
    arguments = {argument.name for argument in network.forward.schema.arguments}
    switches = dict.fromkeys(arguments & {"rescale", "resize", "return_features"}, True)
    return lambda batch: network(batch.to(device), **switches)


def _running_sums(features: int) -> Any:
    """Make torchmetrics' accumulator, fed with features rather than pictures."""
    identity = nn.Identity()
    identity.num_features = torch.tensor(features)
    return _torchmetrics().FrechetInceptionDistance(feature=identity)


def _torchmetrics() -> Any:
    return require("torchmetrics.image.fid", extra="metrics", purpose="a Fréchet distance")


def _eight_bit(pixels: Pixels) -> Pixels:
    if pixels.dtype == np.uint8:
        return pixels
    return np.rint(pixels / 257).astype(np.uint8)
