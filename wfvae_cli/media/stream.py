"""Choice of a container's video stream, and the orientation of its pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import cast

from av.buffer import Buffer
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from wfvae_cli.errors import VideoError
from wfvae_cli.media.filters import without_profile
from wfvae_cli.media.sampling import Orientation


def choose_stream(container: InputContainer, name: str) -> tuple[VideoStream, list[str]]:
    """Choose the default video stream, or the first; cover pictures of music do not count.

    Args:
        container: where to look.
        name: its name in messages.

    Returns:
        The stream, and what a user should know of the choice.

    Raises:
        VideoError: there is none, or FFmpeg cannot decode it.
    """
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
    ]
    if "avis" in container.metadata.get("compatible_brands", ""):
        # An animated AVIF: first the still picture of each, which FFmpeg takes for the default.
        streams = [stream for stream in streams if stream.frames > 1] or streams
    if not streams:
        others = {str(stream.type) for stream in container.streams if stream.type != "video"}
        kinds = sorted(others) + ["a cover picture"] * bool(container.streams.video)
        if not kinds:
            raise VideoError(
                f"{name}: no streams in it, or through a pipe none before its data: give a file "
                "with moving pictures"
            )
        raise VideoError(
            f"{name}: no video stream in it, only {' and '.join(kinds)}: give a file with moving "
            "pictures"
        )
    stream = next((s for s in streams if s.disposition & Disposition.default), streams[0])
    if stream.codec_context is None:
        raise VideoError(f"{name}: FFmpeg has no decoder for its video: convert it to H.264 first")
    notices = []
    if len(streams) > 1:
        notices.append(f"{len(streams)} video streams; only number {stream.index} is read")
    # FFmpeg composites others' alpha; that of VP8 and VP9 lies beside the pictures.
    if stream.metadata.get("alpha_mode") == "1" and stream.codec_context.name.startswith("vp"):
        notices.append(f"the alpha channel of its {stream.codec_context.name} is ignored")
    return stream, notices


def orientation_of(frame: VideoFrame) -> tuple[Orientation, bool]:
    """Return how a frame is to be turned, and whether that is a multiple of 90 degrees."""
    matrix = None
    frame = without_profile(frame)
    # PyAV knows the side data of its FFmpeg by number and stumbles over newer kinds.
    with contextlib.suppress(ValueError):
        matrix = cast("Mapping[str, Buffer]", frame.side_data).get("DISPLAYMATRIX")
    if matrix is None:
        turns = round(frame.rotation / 90) % 4
        a, b = ((1, 0), (0, -1), (-1, 0), (0, 1))[turns]
        return Orientation.from_matrix(a, b, -b, a) or Orientation(), True
    a, b, _, c, d, *_ = memoryview(bytes(matrix)).cast("i")
    orientation = Orientation.from_matrix(a, b, c, d)
    return orientation or Orientation(), orientation is not None
