"""Writing a clip: a video, one image, or a numbered series of images."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import av
import numpy as np
from av.container import OutputContainer
from av.filter import Graph
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from typing_extensions import override

from wfvae_cli.atomic import STDOUT, atomic_file, check_output, output_error
from wfvae_cli.errors import OutputError, UsageError, WfvaeError
from wfvae_cli.media import frames, svt_av1, yuv
from wfvae_cli.media.audio import AudioTrack
from wfvae_cli.media.clip import ClipInfo, Frame
from wfvae_cli.media.clip_writer import ClipWriter
from wfvae_cli.media.encoding import EncodingPlan, plan
from wfvae_cli.media.image_writer import ImageWriter, PatternWriter, is_image, is_pattern
from wfvae_cli.media.options import VideoOptions
from wfvae_cli.media.settings import AVFMT_TS_NEGATIVE
from wfvae_cli.media.sink import Sink, ffmpeg_messages, reason

__all__ = ["ClipWriter", "VideoOptions", "VideoWriter", "open_writer"]

_BUFFER = 1 << 16
_LATEST = 1 << 62
"""Largest time of a frame, in any unit: FFmpeg reserves some numbers of 64 bits."""


def open_writer(
    target: str | Path,
    info: ClipInfo,
    options: VideoOptions | None = None,
    *,
    overwrite: bool = False,
    audio_from: str | Path | None = None,
) -> ClipWriter:
    """Choose the writer for a target, and fail early if it cannot work.

    Args:
        target: `-` for standard output; a path with an image suffix for one image; a pattern
            such as `frame%05d.png` for one image a frame; any other path for a video.
        info: the clip to come.
        options: how to encode; anything set but `container` has no meaning for images.
        overwrite: whether files that exist may be replaced.
        audio_from: file whose sound track is copied without re-encoding, moved back by
            `info.start` seconds and cut to the length of the clip.

    Returns:
        A writer to use in a `with` block. Nothing is created before that block is entered.

    Raises:
        UsageError: options that are unknown or contradict each other, the clip or the target.
        OutputError: the target exists or cannot be created.
        VideoError: `audio_from` cannot be read.

    Example:
        >>> with open_writer("out.mp4", reader.info) as writer:  # doctest: +SKIP
        ...     for frame in reader:
        ...         writer.write(frame)
    """
    options = options or VideoOptions()
    check_output(target, overwrite=overwrite)
    if options.container is None and str(target) != STDOUT:
        for applies, writer in ((is_pattern, PatternWriter), (is_image, ImageWriter)):
            if applies(target):
                if options != VideoOptions():
                    raise UsageError(
                        f"{target} is an image: --codec, --crf and --pix-fmt are for videos; "
                        "leave them out, or name a video"
                    )
                return writer(target, info, overwrite=overwrite, has_audio=audio_from is not None)
    if str(audio_from) == STDOUT:
        raise UsageError("sound cannot be copied from standard input; use --audio none")
    return VideoWriter(target, info, options, overwrite=overwrite, audio_from=audio_from)


class VideoWriter(ClipWriter):
    """Encodes frames into a video file or onto standard output. Made by `open_writer`.

    Frames keep their `pts` exactly where the container can (MP4, MOV); Matroska and WebM round
    to milliseconds, MPEG-TS to 1/90000 s.

    Attributes:
        has_audio: whether a sound track is being copied.
    """

    def __init__(
        self,
        target: str | Path,
        info: ClipInfo,
        options: VideoOptions,
        *,
        overwrite: bool = False,
        audio_from: str | Path | None = None,
    ) -> None:
        super().__init__(info)
        self.target = target
        self.has_audio = False
        self._overwrite = overwrite
        self._audio_from = audio_from
        self.plan: EncodingPlan = plan(target, info, options, streaming=_is_pipe(target))
        if not yuv.is_rgb(self.plan.stored.pix_fmt):
            self.planes = self.plan.stored
        self._tags = _tagging(info, self.plan)
        self._held: VideoFrame | None = None
        self._gap: int | None = None
        self._durations: dict[int, int] = {}
        self._packet: av.Packet[VideoStream] | None = None
        self._first_dts: int | None = None
        flags = av.ContainerFormat(self.plan.container, "w").flags
        self._by_dts = bool(flags & AVFMT_TS_NEGATIVE)

    def __enter__(self) -> VideoWriter:
        with contextlib.ExitStack() as stack:
            self._audio = self._open_audio(stack)
            if str(self.target) == STDOUT:
                file: BinaryIO = sys.stdout.buffer
            else:
                file = stack.enter_context(atomic_file(self.target, overwrite=self._overwrite))
            self._sink = Sink(file, seekable=not _is_pipe(self.target))
            self._container = self._open_container()
            stack.push(self._abandon)
            with self._reported():
                self._stream, self._encoder = self._add_video()
                if self._audio is not None:
                    self._audio.attach(self._container, self.target)
                self._start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._finish()

    def _open_audio(self, stack: contextlib.ExitStack) -> AudioTrack | None:
        if self._audio_from is None:
            return None
        track = stack.enter_context(AudioTrack(self._audio_from, self.info.start))
        if not track.present:
            self.notices += (f"{self._audio_from} has no sound track to copy",)
            return None
        self.has_audio = True
        return track

    def _open_container(self) -> OutputContainer:
        return av.open(
            self._sink,
            "w",
            format=self.plan.container,
            container_options=self.plan.container_options,
            buffer_size=_BUFFER,
        )

    def _add_video(self) -> tuple[VideoStream, VideoCodecContext]:
        rate = self.info.frame_rate or Fraction(25)
        stream = self._container.add_stream(
            self.plan.encoder, rate=rate, options=self.plan.codec_options
        )
        assert isinstance(stream, VideoStream), "the plan chose a video encoder"
        encoder = stream.codec_context
        encoder.width = self.info.width
        encoder.height = self.info.height
        encoder.pix_fmt = self.plan.stored.pix_fmt
        encoder.time_base = self.plan.time_base
        encoder.sample_aspect_ratio = self.info.sample_aspect
        if self.plan.encoder == "libx265" and self.plan.container in ("mp4", "mov"):
            encoder.codec_tag = "hvc1"  # Apple's players take no other
        return stream, encoder

    def _start(self) -> None:
        """Open the encoder and write the header, so that bad settings show before any work."""
        try:
            with ffmpeg_messages() as messages, svt_av1.tamed():
                self._container.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            if self._sink.error is not None:
                raise
            why = messages[-1] if messages else reason(error)
            raise OutputError(
                f"cannot write {self.target}: {self.plan.encoder} in {self.plan.container} "
                f"refuses {self.plan.stored.pix_fmt} at {self.info.width}x{self.info.height}: {why}"
            ) from error

    def _write(self, frame: Frame) -> None:
        self._take(frames.convert(frame.pixels, self.plan.stored), frame.pts)

    @override
    def write_planes(self, planes: NDArray[np.uint8], pts: int) -> None:
        if self.planes is None:
            super().write_planes(planes, pts)
            return
        self._advance_to(pts)
        width, height = self.info.width, self.info.height
        self._take(frames.frame_of(planes, width, height, self.planes.pix_fmt), pts)
        self.frames += 1

    def _take(self, picture: VideoFrame, pts: int) -> None:
        ticks = self._ticks(pts)
        if ticks > _LATEST:
            raise OutputError(
                f"cannot write {self.target}: frame {self.frames} is at {ticks} units of "
                f"{self.plan.time_base} s, later than video files can say: correct what the input "
                "says"
            )
        picture.pts = ticks
        picture.time_base = self.plan.time_base
        self._tags.push(picture)
        tagged = self._tags.pull()
        assert isinstance(tagged, VideoFrame), "the graph is one of pictures"
        with self._reported():
            self._encode_held(tagged)

    def _ticks(self, pts: int) -> int:
        """`pts` in units of the encoder's time base."""
        if not self.plan.on_grid:
            return pts
        exact = pts * self.info.time_base / self.plan.time_base
        # A quarter of a frame: what containers of milliseconds do to the times of a steady clip.
        if abs(exact - round(exact)) > Fraction(1, 4):
            raise UsageError(
                f"{self.plan.encoder} in {self.plan.container} needs a constant frame rate, and "
                f"frame {self.frames} lies between two of its frames; use .mp4 or .mkv with h264"
            )
        return round(exact)

    def _encode_held(self, following: VideoFrame | None) -> None:
        """Encode the frame that waited for the next one, from which its duration follows."""
        held, self._held = self._held, following
        if held is None:
            return
        start = _pts(held)
        if following is not None:
            self._gap = _pts(following) - start
        following_at = self._gap if following is not None else None
        self._durations[start] = following_at or self._tail(start)
        self._end = (start + self._durations[start]) * self.plan.time_base
        self._encode(held)

    def _tail(self, start: int) -> int:
        """Duration of the last frame, from `start` on, in units of the encoder's time base."""
        if self.end is not None:
            held = round(self.end * self.info.time_base / self.plan.time_base) - start
            if held > 0:
                return held
        if self.info.frame_rate is None and self._gap is not None:
            return self._gap
        rate = self.info.frame_rate or Fraction(25)
        return max(1, round(1 / (rate * self.plan.time_base)))

    def _encode(self, picture: VideoFrame | None) -> None:
        """Encode a picture, or what the encoder still holds, and write all packets but the last.

        Encoders keep the order of decoding, in which the last packet is often not that of the
        last picture; but it is its duration that ends the clip in MP4 and MOV.
        """
        for packet in self._stream.encode(picture):
            if packet.dts is not None and self._first_dts is None:
                self._first_dts = packet.dts
            before, self._packet = self._packet, packet
            if before is not None:
                self._mux(before)

    def _mux(self, packet: av.Packet[VideoStream]) -> None:
        if packet.pts is not None:
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            if self._audio is not None:
                self._container.mux(list(self._audio.before(packet.pts * packet.time_base)))
        self._container.mux(packet)
        self._sink.check()

    def _mux_last(self) -> None:
        """Write the packet that is decoded last."""
        packet = self._packet
        if packet is None:
            return
        if self._by_dts and packet.pts is not None and packet.dts is not None:
            # The sum of all durations is to be the clip's length, but no frame ends after the clip.
            end = round(self._end / packet.time_base)
            played = packet.dts - (self._first_dts or 0)
            length = min(end - played, end - packet.pts)
            self._durations[packet.pts] = max(length, 1)
        self._mux(packet)

    def _finish(self) -> None:
        if not self.frames:
            raise OutputError(f"nothing to write to {self.target}: the clip has no frames")
        with self._reported():
            self._encode_held(None)
            self._encode(None)
            self._mux_last()
            if self._audio is not None:
                self._container.mux(list(self._audio.before(self._end)))
            self._container.close()
            self._sink.flush()

    def _abandon(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._sink.discard()
            # Frees the encoder; whether the trailer can be written matters to nobody.
            with contextlib.suppress(Exception):
                self._container.close()

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Turn what fails inside into our errors, the file's own failure first."""
        try:
            yield
            self._sink.check()
        except WfvaeError:
            raise
        except (av.FFmpegError, OSError) as error:
            cause = self._sink.error or error
            if isinstance(cause, BrokenPipeError) or not isinstance(cause, Exception):
                raise cause from None
            if isinstance(cause, OSError) and not isinstance(cause, av.FFmpegError):
                raise output_error(self.target, cause) from error
            raise OutputError(
                f"cannot write {self.target}: {self.plan.encoder} failed: {reason(cause)}"
            ) from error


def _tagging(info: ClipInfo, plan: EncodingPlan) -> Graph:
    """Build the graph that sets the frames' colour tags and pixel aspect ratio, and no pixel.

    Most encoders take them from their settings, but ProRes and FFV1 look at the frame, for
    which PyAV has no attribute.
    """
    graph = Graph()
    source = graph.add(
        "buffer",
        video_size=f"{info.width}x{info.height}",
        pix_fmt=plan.stored.pix_fmt,
        time_base=str(plan.time_base),
        pixel_aspect=str(info.sample_aspect),
        range=plan.stored.range,
        colorspace=plan.stored.matrix,
    )
    graph.link_nodes(source, graph.add("buffersink"))
    graph.configure()
    return graph


def _pts(frame: VideoFrame) -> int:
    assert frame.pts is not None, "every frame is given its time"
    return frame.pts


def _is_pipe(target: str | Path) -> bool:
    if str(target) == STDOUT:
        return True
    path = Path(target)
    return path.exists() and not path.is_file()
