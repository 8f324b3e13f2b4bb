"""Pairs of files: originals in one directory, their reconstructions in another."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from wfvae_cli.errors import InputError
from wfvae_cli.media.suffixes import kind_of
from wfvae_cli.metrics.result import FailedFile


@dataclass(frozen=True)
class Pair:
    """Two files to compare; `name` is the original's path in its directory, with `/`."""

    name: str
    original: Path
    reconstruction: Path


@dataclass(frozen=True)
class Pairing:
    """Every video and image of two directories, in pairs or as a failure."""

    pairs: tuple[Pair, ...]
    """Sorted by name; at least one."""
    unmatched: tuple[FailedFile, ...]


def pair_directories(original: Path, reconstruction: Path) -> Pairing:
    """Pair the videos and images of two directory trees by their relative paths.

    Files of equal relative path belong together. Of the others, those that differ only in their
    suffix do (`a/b.mp4` and `a/b.mkv`), as long as only one on either side has that name. Hidden
    files and files of other kinds, such as reports, are ignored.

    Args:
        original: directory of the originals.
        reconstruction: directory of the reconstructions.

    Returns:
        The pairs, and the files of both sides that have no counterpart.

    Raises:
        InputError: one is not a directory, or nothing matches at all.
    """
    originals, reconstructions = _media(original), _media(reconstruction)
    equal = originals.keys() & reconstructions.keys()
    pairs = [Pair(key, originals[key], reconstructions[key]) for key in equal]
    left = _by_stem(originals.keys() - equal)
    right = _by_stem(reconstructions.keys() - equal)
    unmatched = []
    for stem in left.keys() | right.keys():
        names, others = left.get(stem, []), right.get(stem, [])
        if len(names) == 1 and len(others) == 1:
            pairs.append(Pair(names[0], originals[names[0]], reconstructions[others[0]]))
            continue
        for keys, root, candidates in (
            (names, reconstruction, others),
            (others, original, names),
        ):
            unmatched += [FailedFile(key, _why(key, root, candidates)) for key in keys]
    if not pairs:
        raise InputError(
            f"expected files of equal relative path in {original} ({_count(len(originals))}) and "
            f"{reconstruction} ({_count(len(reconstructions))}), found no pair; "
            "give the two directories at the same level of their trees"
        )
    return Pairing(
        tuple(sorted(pairs, key=lambda pair: pair.name)),
        tuple(sorted(unmatched, key=lambda file: (file.name, file.error))),
    )


def _media(root: Path) -> dict[str, Path]:
    """Videos and images below `root` by relative path, hidden ones left out."""
    if not root.is_dir():
        raise InputError(f"expected a directory, got {root}: give two files or two directories")
    found = {}
    for path in root.rglob("*"):
        relative = path.relative_to(root)
        hidden = any(part.startswith(".") for part in relative.parts)
        known = kind_of(path) is not None
        if known and not hidden and path.is_file():
            found[relative.as_posix()] = path
    return found


def _by_stem(keys: set[str]) -> dict[str, list[str]]:
    """Relative paths grouped by what is left of them without the suffix."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for key in sorted(keys):
        groups[key.rpartition(".")[0]].append(key)
    return groups


def _why(key: str, root: Path, candidates: list[str]) -> str:
    if candidates:
        return f"several files could be its counterpart in {root}, or it theirs: " + ", ".join(
            candidates
        )
    return f"no counterpart in {root}, neither {key} nor one with another suffix"


def _count(files: int) -> str:
    return f"{files} video or image" if files == 1 else f"{files} videos and images"
