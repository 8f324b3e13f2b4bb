"""Opens a video, an image, a numbered sequence or standard input as a clip of RGB frames."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Generator, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from av.video.frame import VideoFrame

from wfvae_cli.errors import UsageError, VideoError
from wfvae_cli.local_path import local_path
from wfvae_cli.media import images, picture
from wfvae_cli.media.clip import ClipInfo, Colour, Frame
from wfvae_cli.media.colour import PixelFormat
from wfvae_cli.media.filters import Converter, Pixels, tags_of
from wfvae_cli.media.frames import planes_of
from wfvae_cli.media.inputs import Buffered, LocalFile, Pipe
from wfvae_cli.media.memory import MAX_PIXELS
from wfvae_cli.media.opening import check_exists
from wfvae_cli.media.options import Fit, Sampling
from wfvae_cli.media.sampling import Geometry, Orientation, Timed, plan_geometry, seconds, select
from wfvae_cli.media.source import VideoSource
from wfvae_cli.unreadable import why_unreadable

if TYPE_CHECKING:
    from wfvae_cli.media.from_planes import PlanarConversion

_LOG = logging.getLogger("wfvae")


class _Source(Protocol):
    """Interface of `VideoSource`, `ImageSource` and `AnimationSource`."""

    name: str
    width: int
    height: int
    format: PixelFormat
    pixel_format: str
    codec: str
    is_image: bool
    origin: int
    time_base: Fraction
    frame_rate: Fraction | None
    notices: list[str]

    @property
    def colour(self) -> Colour: ...
    @property
    def orientation(self) -> Orientation: ...
    @property
    def sample_aspect(self) -> Fraction: ...
    @property
    def container(self) -> str: ...
    @property
    def promised(self) -> tuple[int | None, Fraction | None]: ...
    @property
    def first(self) -> Timed[VideoFrame]: ...
    def seek(self, start: Fraction) -> None: ...
    def __iter__(self) -> Iterator[Timed[VideoFrame]]: ...
    def close(self) -> None: ...


class ClipReader:
    """Yields the frames of a clip once, in display order, holding one at a time.

    Iterate it in any one thread; `close` may be called from another, and more than once.
    """

    info: ClipInfo
    """Properties of the frames, known from the start."""

    def __init__(self, source: _Source, sampling: Sampling) -> None:
        """Go to the first frame to take; use `open_clip`."""
        self._source = source
        self._lock = threading.Lock()
        self._closed = False
        self._end: int | None = None
        if sampling.start:
            source.seek(seconds(sampling.start))
        geometry = _geometry(source, sampling)
        self._convert = self._converter(geometry)
        self._conversion: PlanarConversion | None = None
        image = source.is_image
        self.info = ClipInfo(
            width=geometry.size[0],
            height=geometry.size[1],
            bits=source.format.bits,
            source_bits=min(max(source.format.depth, 8), 16),
            frame_rate=None if image else sampling.fps or source.frame_rate,
            time_base=1 / sampling.fps if sampling.fps and not image else source.time_base,
            start=source.first.pts * source.time_base,
            frames=1 if image else _expected_frames(source, sampling),
            sample_aspect=geometry.sample_aspect,
            colour=source.colour,
            pixel_format=source.pixel_format,
            container=source.container,
            codec=source.codec,
            is_image=image,
            source_size=(source.height, source.width)
            if source.orientation.transpose
            else (source.width, source.height),
            notices=tuple(source.notices),
        )
        for notice in source.notices:
            _LOG.info("%s: %s", source.name, notice)
        # An image lasts for no time that could be resampled.
        taken = select(source, source.time_base, Sampling() if image else sampling)
        self._frames = self._converted(taken)

    @property
    def name(self) -> str:
        """Name of the source in messages: its path, or `standard input`."""
        return self._source.name

    @property
    def end(self) -> int | None:
        """Time at which the last frame taken stops being shown, in units of `info.time_base`.

        Known once all frames have been taken; None before that, and for images.
        """
        return self._end

    def __iter__(self) -> Iterator[Frame]:
        """Iterate over the frames that have not been taken yet."""
        return self

    def __next__(self) -> Frame:
        """Return the next frame.

        Raises:
            VideoError: the source is damaged or cut short, or its pictures change their size.
            StopIteration: it was the last, or the reader has been closed.
        """
        with self._lock:
            try:
                if self._closed:
                    raise StopIteration
                return next(self._frames)
            finally:
                if self._closed:  # `close` came from another thread meanwhile
                    self._release()

    def resize(self, size: tuple[int, int], fit: Fit) -> None:
        """Scale the frames to another size; to be called before the first one is taken.

        Args:
            size: width and height in pixels.
            fit: how they are reached, as of `Sampling`.

        Raises:
            UsageError: the pictures would become too large.
        """
        geometry = _geometry(self._source, Sampling(size=size, fit=fit))
        self._convert = self._converter(geometry)
        self.info = replace(
            self.info,
            width=geometry.size[0],
            height=geometry.size[1],
            sample_aspect=geometry.sample_aspect,
        )

    def leave_conversion(self) -> None:
        """Leave the conversion to RGB, and scaling, to the caller, where it can be done exactly.

        That is where a device gives the same pixels: see `Frame.conversion`. To be called before
        the first frame is taken.
        """
        # Here, because torch takes seconds to import, and reading alone does without it.
        from wfvae_cli.media.from_planes import find_conversion

        self._conversion = find_conversion(self._source.first.item, self._convert)

    def close(self) -> None:
        """Release the source; at once, or when the frame being decoded is done.

        It never waits for another thread: that may be blocked on a pipe.
        """
        self._closed = True
        if self._lock.acquire(blocking=False):
            try:
                self._release()
            finally:
                self._lock.release()

    def __enter__(self) -> ClipReader:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _converter(self, geometry: Geometry) -> Converter:
        source = self._source
        tags = tags_of(source.first.item)
        return Converter(source.format.bits, source.colour, geometry, tags)

    def _release(self) -> None:
        self._frames.close()
        self._source.close()

    def _converted(self, items: Iterator[Timed[VideoFrame]]) -> Generator[Frame, None, None]:
        """Convert each frame that is taken, once even where it is repeated."""
        last: VideoFrame | None = None
        pixels: Pixels | None = None
        conversion: PlanarConversion | None = None
        end: int | None = None
        for timed in items:
            if pixels is None or timed.item is not last:
                last, conversion = timed.item, self._conversion
                if conversion is not None and conversion.fits(last):
                    pixels = planes_of(last)
                else:
                    pixels, conversion = self._convert(last), None
            yield Frame(pixels, timed.pts, conversion)
            end = timed.pts + timed.duration
        self._end = None if self.info.is_image else end


def open_clip(
    source: str | Path,
    sampling: Sampling | None = None,
    *,
    threads: int = 0,
    frame_rate: Fraction = Fraction(25),
    hwaccel: str = "none",
    image_memory: int | None = None,
    trusted: bool = False,
) -> ClipReader:
    """Open a source and find the first frame to take, so that what is wrong shows at once.

    Args:
        source: a video or image file; a pattern of numbered images such as `%05d.png`; a pipe
            that has a name; a URL of a web server, which is read from its host only; or `-`,
            standard input.
        sampling: which frames to take and at what size; all as they are by default.
        threads: of the decoder; 0 is one for each core.
        frame_rate: of a pattern's images, in frames per second.
        hwaccel: what decodes videos: `none` (software), a kind of device that FFmpeg knows such
            as `cuda`, or `auto`, the first one that works. Where it cannot be had, software
            decodes, and a notice says so.
        image_memory: bytes that decoding one picture of an image file may take; larger ones are
            refused. None is half of the memory that is free.
        trusted: whether the user named this very file, so that a playlist or concat script
            (`.m3u8`, `.ffconcat`) may open what lies beside or below it. Other files open nothing
            else, whatever they say.

    Returns:
        A reader, to be used as a context manager.

    Raises:
        UsageError: the sampling asks for the impossible, or the device is unknown.
        VideoError: no frames can be had of the source.
    """
    opened = _open_source(source, threads, frame_rate, hwaccel, image_memory, trusted)
    try:
        return ClipReader(opened, sampling or Sampling())
    except BaseException:
        opened.close()
        raise


def probe(source: str | Path, *, trusted: bool = False) -> ClipInfo:
    """Describe a source; decodes its first frame only.

    Args:
        source: see `open_clip`.
        trusted: see `open_clip`.

    Raises:
        VideoError: no frames can be had of it.
    """
    with open_clip(source, threads=1, trusted=trusted) as reader:
        return reader.info


def _open_source(
    source: str | Path,
    threads: int,
    frame_rate: Fraction,
    hwaccel: str,
    memory: int | None = None,
    trusted: bool = False,
) -> _Source:
    """Find out what `source` is, and open it as that."""
    if str(source) == "-":
        if sys.stdin.isatty():
            raise VideoError("standard input is a terminal: pipe a video into it, or name a file")
        return _open_pipe(Pipe(sys.stdin.buffer), threads, hwaccel, memory)
    path = local_path(source)
    if isinstance(source, str) and "://" in source and str(path) == str(Path(source)):
        return _open_url(source, threads, hwaccel)
    if images.PATTERN.search(path.name) and not path.exists():
        return images.open_series(path, frame_rate, memory=memory)
    if path.is_fifo() or path.is_char_device() or path.is_socket():
        return _open_pipe(_named_pipe(path), threads, hwaccel, memory)
    check_exists(path, trusted=trusted)
    with path.open("rb") as file:
        head = file.read(picture.HEAD)
    if picture.is_image(head) and path.suffix.lower() not in (".mjpg", ".mjpeg"):
        image = images.open_image(path, str(path), memory=memory)
        if image is not None:
            return image
    return VideoSource(
        LocalFile(path), threads=threads, device=hwaccel, trusted=trusted, memory=memory
    )


def _open_url(url: str, threads: int, hwaccel: str) -> _Source:
    # Here, because it imports http and ssl, which files do without.
    from wfvae_cli.media.web import of_url

    file = of_url(url)
    try:
        return VideoSource(file, threads=threads, device=hwaccel)
    except BaseException:
        file.close()
        raise


def _named_pipe(path: Path) -> Pipe:
    """Open a pipe by its path, such as the shell's `<(command)`."""
    try:
        return Pipe(path.open("rb"), str(path), owned=True)
    except OSError as error:
        why = why_unreadable(path, "a video or an image", error)
        raise VideoError(f"{path}: {why}") from error


def _open_pipe(pipe: Pipe, threads: int, hwaccel: str, memory: int | None) -> _Source:
    head = pipe.peek(picture.HEAD)
    if not head:
        raise VideoError(f"{pipe}: nothing came: check what feeds the pipe")
    if not picture.is_image(head):
        return VideoSource(pipe, threads=threads, device=hwaccel, memory=memory)
    data, name = pipe.read(), str(pipe)
    pipe.close()
    image = images.open_image(io.BytesIO(data), name, memory=memory)
    return image or VideoSource(Buffered(data, name), threads=threads, device=hwaccel)


def _geometry(source: _Source, sampling: Sampling) -> Geometry:
    geometry = plan_geometry(
        source.width, source.height, source.sample_aspect, source.orientation, sampling
    )
    if geometry.scaled[0] * geometry.scaled[1] > MAX_PIXELS:
        raise UsageError(
            f"{source.name}: would be scaled to {geometry.scaled[0]}x{geometry.scaled[1]} "
            "pixels: ask for a smaller size"
        )
    return geometry


def _expected_frames(source: _Source, sampling: Sampling) -> int | None:
    """Estimate the frames that a reader will yield from what the container announces."""
    count, length = source.promised
    rate = source.frame_rate
    if count is None and length is not None and rate is not None:
        count = round(length * rate)
    if rate is not None and count is not None:
        skipped = (source.first.pts - source.origin) * source.time_base
        count -= round(skipped * rate)
        if sampling.duration is not None:
            count = min(count, (seconds(sampling.duration) * rate).__ceil__())
        if sampling.fps is not None:
            count = round(count * sampling.fps / rate)
    if sampling.frames is not None and count is not None:
        count = min(count, sampling.frames)
    return None if count is None else max(1, count)
