"""The output folder of a dataset, with a hidden one inside for what is not complete."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from wfvae_cli.atomic import check_directory, reported
from wfvae_cli.dataset import remote

_WORK = ".wfvae-work"


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
        """Open the store that `-o` names: a folder, or the URL of one."""
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

    def part(self, suffix: str = ".safetensors") -> Path:
        """Make up a new name in `work`."""
        self.work.mkdir(parents=True, exist_ok=True)  # a worker may be on another machine
        return self.work / f"{secrets.token_hex(8)}{suffix}"

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

    def remove(self, name: str) -> None:
        """Remove an output, if it is there."""
        if self.url is not None:
            remote.remove(f"{self.url}/{name}")
            return
        with reported(self.root / name):
            (self.root / name).unlink(missing_ok=True)

    def size(self, name: str) -> int | None:
        """Bytes of an output; None where there is none."""
        if self.url is not None:
            return remote.size(f"{self.url}/{name}")
        try:
            return (self.root / name).stat().st_size
        except OSError:
            return None


def create_root(store: OutputStore) -> None:
    """Make an output folder if it is missing; its parent must exist, against mistyped paths.

    Raises:
        OutputError: the parent is missing, or it cannot be written.
    """
    root = store.root
    if not root.exists():
        check_directory(root.absolute().parent, root)
        with reported(root):
            root.mkdir(exist_ok=True)
    check_directory(root, root)
