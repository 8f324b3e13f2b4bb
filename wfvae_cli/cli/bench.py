"""`wfvae bench`: speed, memory and rounding on this machine."""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wfvae_cli.cli.console import Console
from wfvae_cli.cli.tables import print_table
from wfvae_cli.dataset.options import Threads
from wfvae_cli.errors import UsageError
from wfvae_cli.media.options import Sampling, parse_size
from wfvae_cli.models.options import DEFAULT_MODEL, ModelName, RunOptions
from wfvae_cli.option import Argument, Option
from wfvae_cli.pipeline.options import Chunk

if TYPE_CHECKING:
    from wfvae_cli.bench.measure import Spread
    from wfvae_cli.bench.media import MediaProfile
    from wfvae_cli.bench.precision import PrecisionRow
    from wfvae_cli.bench.report import BenchResult, ComparisonRow, SweepRow

EXAMPLES = """
    wfvae bench --size 512x512 --frames 65
    wfvae bench in.mp4 --model wf-vae-l-16chn --sweep
    wfvae bench --compare dtype=bfloat16
    wfvae bench --precision
    wfvae bench in.mp4 --media
"""
_WHAT = "What to measure"
_MIB = 2**20


def bench(
    run: RunOptions,
    console: Console,
    source: Annotated[
        str | None, Argument("INPUT", "A video or image; by default a generated clip.")
    ] = None,
    model: ModelName = DEFAULT_MODEL,
    chunk: Chunk = None,
    threads: Threads = None,
    frames: Annotated[int, Option("Frames of the clip.", _WHAT, least=1, common=True)] = 33,
    size: Annotated[
        tuple[int, int],
        Option("Size of the clip.", _WHAT, metavar="WxH", parse=parse_size, common=True),
    ] = (256, 256),
    runs: Annotated[int, Option("Timed runs of each stage.", _WHAT, least=1)] = 5,
    sweep: Annotated[
        bool, Option("Try chunk sizes and recommend one.", _WHAT, common=True)
    ] = False,
    compare: Annotated[
        str | None,
        Option(
            "Run another setting in turn and print the ratio: model=, device=, dtype=, chunk=, "
            "threads=, tile= or compile=on, joined by commas.",
            _WHAT,
            metavar="SETTING",
            common=True,
        ),
    ] = None,
    precision: Annotated[
        bool,
        Option(
            "PSNR of other types, and of tiles, against float32, in latents and pixels.",
            _WHAT,
            common=True,
        ),
    ] = False,
    media: Annotated[
        bool,
        Option(
            "Reading and writing files alone beside the bare model, and which limits.",
            _WHAT,
            common=True,
        ),
    ] = False,
) -> None:
    """Measure speed and memory on this machine.

    Every stage runs once before it is timed; what --compile takes is told apart. Rates are
    medians; in brackets are the slowest and the fastest run.
    """
    if sum((sweep, compare is not None, precision, media)) > 1:
        raise UsageError(
            "--sweep, --compare, --precision and --media are different benchmarks: choose one"
        )
    sampling = Sampling(frames=frames, size=size)

    from wfvae_cli.bench import media as media_profile
    from wfvae_cli.bench import report
    from wfvae_cli.bench.picture import write_moving_picture
    from wfvae_cli.bench.precision import precision as measure_precision
    from wfvae_cli.bench.subject import Setting

    setting = Setting(model, run.device, run.dtype, chunk, threads, compile=run.compile)
    other = None if compare is None else setting.changed(compare)
    with tempfile.TemporaryDirectory(prefix="wfvae-bench-") as name:
        folder = Path(name)
        if source is None:
            clip = write_moving_picture(folder / "clip.mp4", frames, *size)
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
    chunks = f"{result.latents_per_chunk} latent frames a chunk"
    if result.latents_per_chunk == sys.maxsize:
        chunks = "whole clips"
    compiled = ""
    if result.compile_seconds is not None:
        compiled = f", compiled in {result.compile_seconds:.1f} s"
    print_table(
        (*header, "host MiB", "device MiB", "type"),
        rows,
        spare=("device MiB", "Mpixel/s", "GFLOP", "host MiB", "GFLOP/s"),
        title=f"{result.setting.model}: {result.frames} frames of {result.width}x{result.height}, "
        f"{chunks}, start-up {result.start_up_seconds:.1f} s{compiled}; {result.machine}",
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
