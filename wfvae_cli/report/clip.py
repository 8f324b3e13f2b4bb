"""A page's entry on one clip and one model, collected while the frames pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

from wfvae_cli.atomic import output_error
from wfvae_cli.metrics.pixels import Pixels
from wfvae_cli.metrics.result import FRAME_METRICS, ClipResult, FrameScores, JsonValue, json_number
from wfvae_cli.metrics.views import (
    Box,
    Picture,
    eight_bit,
    error_map,
    luminance_error,
    worst_box,
)
from wfvae_cli.metrics.worst import SpacedWorst
from wfvae_cli.report.energy import EnergyClip, EnergyKept
from wfvae_cli.report.media import MediaFile, MediaWriter, save_picture

_WORST = 6
_CROP_SHARE = 5
"""A crop's side is the frame's shorter side divided by this, within the limits below."""
_CROP_LIMITS = (48, 160)
_THUMBNAIL = (240, 160)
_THUMBNAIL_FRAME = 12
"""Clips begin in black more often than they are still black half a second later."""
_DETAIL = "detail.json"
_DIGITS = {"psnr": 3, "flicker_psnr": 3}


@dataclass(frozen=True)
class _Crops:
    """The worst part of a frame."""

    box: Box
    original: Picture
    reconstruction: Picture
    error: Picture


@dataclass(frozen=True)
class ClipEntry:
    """A finished clip of one model, whose files lie in `folder`."""

    name: str
    model: int
    folder: Path
    summary: dict[str, JsonValue]
    """Scores for the table of files."""
    facts: dict[str, JsonValue]
    """Facts that all models share: size, number of frames, rate, media of the original."""
    energy: EnergyKept

    def take_detail(self) -> str:
        """Return the contents of the clip's own page as JSON: curves, chunks, worst frames, media.

        It waits in a file, since curves grow with the clip, and is gone from there afterwards.
        """
        path = self.folder / _DETAIL
        text = path.read_text("utf-8")
        path.unlink()
        return text


class ReportClip:
    """Takes the pairs of frames of one clip, in memory that does not grow with its length.

    An observer for `ClipMetrics`. Use `Report.clip` to make one.
    """

    def __init__(
        self,
        name: str,
        model: int,
        folder: Path,
        *,
        frame_rate: Fraction | None,
        image: bool,
        with_original: bool,
        on_close: Callable[[ClipEntry | None, ReportClip], None],
    ) -> None:
        """Start a clip.

        Args:
            name: what the page calls it.
            model: number of the model, from 0.
            folder: an empty folder for its files.
            frame_rate: frames per second of the copies.
            image: whether it is a single picture rather than a video.
            with_original: whether to copy the original too.
            on_close: given the entry at the end, or None if there is none.
        """
        self.name = name
        self._model = model
        self._folder = folder
        self._rate = frame_rate
        self._image = image
        self._on_close = on_close
        self._prefix = f"m{model}"
        self._original = MediaWriter(folder / "original", frame_rate) if with_original else None
        self._reconstruction = MediaWriter(folder / self._prefix, frame_rate)
        self._error = MediaWriter(folder / f"{self._prefix}-error", frame_rate)
        self._worst = SpacedWorst(_WORST, _crop)
        self._energy = EnergyClip(name, "image" if image else "video")
        self._thumbnail: Image.Image | None = None
        self._extra: dict[str, JsonValue] = {}
        self._chunks: list[int] = []

    def observe(self, scores: FrameScores, original: Pixels, reconstruction: Pixels) -> None:
        """Take the clip's next pair of frames, HWC RGB, and its scores.

        Raises:
            OutputError: a copy cannot be written.
        """
        x, y = eight_bit(original), eight_bit(reconstruction)
        if self._original is not None:
            self._original.add(x)
            if scores.index in (0, _THUMBNAIL_FRAME):
                self._thumbnail = Image.fromarray(x)
                self._thumbnail.thumbnail(_THUMBNAIL, Image.Resampling.BOX)
        self._reconstruction.add(y)
        if not self._error.full:
            self._error.add(error_map(luminance_error(original, reconstruction)))
        self._worst.observe(scores, original, reconstruction)
        self._energy.add(x, y)

    def describe(
        self,
        *,
        seconds: float | None = None,
        latent_bytes: int | None = None,
        chunks: Sequence[int] = (),
    ) -> None:
        """Say what is known beside the scores, before `close`.

        Args:
            seconds: that encoding and decoding took.
            latent_bytes: size of the latents.
            chunks: index of the first frame of every chunk that went through the model.
        """
        if seconds is not None:
            self._extra["seconds"] = seconds
        if latent_bytes is not None:
            self._extra["latent_bytes"] = latent_bytes
        self._chunks = list(chunks)

    def close(self, result: ClipResult | None) -> None:
        """Finish the clip; None discards it.

        Raises:
            OutputError: a file cannot be written.
        """
        entry = None
        if result is None:
            self._abort()
        else:
            try:
                entry = self._entry(result)
            except BaseException:
                self._abort()
                raise
        self._on_close(entry, self)

    def _abort(self) -> None:
        for writer in (self._original, self._reconstruction, self._error):
            if writer is not None:
                writer.abort()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _entry(self, result: ClipResult) -> ClipEntry:
        media = {
            "reconstruction": _media(self._reconstruction.close()),
            "error": _media(self._error.close()),
        }
        facts: dict[str, JsonValue] = {
            "name": self.name,
            "frames": result.frames,
            "width": result.width,
            "height": result.height,
            "bits": result.bits,
            "fps": None if self._rate is None else float(self._rate),
            "image": self._image,
        }
        if self._original is not None:
            facts["original"] = _media(self._original.close())
            assert self._thumbnail is not None
            save_picture(self._thumbnail, self._folder / "thumb.jpg")
        if "seconds" in self._extra and (seconds := self._extra["seconds"]):
            assert isinstance(seconds, float | int)
            self._extra["frames_per_second"] = result.frames / seconds
        energy = self._energy.result()
        summary = {**result.to_json(), **self._extra}
        detail: dict[str, JsonValue] = {
            **media,
            "curves": _curves(result),
            "chunks": list(self._chunks),
            "worst": [
                self._save_crops(place, frame.scores, frame.kept)
                for place, frame in enumerate(self._worst.worst_first())
            ],
            "energy": energy.to_json(),
        }
        path = self._folder / _DETAIL
        try:
            path.write_text(script_json(detail), "utf-8")
        except OSError as error:
            raise output_error(path, error) from error
        return ClipEntry(self.name, self._model, self._folder, summary, facts, energy)

    def _save_crops(self, place: int, scores: FrameScores, crops: _Crops) -> JsonValue:
        images: dict[str, JsonValue] = {}
        for role in ("original", "reconstruction", "error"):
            path = self._folder / f"{self._prefix}-worst{place}-{role}.png"
            save_picture(Image.fromarray(getattr(crops, role)), path)
            images[role] = path.name
        return {**scores.to_json(), "box": dict(crops.box._asdict()), **images}


def script_json(value: Any) -> str:
    """JSON that stays data in any script: no markup, no line ends that only scripts know."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _crop(scores: FrameScores, original: Pixels, reconstruction: Pixels) -> _Crops:
    error = luminance_error(original, reconstruction)
    low, high = _CROP_LIMITS
    box = worst_box(error, max(low, min(high, min(error.shape) // _CROP_SHARE)))
    pictures = (eight_bit(original), eight_bit(reconstruction), error_map(error))
    return _Crops(box, *(box.of(picture).copy() for picture in pictures))


def _media(file: MediaFile) -> JsonValue:
    return dict(asdict(file))


def _curves(result: ClipResult) -> JsonValue:
    """Every score of every frame, rounded to what a curve can show; absent ones left out."""
    curves: dict[str, JsonValue] = {}
    for name in FRAME_METRICS:
        values = [getattr(frame, name) for frame in result.per_frame]
        if any(value is not None for value in values):
            digits = _DIGITS.get(name, 5)
            curves[name] = [
                None if value is None else json_number(round(value, digits)) for value in values
            ]
    return curves
