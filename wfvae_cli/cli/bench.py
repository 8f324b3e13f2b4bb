"""`wfvae bench`: speed, memory and rounding on this machine."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wfvae_cli.cli import options as o
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.run import reported
from wfvae_cli.cli.tables import print_table
from wfvae_cli.errors import UsageError

if TYPE_CHECKING:
    from wfvae_cli.bench.measure import Spread
    from wfvae_cli.bench.media import MediaProfile
    from wfvae_cli.bench.precision import PrecisionRow
    from wfvae_cli.bench.report import BenchResult, ComparisonRow, SweepRow

_EXAMPLES = """Examples:

    wfvae bench --size 512x512 --frames 65
    wfvae bench in.mp4 --model wf-vae-l-16chn --sweep
    wfvae bench --compare dtype=bfloat16
    wfvae bench --precision
    wfvae bench in.mp4 --media
"""
_WHAT = "What to measure"
_MIB = 2**20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench", epilog=_EXAMPLES)(bench)


@reported
def bench(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[INPUT]", help="A video or image; by default a generated clip."),
    ] = None,
    model: o.Model = "wfvae-tiny",
    device: o.Device = "auto",
    dtype: o.DType = "auto",
    chunk: o.Chunk = None,
    compile: o.Compile = False,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads of PyTorch's operations.", rich_help_panel="Model"),
    ] = None,
    frames: Annotated[
        int, typer.Option(min=1, help="Frames of the clip.", rich_help_panel=_WHAT)
    ] = 33,
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Size of the clip.", rich_help_panel=_WHAT)
    ] = "256x256",
    runs: Annotated[
        int, typer.Option(min=1, help="Timed runs of each stage.", rich_help_panel=_WHAT)
    ] = 5,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Try chunk sizes and recommend one.", rich_help_panel=_WHAT),
    ] = False,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="SETTING",
            help="Run another setting in turn and print the ratio: model=, device=, dtype=, "
            "chunk=, threads=, tile= or compile=on, joined by commas.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    precision: Annotated[
        bool,
        typer.Option(
            "--precision",
            help="PSNR of other types, and of tiles, against float32, in latents and pixels.",
            rich_help_panel=_WHAT,
        ),
    ] = False,
    media: Annotated[
        bool,
        typer.Option(
            "--media",
            help="Reading and writing files alone beside the bare model, and which limits.",
            rich_help_panel=_WHAT,
        ),
    ] = False,
    json_output: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Measure speed and memory on this machine.

    Every stage runs once before it is timed; what --compile takes is told apart. Rates are
    medians; in brackets are the slowest and the fastest run.
    """
    if sum((sweep, compare is not None, precision, media)) > 1:
        raise UsageError(
            "--sweep, --compare, --precision and --media are different benchmarks: choose one"
        )
    console = Console(quiet, json_output)
    sampling = o.make_sampling(0.0, None, frames, None, size, "crop", None)

    from wfvae_cli.bench import media as media_profile
    from wfvae_cli.bench import report
    from wfvae_cli.bench.picture import write_moving_picture
    from wfvae_cli.bench.precision import precision as measure_precision
    from wfvae_cli.bench.subject import Setting

    setting = Setting(model, device, dtype, chunk, threads, compile=compile)
    other = None if compare is None else setting.changed(compare)
    with tempfile.TemporaryDirectory(prefix="wfvae-bench-") as name:
        folder = Path(name)
        if source is None:
            width, height = sampling.size or (0, 0)
            clip = write_moving_picture(folder / "clip.mp4", frames, width, height)
        else:
            clip = Path(source)
        if sweep:
            rows = report.sweep(setting, clip, sampling, folder, runs)
            best = report.recommend(rows)
            _answer(console, {"rows": rows, "recommended_chunk": best}, lambda: _sweep(rows, best))
        elif other is not None:
            compared = report.compare(setting, other, clip, sampling, folder, runs)
            _answer(
                console,
                {"a": setting, "b": other, "rows": compared},
                lambda: _compare(compared, setting.describe(), other.describe()),
            )
        elif precision:
            table = measure_precision(setting, clip, sampling, folder)
            _answer(console, {"rows": table}, lambda: _precision(table))
        elif media:
            sides = media_profile.profile(setting, clip, sampling, folder, runs)
            facts = {**dataclasses.asdict(sides), "verdict": sides.verdict}
            _answer(console, facts, lambda: _media(sides))
        else:
            result = report.bench(setting, clip, sampling, folder, runs)
            _answer(console, dataclasses.asdict(result), lambda: _bench(result))


def _answer(console: Console, value: Mapping[str, object], show: Callable[[], None]) -> None:
    """Put the result on stdout: as JSON, or as a table unless `--quiet`."""
    if console.json:
        console.result(json.loads(json.dumps(value, default=dataclasses.asdict)))
    elif not console.quiet:
        show()


def _bench(result: BenchResult) -> None:
    rows = [
        (
            stage.stage,
            _spread(stage.frames_per_second),
            f"{stage.megapixels_per_second:.2f}",
            f"{stage.gflop:.0f}",
            f"{stage.gflop_per_second:.0f}",
            f"{stage.share_of_ceiling:.0%}",
            f"{stage.host_bytes / _MIB:.0f}",
            "-" if stage.device_bytes is None else f"{stage.device_bytes / _MIB:.0f}",
            stage.dtype,
        )
        for stage in result.stages
    ]
    header = ("stage", "frames/s", "Mpixel/s", "GFLOP", "GFLOP/s", "of the ceiling")
    compiled = ""
    if result.compile_seconds is not None:
        compiled = f", compiled in {result.compile_seconds:.1f} s"
    print_table(
        (*header, "host MiB", "device MiB", "type"),
        rows,
        spare=("device MiB", "Mpixel/s", "GFLOP", "host MiB", "GFLOP/s"),
        title=f"{result.setting.model}: {result.frames} frames of {result.width}x{result.height}, "
        f"{result.latents_per_chunk} latent frames a chunk, start-up "
        f"{result.start_up_seconds:.1f} s{compiled}; {result.machine}",
    )


def _sweep(rows: Sequence[SweepRow], best: int) -> None:
    print_table(
        ("chunk", "encode frames/s", "decode frames/s", "host MiB", "device MiB", ""),
        spare=("device MiB", "host MiB"),
        rows=[
            (
                str(row.chunk),
                _spread(row.encode),
                _spread(row.decode),
                f"{row.host_bytes / _MIB:.0f}",
                "-" if row.device_bytes is None else f"{row.device_bytes / _MIB:.0f}",
                f"recommended: --chunk {best}" if row.chunk == best else "",
            )
            for row in rows
        ],
    )


def _compare(rows: Sequence[ComparisonRow], a: str, b: str) -> None:
    print_table(
        ("stage", "A frames/s", "B frames/s", "B / A", ""),
        [(row.stage, _spread(row.a), _spread(row.b), _spread(row.ratio), "") for row in rows],
        title=f"A: {a}; B: {b}",
    )


def _precision(rows: Sequence[PrecisionRow]) -> None:
    print_table(
        ("type", "latents dB", "decoded pixels dB", "roundtrip pixels dB", ""),
        [
            (
                row.dtype if row.tile is None else f"{row.dtype}, tiles of {row.tile}",
                f"{row.latents:.1f}",
                f"{row.pixels:.1f}",
                f"{row.roundtrip:.1f}",
                "",
            )
            for row in rows
        ],
        title="PSNR against float32",
    )


def _media(result: MediaProfile) -> None:
    print_table(
        ("side", "frames/s", "Mpixel/s", "cores", ""),
        [
            (
                side.side,
                _spread(side.frames_per_second),
                f"{side.megapixels_per_second:.2f}",
                f"{side.cores:.1f}",
                "",
            )
            for side in result.sides
        ],
        title=f"{result.setting.model}: {result.frames} frames of {result.width}x{result.height} "
        f"from {result.codec}; {result.machine}",
    )
    typer.echo(result.verdict)


def _spread(values: Spread) -> str:
    """Median and range, which never breaks over two rows of a cell."""
    return f"{values.median:.2f} [{values.least:.2f}–{values.most:.2f}]".replace(
        " ", "\N{NO-BREAK SPACE}"
    )
