"""Options that several commands share, spelt and explained once."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wfvae_cli.errors import UsageError

if TYPE_CHECKING:
    from wfvae_cli.media.options import Sampling, VideoOptions

_MODEL, _FRAMES, _OUT, _RUN = "Model", "Which frames, and their size", "Output", "Messages"


def parse_rate(text: str) -> Fraction:
    """`24`, `29.97` or `30000/1001` to a fraction."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise typer.BadParameter(
            f"expected frames per second such as 24, 29.97 or 30000/1001, got {text!r}"
        ) from None


Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="An embedded or published name, a folder with config.json and safetensors, a "
        ".safetensors file beside a config.json, or owner/repo\\[/subfolder]\\[@revision] on "
        "Hugging Face.",
        rich_help_panel=_MODEL,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="auto (CUDA if there is one, else the CPU), cpu, cuda, cuda:N or mps.",
        rich_help_panel=_MODEL,
    ),
]
DType = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(
        help="What the model computes in. auto: float32 to encode (TF32 on CUDA), and to decode "
        "bfloat16 on CUDA and float32 on the CPU.",
        rich_help_panel=_MODEL,
    ),
]
Chunk = Annotated[
    int | None,
    typer.Option(
        metavar="FRAMES",
        help="Frames that go through the model together, 1 + 4k (1 + 8k for 8x8x8 models). The "
        "result is the same for every size; memory is not. Default: suits the resolution.",
        rich_help_panel=_MODEL,
    ),
]
TileOption = Annotated[
    str,
    typer.Option(
        "--tile",
        metavar="auto|off|PIXELS",
        help="Run the picture in overlapping tiles of so many pixels a side, blended: less memory, "
        "but not exact. auto: only where nothing exact fits into memory, and for one clip only.",
        rich_help_panel=_MODEL,
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the model for each kind of chunk when it first comes. Meant for CUDA (it "
        "uses CUDA graphs) and many clips of one size; on a CPU it takes minutes and gains little.",
        rich_help_panel=_MODEL,
    ),
]
Start = Annotated[
    float, typer.Option(metavar="SECONDS", help="Skip the beginning.", rich_help_panel=_FRAMES)
]
Duration = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Take this much of it.", rich_help_panel=_FRAMES),
]
Frames = Annotated[
    int | None, typer.Option(help="Take at most this many frames.", rich_help_panel=_FRAMES)
]
Fps = Annotated[
    Fraction | None,
    typer.Option(
        parser=parse_rate,
        metavar="RATE",
        help="Resample in time, by dropping and repeating frames.",
        rich_help_panel=_FRAMES,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="WxH",
        help="Scale to exactly this size, as --fit says.",
        rich_help_panel=_FRAMES,
    ),
]
Fit = Annotated[
    Literal["crop", "pad", "stretch"],
    typer.Option(
        help="How --size treats another aspect: cut the edges off, add black bars, or distort.",
        rich_help_panel=_FRAMES,
    ),
]
ShortSide = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        help="Scale the shorter side to this, keeping the aspect.",
        rich_help_panel=_FRAMES,
    ),
]
Hwaccel = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Decode videos in hardware: none, auto, or a kind of device such as cuda, vaapi or "
        "videotoolbox. Where it cannot be had, software decodes, and a note says so.",
        rich_help_panel=_FRAMES,
    ),
]
Codec = Annotated[
    str | None,
    typer.Option(
        help="Video encoder: h264 (default), hevc, av1, vp9, ffv1 (lossless), or FFmpeg's name.",
        rich_help_panel=_OUT,
    ),
]
Crf = Annotated[
    float | None,
    typer.Option(help="Quality of the video encoder; lower is better.", rich_help_panel=_OUT),
]
PixFmt = Annotated[
    str | None,
    typer.Option(help="FFmpeg's pixel format, such as yuv444p10le.", rich_help_panel=_OUT),
]
Container = Annotated[
    str | None,
    typer.Option(
        help="FFmpeg's muxer; by default what the suffix says, and matroska for stdout.",
        rich_help_panel=_OUT,
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace OUT if it exists.", rich_help_panel=_OUT)
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Put one JSON object on stdout.", rich_help_panel=_RUN),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Say nothing but errors.", rich_help_panel=_RUN),
]


def make_sampling(
    start: float,
    duration: float | None,
    frames: int | None,
    fps: Fraction | None,
    size: str | None,
    fit: Literal["crop", "pad", "stretch"],
    short_side: int | None,
) -> Sampling:
    """The sampling that a command's options describe; contradictions are usage errors."""
    from wfvae_cli.media.options import Sampling

    return Sampling(start, duration, frames, fps, _parse_size(size), fit, short_side)


def check_hwaccel(name: str) -> None:
    """Refuse a `--hwaccel` that FFmpeg does not know, before any work."""
    from wfvae_cli.media.hwaccel import check

    check(name)


def _parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise UsageError(f"--size: expected WIDTHxHEIGHT such as 512x288, got {text!r}")
    return int(width), int(height)


def make_video_options(
    codec: str | None, crf: float | None, pix_fmt: str | None, container: str | None
) -> VideoOptions:
    """The video options that a command's options describe."""
    from wfvae_cli.media.options import VideoOptions

    return VideoOptions(codec=codec, crf=crf, pix_fmt=pix_fmt, container=container)


def display(path: str | Path) -> str:
    """What messages call an input or output."""
    return {"-": "standard input or output"}.get(str(path), str(path))
