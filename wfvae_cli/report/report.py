"""A folder that shows in any browser, offline, what one or several VAEs lose.

    report/index.html        the page
    report/report.js         what it shows of all clips
    report/assets/           its style sheet and scripts
    report/clips/0001/       a clip: thumbnail, small copies, crops, and clip.js with its curves

Nothing is fetched: data are in scripts, since browsers forbid pages of a file system to read
files. Files have names of ours, never those of clips.
"""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from wfvae_cli.atomic import check_directory, output_error
from wfvae_cli.errors import OutputError, WfvaeError
from wfvae_cli.metrics.result import JsonValue
from wfvae_cli.report.clip import ClipEntry, ReportClip
from wfvae_cli.report.page import DATA, INDEX, Findings, ReportModel, ReportRun, write_page

__all__ = ["Report", "ReportClip", "ReportModel", "ReportRun", "check_report_folder"]


class Report:
    """Collects clips and writes the folder when its `with` block ends well.

    Clips of several models may be open at once, and close on any thread.

    Example:
        >>> with Report(Path("report"), [ReportModel("wan-2.1")], run) as report:  # doctest: +SKIP
        ...     clip = report.clip("a.mp4", 0, frame_rate=Fraction(24))
        ...     metrics = ClipMetrics(observers=[clip])
        ...     for original, reconstruction in pairs:
        ...         metrics.update(original, reconstruction)
        ...     clip.describe(seconds=2.5, latent_bytes=65536, chunks=[0, 17])
        ...     clip.close(metrics.result())
    """

    def __init__(
        self,
        folder: Path,
        models: Sequence[ReportModel],
        run: ReportRun,
        *,
        overwrite: bool = False,
    ) -> None:
        """Start a report.

        Args:
            folder: what to write; made at the end.
            models: at least one; clips name them by their place.
            run: what the page says of the run.
            overwrite: whether a report that is there may be replaced.

        Raises:
            OutputError: see `check_report_folder`.
        """
        check_report_folder(folder, overwrite=overwrite)
        self._folder = folder = folder.resolve()  # `.` has no name to put a part beside
        self._models = list(models)
        self._run = run
        self._overwrite = overwrite
        self._part = folder.with_name(f".{folder.name[:48]}.{secrets.token_hex(4)}.part")
        self._lock = threading.Lock()
        self._started = 0
        self._entries: list[dict[str, ClipEntry]] = [{} for _ in models]
        self._errors: list[dict[str, str]] = [{} for _ in models]
        self._distances: list[dict[str, JsonValue]] = [{} for _ in models]

    def __enter__(self) -> Report:
        try:
            self._part.mkdir()
        except OSError as error:
            raise output_error(self._folder, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._publish()
        finally:
            shutil.rmtree(self._part, ignore_errors=True)

    def clip(
        self, name: str, model: int, *, frame_rate: Fraction | None, image: bool = False
    ) -> ReportClip:
        """Start a clip: an observer that takes its frames.

        Args:
            name: the same for every model; files are listed by it.
            model: place of the model.
            frame_rate: frames per second, None if it has none.
            image: whether it is a single picture.
        """
        with self._lock:
            folder = self._part / f"new-{self._started}"
            self._started += 1
            known = [entries[name] for entries in self._entries if name in entries]
            with_original = not any("original" in entry.facts for entry in known)
        folder.mkdir()
        return ReportClip(
            name, model, folder, frame_rate=frame_rate, image=image,
            with_original=with_original, on_close=self._take,
        )  # fmt: skip

    def set_model(self, model: int, description: ReportModel) -> None:
        """Replace what identifies a model, once it was loaded and its latents are known."""
        with self._lock:
            self._models[model] = description

    def fail(self, name: str, model: int, error: str) -> None:
        """Name a clip that this model has no figures of, and why."""
        with self._lock:
            self._errors[model][name] = error

    def set_distances(self, model: int, distances: Mapping[str, JsonValue]) -> None:
        """Give distances over all clips: `fid`, `fvd`, and their `…_samples`."""
        with self._lock:
            self._distances[model] = dict(distances)

    def _take(self, entry: ClipEntry | None, clip: ReportClip) -> None:
        if entry is None:
            return
        with self._lock:
            self._entries[entry.model][clip.name] = entry

    def _publish(self) -> None:
        """Write the page and give the folder its name."""
        findings = [
            Findings(*each)
            for each in zip(self._entries, self._errors, self._distances, strict=True)
        ]
        try:
            write_page(self._part, self._models, self._run, findings)
            self._move()
        except WfvaeError:
            raise
        except OSError as error:
            raise output_error(self._folder, error) from error

    def _move(self) -> None:
        check_report_folder(self._folder, overwrite=self._overwrite)
        if self._folder.exists():
            old = self._part.with_suffix(".old")
            self._folder.rename(old)
            self._part.rename(self._folder)
            shutil.rmtree(old)
        else:
            self._part.rename(self._folder)


def check_report_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Fail early where a report could not be written.

    Raises:
        OutputError: the folder is there and is no report, or is one and `overwrite` is false, or
            the folder that is to hold it is missing or not writable.
    """
    check_directory(folder.parent, folder)
    if folder.is_dir() and any(folder.iterdir()):
        is_report = all((folder / name).is_file() for name in (DATA, INDEX))
        if not is_report:
            raise OutputError(
                f"{folder} holds files that are no report; give the name of a new folder"
            )
        if not overwrite:
            raise OutputError(f"{folder} holds a report; choose another name or add --overwrite")
    elif folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; give the name of a new folder")
