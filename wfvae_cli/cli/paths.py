"""Checks of the paths that a command was given, before any work."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from wfvae_cli.atomic import STDOUT, check_not_input
from wfvae_cli.errors import UsageError, VideoError


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


def local_path(given: str) -> Path:
    """Return the path that a user named, as a path or as a `file://` URL.

    Raises:
        UsageError: it is a URL of another machine.
    """
    from wfvae_cli.dataset.remote import is_url

    if given.startswith("file://"):
        return Path(unquote(urlsplit(given).path))
    if is_url(given):
        raise UsageError(
            f"{given}: this command works on files of this machine: copy what you need of it to a "
            "folder here first, and name that"
        )
    return Path(given)


def _files_of(path: str | Path | None) -> Iterator[str | Path]:
    """The files that an input or output stands for."""
    if path is None:
        return
    yield path
    if os.path.isdir(path):  # noqa: PTH112 (also of what is no path, such as a URL)
        yield from _media_below(path)
    elif "%" in os.path.basename(path) and not os.path.exists(path):  # noqa: PTH110, PTH119
        yield from _series(Path(path))


def _media_below(folder: str | Path) -> Iterator[str]:
    from wfvae_cli.dataset.items import SUFFIXES

    suffixes = tuple(suffix for kind in SUFFIXES.values() for suffix in kind)
    for parent, _, names in os.walk(folder, followlinks=False):
        for name in names:
            if name.lower().endswith(suffixes):
                yield os.path.join(parent, name)  # noqa: PTH118


def _series(pattern: Path) -> Iterator[Path]:
    from wfvae_cli.media.images import PATTERN, sequence

    if PATTERN.search(pattern.name) is None:
        return
    try:
        yield from sequence(pattern)
    except VideoError:  # none of the files exists
        return
