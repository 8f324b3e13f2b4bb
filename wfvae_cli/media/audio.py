"""Copying a sound track, packet by packet, beside the frames of a clip."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from wfvae_cli.errors import OutputError, VideoError
from wfvae_cli.media.inputs import LocalFile
from wfvae_cli.media.opening import open_only
from wfvae_cli.media.settings import AVFMT_TS_NEGATIVE
from wfvae_cli.media.suffixes import is_playlist
from wfvae_cli.unreadable import why_unreadable

# Up to here a seek costs more than reading on.
_SEEK_FROM = Fraction(5)

_RESTART = 3
"""Packets' durations that one must begin before the end of the last, to be a new beginning."""
_FINEST = Fraction(1, 90000)


class AudioTrack:
    """The packets of a file's best sound track, moved onto a clip's timeline.

    Nothing is decoded. Packets come in order, and only those that sound during the clip; a
    container that can hide a beginning (an edit list) also gets the packet before, from which a
    decoder warms up.

    Args:
        source: the file with the sound.
        start: seconds on the source's timeline that become 0.
    """

    def __init__(self, source: str | Path, start: Fraction) -> None:
        self.source = source
        self.start = start
        self._container = _open(source)
        self._stream = _best_track(self._container)
        self._packets: Iterator[Packet[AudioStream]] = iter(())
        self._next: Packet[AudioStream] | None = None
        self._lead: Fraction | None = None

    @property
    def present(self) -> bool:
        """True where the file has a sound track."""
        return self._stream is not None

    def attach(self, output: OutputContainer, target: str | Path) -> None:
        """Add the track to a container whose header is not yet written.

        Args:
            output: the container.
            target: what the user calls it, for messages.

        Raises:
            OutputError: the container cannot hold this codec.
        """
        stream = self._stream
        assert stream is not None, "attach() is for files that have sound"
        if not _holds(output.format.name, stream):
            raise OutputError(
                f"cannot write {target}: the container {output.format.name} cannot hold sound "
                f"as {stream.codec_context.name}, which is copied as it is; use --audio none, or "
                "another container such as .mkv"
            )
        self._lead = _lead(stream, output)
        self._seek()
        self._packets = self._shifted(stream, output.add_stream_from_template(stream))
        self._next = next(self._packets, None)

    def before(self, time: Fraction) -> Iterator[Packet[AudioStream]]:
        """Give the packets that start earlier than `time` and were not given yet.

        Args:
            time: seconds of the clip.
        """
        while (packet := self._next) is not None and _seconds(packet) < time:
            yield packet
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Close the source."""
        self._packets = iter(())
        self._container.close()

    def __enter__(self) -> AudioTrack:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _seek(self) -> None:
        first = Fraction(self._container.start_time or 0, av.time_base)
        if self.start - first < _SEEK_FROM:
            return
        # Where a format cannot seek, reading from the beginning gives the same packets.
        with suppress(av.FFmpegError):
            self._container.seek(int((self.start - 1) * av.time_base), backward=True)

    def _shifted(self, stream: AudioStream, output: AudioStream) -> Iterator[Packet[AudioStream]]:
        base = stream.time_base
        assert base is not None, "a demuxed stream has a time base"
        # AVI counts sound in packets of 24 ms; finer units move it to where it belongs.
        parts = math.ceil(base / _FINEST)
        base /= parts
        offset = round(self.start / base)
        last: int | None = None
        end = None  # of the packet before, in the source
        try:
            for packet in self._container.demux(stream):
                pts = packet.dts if packet.pts is None else packet.pts
                if pts is None or not packet.size:
                    continue
                packet.time_base = base
                packet.duration = (packet.duration or 0) * parts
                packet.pts = pts * parts - offset
                # Joined recordings start anew; the pictures after the join are moved on, too.
                if end is not None and end - packet.pts > _RESTART * packet.duration > 0:
                    offset -= end - packet.pts
                    packet.pts = end
                end = packet.pts + packet.duration
                packet.dts = packet.pts  # sound is stored in the order that it is played
                if self._is_early(packet):
                    continue
                # Containers refuse what damaged sources have: packets at or before the last.
                if last is not None and packet.pts <= last:
                    packet.pts = packet.dts = last + 1
                last = packet.pts
                packet.stream = output
                yield packet
        except av.FFmpegError as error:
            raise VideoError(
                f"the sound track of {self.source} is damaged ({error.strerror}); "
                "leave it out with --audio none"
            ) from error

    def _is_early(self, packet: Packet[AudioStream]) -> bool:
        if self._lead is None:
            length = Fraction(packet.duration or 0) * packet.time_base
            return _seconds(packet) + 2 * length <= 0
        return _seconds(packet) < -self._lead


def has_sound(source: str | Path) -> bool:
    """Tell if a source has a sound track that could be copied.

    Only files are looked at: no pipes, patterns or playlists.
    """
    if not Path(source).is_file() or is_playlist(source):
        return False
    with AudioTrack(source, Fraction(0)) as track:
        return track.present


def _open(source: str | Path) -> InputContainer:
    try:
        return open_only(LocalFile(Path(source)))
    except FileNotFoundError as error:
        why = why_unreadable(source, "a file with the sound track to copy", error)
        raise VideoError(f"{source}: {why}") from error
    except (av.FFmpegError, OSError) as error:
        raise VideoError(
            f"cannot read a sound track from {source}: {error.strerror or error}"
        ) from error


def _holds(container: str, stream: AudioStream) -> bool:
    """Tell if a container takes packets of the stream's codec, by writing a header."""
    try:
        with av.open(io.BytesIO(), "w", format=container) as probe:
            probe.add_stream_from_template(stream)
            probe.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def _best_track(container: InputContainer) -> AudioStream | None:
    stream = container.streams.best("audio")
    return stream if isinstance(stream, AudioStream) else None


def _seconds(packet: Packet[AudioStream]) -> Fraction:
    assert packet.pts is not None, "packets without time are skipped on reading"
    return packet.pts * packet.time_base


def _lead(stream: AudioStream, output: OutputContainer) -> Fraction | None:
    """Seconds before 0 at which packets may start; None where an edit list hides any.

    Elsewhere an earlier packet would move every stream of the file later, pictures included.
    Matroska is told of the samples that an Opus decoder throws away, and takes those.
    """
    if output.format.flags & AVFMT_TS_NEGATIVE:
        return None
    header = stream.codec_context.extradata or b""
    if header.startswith(b"OpusHead") and output.format.name in ("matroska", "webm"):
        # RFC 7845, section 5.1: pre-skip, in samples of 48 kHz; the file rounds to 1 ms.
        return Fraction(-(-int.from_bytes(header[10:12], "little") // 48), 1000)
    return Fraction(0)
