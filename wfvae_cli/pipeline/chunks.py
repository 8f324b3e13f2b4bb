"""Frames to the padded chunks that a model takes, and pixels to tensors and back.

8-bit samples map to `x / 127.5 - 1` and back by rounding `(y + 1) * 127.5` after clamping;
16-bit samples alike over their own range.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wfvae_cli.errors import DeviceError
from wfvae_cli.media.clip import Bits, Conversion, Frame
from wfvae_cli.media.reader import ClipReader
from wfvae_cli.media.to_planes import to_planes
from wfvae_cli.media.yuv import PictureFormat
from wfvae_cli.pipeline.halves import explained_memory
from wfvae_cli.pipeline.job import ClipSource, Heartbeat
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.pipeline.staging import download, upload
from wfvae_cli.strides import Strides

_AT_ONCE = 2**23
"""Pixels whose colours a device converts together: some 50 bytes each while that lasts."""
_AT_ONCE_ON_HOST = 2**20
"""Pixels whose colours a CPU converts together: its caches would not hold more."""

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class FrameChunk:
    """Frames that go through the model together."""

    pixels: Pixels
    """THWC RGB, padded in space and, in the last chunk, in time. With a `conversion` they are
    each frame's input of it, `[T, bytes]`, padded in time only."""
    pts: Sequence[int]
    """One for every frame that is no padding."""
    last: bool
    conversion: Conversion | None = None
    """Conversion of the frames to RGB on the model's device; None where they are RGB."""
    padding: tuple[int, int] = (0, 0)
    """Rows and columns to add after the conversion."""
    is_followed: bool = False
    """True where another stream of the same task follows the one that this chunk ends."""

    @property
    def ends_task(self) -> bool:
        """True for the last chunk of the task."""
        return self.last and not self.is_followed

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height and width, padding included."""
        if self.conversion is None:
            frames, height, width, _ = self.pixels.shape
            return frames, height, width
        width, height = self.conversion.size
        return len(self.pixels), height + self.padding[0], width + self.padding[1]

    @property
    def kind(self) -> Hashable:
        """Equal for chunks that fit into one batch."""
        return self.shape, self.pixels.dtype.str

    @property
    def nbytes(self) -> int:
        """Bytes that it takes on the host."""
        return self.pixels.nbytes

    def to_tensor(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Make 1CTHW in [-1, 1] on a device, to which the samples cross as they are.

        Raises:
            DeviceError: out of memory.
        """
        frames, height, width = self.shape
        with explained_memory(frames, width, height):
            samples = upload(torch.from_numpy(self.pixels), device)
            if self.conversion is not None:
                parts = _in_parts(samples, self.conversion.pixels)
                rgb = torch.cat([self.conversion(part) for part in parts])
                samples = _padded(_padded(rgb, 1, self.padding[0]), 2, self.padding[1])
            return _normalized(samples, dtype)


class FrameSource(ClipSource):
    """The frames of an open reader.

    Args:
        reader: of a video or image.
        strides: of the model that is to encode it.
        heartbeat: called for every frame.
    """

    def __init__(
        self, reader: ClipReader, strides: Strides, heartbeat: Heartbeat = lambda: None
    ) -> None:
        self.reader, self.info = reader, reader.info
        self.width, self.height = reader.info.width, reader.info.height
        self._strides, self._heartbeat = strides, heartbeat

    def chunks(self, plan: ChunkPlan) -> Iterator[FrameChunk]:
        """Group frames into padded chunks."""
        return read_chunks(self._frames(), self._strides, plan)

    @property
    def end(self) -> int | None:
        """End time of the last frame, once all are read: see `ClipReader.end`."""
        return self.reader.end

    def _frames(self) -> Iterator[Frame]:
        self._heartbeat()
        for frame in self.reader:
            self._heartbeat()
            yield frame


def convert_on(device: torch.device, reader: ClipReader) -> None:
    """Leave a clip's colours and scaling to the model's device, if it is not the host itself.

    On the host, FFmpeg is faster at it, and converts while the model computes.
    """
    if device.type == "cuda":
        reader.leave_conversion()


def read_chunks(
    frames: Iterable[Frame], strides: Strides, plan: ChunkPlan, *, is_followed: bool = False
) -> Iterator[FrameChunk]:
    """Group frames into padded chunks; knows the last one because it looks one frame ahead.

    Args:
        frames: of one stream.
        strides: of the model.
        plan: how many go into each chunk.
        is_followed: whether the same task has another stream behind this one.
    """
    group: list[Frame] = []
    room = strides.frames_of(plan.first)
    begun = False
    for frame in frames:
        if len(group) == room:
            yield _pad_chunk(group, strides, first=not begun, last=False)
            group, begun = [], True
            room = plan.later * strides.time
        group.append(frame)
    if group:
        last = _pad_chunk(group, strides, first=not begun, last=True)
        yield replace(last, is_followed=is_followed)


def _pad_chunk(group: list[Frame], strides: Strides, *, first: bool, last: bool) -> FrameChunk:
    """Stack frames; repeat the last one, and the right and bottom edge, to what the model takes."""
    count = len(group)
    full = strides.padded_frames(count) if first else count + -count % strides.time
    pts, conversion = [frame.pts for frame in group], group[0].conversion
    if conversion is not None and all(frame.conversion is conversion for frame in group):
        w, h = conversion.size
        repeated = group + group[-1:] * (full - count)
        planes = np.stack([frame.pixels for frame in repeated], dtype=np.uint8)
        width, height = strides.padded_size(w, h)
        return FrameChunk(planes, pts, last, conversion, (height - h, width - w))
    # Where the format changes within a chunk, some frames may have been converted already.
    pictures = [frame.in_rgb() for frame in group]
    h, w, c = pictures[0].shape
    width, height = strides.padded_size(w, h)
    pixels = np.empty((full, height, width, c), pictures[0].dtype)
    for i, picture in enumerate(pictures):
        pixels[i, :h, :w] = picture
    pixels[count:, :h, :w] = pictures[-1]
    pixels[:, h:, :w] = pixels[:, h - 1 : h, :w]
    pixels[:, :, w:] = pixels[:, :, w - 1 : w]
    return FrameChunk(pixels, pts, last)


def _in_parts(pictures: Tensor, pixels: int) -> Sequence[Tensor]:
    """A few pictures of `pixels` at a time."""
    most = _AT_ONCE_ON_HOST if pictures.device.type == "cpu" else _AT_ONCE
    return torch.split(pictures, max(1, most // pixels))


def _padded(pixels: Tensor, dim: int, more: int) -> Tensor:
    """Repeat the last row or column."""
    if not more:
        return pixels
    edge = pixels.narrow(dim, pixels.size(dim) - 1, 1)
    return torch.cat([pixels] + [edge] * more, dim=dim)


def _normalized(samples: Tensor, dtype: torch.dtype) -> Tensor:
    """THWC samples to 1CTHW in [-1, 1], channels-last in memory as they came."""
    half = np.iinfo(np.uint8 if samples.dtype == torch.uint8 else np.uint16).max / 2
    values = samples.to(torch.float32).div_(half).sub_(1)
    return values.to(dtype).permute(3, 0, 1, 2).unsqueeze(0)


def _quantized(frames: Tensor, bits: Bits, planes: PictureFormat | None) -> Tensor:
    """TCHW in about [-1, 1] to THWC samples, or to the planes of each frame."""
    values = frames.permute(0, 2, 3, 1).float().clamp(-1, 1)
    samples = values.add_(1).mul_((2**bits - 1) / 2).round_()
    samples = samples.to(torch.uint8 if bits == 8 else torch.uint16)
    return samples if planes is None else to_planes(samples, planes)


class PendingPixels:
    """A chunk of decoded frames on its way to pixels: quantised on the device, then fetched.

    Args:
        frames: 1CTHW in about [-1, 1], padded.
        height: pixels of a frame without padding.
        width: pixels of a frame without padding.
        bits: 8 or 16.
        planes: the format to convert frames to on the device; None leaves them RGB.

    Raises:
        DeviceError: out of memory.
    """

    def __init__(
        self,
        frames: Tensor,
        height: int,
        width: int,
        bits: Bits,
        planes: PictureFormat | None = None,
    ) -> None:
        self._computed_in = str(frames.dtype).removeprefix("torch.")
        with explained_memory(frames.size(2), width, height):
            pictures = frames[0, :, :, :height, :width].transpose(0, 1)
            parts = [_quantized(part, bits, planes) for part in _in_parts(pictures, height * width)]
            self._shape: tuple[int, ...] = (len(pictures), *parts[0].shape[1:])
            self._type = parts[0].dtype
            # One more byte says whether all was finite: asking now would wait for the device.
            finite = frames.isfinite().all().view(1).view(torch.uint8)
            data = [part.contiguous().view(-1).view(torch.uint8) for part in parts]
            self._download = download(torch.cat([*data, finite]))

    def __len__(self) -> int:
        return self._shape[0]

    def wait(self) -> Pixels:
        """The frames, THWC, or the planes of each, `[T, bytes]`. Call once, in any thread.

        Raises:
            DeviceError: a value was NaN or infinite.
        """
        data = self._download.wait()
        if not data[-1]:
            raise DeviceError(
                f"the decoder's output is NaN or infinite in {self._computed_in}: use another "
                "--dtype (bfloat16 has float32's range)"
            )
        pixels: Pixels = data[:-1].view(self._type).view(self._shape).numpy()
        return pixels
