"""Where a dataset's outputs go: a folder, with a hidden one inside for what is not complete."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wfvae_cli.atomic import check_directory, reported
from wfvae_cli.dataset import remote
from wfvae_cli.dataset.items import Item
from wfvae_cli.errors import OutputError

_WORK = ".wfvae-work"
_OUTPUTS = (".safetensors", ".tar", ".json", ".jsonl")
"""How the names of what is written into an output folder end."""


@dataclass(frozen=True)
class OutputStore:
    """An output folder, as one run or shard of a run uses it.

    Files are written in `work` and renamed into place, so that whatever has a name is complete,
    and what a killed run left behind is all in one folder of its own.
    """

    root: Path
    """The folder; of a store's outputs, what this machine keeps of them for a while."""
    run: str = "run"
    """Name of this run's part of the hidden folder; a shard has its own."""
    url: str | None = None
    """The folder of a store that files are sent to; None where `root` is where they belong."""

    @classmethod
    def of(cls, output: str) -> OutputStore:
        """The place that `-o` names: a folder, or the URL of one."""
        if not remote.is_url(output):
            return cls(Path(output))
        url = remote.canonical(output).rstrip("/")
        name = hashlib.sha256(url.encode()).hexdigest()[:16]
        return cls(Path(tempfile.gettempdir()) / f"wfvae-{name}", url=url)

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.url or str(self.root)

    @property
    def work(self) -> Path:
        """Where files are written before they get their name."""
        return self.root / _WORK / self.run

    def prepare(self) -> None:
        """Create the folders, and remove what a killed run of this name left unfinished.

        The caller holds the lock of this run's manifest.

        Raises:
            OutputError: they cannot be written.
        """
        with reported(self.root):
            shutil.rmtree(self.work, ignore_errors=True)
            self.work.mkdir(parents=True, exist_ok=True)

    def tidy(self) -> None:
        """Remove the hidden folder, where no other shard uses it."""
        shutil.rmtree(self.work, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.work.parent.rmdir()

    def part(self) -> Path:
        """A new name in `work`."""
        self.work.mkdir(parents=True, exist_ok=True)  # a worker may be on another machine
        return self.work / f"{secrets.token_hex(8)}.safetensors"

    def publish(self, part: Path, name: str) -> int:
        """Give a complete file its name, replacing what has it; returns its bytes.

        Raises:
            OutputError: it cannot be renamed, or sent.
        """
        if self.url is not None:
            size = part.stat().st_size
            remote.upload(part, f"{self.url}/{name}")  # a store shows a file when it is complete
            part.unlink()
            return size
        target = self.root / name
        with reported(target, part):
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
            return target.stat().st_size

    def size(self, name: str) -> int | None:
        """Bytes of an output; None where there is none."""
        if self.url is not None:
            return remote.size(f"{self.url}/{name}")
        try:
            return (self.root / name).stat().st_size
        except OSError:
            return None


def check_inputs(place: OutputStore, items: Iterable[Item]) -> None:
    """Refuse inputs that lie in the output folder under a name such as outputs have.

    Raises:
        OutputError: there is one, and it could be replaced by an output.
    """
    if place.url is not None or not place.root.exists():
        return
    root = Path(os.path.realpath(place.root))
    for item in items:
        path = Path(item.path)
        if path.name.endswith(_OUTPUTS) or path.is_symlink():
            real = Path(os.path.realpath(path))
            if real.name.endswith(_OUTPUTS) and real.is_relative_to(root):
                raise OutputError(
                    f"{item.path} is an input that lies in the output folder {place.name} under "
                    "the name of an output: choose another -o"
                )


def create_root(place: OutputStore) -> None:
    """Make an output folder if it is missing; its parent must exist, against mistyped paths.

    Raises:
        OutputError: the parent is missing, or it cannot be written.
    """
    root = place.root
    if not root.exists():
        check_directory(root.absolute().parent, root)
        with reported(root):
            root.mkdir(exist_ok=True)
    check_directory(root, root)
