"""One pass over a video stream: its packets, decoded and judged."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from wfvae_cli.errors import VideoError
from wfvae_cli.media.inputs import Input, LocalFile
from wfvae_cli.media.opening import explain_unreadable
from wfvae_cli.media.truncation import (
    announced_end,
    gif_pictures,
    has_nut_index,
    incomplete_packet,
    mxf_footer,
)

_MISSING_SECONDS = 0.5
"""Seconds that a video may end earlier than announced: containers round, by a frame or two."""
_BEFORE_JOIN = 2
"""Packets between the one that FFmpeg calls corrupt and the key frame of a joined segment."""
_WITHHOLDING = ("h264", "hevc", "vvc")
"""Decoders that give no picture before one from which they can go on."""
_INTRA = (PictureType.I, PictureType.SI, PictureType.BI, PictureType.NONE)
"""Types of pictures that need no other; decoders that tell none (RoQ) are believed."""
_JOINABLE = ("mpegts", "hls", "concat")
_OF_PARTS = ("flv", "ivf", "mxf", "matroska")
_OF_EQUAL_FRAMES = ("yuv4mpegpipe", "dv")
"""Containers that end after a frame, wherever that is."""
_LARGEST_JPEG = 1 << 24
_AGAIN = "copy or download it again"


class Decoding:
    """Yields the frames of a stream from the demuxer's position on, once.

    Attributes:
        skipped: frames left out at the beginning because they need earlier ones.
        end: seconds at which the container says that the last frame's time ends; None where it
            does not, or is not to be believed.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        source: Input,
        *,
        from_start: bool,
        hint: str = "",
    ) -> None:
        """Prepare to decode.

        Args:
            container: where the stream is.
            stream: the stream to decode.
            source: where its bytes come from.
            from_start: whether the demuxer is at the beginning.
            hint: what else to try where decoding fails, appended to the message.
        """
        self.skipped = 0
        self.end: Fraction | None = None
        self._container, self._stream, self._source = container, stream, source
        self._from_start, self._hint = from_start, hint
        self._time_base = stream.time_base or Fraction(1, 1000)
        self._early: list[int | None] = []
        self._before_key: int | None = None
        self._begun: bool | None = None
        self._count = 0
        self._given = 0
        self._size: tuple[int, int] | None = None
        self._tags: tuple[int, int] | None = None
        self._last: Packet[VideoStream] | None = None
        self._packets_end = 0
        self._dts = 0
        self._shortest: int | None = None
        self._longest = 0
        self._suspect: int | None = None

    @property
    def last_packet(self) -> bytes:
        """Bytes of the packet that was decoded last."""
        return b"" if self._last is None else bytes(self._last)

    def __iter__(self) -> Iterator[VideoFrame]:
        """Decode; errors name the frame."""
        try:
            for packet in self._packets():
                for frame in self._decoded(packet):
                    if self._begins(frame):
                        self._check_frame(frame)
                        self._keep_tags(frame)
                        self._count += 1
                        yield frame
        except (av.error.FFmpegError, OSError) as error:
            if isinstance(error, VideoError):
                raise
            self._source.check()
            self._check_size()
            if not self._source.rereadable and not self._count:
                reason = explain_unreadable(self._source, error.strerror or "")
                raise VideoError(f"{self._source.name}: {reason}") from error
            if isinstance(error, av.error.PatchWelcomeError):
                raise VideoError(
                    f"{self._source.name}: {self._stream.codec_context.name} of a kind that "
                    "FFmpeg cannot decode: convert it first"
                ) from error
            raise self._damaged(
                f"decoding failed after {self._count} frames ({error.strerror})", self._hint
            ) from error
        self._check_end()

    def _packets(self) -> Iterator[Packet[VideoStream] | None]:
        """Give all packets that hold something, then None, which flushes the decoder."""
        for packet in self._demuxed():
            # PyAV ends with an empty packet. Empty samples, too, would flush the decoder.
            if not packet.size:
                continue
            if self._begun is None and not packet.is_discard:
                self._begun = packet.is_keyframe
            if not self._begun and not packet.is_discard:
                if packet.is_keyframe and self._before_key is None:
                    self._before_key = len(self._early)
                self._early.append(packet.pts)
            self._note_gaps(packet)
            end = (packet.pts if packet.pts is not None else packet.dts) or 0
            self._packets_end = max(self._packets_end, end + (packet.duration or 0))
            self._last = packet
            self._given += 1
            self._judge(packet)
            yield packet
        self._source.check()
        yield None

    def _note_gaps(self, packet: Packet[VideoStream]) -> None:
        """Note how far packets are apart in time."""
        if packet.dts is None:
            return
        step = packet.dts - self._dts
        self._dts = packet.dts
        if step > 0:
            self._shortest = min(self._shortest or step, step)
            self._longest = max(self._longest, step)

    def _demuxed(self) -> Iterator[Packet[VideoStream]]:
        """Read packets; the "-1" with which some demuxers (GXF) end is EPERM by its number."""
        try:
            yield from self._container.demux(self._stream)
        except av.error.PermissionError:
            yield from self._container.demux(self._stream)

    def _judge(self, packet: Packet[VideoStream]) -> None:
        """Refuse packets that FFmpeg calls corrupt, but not where transport streams were joined.

        There the counter of packets starts anew, and a key frame follows at once.
        """
        if packet.is_corrupt and self._begun:
            if self._container.format.name not in _JOINABLE:
                raise self._damaged("FFmpeg calls a packet corrupt")
            self._suspect = 0
        elif self._suspect is not None and packet.is_keyframe:
            self._suspect = None
        elif self._suspect is not None:
            self._suspect += 1
            if self._suspect > _BEFORE_JOIN:
                raise self._damaged("FFmpeg calls a packet corrupt")

    def _decoded(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        try:
            return self._stream.decode(None) if packet is None else packet.decode()
        except av.error.InvalidDataError:
            if self._begun is not False:
                raise
            return []  # it needs what came before the clip was cut

    def _begins(self, frame: VideoFrame) -> bool:
        """Tell if a frame can be shown: the first ones may lack their reference frames.

        Containers flag key frames, but not always all of them, so the decoder is asked.
        """
        if self._begun:
            return True
        key = frame.key_frame or frame.pict_type in _INTRA
        if not key and self._stream.codec_context.name not in _WITHHOLDING:
            self.skipped += 1
            return False
        self._begun = True
        if frame.pts is not None:
            first = frame.pts
            self.skipped = sum(pts is not None and pts < first for pts in self._early)
        else:
            self.skipped = max(self.skipped, self._before_key or 0)
        self._early.clear()
        return True

    def _check_frame(self, frame: VideoFrame) -> None:
        size = (frame.width, frame.height)
        self._size = self._size or size
        if size == self._size and not frame.is_corrupt:
            return
        where = f"at frame {self._count}"
        where += "" if frame.pts is None else f" ({float(frame.pts * self._time_base):.3f} s)"
        if size != self._size:
            raise VideoError(
                f"{self._source.name}: the resolution changes from {self._size[0]}x{self._size[1]} "
                f"to {size[0]}x{size[1]} {where}: cut it there or scale it to one size"
            )
        raise self._damaged(f"the picture {where} cannot be decoded whole")

    def _keep_tags(self, frame: VideoFrame) -> None:
        """Let colours change at key frames only.

        Frames that wait in the decoder while new parameters come are given those.
        """
        if frame.key_frame or self._tags is None:
            self._tags = (frame.colorspace, frame.color_range)
        else:
            frame.colorspace, frame.color_range = self._tags

    def _check_end(self) -> None:
        """Judge whether the last frame was the last of the video."""
        if self._suspect is not None:
            raise self._damaged("FFmpeg calls its last packets corrupt")
        self._check_size()
        self._check_last_frame()
        self._check_announced_end()
        self._check_parts()

    def _check_size(self) -> None:
        """Check at the end of a pipe that all the bytes came."""
        if not self._source.rereadable:
            self._source.finish()
            check_whole(self._source, self._container)

    def _check_last_frame(self) -> None:
        name, last, size = self._container.format.name, self._last, self._source.size
        if name == "avi" and self._from_start:
            listed = sum(entry.size > 0 for entry in self._stream.index_entries)
            if self._given < listed:
                raise self._damaged(
                    f"{self._given} of the {listed} pictures in its index are there"
                )
        if name == "gif" and isinstance(self._source, LocalFile):
            count, _ = gif_pictures(self._source.path.read_bytes())
            if self._from_start and self._count + self.skipped < count:
                raise self._damaged(f"{self._count} of its {count} pictures can be decoded")
        if name in _OF_EQUAL_FRAMES and last is not None and last.pos is not None and size:
            rest = size - last.pos - last.size
            if rest:  # bytes of a further frame, or fewer than the last one has
                raise self._damaged("of its last frame only a part is there")

    def _check_parts(self) -> None:
        """Check that no damaged part of the container was passed over, where frames are missing.

        Demuxers find their way past one without a word.
        """
        name = self._container.format.name
        if not self._from_start or not name.startswith(_OF_PARTS):
            return
        if name.startswith("matroska"):
            end = announced_end(self._stream.metadata) or Fraction(0)
        elif self._stream.duration:
            end = ((self._stream.start_time or 0) + self._stream.duration) * self._time_base
        else:
            end = Fraction(self._container.duration or 0, av.time_base)
        most = Fraction(3, 2) * (self._shortest or 0)
        missing = end - self._packets_end * self._time_base > most * self._time_base
        if missing or self._longest > most or name == "mxf":  # which counts its frames itself
            position = self._source.break_at()
            if position is not None:
                raise self._damaged(f"it cannot be followed beyond byte {position}")
        if missing and name == "ivf":  # whose header counts its frames, or gives their duration
            raise self._damaged(f"frames are missing after {self._count}")

    def _check_announced_end(self) -> None:
        """Compare with what the container says of the track's length.

        It counts how long the last frame is held, which its packet does not tell: in Matroska
        blocks have no duration, and in MP4 durations follow each other in the order of decoding.
        """
        if self._container.format.name.startswith("mov"):
            if self._stream.duration:
                self.end = (
                    (self._stream.start_time or 0) + self._stream.duration
                ) * self._time_base
            return
        if not self._container.format.name.startswith("matroska"):
            return
        announced = announced_end(self._stream.metadata)
        whole = self._container.duration
        if announced is None or (
            whole is not None and announced > Fraction(whole, av.time_base) + _MISSING_SECONDS
        ):
            return
        end = self._packets_end * self._time_base
        if announced - end > _MISSING_SECONDS and not self._source.is_sound():
            raise self._damaged(
                f"its video ends after {float(end):.2f} s, the container announces "
                f"{float(announced):.2f} s"
            )
        self.end = announced

    def _damaged(self, what: str, hint: str = "") -> VideoError:
        return VideoError(f"{self._source.name}: damaged or cut short: {what}: {_AGAIN}{hint}")


def check_whole(source: Input, container: InputContainer) -> None:
    """Refuse a file that is shorter than its container says, if that concerns what is in it.

    Args:
        source: a file, or a pipe that was read to its end.
        container: opened from it.

    Raises:
        VideoError: something is missing.
    """
    size = source.size
    if size is None:
        return
    found, name = source.structure(), container.format.name
    if name == "gif" and isinstance(source, LocalFile):
        if not gif_pictures(source.path.read_bytes())[1]:
            raise VideoError(f"{source.name}: cut short: it has no end mark: {_AGAIN}")
    elif name == "ogg" and found is not None and not found.ended:
        raise VideoError(f"{source.name}: cut short: its last page is missing: {_AGAIN}")
    elif name in ("mjpeg", "jpeg_pipe") and source.rereadable and not _ends_a_jpeg(source, size):
        raise VideoError(f"{source.name}: cut short: its last picture has no end mark: {_AGAIN}")
    elif name == "nut" and (tail := source.tail()) and not has_nut_index(tail, size):
        raise VideoError(f"{source.name}: cut short: it has no index at its end: {_AGAIN}")
    elif name == "mpegts" and (unit := incomplete_packet(source.head(1024), size)):
        raise VideoError(
            f"{source.name}: cut short: of its last packet of {unit} bytes only {size % unit} are "
            f"there: {_AGAIN}"
        )
    announced = mxf_footer(source.head(64)) + 1 if name == "mxf" else source.announced()
    if "mp4" in name.split(",") and not (found is not None and found.fragmented):
        if announced is not None and announced <= size:
            return
        # What the boxes claim does not matter where every sample is there.
        announced = max(
            (
                entry.pos + entry.size
                for stream in container.streams
                for entry in stream.index_entries
            ),
            default=None,
        )
    if announced is not None and size < announced:
        raise VideoError(
            f"{source.name}: cut short: the container announces {announced} bytes, the file has "
            f"{size}: {_AGAIN}"
        )


def _ends_a_jpeg(source: Input, size: int) -> bool:
    """Tell if the last picture of a stream of JPEGs reaches its end mark (EOI)."""
    with source.view() as file:
        file.seek(max(0, size - _LARGEST_JPEG))
        tail = file.read()
    return tail.rfind(b"\xff\xd9") > tail.rfind(b"\xff\xd8\xff")
