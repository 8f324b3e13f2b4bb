"""Files that are not on this machine, through fsspec (`s3://`, `gs://`, `hf://`, …)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from wfvae_cli.errors import InputError, MissingExtraError, OutputError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WEB = ("http://", "https://")  # servers list nothing, and FFmpeg opens them by itself

_PIECE = 1 << 20
_MOST_UNANNOUNCED = 8 << 30
"""Bytes taken of a web file whose server does not say how many it has: it may never end."""
_VERSIONS = (
    "blob_id",
    "ETag",
    "etag",
    "md5Hash",
    "mtime",
    "LastModified",
    "last_modified",
    "created",
)


def is_url(path: str) -> bool:
    """Return True where a path names a store rather than a file of this machine."""
    return _SCHEME.match(path) is not None


def is_web(path: str) -> bool:
    """Return True where a URL is a web server's."""
    return path.startswith(_WEB)


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
        MissingExtraError: fsspec, or what it needs for this scheme, is not installed.
        InputError: fsspec does not know the scheme.
    """
    try:
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(url)
    except ImportError as error:
        scheme = url.partition("://")[0]
        name = "fsspec" if error.name == "fsspec" else f"a package for {scheme}:// ({error})"
        raise MissingExtraError(name, "fsspec", url) from error
    except ValueError as error:
        raise InputError(f"{url}: {error}") from error
    return fs, str(path)


def canonical(url: str) -> str:
    """The URL as its file system spells it, which is how listings begin."""
    if is_web(url):
        return url
    fs, path = filesystem(url)
    return str(fs.unstrip_protocol(path))


def is_folder(url: str) -> bool:
    """Return True where a URL is a folder rather than a file."""
    if is_web(url):
        return False
    fs, path = filesystem(url)
    return url.endswith("/") or bool(_reported(url, fs.isdir, path))


def list_folder(url: str) -> list[str]:
    """URLs of all files below a folder."""
    fs, path = filesystem(url)
    return [str(fs.unstrip_protocol(name)) for name in _reported(url, fs.find, path)]


def list_names(url: str) -> list[str]:
    """Names of the files in a folder."""
    fs, path = filesystem(url)
    return [str(n).rpartition("/")[2] for n in _reported(url, fs.ls, path, detail=False)]


def list_glob(url: str) -> list[str]:
    """URLs of all files that a pattern matches."""
    fs, path = filesystem(url)
    found = _reported(url, fs.glob, path, detail=True)
    return [str(fs.unstrip_protocol(n)) for n, i in found.items() if i["type"] == "file"]


def read_bytes(url: str) -> bytes:
    """The whole content of a small file."""
    fs, path = filesystem(url)
    content: bytes = _reported(url, fs.cat_file, path)
    return content


def stamp(url: str) -> str:
    """Size and version, or time of change, of a remote file, as far as its store tells.

    Raises:
        InputError: there is no such file.
    """
    if is_web(url):
        # Here, because it imports http and ssl; every command asks whether a path `is_url`.
        from wfvae_cli.media import web

        headers = web.request(url, method="HEAD").headers
        version = headers.get("ETag") or headers.get("Last-Modified") or ""
        return f"{headers.get('Content-Length', '')}:{version}"
    fs, path = filesystem(url)
    info = _reported(url, fs.info, path)
    version = next((str(info[key]) for key in _VERSIONS if info.get(key)), "")
    return f"{info['size']}:{version}"


def download(url: str, target: str, heartbeat: Callable[[], None]) -> None:
    """Copy a remote file to this machine; `heartbeat` is called for every piece that came.

    Raises:
        InputError: it cannot be had, or is more than fits.
    """
    if is_web(url):
        from wfvae_cli.media import web

        source = web.request(url)
        announced = web.whole_size(source)
    else:
        fs, path = filesystem(url)
        source = _reported(url, fs.open, path, "rb")
        announced = size(url)
    room = shutil.disk_usage(Path(target).parent).free * 9 // 10
    limit = min(room, _MOST_UNANNOUNCED) if announced is None else room
    count = 0
    with source, Path(target).open("wb") as file:
        while piece := _reported(url, source.read, _PIECE):
            count += len(piece)
            if max(count, announced or 0) > limit:
                raise InputError(
                    f"{url}: more than the {limit >> 20} MiB that may be copied to "
                    f"{Path(target).parent}: set TMPDIR to a larger folder, or download it first"
                )
            try:
                file.write(piece)
            except OSError as error:
                raise InputError(f"{url}: cannot be kept in {target}: {error.strerror}") from error
            heartbeat()
    if announced is not None and count != announced:
        raise InputError(
            f"{url}: the connection ended after {count} of {announced} bytes: try again"
        )


def upload(source: Path, url: str) -> None:
    """Send a file of this machine to a store, replacing what has the name.

    Raises:
        OutputError: it cannot be sent.
    """
    fs, path = filesystem(url)
    try:
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        fs.put_file(str(source), path)
    except Exception as error:  # every store has errors of its own
        raise OutputError(f"cannot write {url}: {type(error).__name__}: {error}") from error


def remove(url: str) -> None:
    """Remove a remote file, if it is there.

    Raises:
        OutputError: it cannot be removed.
    """
    fs, path = filesystem(url)
    try:
        if fs.exists(path):
            fs.rm_file(path)
    except Exception as error:  # every store has errors of its own
        raise OutputError(f"cannot remove {url}: {type(error).__name__}: {error}") from error


def size(url: str) -> int | None:
    """Bytes of a remote file; None where there is none.

    Raises:
        InputError: the store does not answer.
    """
    fs, path = filesystem(url)
    try:
        return int(fs.size(path))
    except FileNotFoundError:
        return None
    except Exception as error:  # every store has errors of its own
        raise InputError(f"{url}: {type(error).__name__}: {error}") from error


def open_remote(url: str) -> IO[bytes]:
    """Open a remote file to be read in pieces.

    Raises:
        InputError: it cannot be.
    """
    fs, path = filesystem(url)
    opened: IO[bytes] = _reported(url, fs.open, path, "rb")
    return opened


def _reported(url: str, call: Any, *args: Any, **options: Any) -> Any:
    """Call a file system; whatever it raises is an InputError with the URL."""
    try:
        return call(*args, **options)
    except Exception as error:  # every store has errors of its own
        raise InputError(f"{url}: {type(error).__name__}: {error}") from error
