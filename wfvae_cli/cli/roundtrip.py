"""`wfvae roundtrip`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wfvae_cli.cli import measuring as m
from wfvae_cli.cli import options as o
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.run import reported
from wfvae_cli.heap import keep_freed_memory

if TYPE_CHECKING:
    from wfvae_cli.metrics.result import JsonValue
    from wfvae_cli.pipeline.roundtrip import RoundtripResult

_EXAMPLES = """Examples:

    wfvae roundtrip in.mp4 -o out.mp4
    wfvae roundtrip in.mp4 --short-side 256 --report frames.json --plot frames.png
    wfvae roundtrip in.mp4 --worst 8 stills/ --ms-ssim
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
    tile: o.TileOption = "auto",
    compile: o.Compile = False,
    report: m.Report = None,
    plot: m.Plot = None,
    worst: m.Worst = None,
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
    hwaccel: o.Hwaccel = "none",
    ms_ssim: Annotated[
        bool,
        typer.Option("--ms-ssim", help="MS-SSIM too, which takes time.", rich_help_panel="Metrics"),
    ] = False,
    lpips: m.LpipsFlag = False,
    lpips_net: m.LpipsNet = "alex",
    lpips_weights: m.LpipsWeights = None,
    fid: m.Fid = False,
    fid_weights: m.FidWeights = None,
    fvd_weights: m.FvdWeights = None,
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
    o.check_hwaccel(hwaccel)
    targets = m.Targets(report, plot, worst, overwrite)

    from wfvae_cli.atomic import check_output
    from wfvae_cli.cli.paths import check_outputs
    from wfvae_cli.media.audio import has_sound
    from wfvae_cli.media.reader import open_clip
    from wfvae_cli.models.load import load_model
    from wfvae_cli.pipeline.roundtrip import roundtrip_clip

    video, tiles = o.make_video_options(codec, crf, pix_fmt, container), o.parse_tile(tile)
    check_outputs([output, report, plot], [source, lpips_weights, fid_weights, fvd_weights], model)
    if output is not None:
        check_output(output, overwrite=overwrite)
    targets.check()
    learned = m.Learned(lpips, lpips_net, lpips_weights, fid, fid_weights, fvd_weights)
    if source == "-" and output is not None and audio == "copy":
        console.note("a pipe can be read only once: its sound, if it has any, is not copied")
    with open_clip(source, sampling, hwaccel=hwaccel) as reader:
        measures = learned.measures(device, ms_ssim=ms_ssim)
        loaded = load_model(model, device=device, dtype=dtype, compile=compile)
        keep_freed_memory(loaded.nbytes)
        stills = targets.stills(m.title_of(source))
        with console.progress("roundtrip", reader.info.frames) as progress:
            done = roundtrip_clip(
                reader,
                output,
                loaded,
                video=video,
                audio_from=source if audio == "copy" and has_sound(source) else None,
                compare=compare,
                metrics=m.clip_metrics(measures, stills),
                chunk=chunk,
                tile=tiles,
                overwrite=overwrite,
                progress=progress,
            )
    facts: dict[str, JsonValue] = {
        "input": source,
        "output": output,
        "model": loaded.name,
        "tile": done.tile,
        **m.distances(measures),
    }
    targets.write(
        console,
        done.metrics,
        f"{m.title_of(source)} through {loaded.name}",
        stills,
        {**facts, "seconds": round(done.seconds, 3)},
    )
    _tell(console, done, output, m.describe_distances(measures))
    console.result({**facts, **done.metrics.to_json(), "seconds": round(done.seconds, 3)})


def _tell(
    console: Console, done: RoundtripResult, output: str | None, distances: str | None
) -> None:
    scores = done.metrics
    console.say(
        f"{o.display(output or 'measured')}: {scores.frames} frames of {scores.width}x"
        f"{scores.height} in {done.seconds:.1f} s ({scores.frames / done.seconds:.1f} frames/s)"
    )
    console.say(m.describe_scores(scores))
    if distances is not None:
        console.say(distances)
