"""What scikit-image measures, and the photographs that it ships."""

import importlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from wfvae_cli.metrics.pixels import Pixels

# Its functions carry no types: reached this way, mypy does not ask for them.
_data: Any = importlib.import_module("skimage.data")
_metrics: Any = importlib.import_module("skimage.metrics")


def photographs() -> dict[str, Pixels]:
    """Public-domain and freely licensed photographs, uint8 HWC RGB."""
    return {
        "astronaut": _data.astronaut(),
        "cat": _data.chelsea(),
        "hubble": _data.hubble_deep_field()[100:600, 200:801],
    }


def reference_psnr(x: Pixels, y: Pixels) -> float:
    """PSNR over the range of the dtype."""
    return float(_metrics.peak_signal_noise_ratio(x, y))


def reference_ssim(
    x: ArrayLike,
    y: ArrayLike,
    *,
    data_range: float,
    channel_axis: int | None = -1,
    k1: float = 0.01,
) -> float:
    """SSIM with the window of Wang et al. 2004, in float64."""
    value = _metrics.structural_similarity(
        np.asarray(x, np.float64),
        np.asarray(y, np.float64),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=channel_axis,
        data_range=data_range,
        K1=k1,
    )
    return float(value)
