"""The display of `--dry-run`."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from wfvae_cli.cli.buckets_view import show_reasons, tell_buckets
from wfvae_cli.cli.console import Console
from wfvae_cli.cli.tables import size_text

if TYPE_CHECKING:
    from wfvae_cli.dataset.dry_run import Estimate


def tell_estimate(console: Console, output: str, estimate: Estimate) -> None:
    """Print the estimate of a run."""
    told = asdict(estimate)
    console.result({"event": "dry run", "output": output, **told, "hours": estimate.hours})
    left = estimate.files - estimate.current
    about = "" if estimate.opened == estimate.files else "about "
    console.say(
        f"{output}: would encode {left} of {estimate.files} files with {estimate.model} on "
        f"{estimate.device} in {estimate.dtype}; {estimate.current} are up to date or were skipped"
    )
    if about:
        console.say(f"opened {estimate.opened} of {estimate.files} files, which stand for all")
    console.say(
        f"all outputs: {about}{estimate.outputs} clips, {estimate.frames} frames, "
        f"{size_text(estimate.bytes)}"
    )
    if estimate.buckets:
        tell_buckets(console, estimate.buckets)
    if estimate.skipped:
        skipped = sum(estimate.skipped.values())
        reasons = ", ".join(show_reasons(estimate.skipped))
        console.say(f"would skip {about}{skipped} files: {reasons}")
    if estimate.failed:
        console.note(
            f"{about}{estimate.failed} files cannot be opened, such as {estimate.first_error}"
        )
    if estimate.hours is not None and estimate.frames_per_second is not None:
        console.say(
            f"time: about {_time(estimate.hours)} for {about}{estimate.frames_left} frames at "
            f"{estimate.frames_per_second:.1f} frames/s, measured on the first clips"
        )
    _warn_of_space(console, output, estimate.bytes)
    console.say("nothing was written (--dry-run)")


def _warn_of_space(console: Console, output: str, size: int) -> None:
    folder = next((p for p in (Path(output), *Path(output).absolute().parents) if p.is_dir()), None)
    if folder is None or "://" in output:
        return
    free = shutil.disk_usage(folder).free
    if size > free:
        console.note(
            f"{size_text(size)} are more than the {size_text(free)} that are free in {folder}"
        )


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{hours * 60:.1f} minutes" if hours >= 1 / 60 else f"{hours * 3600:.1f} seconds"
