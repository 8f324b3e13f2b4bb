"""Scenes that show where a small video VAE fails, and the figures of them in its card.

    python weights/scenes.py DATA --model weights/wfvae-tiny

DATA holds `train/*.mp4` and `train_photos/*.jpg`, of which held-out ones are used. Levels are of
255.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fine import fine, lines
from footage import HELD_OUT_CLIPS, decode, shrink
from overlay import FINE
from wfvae_cli import load_model, roundtrip
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import open_clip

Clip = NDArray[np.float64]
"""THWC RGB, in levels."""
Reconstruct = Callable[[Clip], Clip]

WALL = (205, 190, 182)
SAMPLE = Path(__file__).parents[1] / "tests" / "data" / "sample.mp4"
PHOTO = "elementary_rob-bye.jpg"


def psnr(error: Clip) -> float:
    """In dB, of errors in levels."""
    return float(10 * np.log10(255**2 / max(1e-3, np.square(error).mean())))


def way(frames: int, start: float, velocity: tuple[float, float], width: int, height: int) -> Clip:
    """T x (x, y) of what bounces within a picture, 14 pixels from its edge."""
    room = np.array([width, height]) - 28.0
    path = (start + np.outer(np.arange(frames), velocity)) % (2 * room)
    return 14 + room - np.abs(path - room)


def distance(path: Clip, width: int, height: int) -> Clip:
    """THW: how far a pixel is from the way's place in each frame."""
    y, x = np.mgrid[:height, :width]
    far: Clip = np.hypot(x - path[:, 0, None, None], y - path[:, 1, None, None])
    return far


def report_ball(reconstruct: Reconstruct) -> None:
    """A ball of 28 pixels that flies over a wall: PSNR within it, and where it was or will be."""
    width, height = 200, 160
    path = way(17, 50.0, (15.5, 19.6), width, height)
    clip = []
    for x, y in path * FINE:
        canvas = Image.new("RGB", (width * FINE, height * FINE), WALL)
        draw = ImageDraw.Draw(canvas)
        draw.ellipse((x - 42, y - 42, x + 42, y + 42), (235, 60, 30), (20, 20, 20), FINE)
        draw.ellipse((x - 24, y - 27, x - 10, y - 13), (250, 170, 150))
        clip.append(np.asarray(canvas.resize((width, height), Image.Resampling.BOX), float))
    error = reconstruct(np.stack(clip)) - np.stack(clip)
    within = distance(path, width, height) < 15
    near = [within[max(1, t - 3) : t + 4].any(axis=0) for t in range(len(within))]
    copies = np.stack(near) & ~within
    print(f"ball at 25 pixels a frame: {psnr(error[within]):.2f} dB within it, ", end="")
    print(f"{psnr(error[copies]):.2f} dB at its copies")


def report_copies(reconstruct: Reconstruct) -> None:
    """Discs over plain walls: what is left of one in the other frames of its latent frame.

    The factor is that of green's contrast in green's error; 0.5 where both frames of a pair show
    half.
    """
    size, frames = 96, 9
    rng = np.random.default_rng(0)
    contrasts: dict[str, list[Clip]] = {"its pair": [], "the other pair": []}
    offsets: dict[str, list[Clip]] = {name: [] for name in contrasts}
    for _ in range(24):
        wall, disc = rng.uniform(20, 235, (2, 3)).round()
        far = distance(way(frames, 20.0, (22.0, 15.0), size, size), size, size)
        clip = wall + np.clip(14.5 - far, 0, 1)[..., None] * (disc - wall)
        error = reconstruct(clip) - clip.round()
        for t, there in itertools.permutations(range(1, frames), 2):
            if (t - 1) // 4 != (there - 1) // 4:
                continue
            elsewhere = np.delete(far, there, axis=0).min(axis=0) > 18
            inside = (far[there] < 9) & elsewhere
            if inside.sum() > 40:
                name = "its pair" if (t - 1) // 2 == (there - 1) // 2 else "the other pair"
                contrasts[name].append(np.array([*(disc - wall), *wall, 1.0]))
                offsets[name].append(error[t][inside].mean(axis=0))
    for name, known in contrasts.items():
        errors = np.array(offsets[name])
        factor = np.linalg.lstsq(np.array(known), errors, rcond=None)[0][1, 1]
        red, green, blue = np.sqrt(np.square(errors).mean(axis=0))
        print(
            f"discs in {name}: off by {red:.1f}, {green:.1f}, {blue:.1f} levels (R, G, B), ", end=""
        )
        print(f"green's factor {factor:.2f}, {len(errors)} places")


def report_still(reconstruct: Reconstruct, photo: Image.Image) -> None:
    """Equal frames: how much neighbours differ, and how much the error varies over the picture."""
    y, x = np.mgrid[:128, :128].astype(float)
    pictures = {
        "grey": np.full((128, 128, 3), 128.0),
        "white": np.full((128, 128, 3), 250.0),
        "blue": np.full((128, 128, 3), (60.0, 110.0, 200.0)),
        "ramp": np.clip(np.stack([2 * x, np.full_like(x, 128), 255 - 2 * y], axis=-1), 0, 255),
        "photo": np.asarray(shrink(photo, 128), float)[:128, :128],
    }
    for name, picture in pictures.items():
        decoded = reconstruct(np.repeat(picture[None], 33, axis=0))
        shimmer = np.abs(np.diff(decoded, axis=0)).mean()
        print(f"still {name}: {shimmer:.2f} levels between frames, ", end="")
        print(f"error varies by {(decoded[-1] - picture).std():.2f}")


def grey_lines(clip: Clip) -> Clip:
    """Amplitude of lines of two pixels, 3THW of blocks: rows, columns, both."""
    grey = torch.from_numpy(clip.mean(axis=-1))[None, None]
    amplitude: Clip = lines(fine(grey))[:, 0, 0].numpy()
    return amplitude


def report_lines(reconstruct: Reconstruct) -> None:
    """Lines of two pixels in blocks that have next to none, and where smooth waves move."""
    t, y, x = np.mgrid[:17, :128, :128].astype(float)
    waves = 128 + 70 * np.sin((x + 3.3 * t) / 23) * np.cos((y + 1.7 * t) / 31)
    with open_clip(SAMPLE, Sampling()) as sample:
        frames = np.stack([np.asarray(frame.pixels, float) for frame in sample])
    scenes = {"sample clip": frames, "waves": np.stack([waves] * 3, axis=-1)}
    for name, clip in scenes.items():
        own, made = grey_lines(clip), grey_lines(reconstruct(clip))
        smooth = np.abs(own).max(axis=0) < 0.5
        strongest = np.percentile(np.abs(made[:, smooth]).max(axis=0), 99)
        rms = [np.sqrt(np.square(each[:, smooth]).mean()) for each in (made, own)]
        print(f"lines in {name}: {rms[0]:.2f} levels, below {strongest:.1f} in 99 %, ", end="")
        print(f"the original's own {rms[1]:.2f}")


def report_later(reconstruct: Reconstruct, clips: list[Clip]) -> None:
    """Frames far into a clip, encoded as part of it and by themselves: mean PSNR over the clips."""
    for start in (32, 80):
        pairs = []
        for clip in (each[: start + 17] for each in clips if len(each) >= start + 17):
            part = clip[start:]
            errors = (reconstruct(clip)[start:] - part, reconstruct(part) - part)
            pairs.append([np.mean([psnr(frame) for frame in error[1:]]) for error in errors])
        whole, anew = np.mean(pairs, axis=0)
        print(f"frames {start + 1} to {start + 16} of {len(pairs)} held-out clips: ", end="")
        print(f"{whole:.2f} dB, {anew:.2f} dB encoded by themselves")


def middle(path: Path) -> Clip:
    """The middle square of 96 pixels of a clip's first 97 frames."""
    clip = decode(path)[:97]
    y, x = ((n - 96) // 2 for n in clip.shape[1:3])
    return clip[:, y : y + 96, x : x + 96].astype(float)


def main() -> None:
    """Parse the command line and report on every scene."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="wfvae-tiny", help="as of wfvae's --model")
    args = parser.parse_args()
    model = load_model(args.model)

    def reconstruct(clip: Clip) -> Clip:
        frames = torch.from_numpy(clip.round().astype(np.uint8)).permute(0, 3, 1, 2)
        decoded: Clip = roundtrip(frames, model)[0].permute(0, 2, 3, 1).numpy().astype(float)
        return decoded

    report_ball(reconstruct)
    report_copies(reconstruct)
    report_still(reconstruct, Image.open(args.data / "train_photos" / PHOTO).convert("RGB"))
    report_lines(reconstruct)
    train = args.data / "train"
    report_later(reconstruct, [middle(train / f"{name}.mp4") for name in sorted(HELD_OUT_CLIPS)])


if __name__ == "__main__":
    main()
