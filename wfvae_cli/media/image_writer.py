"""Write frames as still images: one, or a numbered series."""

from __future__ import annotations

import contextlib
import io
import re
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from PIL import Image

from wfvae_cli.atomic import (
    atomic_folder,
    atomic_path,
    check_directory,
    check_output,
    reported,
)
from wfvae_cli.errors import OutputError, UsageError
from wfvae_cli.media import yuv
from wfvae_cli.media.clip import ClipInfo, Colour, Frame
from wfvae_cli.media.clip_writer import ClipWriter
from wfvae_cli.media.frames import rescale
from wfvae_cli.media.stills.png import with_colour

# Pillow's settings per suffix. Lossy formats at the quality where loss is hard to see, without
# chroma subsampling: these images are looked at closely.
_SETTINGS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".webp": {"format": "WEBP", "quality": 95, "method": 4},
    ".bmp": {"format": "BMP"},
    ".tif": {"format": "TIFF", "compression": "tiff_deflate"},
    ".tiff": {"format": "TIFF", "compression": "tiff_deflate"},
}

# Formats of 16 bits a channel, which Pillow does not write: FFmpeg's encoder and pixel format.
_DEEP = {".png": ("png", "rgb48be"), ".tif": ("tiff", "rgb48le"), ".tiff": ("tiff", "rgb48le")}

_NUMBER = re.compile(r"%(0?)(\d*)d")

FIRST_NUMBER = 1
"""Number of the first image of a series, as FFmpeg counts."""


def is_image(target: str | Path) -> bool:
    """Tell if a target's suffix names an image format that can be written."""
    return Path(target).suffix.lower() in _SETTINGS


def is_pattern(target: str | Path) -> bool:
    """Tell if a target is a series of images, such as `frame%05d.png`."""
    return len(_NUMBER.findall(Path(target).name)) == 1 and is_image(target)


def save_image(pixels: yuv.Pixels, path: Path, suffix: str, colour: Colour) -> None:
    """Write one picture; 16-bit pictures stay so in PNG and TIFF, else are rounded to 8 bits.

    Args:
        pixels: HWC RGB, uint8 or uint16 over the full range of the dtype.
        path: the file to write, whatever its name.
        suffix: suffix that says the format, such as `.png`.
        colour: colour description of the RGB; PNG is labelled where it is of wide gamut or HDR.

    Raises:
        UsageError: the picture is larger than the format can hold.
    """
    data = _encode(pixels, suffix)
    path.write_bytes(with_colour(data, colour) if suffix == ".png" else data)


def _encode(pixels: yuv.Pixels, suffix: str) -> bytes:
    if pixels.dtype == np.uint16 and suffix in _DEEP:
        return _encode_deep(pixels, *_DEEP[suffix])
    settings = _SETTINGS[suffix]
    limit = {"JPEG": 65535, "WEBP": 16383}.get(settings["format"])
    height, width, _ = pixels.shape
    if limit is not None and max(height, width) > limit:
        raise UsageError(
            f"{settings['format']} holds at most {limit} pixels a side, and this picture is "
            f"{width}x{height}; use .png"
        )
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rescale(pixels, 8))).save(file, **settings)
    return file.getvalue()


def _encode_deep(pixels: yuv.Pixels, codec: str, pix_fmt: str) -> bytes:
    height, width, _ = pixels.shape
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, VideoCodecContext), "image encoders are video encoders"
    encoder.width, encoder.height, encoder.pix_fmt = width, height, pix_fmt
    encoder.framerate = Fraction(25)  # asked for, and stored nowhere
    encoder.options = {"flags": "+bitexact"}
    frame = av.VideoFrame.from_ndarray(pixels, format=pix_fmt)
    frame.pts = 0
    return b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None)))


class ImageWriter(ClipWriter):
    """Write a clip of one frame as an image."""

    def __init__(
        self,
        target: str | Path,
        info: ClipInfo,
        *,
        overwrite: bool = False,
        has_audio: bool = False,
    ) -> None:
        super().__init__(info)
        self.target = Path(target)
        self._overwrite = overwrite
        self._has_audio = has_audio

    def __enter__(self) -> ImageWriter:
        self.notices = _notices(self.target, self.info, self._has_audio)
        with contextlib.ExitStack() as stack:
            self._part = stack.enter_context(atomic_path(self.target, overwrite=self._overwrite))
            self._stack = stack.pop_all()
        return self

    def _write(self, frame: Frame) -> None:
        if self.frames:
            raise UsageError(
                f"{self.target} holds one frame, and this clip has more; name a video, a "
                f"pattern such as {self.target.stem}%05d{self.target.suffix}, or use --frames 1"
            )
        with reported(self.target, self._part):
            save_image(frame.pixels, self._part, self.target.suffix.lower(), self.info.colour)

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
            if not self.frames:
                raise OutputError(f"nothing to write to {self.target}: the clip has no frames")


class PatternWriter(ClipWriter):
    """Write every frame of a clip as an image, numbered from 1.

    The images are made in a hidden directory beside their names and moved there at the end, so
    that a series is whole or absent as well. Overwriting replaces the series as a whole: images
    of an older, longer one that fit the pattern are removed.
    """

    def __init__(
        self,
        target: str | Path,
        info: ClipInfo,
        *,
        overwrite: bool = False,
        has_audio: bool = False,
    ) -> None:
        super().__init__(info)
        self.target = Path(target)
        self._overwrite = overwrite
        self._has_audio = has_audio
        check_directory(self.target.parent, self.target)
        self._refuse_existing()

    def __enter__(self) -> PatternWriter:
        self.notices = _notices(self.target, self.info, self._has_audio)
        self._stack = contextlib.ExitStack()
        self._staging = self._stack.enter_context(atomic_folder(self.target))
        return self

    def _write(self, frame: Frame) -> None:
        path = self._staging / self._name(self.frames)
        with reported(self.target, path):
            save_image(frame.pixels, path, self.target.suffix.lower(), self.info.colour)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if error is None:
                if not self.frames:
                    raise OutputError(f"nothing to write to {self.target}: the clip has no frames")
                with reported(self.target):
                    self._publish()

    def _name(self, index: int) -> str:
        return _NUMBER.sub(
            lambda found: f"{index + FIRST_NUMBER:{found[1]}{found[2]}d}", self.target.name
        )

    def _existing(self) -> list[Path]:
        """List the files that fit the pattern."""
        name = self.target.name
        found = _NUMBER.search(name)
        assert found is not None, "open_writer() chose this class for its pattern"
        before, after = re.escape(name[: found.start()]), re.escape(name[found.end() :])
        fits = re.compile(rf"{before} *\d+{after}")
        return sorted(path for path in self.target.parent.iterdir() if fits.fullmatch(path.name))

    def _refuse_existing(self) -> None:
        existing = self._existing()
        if existing and not self._overwrite:
            raise OutputError(
                f"{existing[0]} exists already ({len(existing)} files fit {self.target.name}); "
                "choose another name or add --overwrite"
            )

    def _publish(self) -> None:
        self._refuse_existing()
        names = {self._name(index) for index in range(self.frames)}
        for path in self._existing():
            if path.name not in names:
                path.unlink()
        for name in names:
            check_output(self.target.with_name(name), overwrite=self._overwrite)
            (self._staging / name).replace(self.target.with_name(name))


def _notices(target: Path, info: ClipInfo, has_audio: bool) -> tuple[str, ...]:
    notices = []
    if has_audio:
        notices.append(f"{target.name} cannot hold sound; the sound track is not copied")
    if info.bits == 16 and target.suffix.lower() not in _DEEP:
        notices.append(f"{target.suffix} stores 8 bits per sample; use .png to keep all of them")
    return tuple(notices)
