"""Decoded frames of anything that FFmpeg opens, with a time each, from any point of a clip."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import VideoFrame

from wfvae_cli.errors import VideoError
from wfvae_cli.media import hwaccel
from wfvae_cli.media.clip import Colour
from wfvae_cli.media.colour import PixelFormat, describe
from wfvae_cli.media.decoding import Decoding, check_whole
from wfvae_cli.media.filters import Cropper, Deinterlacer
from wfvae_cli.media.headers import Crop, video_tracks
from wfvae_cli.media.inputs import Input
from wfvae_cli.media.memory import check_memory
from wfvae_cli.media.opening import open_container
from wfvae_cli.media.rate import Clock
from wfvae_cli.media.sampling import Timed
from wfvae_cli.media.single import is_cut
from wfvae_cli.media.stream import choose_stream, orientation_of

_PICTURES = ("_pipe", "image2")
"""How the names of demuxers end that read pictures."""
_CONVERSION_BYTES = 14
"""Bytes that converting a picture takes for a pixel: measured, rounded up."""
_LATEST = 1 << 62
"""Largest time that FFmpeg is asked to seek to, in any unit."""


class VideoSource:
    """The frames of a video stream in display order, from any point of it."""

    def __init__(
        self,
        source: Input,
        *,
        threads: int = 0,
        device: str = hwaccel.NONE,
        trusted: bool = False,
        memory: int | None = None,
    ) -> None:
        """Open the container, choose its video stream and decode its first frame.

        Args:
            source: the input to read.
            threads: of the decoder; 0 is one for each core.
            device: what decodes, as `hwaccel.find` takes it.
            trusted: whether a playlist may open what lies beside or below it.
            memory: bytes that decoding a single picture may take; None is half of what is free.

        Raises:
            UsageError: the device is unknown.
            VideoError: it cannot be read, is cut short, or holds no frame.
        """
        self.name = source.name
        self._source = source
        self._threads = threads
        self._trusted = trusted
        self._accelerator = hwaccel.find(device)
        self._container = open_container(source, self._accelerator, trusted=trusted)
        self._first: Timed[VideoFrame]
        self._rest: Iterator[Timed[VideoFrame]] = iter(())
        try:
            self.notices = self._open_stream()
            self._check_memory(memory)
            self._crop = self._read_headers()
            if source.rereadable:
                check_whole(source, self._container)
            first = self._restart(from_start=True)
            if self._accelerator is not None and not hwaccel.in_use(self.stream.codec_context):
                first = self._in_software(device)
            self._describe(first)
            source.opened()
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
        if not self._source.rereadable:
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
        if self._source.rereadable:
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
        """Iterate over the frames from the point reached on; once."""
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
        self._source.close()

    def _open_stream(self) -> list[str]:
        """Choose the container's video stream, and how its decoder runs; return notices."""
        self.stream, notices = choose_stream(self._container, self.name)
        # Threads over frames and slices, as many as there are cores; PyAV's default is slices
        # alone. A device needs none, and sets frames aside for each.
        self.stream.thread_type = "AUTO"
        accelerated = self.stream.codec_context.is_hwaccel
        self.stream.codec_context.thread_count = 1 if accelerated else self._threads
        return notices

    def _check_memory(self, memory: int | None) -> None:
        """Refuse a picture of a format that only FFmpeg reads, if it would take too much memory."""
        context, size = self.stream.codec_context, self._source.size
        if not self._container.format.name.endswith(_PICTURES) or context.format is None:
            return
        pixels = context.width * context.height
        decoded = pixels * context.format.padded_bits_per_pixel // 8
        # The picture twice, to see if it is whole; then RGB, and what that is scaled or copied to.
        needed = 2 * decoded + 3 * (size or 0) + _CONVERSION_BYTES * pixels
        work = f"decoding its {context.width}x{context.height} pixels"
        check_memory(self.name, work, needed, memory)

    def _read_headers(self) -> Crop:
        """Return the container's crop of the stream; refuse what is encrypted."""
        streams = [stream.index for stream in self._container.streams.video]
        number = streams.index(self.stream.index)
        with self._source.view() as file:
            tracks = video_tracks(file)
        if number >= len(tracks):
            return Crop()
        if tracks[number].encrypted:
            raise VideoError(
                f"{self.name}: its video is encrypted (DRM), which takes a key to read: decrypt it "
                "first, or get a copy without"
            )
        return tracks[number].crop

    def _in_software(self, device: str) -> Timed[VideoFrame]:
        """Do without the device, which cannot decode this stream; return the first frame."""
        codec, pixels = self.stream.codec_context.codec, self._first.item.format.name
        self.notices.append(
            f"no hardware decoder ({device}) for its {codec.canonical_name} ({pixels}); decoded "
            "in software"
        )
        self._accelerator = None
        if self._source.rereadable:
            self._reopen()  # for all the threads
        return self._first

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
        self.is_image = demuxer.endswith(_PICTURES) and self._is_single()
        if self.is_image and is_cut(self.stream, self._decoding.last_packet, frame):
            raise VideoError(
                f"{self.name}: the image is damaged or cut short (it ends amid its pixels): "
                "copy or download it again"
            )
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
        if self._decoding.skipped:
            self.notices.append(
                f"its first {self._decoding.skipped} frames need earlier ones that are missing; "
                "left out"
            )
        if self._crop != Crop():
            self.notices.append(f"cropped to {frame.width}x{frame.height} as its container says")
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

    def _restart(self, *, from_start: bool) -> Timed[VideoFrame]:
        """Decode from the demuxer's position; return the first frame, which there has to be."""
        self.time_base = self.stream.time_base or Fraction(1, 1000)
        rate = self.stream.guessed_rate or self.stream.average_rate or self.stream.base_rate
        self.frame_rate = rate if rate and 0 < rate <= 1000 else None
        self._deinterlacer = Deinterlacer()
        hint = "" if self._accelerator is None else ", or use software: --hwaccel none"
        self._decoding = Decoding(
            self._container, self.stream, self._source, from_start=from_start, hint=hint
        )
        self._rest = self._held(self._timed())
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
                self._container.seek(min(position, _LATEST), stream=self.stream)
                first = self._restart(from_start=False)
            except av.error.FFmpegError:
                first = None  # the format cannot seek
            except VideoError:
                self._source.check()
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
        self._rest = iter(())
        self._container.close()
        self._container = open_container(self._source, self._accelerator, trusted=self._trusted)
        self._open_stream()
        self._restart(from_start=True)

    def _timed(self) -> Iterator[Timed[VideoFrame]]:
        """Give each frame its time; see `Clock` for what becomes of odd timestamps."""
        rate = self.frame_rate or 25
        step = max(1, round(1 / (rate * self.time_base)))
        clock = Clock(step, self.name, round(1 / self.time_base))
        crop = Cropper(self._crop)
        for frame in self._deinterlacer(iter(self._decoding)):
            own = 0 if self._deinterlacer.active else frame.duration
            pts = clock(frame.pts, frame.dts)
            yield Timed(crop(frame), pts, own or clock.step)

    def _held(self, items: Iterator[Timed[VideoFrame]]) -> Iterator[Timed[VideoFrame]]:
        """Hold the last frame for as long as the container says, where its packet does not."""
        if not self._container.format.name.startswith(("matroska", "mov")):
            yield from items
            return
        last: Timed[VideoFrame] | None = None
        for timed in items:
            if last is not None:
                yield last
            last = timed
        if last is not None:
            end = self._decoding.end
            held = 0 if end is None else round(end / self.time_base) - last.pts
            if self._container.format.name.startswith("mov"):
                held = max(held, last.duration)
            yield Timed(last.item, last.pts, held if held > 0 else last.duration)
