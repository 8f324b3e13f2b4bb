"""Checks of the paths that a command was given, before any work."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from wfvae_cli.atomic import STDOUT, check_not_input
from wfvae_cli.errors import UsageError, VideoError, WfvaeError
from wfvae_cli.local_path import local_path
from wfvae_cli.media.suffixes import is_playlist

_LONGEST_PLAYLIST = 1 << 22
"""Characters of a playlist that are searched for names of files."""
_QUOTED = re.compile("['\"]([^'\"]+)['\"]")


def check_outputs(
    outputs: Iterable[str | Path | None],
    inputs: Iterable[str | Path | None],
    model: str | None = None,
) -> None:
    """Refuse outputs that are inputs, by whatever name or link.

    Args:
        outputs: files, `-`, or patterns such as `%05d.png`; None stands for no output.
        inputs: the same, or folders, whose media and latent files count.
        model: what `--model` says; its weights and config are inputs, too.

    Raises:
        OutputError: a file is both.
    """
    files = () if model is None else (model, Path(model) / "config.json")
    check_not_input(
        (file for output in outputs for file in _files_of(output)),
        (file for source in (*inputs, *files) for file in _files_of(source)),
    )


def check_latents_name(output: str) -> None:
    """Refuse to write a latent file under the name of another format.

    Raises:
        UsageError: `output` has a suffix, and not `.safetensors`.
    """
    path = Path(output)
    if output == STDOUT or _is_special(path) or path.suffix.lower() in ("", ".safetensors"):
        return
    raise UsageError(
        f"-o {output}: latents are stored as .safetensors; name the file {path.stem}.safetensors, "
        "or use wfvae roundtrip to write a video or an image"
    )


def _is_special(path: Path) -> bool:
    """Return True where a path exists and is no regular file: `/dev/null`, a pipe, a folder."""
    return path.exists() and not path.is_file()


def on_this_machine(given: str) -> Path:
    """Return the path that a user named, as a path or as a `file://` URL.

    Raises:
        UsageError: it is a URL of another machine.
    """
    from wfvae_cli.dataset.remote import is_url

    if is_url(given) and not given.startswith("file://"):
        raise UsageError(
            f"{given}: this command works on files of this machine: copy what you need of it to a "
            "folder here first, and name that"
        )
    return local_path(given)


def _files_of(path: str | Path | None) -> Iterator[str | Path]:
    """The files that an input or output stands for."""
    if path is None:
        return
    yield path
    if os.path.isdir(path):  # noqa: PTH112 (also of what is no path, such as a URL)
        yield from _media_below(path)
    elif is_playlist(path):
        yield from _named_in(Path(path))
    elif "%" in os.path.basename(path) and not os.path.exists(path):  # noqa: PTH110, PTH119
        yield from _series(Path(path))
    else:
        yield from _listed(str(path))


def _media_below(folder: str | Path) -> Iterator[str]:
    from wfvae_cli.dataset.items import SUFFIXES

    suffixes = tuple(suffix for kind in SUFFIXES.values() for suffix in kind)
    for parent, _, names in os.walk(folder, followlinks=False):
        for name in names:
            if name.lower().endswith(suffixes):
                yield os.path.join(parent, name)  # noqa: PTH118


def _named_in(playlist: Path) -> Iterator[Path]:
    """Files that a playlist or concat script may name: whatever in it is one."""
    try:
        with playlist.open(encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(_LONGEST_PLAYLIST)
    except OSError:
        return
    words = {*text.split(), *text.splitlines(), *_QUOTED.findall(text)}
    for word in words:
        path = playlist.parent / unquote(word.strip("'\" \t").removeprefix("file:"))
        try:
            if path.is_file():
                yield path
        except (OSError, ValueError):  # no name that a file could have
            continue


def _listed(source: str) -> Iterator[str]:
    """Files that a manifest or glob names."""
    from wfvae_cli.dataset.items import find_inputs, is_single

    if is_single(source):
        return
    with contextlib.suppress(WfvaeError):  # the command will say so
        for item in find_inputs([source], kinds=("video", "image", "latents")):
            yield item.path


def _series(pattern: Path) -> Iterator[Path]:
    from wfvae_cli.media.images import PATTERN, sequence

    if PATTERN.search(pattern.name) is None:
        return
    try:
        yield from sequence(pattern)
    except VideoError:  # none of the files exists
        return
