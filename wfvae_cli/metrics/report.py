"""Reports of measurements as JSON and CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from wfvae_cli.atomic import atomic_file
from wfvae_cli.errors import UsageError
from wfvae_cli.json_text import to_json
from wfvae_cli.metrics.result import (
    CLIP_METRICS,
    FRAME_METRICS,
    ClipResult,
    Comparison,
    JsonValue,
)


def write_report(
    path: Path,
    result: ClipResult | Comparison,
    *,
    extra: Mapping[str, JsonValue] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a report in the format that the path's suffix names.

    JSON holds everything, every frame included. CSV holds one row per frame of a clip, or one
    row per file of a comparison.

    Args:
        path: ends in `.json` or `.csv`.
        result: what was measured.
        extra: further keys for the JSON object's top level (such as `input`, `output`, `fid`),
            before the result's own.
        overwrite: replace a file that exists.

    Raises:
        UsageError: the path has another suffix.
        OutputError: the file exists or cannot be written.
    """
    content = {**(extra or {}), **result.to_json(per_frame=True)}
    table = frames_csv(result) if isinstance(result, ClipResult) else files_csv(result)
    _write(path, content, table, overwrite=overwrite)


def write_comparisons(
    path: Path,
    comparisons: Mapping[str, Comparison],
    content: Mapping[str, JsonValue],
    *,
    overwrite: bool = False,
) -> None:
    """Write a report of several sets of reconstructions in the format of the path's suffix.

    Args:
        path: ends in `.json`, which holds `content`, or `.csv`, with a row per file and set.
        comparisons: by the name of the set.
        content: the JSON object.
        overwrite: replace a file that exists.

    Raises:
        UsageError: the path has another suffix.
        OutputError: the file exists or cannot be written.
    """
    header = ("reconstructions", *_FILE_COLUMNS)
    rows = [(name, *row) for name, each in comparisons.items() for row in _file_rows(each)]
    _write(path, content, _csv(header, rows), overwrite=overwrite)


def _write(path: Path, content: Mapping[str, JsonValue], table: str, *, overwrite: bool) -> None:
    check_report_path(path)
    text = table
    if path.suffix.lower() == ".json":
        text = to_json(content, indent=2, allow_nan=False) + "\n"
    with atomic_file(path, overwrite=overwrite) as file:
        # CSV has no escapes: bytes of a name that are not UTF-8 are written as they are
        file.write(text.encode(errors="surrogateescape"))


def check_report_path(path: Path) -> None:
    """Fail early unless the path ends in `.json` or `.csv`.

    Raises:
        UsageError: it does not.
    """
    if path.suffix.lower() not in (".json", ".csv"):
        raise UsageError(f"expected a report named *.json or *.csv, got {path.name}")


def frames_csv(result: ClipResult) -> str:
    """One row per frame: `index` and its scores; undefined ones are empty, infinite ones `inf`."""
    return _csv(
        ("index", *FRAME_METRICS),
        (
            (frame.index, *(getattr(frame, name) for name in FRAME_METRICS))
            for frame in result.per_frame
        ),
    )


def files_csv(comparison: Comparison) -> str:
    """One row per file: size, scores, worst frame; the skipped ones at the end with `error`."""
    return _csv(_FILE_COLUMNS, _file_rows(comparison))


_FACTS = ("frames", "width", "height", "bits", *CLIP_METRICS, "identical_frames")
_FILE_COLUMNS = ("name", *_FACTS, "worst_frame_index", "worst_frame_psnr", "error")


def _file_rows(comparison: Comparison) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        (
            file.name,
            *(getattr(file.result, name) for name in _FACTS),
            file.result.worst_frame.index,
            file.result.worst_frame.psnr,
            None,
        )
        for file in comparison.files
    ]
    empty = (None,) * (len(_FACTS) + 2)
    rows += [(file.name, *empty, file.error) for file in comparison.failed]
    return rows


def _csv(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
