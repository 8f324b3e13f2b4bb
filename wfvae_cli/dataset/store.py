"""The output store of a dataset: a folder with a hidden one inside for incomplete files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from wfvae_cli.atomic import check_directory, reported
from wfvae_cli.dataset import remote
from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.result import is_below
from wfvae_cli.errors import OutputError

_WORK = ".wfvae-work"
_OUTPUTS = (".safetensors", ".tar", ".json", ".jsonl")
"""Suffixes of the files that are written into an output folder."""


@dataclass(frozen=True)
class OutputStore:
    """An output folder, as one run or shard of a run uses it.

    Files are written in `work` and renamed into place, so that whatever has a name is complete,
    and what a killed run left behind is all in one folder of its own.
    """

    root: Path
    """The folder; for a remote store, the local folder of files on their way there."""
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
        name = hashlib.sha256(f"{os.getuid()}:{url}".encode(errors="surrogateescape")).hexdigest()
        return cls(Path(tempfile.gettempdir()) / f"wfvae-{name[:16]}", url=url)

    @property
    def name(self) -> str:
        """Name in messages."""
        return self.url or str(self.root)

    @property
    def work(self) -> Path:
        """Folder in which files are written before they get their name."""
        return self.root / _WORK / self.run

    def prepare(self) -> None:
        """Create the folders, and remove what a killed run of this name left unfinished.

        The caller holds the lock of this run's manifest.

        Raises:
            OutputError: they cannot be written.
        """
        with reported(self.root):
            refuse_links(self.work)
            shutil.rmtree(self.work, ignore_errors=True)
            self._make_work()

    def _make_work(self) -> None:
        if self.url is not None:
            make_private(self.root)
        refuse_links(self.work)
        self.work.mkdir(parents=True, exist_ok=True)

    def tidy(self) -> None:
        """Remove the hidden folder, where no other shard uses it."""
        with contextlib.suppress(OSError):
            if not self.work.parent.is_symlink():
                shutil.rmtree(self.work, ignore_errors=True)  # which follows no links itself
                self.work.parent.rmdir()

    def part(self, suffix: str = ".safetensors") -> Path:
        """Make up a new name in `work`."""
        self._make_work()  # a worker may be on another machine
        return self.work / f"{secrets.token_hex(8)}{suffix}"

    def publish(self, part: Path, name: str) -> int:
        """Rename a complete file to its name, replacing what has it; return its size.

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
        if not is_below(name):
            return None
        if self.url is not None:
            return remote.size(f"{self.url}/{name}")
        try:
            return (self.root / name).stat().st_size
        except OSError:
            return None

    def open_output(self, name: str) -> IO[bytes]:
        """Open an output to be read.

        Raises:
            InputError, OSError: it cannot be.
        """
        if self.url is not None:
            return remote.open_remote(f"{self.url}/{name}")
        return (self.root / name).open("rb")


def refuse_links(hidden: Path) -> None:
    """Refuse a hidden folder that is a link, or in one: its content gets removed.

    Raises:
        OutputError: it is.
    """
    for folder in (hidden, *hidden.parents[:3]):  # of tar shards, also .wfvae-clips
        if (folder == hidden or folder.name.startswith(".wfvae-")) and folder.is_symlink():
            raise OutputError(
                f"{folder} is a symbolic link, and what is in it would be removed: remove the link"
            )


def check_inputs(store: OutputStore, items: Iterable[Item]) -> None:
    """Refuse inputs that lie in the output folder under a name such as outputs have.

    Raises:
        OutputError: there is one, and it could be replaced by an output.
    """
    if store.url is not None or not store.root.exists():
        return
    root = Path(os.path.realpath(store.root))
    for item in items:
        path = Path(item.path)
        if path.name.endswith(_OUTPUTS) or path.is_symlink():
            real = Path(os.path.realpath(path))
            if real.name.endswith(_OUTPUTS) and real.is_relative_to(root):
                raise OutputError(
                    f"{item.path} is an input that lies in the output folder {store.name} under "
                    "the name of an output: choose another -o"
                )


def make_private(folder: Path) -> None:
    """Create a folder under the temporary directory that nobody else can write to.

    Raises:
        OutputError: it is there already, and is a link or another user's.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise OutputError(
            f"{folder}: expected a folder of this user's for files on their way to a store, and it "
            "is a link or somebody else's: remove it, or set TMPDIR to another folder"
        )
    folder.chmod(0o700)


def create_root(store: OutputStore) -> None:
    """Make an output folder if it is missing; its parent must exist, against mistyped paths.

    Raises:
        OutputError: the parent is missing, or it cannot be written.
    """
    root = store.root
    if store.url is not None:
        make_private(root)
    if not root.exists():
        check_directory(root.absolute().parent, root)
        with reported(root):
            root.mkdir(exist_ok=True)
    check_directory(root, root)
