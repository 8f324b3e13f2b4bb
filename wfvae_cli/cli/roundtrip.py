"""`wfvae roundtrip`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wfvae_cli.cli import options as o
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.run import reported

if TYPE_CHECKING:
    from wfvae_cli.codec.roundtrip import RoundtripResult

_EXAMPLES = """Examples:

    wfvae roundtrip in.mp4 -o out.mp4
    wfvae roundtrip in.mp4 --short-side 256 --report frames.json
    wfvae roundtrip in.mp4 -o both.mp4 --compare side-by-side
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("roundtrip", epilog=_EXAMPLES)(roundtrip)


@reported
def roundtrip(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help="A video, an image, a %05d frame pattern, or - for stdin."
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="A video, an image, a %05d frame pattern, or - for stdout. Without it the "
            "roundtrip is only measured.",
        ),
    ] = None,
    model: o.Model = "wfvae-tiny",
    device: o.Device = "auto",
    dtype: o.DType = "auto",
    chunk: o.Chunk = None,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.json", help="Write the scores of every frame.", rich_help_panel="Output"
        ),
    ] = None,
    compare: Annotated[
        Literal["side-by-side", "diff"] | None,
        typer.Option(
            help="Write the original beside the reconstruction, or their amplified difference.",
            rich_help_panel="Output",
        ),
    ] = None,
    audio: Annotated[
        Literal["copy", "none"],
        typer.Option(
            help="Copy the sound track without re-encoding, or leave it out.",
            rich_help_panel="Output",
        ),
    ] = "copy",
    start: o.Start = 0.0,
    duration: o.Duration = None,
    frames: o.Frames = None,
    fps: o.Fps = None,
    size: o.Size = None,
    fit: o.Fit = "crop",
    short_side: o.ShortSide = None,
    codec: o.Codec = None,
    crf: o.Crf = None,
    pix_fmt: o.PixFmt = None,
    container: o.Container = None,
    overwrite: o.Overwrite = False,
    json_output: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Encode, decode, and measure what was lost.

    Scores compare the decoded frames, clamped and rounded, with the frames that were encoded:
    before the video encoder of OUT, which loses something of its own.
    """
    console = Console(quiet, json_output)
    console.check_stdout(output)
    sampling = o.make_sampling(start, duration, frames, fps, size, fit, short_side)

    from wfvae_cli.atomic import check_output
    from wfvae_cli.codec.roundtrip import roundtrip_clip
    from wfvae_cli.media.reader import open_clip
    from wfvae_cli.models.load import load_model

    video = o.make_video_options(codec, crf, pix_fmt, container)
    if output is not None:
        check_output(output, overwrite=overwrite)
    if report is not None:
        check_output(report, overwrite=overwrite)
    with open_clip(source, sampling) as reader:
        loaded = load_model(model, device=device, dtype=dtype, task="encode")
        with console.progress("roundtrip", reader.info.frames) as progress:
            done = roundtrip_clip(
                reader,
                output,
                loaded,
                video=video,
                audio_from=source if audio == "copy" and _has_sound_to_copy(source) else None,
                compare=compare,
                chunk=chunk,
                overwrite=overwrite,
                progress=progress,
            )
    _tell(console, done, output)
    summary = _summary(done, source, output, loaded.name)
    if report is not None:
        _write_report(report, {**summary, **done.metrics.to_json(per_frame=True)}, overwrite)
    console.result(summary)


def _summary(done: RoundtripResult, source: str, output: str | None, model: str) -> dict[str, Any]:
    return {
        "input": source,
        "output": output,
        "model": model,
        **done.metrics.to_json(),
        "seconds": round(done.seconds, 3),
    }


def _tell(console: Console, done: RoundtripResult, output: str | None) -> None:
    scores, worst = done.metrics, done.metrics.worst_frame
    console.say(
        f"{o.display(output or 'measured')}: {scores.frames} frames of {scores.width}x"
        f"{scores.height} in {done.seconds:.1f} s ({scores.frames / done.seconds:.1f} frames/s)"
    )
    parts = [f"PSNR {scores.psnr:.2f} dB"]
    if scores.ssim is not None:
        parts.append(f"SSIM {scores.ssim:.4f}")
    if scores.frames > 1:
        parts.append(f"worst frame {worst.index} with {worst.psnr:.2f} dB")
    console.say(", ".join(parts))


def _write_report(path: str, content: dict[str, Any], overwrite: bool) -> None:
    from wfvae_cli.atomic import atomic_file

    with atomic_file(path, overwrite=overwrite) as file:
        file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
