"""Shapes that fly, lines of text and stars, drawn over crops: real clips have few of them.

A small video VAE shows first what it makes of these: of a ball that is elsewhere in each of the
four frames of a latent, of the edges of letters, and of stars that a camera pans over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

FINE = 3
"""Things are drawn so many times larger and scaled down: smooth edges, part-pixel moves."""
LETTERS = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:-!?()/%")
MARGIN = 8
"""Pixels by which a thing's centre may leave the picture before it turns back."""

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Thing:
    """Something to draw."""

    image: Image.Image
    """RGBA, `FINE` times its size."""
    fastest: float
    """Pixels a frame."""


def draw_over(crop: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw one to five moving things over a crop, 3THW in [-1, 1]."""
    frames, size = crop.shape[1:3]
    numbers = rng.multinomial(rng.integers(1, 6), (0.15, 0.25, 0.6))
    kinds = zip((specks, text, shape), numbers, strict=True)  # the first lie beneath
    things = [kind(rng) for kind, number in kinds for _ in range(number)]
    paths = [move(thing.fastest, frames, size, rng) for thing in things]
    drawn = []
    for t in range(frames):
        canvas = Image.new("RGBA", (size * FINE, size * FINE))
        for thing, path in zip(things, paths, strict=True):
            left, top = (round(FINE * path[t, i] - thing.image.size[i] / 2) for i in (0, 1))
            canvas.paste(thing.image, (left, top), thing.image)
        layer = np.asarray(canvas.resize((size, size), Image.Resampling.BOX), np.float32)
        rgba = torch.from_numpy(layer / 255).permute(2, 0, 1)
        drawn.append(torch.lerp(crop[:, t], rgba[:3] * 2 - 1, rgba[3:]))
    return torch.stack(drawn, dim=1)


def move(fastest: float, frames: int, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Where a thing's centre is in each frame, T x (x, y): it stands still or bounces around."""
    speed = 0.0 if rng.random() < 0.15 else fastest * rng.random() ** 0.7
    angle = rng.uniform(0, 2 * math.pi)
    way = speed * np.outer(np.arange(frames), (math.cos(angle), math.sin(angle)))
    room = size + 2 * MARGIN
    path: NDArray[np.float64] = (rng.uniform(0, room, 2) + way) % (2 * room)
    return room - np.abs(path - room) - MARGIN


def shape(rng: np.random.Generator) -> Thing:
    """A disc or a regular polygon, with an edge or without."""
    side = int(FINE * rng.uniform(6, 36))
    image = Image.new("RGBA", (side, side))
    draw, fill = ImageDraw.Draw(image), colour(rng)
    if rng.random() < 0.5:
        width = int(rng.integers(2 * FINE))
        draw.ellipse((0, 0, side - 1, side - 1), fill, colour(rng), width)
    else:
        circle = (side / 2, side / 2, side / 2 - 1)
        draw.regular_polygon(circle, int(rng.integers(3, 7)), rng.uniform(0, 360), fill)
    return Thing(image, fastest=36.0)


def text(rng: np.random.Generator) -> Thing:
    """A line of letters, with an outline or without."""
    line = "".join(rng.choice(LETTERS, rng.integers(4, 22)))
    font = ImageFont.load_default(FINE * rng.uniform(8, 26))
    stroke = FINE if rng.random() < 0.3 else 0
    box = font.getbbox(line, stroke_width=stroke)
    image = Image.new("RGBA", (math.ceil(box[2]), math.ceil(box[3])))
    fill, edge = colour(rng), colour(rng)
    ImageDraw.Draw(image).text((0, 0), line, fill, font, stroke_width=stroke, stroke_fill=edge)
    return Thing(image, fastest=6.0)


def specks(rng: np.random.Generator) -> Thing:
    """Bright specks that move together, as stars do: on black or on nothing."""
    side = int(FINE * rng.uniform(60, 160))
    image = Image.new("RGBA", (side, side), (0, 0, 0, 255 if rng.random() < 0.7 else 0))
    draw = ImageDraw.Draw(image)
    for _ in range(int(side**2 / FINE**2 / rng.uniform(80, 600))):
        (x, y), radius = rng.uniform(0, side, 2), FINE * rng.uniform(0.3, 2.2)
        fill = (*(int(value) for value in rng.integers(90, 256, size=3)), 255)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill)
    return Thing(image, fastest=8.0)


def colour(rng: np.random.Generator) -> Colour:
    """Black, white, or any."""
    kind = rng.random()
    if kind < 0.3:
        return (0, 0, 0) if kind < 0.12 else (255, 255, 255)
    red, green, blue = (int(value) for value in rng.integers(256, size=3))
    return red, green, blue
