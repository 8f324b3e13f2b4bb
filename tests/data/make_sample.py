"""Makes sample.mp4, the clip that the tests and the README use.

    python tests/data/make_sample.py

Two photographs that ship with scikit-image (no download): Eileen Collins, and the Hubble deep
field; both by NASA and in the public domain. Everything that is hard for a video codec happens in
three seconds and a half: a camera that pans and zooms, objects that move over the background, text,
a cut (after frame 40), grain, and a sound track. The same script and library versions give the
same bytes.
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage import data

WIDTH, HEIGHT = 320, 240
FRAMES, CUT, RATE = 81, 41, 24
SOUND_RATE = 48_000
BT709, LIMITED = 1, 1  # ITU-T H.273


def main() -> None:
    """Write sample.mp4 beside this script."""
    path = Path(__file__).with_name("sample.mp4")
    portrait = Image.fromarray(data.astronaut())  # type: ignore[no-untyped-call] # untyped
    galaxies = Image.fromarray(data.hubble_deep_field())  # type: ignore[no-untyped-call] # same
    grain = np.random.default_rng(1)
    with av.open(str(path), "w", options={"movflags": "faststart", "fflags": "+bitexact"}) as box:
        video, audio = add_video(box), add_sound(box)
        for i in range(FRAMES):
            image = portrait_shot(portrait, i) if i < CUT else galaxy_shot(galaxies, i - CUT)
            box.mux(video.encode(to_frame(image, i, grain)))
        box.mux(video.encode(None))
        for frame in melody():
            box.mux(audio.encode(frame))
        box.mux(audio.encode(None))
    print(f"{path.name}: {path.stat().st_size} bytes")


def add_video(box: av.container.OutputContainer) -> VideoStream:
    """H.264, tagged as BT.709 of limited range."""
    options = {
        "crf": "18",
        "preset": "veryslow",
        "tune": "grain",
        "g": "48",
        "flags": "+bitexact",
        # x264's assembler code was seen to give other bytes in every run.
        "x264-params": "threads=1:asm=0",
    }
    stream = box.add_stream("libx264", rate=RATE, options=options)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    stream.thread_count = 1
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = LIMITED
    return stream


def add_sound(box: av.container.OutputContainer) -> AudioStream:
    """AAC, one channel."""
    stream = box.add_stream("aac", rate=SOUND_RATE, layout="mono", options={"flags": "+bitexact"})
    assert isinstance(stream, AudioStream)
    stream.bit_rate = 48_000
    return stream


def portrait_shot(photo: Image.Image, i: int) -> Image.Image:
    """The camera zooms in on the face while a ball bounces through and a title stands still."""
    t = i / (CUT - 1)
    image = view(photo, centre=(256 - 35 * t, 235 - 95 * t), width=470 - 240 * t)
    draw = ImageDraw.Draw(image)
    x, y = 20 + 280 * t, 205 - 120 * abs(math.sin(3 * math.pi * t))
    draw.ellipse((x - 14, y - 14, x + 14, y + 14), fill=(235, 64, 32), outline=(60, 10, 0))
    draw.ellipse((x - 9, y - 10, x - 3, y - 4), fill=(255, 190, 170))
    title(draw, (10, 8), "Wavelets, 1:4:8:8", 20)
    return image


def galaxy_shot(photo: Image.Image, i: int) -> Image.Image:
    """The camera pans over galaxies while a square turns, and a counter and small print run."""
    t = i / (FRAMES - CUT - 1)
    image = view(photo, centre=(260 + 330 * t, 330 + 160 * t), width=420 - 60 * t)
    draw = ImageDraw.Draw(image)
    corners = [
        (
            250 - 190 * t + 26 * math.cos(math.tau * (t + k / 4)),
            90 + 40 * math.sin(math.tau * t) + 26 * math.sin(math.tau * (t + k / 4)),
        )
        for k in range(4)
    ]
    draw.polygon(corners, fill=(40, 200, 230), outline=(255, 255, 255))
    title(draw, (WIDTH - 74, HEIGHT - 34), f"{i:04d}", 24)
    title(
        draw, (10 - round(60 * t), HEIGHT - 16), "the quick brown fox jumps over 10 lazy dogs", 11
    )
    return image


def view(photo: Image.Image, centre: tuple[float, float], width: float) -> Image.Image:
    """What a camera sees that looks at `centre`, to fractions of a pixel."""
    half = width / 2, width * HEIGHT / WIDTH / 2
    box = (centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1])
    box = (max(box[0], 0), max(box[1], 0), min(box[2], photo.width), min(box[3], photo.height))
    return photo.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box)


def title(draw: ImageDraw.ImageDraw, position: tuple[int, int], text: str, size: int) -> None:
    """White letters with a dark edge."""
    font = ImageFont.load_default(size)
    draw.text(position, text, (255, 255, 255), font, stroke_width=1, stroke_fill=(20, 20, 40))


def to_frame(image: Image.Image, i: int, grain: np.random.Generator) -> VideoFrame:
    """Add film grain, the same in all three colours, and convert to BT.709."""
    noise = grain.normal(0, 2.5, (HEIGHT, WIDTH, 1))
    pixels = np.clip(np.asarray(image) + noise, 0, 255).round().astype(np.uint8)
    frame = VideoFrame.from_ndarray(pixels, format="rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
    frame.pts, frame.time_base = i, Fraction(1, RATE)
    return frame


def melody() -> list[AudioFrame]:
    """A rising scale for as long as the pictures last, a tone every eighth of a second."""
    count = SOUND_RATE * FRAMES // RATE
    time = np.arange(count) / SOUND_RATE
    step = (time * 8).astype(int)
    tone = np.sin(2 * np.pi * 220 * 2 ** (step % 24 / 12) * time)
    sound: NDArray[np.float32] = (0.2 * tone * np.exp(-6 * (time * 8 % 1))).astype(np.float32)
    frames = []
    for at in range(0, count, 1024):
        frame = AudioFrame.from_ndarray(sound[None, at : at + 1024], format="fltp", layout="mono")
        frame.rate, frame.pts, frame.time_base = SOUND_RATE, at, Fraction(1, SOUND_RATE)
        frames.append(frame)
    return frames


if __name__ == "__main__":
    main()
