"""What messages say of inputs that cannot be read: what came, what was expected, what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from wfvae_cli.unreadable import why_unreadable

MISSING = FileNotFoundError(errno.ENOENT, "No such file or directory")


def test_a_missing_file(tmp_path: Path) -> None:
    why = why_unreadable(tmp_path / "z.safetensors", "a latent file", MISSING)
    assert why == f"no such file in {tmp_path}: expected a latent file; check its name"


def test_a_mistyped_name(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").touch()
    why = why_unreadable(tmp_path / "holliday.mp4", "a video", MISSING)
    assert why == f"no such file: expected a video; did you mean {tmp_path / 'holiday.mp4'}?"


def test_a_missing_folder(tmp_path: Path) -> None:
    folder = tmp_path / "nowhere"
    why = why_unreadable(folder / "a.mp4", "a video", MISSING)
    assert why == (
        f"no such file: expected a video; the folder {folder} does not exist either, check the path"
    )


def test_a_relative_name_is_looked_for_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path) in why_unreadable("a.mp4", "a video", MISSING)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EISDIR, ["a folder: expected a video; name a file in it"]),
        (errno.EACCES, ["Permission denied", "expected a video", "check who may read it"]),
        (errno.ENOTDIR, ["Not a directory", "expected a video", "check its path"]),
        (errno.EIO, ["Input/output error", "check the disk"]),
    ],
)
def test_other_reasons(tmp_path: Path, number: int, words: list[str]) -> None:
    why = why_unreadable(tmp_path, "a video", OSError(number, os.strerror(number)))
    for word in words:
        assert word in why
