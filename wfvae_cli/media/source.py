"""Decoded frames of anything that FFmpeg opens, with every failure told in our own words."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from wfvae_cli.errors import VideoError
from wfvae_cli.media import hwaccel
from wfvae_cli.media.clip import Colour
from wfvae_cli.media.clock import Clock
from wfvae_cli.media.colour import PixelFormat, describe
from wfvae_cli.media.diagnosis import explain_unreadable, open_container
from wfvae_cli.media.filters import Deinterlacer
from wfvae_cli.media.pipe import Pipe
from wfvae_cli.media.sampling import Timed
from wfvae_cli.media.stream import choose_stream, orientation_of
from wfvae_cli.media.truncation import announced_end, inspect

_MISSING_SECONDS = 0.5
"""How much earlier than announced a video may end: containers round, by a frame or two."""


class VideoSource:
    """The frames of a video stream in display order, from any point of it."""

    def __init__(
        self, source: Path | str | Pipe, *, threads: int = 0, device: str = hwaccel.NONE
    ) -> None:
        """Open the container, choose its video stream and decode its first frame.

        Args:
            source: a file, a URL (any string), or standard input.
            threads: of the decoder; 0 is one for each core.
            device: what decodes, as `hwaccel.find` takes it.

        Raises:
            UsageError: the device is unknown.
            VideoError: it cannot be read, is cut short, or holds no frame.
        """
        self.name = str(source)
        self._source = source
        self._threads = threads
        self._accelerator = hwaccel.find(device)
        self._container = open_container(source, self._accelerator)
        self._first: Timed[VideoFrame]
        self._rest: Iterator[Timed[VideoFrame]] = iter(())
        try:
            self.notices = self._open_stream()
            self._check_whole()
            first = self._restart()
            if self._accelerator is not None and not hwaccel.in_use(self.stream.codec_context):
                first = self._in_software(device)
            self._describe(first)
        except BaseException:
            self.close()
            raise

    @property
    def container(self) -> str:
        """Short name of the container, by the file's suffix where FFmpeg knows several."""
        names = self._container.format.name.split(",")
        suffix = Path(self.name).suffix[1:].lower()
        if suffix in names:
            return suffix
        return "mp4" if "mp4" in names else names[0]

    @property
    def promised(self) -> tuple[int | None, Fraction | None]:
        """Frames and seconds that the container names, either None where it does not."""
        if isinstance(self._source, Pipe):
            return None, None
        length = None
        if self.stream.duration:
            length = self.stream.duration * self.time_base
        elif self._container.duration:
            length = Fraction(self._container.duration, av.time_base)
        return self.stream.frames or None, length

    def seek(self, start: Fraction) -> None:
        """Go to the first frame shown `start` seconds after the clip's first one or later.

        Raises:
            VideoError: there is none.
        """
        # Half a unit of tolerance, because times are rounded to the time base.
        target = self.origin + start / self.time_base - Fraction(1, 2)
        if not isinstance(self._source, Pipe):
            self._seek_before(target)
        self._rest = itertools.chain((self._first,), self._rest)
        last = self.origin
        for timed in self._rest:
            if timed.pts >= target:
                self._first = timed
                return
            last = timed.pts + timed.duration
        length = float((last - self.origin) * self.time_base)
        raise VideoError(
            f"{self.name}: nothing is left after {float(start):g} s, the clip is {length:.3f} s "
            "long: choose an earlier start"
        )

    def __iter__(self) -> Iterator[Timed[VideoFrame]]:
        """The frames from the point reached on; once."""
        yield self._first
        yield from self._rest

    @property
    def first(self) -> Timed[VideoFrame]:
        """The frame that iteration begins with."""
        return self._first

    def close(self) -> None:
        """Let go of the file and the decoder."""
        self._rest = iter(())
        self._container.close()

    def _open_stream(self) -> list[str]:
        """Choose the container's video stream, and how its decoder runs; what there is to say."""
        self.stream, notices = choose_stream(self._container, self.name)
        # Threads over frames and slices, as many as there are cores; PyAV's default is slices
        # alone. A device needs none, and sets frames aside for each.
        self.stream.thread_type = "AUTO"
        accelerated = self.stream.codec_context.is_hwaccel
        self.stream.codec_context.thread_count = 1 if accelerated else self._threads
        return notices

    def _in_software(self, device: str) -> Timed[VideoFrame]:
        """Do without the device, which cannot decode this stream; the first frame."""
        codec, pixels = self.stream.codec_context.codec, self._first.item.format.name
        self.notices.append(
            f"no hardware decoder ({device}) for its {codec.canonical_name} ({pixels}); decoded "
            "in software"
        )
        self._accelerator = None
        if not isinstance(self._source, Pipe):
            self._reopen()  # for all the threads
        return self._first

    def _check_whole(self) -> None:
        """Refuse a file that is shorter than its container says."""
        if not isinstance(self._source, Path):
            return
        promised = inspect(self._source).promised
        size = self._source.stat().st_size
        if promised is not None and size < promised:
            raise VideoError(
                f"{self.name}: cut short: the container announces {promised} bytes, the file has "
                f"{size}: copy or download it again"
            )

    def _describe(self, first: Timed[VideoFrame]) -> None:
        """Note what the first frame shows of the stream."""
        frame, context = first.item, self.stream.codec_context
        self.origin = first.pts
        self.format = PixelFormat.of(frame.format)
        self.width, self.height = frame.width, frame.height
        self.codec = context.codec.canonical_name
        self.pixel_format = self.format.name
        if self._accelerator is not None:
            self.pixel_format = hwaccel.stored_as(self.format.name)
        # A single picture of a format that only FFmpeg reads: OpenEXR, DPX, TGA, PNM.
        demuxer = self._container.format.name
        self.is_image = demuxer.endswith(("_pipe", "image2")) and self._is_single()
        aspect = self.stream.sample_aspect_ratio
        self.sample_aspect = aspect if aspect and aspect > 0 else Fraction(1)
        self.colour: Colour
        self.colour, notices = describe(
            self.format,
            frame.width,
            frame.height,
            codec=self.codec,
            matrix=frame.colorspace,
            value_range=frame.color_range,
            primaries=context.color_primaries,
            transfer=context.color_trc,
        )
        self.orientation, known = orientation_of(frame)
        self.notices += notices
        if self._skipped:
            self.notices.append(
                f"its first {self._skipped} frames need earlier ones that are missing; left out"
            )
        if not known:
            self.notices.append("its rotation is not a multiple of 90 degrees and is ignored")
        if self.format.alpha:
            self.notices.append("its alpha channel is composited onto black")
        if self.format.depth > 16:
            self.notices.append("its floating-point samples are clipped to 0..1 and 16 bits")
        if self._deinterlacer.active:
            self.notices.append("interlaced; deinterlaced at the frame rate")

    def _is_single(self) -> bool:
        second = next(self._rest, None)
        if second is not None:
            self._rest = itertools.chain((second,), self._rest)
        return second is None

    def _restart(self) -> Timed[VideoFrame]:
        """Decode from the demuxer's position; the first frame, which there has to be."""
        self.time_base = self.stream.time_base or Fraction(1, 1000)
        rate = self.stream.guessed_rate or self.stream.average_rate or self.stream.base_rate
        self.frame_rate = rate if rate and 0 < rate <= 1000 else None
        self._deinterlacer = Deinterlacer()
        self._rest = self._timed()
        first = next(self._rest, None)
        if first is None:
            raise VideoError(
                f"{self.name}: its video stream holds no frame that can be decoded: "
                "copy or download it again"
            )
        self._first = first
        return first

    def _seek_before(self, target: Fraction) -> None:
        """Let decoding go on from a key frame at or before `target`, wherever it is now."""
        back = Fraction(0)
        while True:
            position = max(self.origin, int(target - back / self.time_base))
            try:
                self._container.seek(position, stream=self.stream)
                first = self._restart()
            except av.error.FFmpegError:
                first = None  # the format cannot seek
            except VideoError:
                first = None  # beyond the end
            if first is not None and self.origin < first.pts <= target:
                break
            # Back at the first frame, in truth or because all timestamps are the same.
            if position == self.origin or (first is not None and first.pts == self.origin):
                self._reopen()
                break
            back = max(Fraction(1), back * 4)

    def _reopen(self) -> None:
        """Begin anew at the beginning."""
        self.close()
        self._container = open_container(self._source, self._accelerator)
        self._open_stream()
        self._restart()

    def _timed(self) -> Iterator[Timed[VideoFrame]]:
        """Frames with a time each; see `Clock` for what becomes of odd timestamps."""
        rate = self.frame_rate or 25
        step = max(1, round(1 / (rate * self.time_base)))
        clock = Clock(step, self.name, round(1 / self.time_base))
        for frame in self._deinterlacer(self._decoded()):
            own = 0 if self._deinterlacer.active else frame.duration
            yield Timed(frame, clock(frame.pts, frame.dts), own or clock.step)

    def _decoded(self) -> Iterator[VideoFrame]:
        """Whatever the decoder gives, or an error that names the frame."""
        count, size = 0, None
        try:
            for packet in self._packets():
                for frame in packet.decode():
                    size = size or (frame.width, frame.height)
                    self._check_frame(frame, size, count)
                    count += 1
                    yield frame
        except (av.error.FFmpegError, OSError) as error:
            if isinstance(error, VideoError):
                raise
            self._check_end()
            if isinstance(self._source, Pipe) and not count:
                reason = explain_unreadable(self._source, error.strerror or "")
                raise VideoError(f"{self.name}: {reason}") from error
            software = "" if self._accelerator is None else ", or use software: --hwaccel none"
            raise VideoError(
                f"{self.name}: damaged or cut short: decoding failed after {count} frames "
                f"({error.strerror}): copy or download it again{software}"
            ) from error

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """Packets from the first key frame on: what precedes it cannot be decoded."""
        started, self._skipped, end = False, 0, 0
        for packet in self._container.demux(self.stream):
            end = max(end, (packet.pts or 0) + (packet.duration or 0))
            if packet.size and not started:
                started = packet.is_keyframe
                self._skipped += not started
            if packet.size and packet.is_corrupt and started:
                raise VideoError(
                    f"{self.name}: damaged or cut short: FFmpeg calls a packet corrupt: copy or "
                    "download it again"
                )
            if started or not packet.size:
                yield packet
        self._check_end()
        announced = announced_end(self.stream.metadata)
        if announced is not None and announced - end * self.time_base > _MISSING_SECONDS:
            raise VideoError(
                f"{self.name}: damaged or cut short: its video ends after "
                f"{float(end * self.time_base):.2f} s, the container announces "
                f"{float(announced):.2f} s: copy or download it again"
            )

    def _check_end(self) -> None:
        """On a pipe only the end shows whether everything came."""
        if isinstance(self._source, Pipe):
            missing = self._source.missing()
            if missing:
                raise VideoError(f"{self.name}: cut short: {missing}: check what feeds the pipe")

    def _check_frame(self, frame: VideoFrame, size: tuple[int, int], count: int) -> None:
        where = f"at frame {count}" + ("" if frame.time is None else f" ({frame.time:.3f} s)")
        if (frame.width, frame.height) != size:
            raise VideoError(
                f"{self.name}: the resolution changes from {size[0]}x{size[1]} to "
                f"{frame.width}x{frame.height} {where}: cut it there or scale it to one size"
            )
        if frame.is_corrupt:
            raise VideoError(
                f"{self.name}: damaged or cut short: the picture {where} cannot be decoded "
                "whole: copy or download it again"
            )
