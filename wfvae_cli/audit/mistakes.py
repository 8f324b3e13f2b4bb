"""Usual mistakes of caching scripts, applied to pixels or latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wfvae_cli.audit.sources import Reading, fit, read_frames
from wfvae_cli.errors import WfvaeError
from wfvae_cli.media.options import Fit, Sampling

_BLACK, _STEPS, _PEAK = 16, 219, 255
"""Limited range: the code of black, and steps from there to white; and the peak of full range."""
_RATES = (8, 16, 24, 25, 30)


@dataclass(frozen=True)
class Variant:
    """Something that may have been done wrong, and what would have been encoded then."""

    name: str
    frames: Tensor
    """`[3, T, H, W]`, to be encoded."""
    view: Callable[[Tensor], Tensor] | None = None
    """Turns the stored latents into what is to be compared; None leaves them."""


def variants(path: Path, reading: Reading, base: Tensor, total: int) -> Iterator[Variant]:
    """Give what would have been encoded with each mistake, one at a time.

    Args:
        path: of the source.
        reading: how it should have been read.
        base: the frames so read, `[3, T, H, W]` in [-1, 1].
        total: frames of the whole clip in the cache, of which `base` may be the first few.
    """
    for name, change in _PIXELS.items():
        yield Variant(name, change(base))
    yield from _of_frames(path, reading, total)
    yield from _of_geometry(path, reading)
    yield from _of_filters(path, reading)
    yield from _of_axes(path, reading, base)


def _unit(frames: Tensor) -> Tensor:
    return (frames + 1) / 2


def _signed(frames: Tensor) -> Tensor:
    return frames * 2 - 1


def _other_matrix(source: tuple[float, float], target: tuple[float, float]) -> Tensor:
    """RGB to RGB where YUV of one matrix was read as another's; weights are red's and blue's."""
    inverse: Tensor = torch.linalg.inv(_to_yuv(*target))
    return inverse @ _to_yuv(*source)


def _to_yuv(red: float, blue: float) -> Tensor:
    luma = torch.tensor([red, 1 - red - blue, blue])
    u = (torch.tensor([0.0, 0.0, 1.0]) - luma) / (2 * (1 - blue))
    v = (torch.tensor([1.0, 0.0, 0.0]) - luma) / (2 * (1 - red))
    return torch.stack([luma, u, v])


def _mixed(frames: Tensor, matrix: Tensor) -> Tensor:
    return _signed(torch.einsum("ij,jthw->ithw", matrix, _unit(frames)).clamp(0, 1))


_BT601, _BT709 = (0.299, 0.114), (0.2126, 0.0722)
_PIXELS: dict[str, Callable[[Tensor], Tensor]] = {
    "pixels in [0, 1] in place of [-1, 1]": _unit,
    "pixels in [0, 255] in place of [-1, 1]": lambda x: _unit(x) * _PEAK,
    "pixels scaled to [-1, 1] twice": _signed,
    "BGR in place of RGB": lambda x: x.flip(0),
    "limited range taken for full": lambda x: _signed((_unit(x) * _STEPS + _BLACK) / _PEAK),
    "full range taken for limited": lambda x: _signed(
        ((_unit(x) * _PEAK - _BLACK) / _STEPS).clamp(0, 1)
    ),
    "BT.709 taken for BT.601": lambda x: _mixed(x, _other_matrix(_BT709, _BT601)),
    "BT.601 taken for BT.709": lambda x: _mixed(x, _other_matrix(_BT601, _BT709)),
    "mirrored left to right": lambda x: x.flip(3),
    "upside down": lambda x: x.flip(2),
}


def _of_frames(path: Path, reading: Reading, total: int) -> Iterator[Variant]:
    """Other frames of the source, and other rates."""
    # Without the recorded start and rate, so that all of the source is there.
    whole = replace(reading.sampling, start=0.0, duration=None, frames=None, fps=None)
    every = _try(path, whole)
    if every is None or every.size(1) == 1:
        return
    count, last = every.size(1), max(0, every.size(1) - total)
    starts = {
        "frames from the start of the source": 0,
        "frames from one later": reading.first + 1,
        "frames from one earlier": reading.first - 1,
        "frames from the middle of the source": last // 2,
        "frames from the end of the source": last,
    }
    for name, start in starts.items():
        if start != reading.first and 0 <= start < count:
            yield Variant(name, _cut(every[:, start:], reading))
    rest = every[:, reading.first :]
    for step in (2, 3):
        yield Variant(f"every {step}. frame of the source", _cut(rest[:, ::step], reading))
    yield Variant("each frame twice", _cut(rest.repeat_interleave(2, 1), reading))
    reverse = every[:, reading.first : reading.first + total].flip(1)
    yield Variant("frames in reverse order", _cut(reverse, reading))
    for rate in _RATES:
        resampled = _try(path, replace(whole, fps=Fraction(rate)))
        if resampled is not None:
            yield Variant(f"resampled to {rate} frames/s", _cut(resampled, reading))


def _of_geometry(path: Path, reading: Reading) -> Iterator[Variant]:
    """Other ways to the same size."""
    size, sampling = (reading.width, reading.height), reading.sampling
    plain = replace(sampling, size=None, short_side=None)
    kinds: tuple[tuple[Fit, str], ...] = (
        ("crop", "scaled to cover and cropped at the centre"),
        ("stretch", "stretched without regard to the aspect"),
        ("pad", "padded with black bars"),
    )
    for kind, name in kinds:
        frames = _try(path, replace(plain, size=size, fit=kind))
        if frames is not None:
            yield Variant(name, _cut(frames[:, reading.first :], reading))
    native = _try(path, plain)
    if native is None:
        return
    native = native[:, reading.first :]
    _, _, height, width = native.shape
    if width >= size[0] and height >= size[1] and (width, height) != size:
        top, left = (height - size[1]) // 2, (width - size[0]) // 2
        yield Variant(
            "cropped at the centre without scaling", _cut(native[..., top:, left:], reading)
        )
        yield Variant("cropped at the top left without scaling", _cut(native, reading))
    cover = max(size[0] / width, size[1] / height)
    scaled = round(width * cover), round(height * cover)
    if scaled != size:
        frames = _try(path, replace(plain, size=scaled, fit="stretch"))
        if frames is not None:
            frames = frames[:, reading.first :]
            yield Variant("scaled to cover and cropped at the top left", _cut(frames, reading))
            far = frames[..., scaled[1] - size[1] :, scaled[0] - size[0] :]
            yield Variant("scaled to cover and cropped at the far edge", _cut(far, reading))


_MODES: Mapping[str, dict[str, Any]] = {
    "bicubic": {"mode": "bicubic", "antialias": True},
    "bilinear": {"mode": "bilinear", "antialias": True},
    "area": {"mode": "area"},
    "bilinear without antialiasing": {"mode": "bilinear"},
    "bicubic without antialiasing": {"mode": "bicubic"},
    "nearest": {"mode": "nearest"},
}
FILTERS = {f"resized with another filter ({name})": each for name, each in _MODES.items()}
"""Filters of PyTorch's `interpolate` that other scripts resize with: no fault by themselves."""


def _of_filters(path: Path, reading: Reading) -> Iterator[Variant]:
    """The same size and crop, resized by other filters: cover, then the centre."""
    sampling = reading.sampling
    if (sampling.size is None and sampling.short_side is None) or sampling.fit == "pad":
        return
    native = _try(path, replace(sampling, size=None, short_side=None))
    if native is None:
        return
    native = native[:, reading.first : reading.first + reading.frames].transpose(0, 1)
    height, width = native.shape[2:]
    size = sampling.size or (reading.width, reading.height)
    cover = max(size[0] / width, size[1] / height)
    scaled = round(height * cover), round(width * cover)
    if sampling.fit == "stretch":
        scaled = size[1], size[0]
    if scaled == (height, width):
        return
    top, left = (scaled[0] - size[1]) // 2, (scaled[1] - size[0]) // 2
    for name, options in FILTERS.items():
        resized = torch.nn.functional.interpolate(native, scaled, **options).clamp(-1, 1)
        frames = resized[..., top : top + size[1], left : left + size[0]].transpose(0, 1)
        yield Variant(name, _cut(frames, reading))


def _of_axes(path: Path, reading: Reading, base: Tensor) -> Iterator[Variant]:
    """Latents whose axes are in another order."""
    turned = replace(reading, width=reading.height, height=reading.width)
    sampling = reading.sampling
    if sampling.size is not None:
        sampling = replace(sampling, size=(sampling.size[1], sampling.size[0]))
    frames = _try(path, sampling)
    if frames is not None:
        cut = _cut(frames[:, reading.first :], turned)
        name = "height and width of the latents transposed"
        yield Variant(name, cut, lambda stored: stored.transpose(2, 3))
    yield Variant("channels and time of the latents transposed", base, _channels_first)


def _channels_first(stored: Tensor) -> Tensor:
    return stored.transpose(0, 1)


def _cut(frames: Tensor, reading: Reading) -> Tensor:
    return fit(frames, reading.frames, reading.width, reading.height)


def _try(path: Path, sampling: Sampling) -> Tensor | None:
    """Read a source so; None where it cannot be read so."""
    try:
        return read_frames(path, sampling)
    except WfvaeError:
        return None
