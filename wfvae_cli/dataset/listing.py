"""The files of a folder, and those left out or outside of it, which the user is told of."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

log = logging.getLogger("wfvae")

_MOST_SUFFIXES = 8
_SIDECARS = (".txt", ".json")
"""Suffixes of captions and columns beside a clip of the same stem, which are taken with it."""
_OWN = re.compile(r"manifest(-\d{5}-of-\d{5})?\.jsonl")
"""Names of manifests that runs leave in their folders, which nobody misses."""


@dataclass
class Listing:
    """Files found below a folder."""

    root: str
    paths: list[str] = field(default_factory=list)
    """Files of the wanted kinds, in no order."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Number of files by every other suffix, lower-case."""
    outside: list[str] = field(default_factory=list)
    """Links that lead out of `root`."""
    unreadable: list[str] = field(default_factory=list)
    """Folders that may not be read."""

    def report(self) -> None:
        """Log the files that were left out: one record of each kind."""
        if self.left_out:
            common = self.left_out.most_common(_MOST_SUFFIXES)
            kinds = [f"{count} {suffix or 'without a suffix'}" for suffix, count in common]
            if len(self.left_out) > _MOST_SUFFIXES:
                kinds.append("…")
            count = self.left_out.total()
            log.info(
                "%s: left out %d %s by suffix: %s (list them in a manifest to take them)",
                self.root,
                count,
                "file" if count == 1 else "files",
                ", ".join(kinds),
            )
        if self.outside:
            link = self.outside[0]
            log.info(
                "%s: following %d links that lead out of it, such as %s to %s",
                self.root,
                len(self.outside),
                link,
                os.path.realpath(link),
            )
        if self.unreadable:
            log.warning(
                "%s: left out %d folders that may not be read, such as %s: check their permissions",
                self.root,
                len(self.unreadable),
                self.unreadable[0],
            )


def list_files(root: str, suffixes: Collection[str]) -> Listing:
    """List the files below a folder; links are followed, each folder once.

    Args:
        root: an absolute path.
        suffixes: of the files that are wanted, lower-case. Hidden files and folders are left out.
    """
    listing = Listing(root)
    real_root = os.path.realpath(root)
    seen: set[str] = set()
    folders = [root]
    while folders:
        folder = folders.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            if not os.access(folder, os.R_OK | os.X_OK):
                raise PermissionError
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name, reverse=True)
        except OSError:
            listing.unreadable.append(folder)
            continue
        parts = [os.path.splitext(entry.name) for entry in entries]  # noqa: PTH122 (as below)
        stems = {stem for stem, suffix in parts if suffix.lower() in suffixes}
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() and not _is_within(os.path.realpath(entry.path), real_root):
                listing.outside.append(entry.path)
            if _is_folder(entry):
                folders.append(entry.path)
            else:
                _take(listing, entry.path, suffixes, stems)
    return listing


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to nowhere
        return False


def _take(listing: Listing, path: str, suffixes: Collection[str], stems: Collection[str]) -> None:
    stem, suffix = os.path.splitext(os.path.basename(path))  # noqa: PTH119, PTH122 (of millions)
    suffix = suffix.lower()
    if suffix in suffixes:
        listing.paths.append(path)
    elif not (suffix in _SIDECARS and stem in stems) and not _OWN.fullmatch(stem + suffix):
        listing.left_out[suffix] += 1


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
