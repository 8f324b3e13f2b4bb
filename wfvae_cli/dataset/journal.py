"""Results of clips beside the report that they are for, so that a run goes on where it ended."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from wfvae_cli.atomic import reported
from wfvae_cli.dataset.result import Task
from wfvae_cli.dataset.source import stamp
from wfvae_cli.errors import InputError

_SCHEMA = "wfvae-stats-part"


class Journal:
    """An append-only file of results: one line for each clip that was measured.

    What was begun with other options, or is damaged, is not used, and replaced at the first
    result. Files of the report's own kind only: nothing in them is executed.

    Args:
        path: the file; it is not created before the first result.
        deciding: JSON values that decide the results; others make a journal of no use.
    """

    def __init__(self, path: Path, deciding: Mapping[str, Any]) -> None:
        self.path = path
        self._head = json.dumps({"schema": _SCHEMA, **deciding}, sort_keys=True).encode() + b"\n"
        self._file: BinaryIO | None = None
        self._places: dict[str, tuple[str, int]] = {}
        """Of each clip, its stamp and where its line begins."""
        self._end = 0
        """Bytes up to the end of the last whole line; a kill may have left part of one."""
        self._load()

    def current(self, tasks: Sequence[Task]) -> dict[str, int]:
        """Find results of clips that have not changed since; their places, by name."""
        found = {}
        for task in tasks:
            marked, place = self._places.get(task.item.relative, ("", 0))
            if marked and marked == _stamp(task):
                found[task.item.relative] = place
        return found

    def read(self, place: int) -> bytes:
        """Read a result that `current` found."""
        with self.path.open("rb") as file:
            file.seek(place)
            return base64.b64decode(json.loads(file.readline())["data"])

    def append(self, name: str, marked: str | None, data: bytes) -> None:
        """Keep a clip's result.

        Raises:
            OutputError: it cannot be written.
        """
        line = {"item": name, "stamp": marked, "data": base64.b64encode(data).decode()}
        with reported(self.path):
            if self._file is None:
                self._file = self.path.open("r+b" if self._end else "wb")
                self._file.seek(self._end)
                self._file.truncate()
                if not self._end:
                    self._file.write(self._head)
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()

    def close(self, *, remove: bool) -> None:
        """Close the file, and remove it once the report is complete."""
        if self._file is not None:
            self._file.close()
        if remove:
            self.path.unlink(missing_ok=True)

    def _load(self) -> None:
        try:
            with self.path.open("rb") as file:
                if file.readline() != self._head:
                    return
                self._end = file.tell()
                for line in file:
                    values = json.loads(line)
                    if not line.endswith(b"\n"):
                        return
                    self._places[values["item"]] = values["stamp"], self._end
                    self._end += len(line)
        except (OSError, ValueError, KeyError, TypeError):
            return  # what is whole up to here is used


def _stamp(task: Task) -> str:
    try:
        return stamp(task.item.path)
    except InputError:
        return ""
