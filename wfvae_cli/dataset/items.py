"""The items that a command works on: from directories, globs, manifests, files and URLs.

Every item has a name of its own below the output folder: its path relative to the source that
named it, suffix included, so that `a/x.mp4`, `b/x.mp4` and `a/x.mkv` never meet. The name depends
on nothing but the item and the sources as given: adding files to a dataset renames none.
"""

# ruff: noqa: PTH100, PTH113, PTH118, PTH119, PTH120, PTH122, PTH207
# Names are strings here: a dataset has millions, and `Path.resolve` would follow links.

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from wfvae_cli.dataset import remote
from wfvae_cli.dataset.item_lists import MANIFEST_SUFFIXES, Row, read_rows
from wfvae_cli.errors import InputError, UsageError
from wfvae_cli.media import suffixes as media
from wfvae_cli.unreadable import why_unreadable

if TYPE_CHECKING:
    from wfvae_cli.dataset.windows import Window, Windows

Kind = Literal["video", "image", "latents", "shards"]


SUFFIXES: Mapping[Kind, frozenset[str]] = {
    "video": media.SUFFIXES["video"],
    "image": media.SUFFIXES["image"],
    "latents": frozenset({".safetensors"}),
    "shards": frozenset({".tar"}),
}
"""Suffixes taken of a directory, lower-case; a file named by itself may have any suffix."""

_EXAMPLES = (".mp4", ".mkv", ".mov", ".webm", ".png", ".jpg", ".safetensors", ".tar")
"""Suffixes that messages name of all that are taken."""
_MAGIC = "*?["
_RESERVED = ".wfvae-"
"""Prefix of the folders of unfinished outputs in an output folder."""


@dataclass(frozen=True)
class Item:
    """One clip of a dataset: a file, or a part of one."""

    path: str
    """Absolute path or URL to open."""
    relative: str
    """Name below the output folder, with `/` between parts and without an output suffix:
    the mirrored path, or the `id` of a manifest's row."""
    start: float = 0.0
    """Seconds to skip."""
    duration: float | None = None
    """Seconds to take; None takes all that follows."""
    id: str | None = None
    """`id` of its row in the manifest, where it has one."""
    windows: Windows | None = None
    """Windows to take of it, where its manifest names some."""
    window: Window | None = None
    """The part of the clip that it is, where a clip gives several outputs."""
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Further columns of its manifest and sidecar, fit for JSON."""
    caption: str | None = None
    problem: str | None = None
    """Reason that it cannot be worked on, where listing it has shown one."""
    begin: int = 0
    """Offset of a latent file in `path`, a tar shard."""
    size: int | None = None
    """Bytes of a latent file in a tar shard; None where `path` is all of it."""
    frames: int | None = None
    """The most frames to take, where its manifest says so."""

    def part(self, window: Window) -> Item:
        """Return the item of a window's output."""
        return replace(self, relative=f"{self.relative}_{window}", window=window)

    @property
    def is_url(self) -> bool:
        """True where `path` is a URL."""
        return remote.is_url(self.path)


@dataclass(frozen=True)
class _Found:
    """A path and the parts of the name that its source gives it."""

    path: str
    root: str
    """The folder, or the URL of one, that names are relative to."""
    row: Row | None = None


def find_inputs(
    sources: Sequence[str],
    *,
    kinds: Collection[Kind] = ("video", "image"),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: int | None = None,
) -> list[Item]:
    """List the clips that `sources` name: sources in their order, the files of each sorted.

    Args:
        sources: directories, searched recursively; globs (`**` included); manifests (`.txt`,
            `.csv`, `.jsonl`, `.parquet`; paths relative to them); files; or URLs of any of these.
        kinds: what is taken of directories and globs; with `shards`, the latent files in tar shards
            are items of their own.
        include: globs, of which a name (the relative path, or its last part) must match one.
        exclude: globs, of which it must match none.
        limit: how many to take at most, counted after all else.

    Returns:
        At least one item; no two share a name, and what was named twice is there once.

    Raises:
        InputError: a source does not exist, a manifest is malformed, or nothing is left.
        UsageError: `limit` is below 1, or standard input is among the sources.
        MissingExtraError: a URL needs fsspec.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit must be at least 1, got {limit}")
    suffixes = frozenset().union(*(SUFFIXES[kind] for kind in kinds))
    found = [each for source in sources for each in _find(source, suffixes)]
    items = _named(found)
    if "shards" in kinds:
        items = [each for item in items for each in _unpacked(item)]
    chosen = (item for item in items if _is_wanted(item.relative, include, exclude))
    result = list(itertools.islice(chosen, limit))
    if not result:
        raise InputError(_nothing(sources, suffixes, len(items), include, exclude))
    return result


def is_single(source: str) -> bool:
    """Return True where a source looks like one clip: no directory, glob, manifest or store."""
    return not (
        source.endswith("/")
        or PurePosixPath(source).suffix.lower() in MANIFEST_SUFFIXES
        or (_is_glob(source) and not Path(source).exists())
        or (_is_on_store(source) or Path(source.removeprefix("file://")).is_dir())
    )


def _is_on_store(source: str) -> bool:
    """Return True where a source is neither on this machine nor on a web server.

    Files of a store (`s3://`, `hf://`) are fetched as items of a dataset, even a single one.
    """
    return remote.is_url(source) and not source.startswith("file://") and not remote.is_web(source)


def _find(source: str, suffixes: frozenset[str]) -> Iterator[_Found]:
    if source == "-":
        raise UsageError("standard input (-) is one clip and cannot be part of a dataset")
    if PurePosixPath(source).suffix.lower() in MANIFEST_SUFFIXES:
        return _of_manifest(source)
    if remote.is_url(source):
        return _of_url(source, suffixes)
    path = Path(source)
    if path.is_dir():
        return _of_directory(os.path.abspath(source), suffixes)
    if not path.exists():
        if _is_glob(source):
            return _of_glob(source, suffixes)
        if not _is_pattern(path):
            expected = "a file, a folder, a glob or a manifest"
            why = why_unreadable(path, expected, FileNotFoundError())
            raise InputError(f"{source}: {why}")
    absolute = os.path.abspath(source)
    return iter([_Found(absolute, os.path.dirname(absolute))])


def _of_directory(root: str, suffixes: frozenset[str]) -> Iterator[_Found]:
    """Files below `root`, hidden ones left out; linked directories are followed once."""
    from wfvae_cli.dataset.listing import list_files

    listing = list_files(root, suffixes)
    listing.report()
    return (_Found(path, root) for path in sorted(listing.paths, key=_order))


def _of_glob(pattern: str, suffixes: frozenset[str]) -> Iterator[_Found]:
    """Files that a pattern matches; a pattern with a suffix of its own may name any."""
    absolute = os.path.abspath(pattern)
    chosen = () if _names_suffix(pattern) else suffixes
    paths = [
        path
        for path in glob.glob(absolute, recursive=True)
        if os.path.isfile(path) and (not chosen or _has_kind(os.path.basename(path), chosen))
    ]
    root = _fixed_folder(absolute)
    return (_Found(path, root) for path in sorted(paths, key=_order))


def _of_url(source: str, suffixes: frozenset[str]) -> Iterator[_Found]:
    url = remote.canonical(source)
    if _is_glob(url) and not remote.is_web(url):
        chosen = frozenset[str]() if _names_suffix(url) else suffixes
        paths, root = remote.list_glob(url), _fixed_folder(url)
    elif remote.is_folder(source):
        chosen, paths, root = suffixes, remote.list_folder(url), url.rstrip("/")
    else:
        return iter([_Found(url, url.rpartition("/")[0])])
    names = ((path, path.rpartition("/")[2]) for path in sorted(paths, key=_order))
    return (_Found(path, root) for path, name in names if not chosen or _has_kind(name, chosen))


def _of_manifest(source: str) -> Iterator[_Found]:
    """Rows of a manifest in their order."""
    local = not remote.is_url(source)
    whole = os.path.abspath(source) if local else remote.canonical(source)
    root = whole.rpartition("/")[0]
    for row in read_rows(source):
        if remote.is_url(row.path):
            path = remote.canonical(row.path)
        elif local:
            path = os.path.abspath(os.path.join(root, row.path))
        else:
            path = f"{root}/{row.path}"
        yield _Found(path, root, row)


def _named(found: Iterable[_Found]) -> list[Item]:
    """Name every item, drop duplicates, and refuse two items of one name."""
    found = list(found)
    base = _common({each.root for each in found if each.row is None})
    items: dict[str, Item] = {}
    for each in found:
        item = _item(each, each.root if each.row is not None else base)
        if item.relative.lower().startswith(_RESERVED):
            raise InputError(
                f"{item.path} would become {item.relative!r}, and names that begin with "
                f"{_RESERVED} are kept for unfinished outputs: give its row another id"
            )
        other = items.setdefault(item.relative, item)
        if other != item:
            raise InputError(
                f"{item.path} and {other.path} would both become {item.relative!r}: give the "
                "rows of the manifest different ids"
            )
    return list(items.values())


def _item(found: _Found, base: str) -> Item:
    path, row = found.path, found.row
    prefix = base.rstrip("/") + "/"
    if path.startswith(prefix):
        name = path.removeprefix(prefix)
    else:  # not below its manifest's folder: the whole path is the name
        name = path.replace("://", "/").lstrip("/")
    if row is None:
        return Item(path, name)
    start = row.start or 0.0
    said: dict[str, Any] = {"windows": row.windows, "columns": row.columns, "frames": row.frames}
    if row.id is not None:
        name = row.id
    elif start or row.duration is not None:
        name += f"@{start:g}" + (f"+{row.duration:g}" if row.duration is not None else "")
    return Item(path, name, start, row.duration, row.id, **said)


def _unpacked(item: Item) -> Iterator[Item]:
    """List the latent files of a tar shard, named as in a folder; another item is itself."""
    if PurePosixPath(item.path).suffix.lower() not in SUFFIXES["shards"] or item.is_url:
        yield item
        return
    from wfvae_cli.dataset.training import tar_members

    folder = item.relative.rpartition("/")[0]
    for member in tar_members(Path(item.path)):
        name = f"{folder}/{member.item}".lstrip("/") + ".safetensors"
        yield Item(item.path, name, begin=member.begin, size=member.size)


def _common(roots: set[str]) -> str:
    """The deepest folder that holds all `roots`."""
    parts = [root.rstrip("/").split("/") for root in roots]
    same = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*parts, strict=False))
    return "/".join(column[0] for column in same)


def _fixed_folder(pattern: str) -> str:
    """The folder before a pattern's first wildcard."""
    return "/".join(itertools.takewhile(lambda part: not _is_glob(part), pattern.split("/")[:-1]))


def _is_wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    last = name.rpartition("/")[2]

    def matches(patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(n, p) for p in patterns for n in (name, last))

    return (not include or matches(include)) and not matches(exclude)


def _has_kind(name: str, suffixes: Collection[str]) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes


def _order(path: str) -> list[str]:
    # Part by part, so that a folder's files stay together whatever its name holds.
    return path.split("/")


def _is_glob(source: str) -> bool:
    return any(mark in source for mark in _MAGIC)


def _names_suffix(pattern: str) -> bool:
    suffix = PurePosixPath(pattern).suffix
    return len(suffix) > 1 and not _is_glob(suffix)


def _is_pattern(path: Path) -> bool:
    """Return True where a path names numbered images, such as `%05d.png`."""
    from wfvae_cli.media.images import PATTERN

    return PATTERN.search(path.name) is not None


def _nothing(
    sources: Sequence[str],
    suffixes: frozenset[str],
    found: int,
    include: Sequence[str],
    exclude: Sequence[str],
) -> str:
    where = ", ".join(sources) or "no source"
    if found:
        return (
            f"{where}: none of {found} files is left after --include {' '.join(include) or '*'} "
            f"--exclude {' '.join(exclude) or 'nothing'}"
        )
    shown = [each for each in _EXAMPLES if each in suffixes]
    more = f" and {len(suffixes) - len(shown)} more" if len(suffixes) > len(shown) else ""
    text = f"{where}: nothing found; looked for files that end in {', '.join(shown)}{more}"
    if ".safetensors" not in suffixes:
        return text
    return (
        f"{text} (of a trainer's cache, wfvae convert-cache FROM -o TO --format files makes such "
        "files)"
    )
