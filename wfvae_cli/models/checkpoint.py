"""A checkpoint on disk: its files, its config, its tensors' headers and its hash. No torch."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from wfvae_cli.errors import LatentError, WeightsError
from wfvae_cli.latents.header import read_header
from wfvae_cli.models.names import PICKLE_SUFFIXES

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
"""The usual name of the weights, which `wfvae convert` writes too."""
INDEX_SUFFIX = ".safetensors.index.json"
_PREFERRED = (
    WEIGHTS,
    "diffusion_pytorch_model" + INDEX_SUFFIX,
    "model.safetensors",
    "model" + INDEX_SUFFIX,
)


_MOST_JSON_BYTES = 8 << 20
"""Longest config or index that is parsed; real ones have kilobytes."""


@dataclass(frozen=True)
class CheckpointFiles:
    """The files that make a checkpoint."""

    config: Path | None
    """The `config.json` beside the weights; None where there is none."""
    weights: tuple[Path, ...]
    """One safetensors file, or the shards in the order of their names."""

    def __str__(self) -> str:
        return str(self.weights[0] if len(self.weights) == 1 else self.weights[0].parent)


@dataclass(frozen=True)
class TensorEntry:
    """Entry of a tensor in a safetensors header: the position, dtype and shape of its bytes."""

    shape: tuple[int, ...]
    dtype: str
    """safetensors' name of the type: `F32`, `F16`, `BF16`, …"""
    file: Path
    offset: int
    """Bytes from the start of the file."""
    size: int
    """Bytes."""


def locate(path: Path) -> CheckpointFiles:
    """Find the weights of the checkpoint at `path`, and the config beside them.

    Args:
        path: a folder with weights, a `.safetensors` file, or the `.safetensors.index.json` of a
            sharded one.

    Raises:
        WeightsError: something is missing or ambiguous, or is a pickle.
    """
    try:
        names = [entry.name for entry in path.iterdir()] if path.is_dir() else None
    except OSError as error:
        raise WeightsError(f"cannot read the folder {path}: {error.strerror}") from error
    if names is not None:
        file = path / choose_weights(names, str(path))
    elif path.name.endswith(PICKLE_SUFFIXES):
        raise WeightsError(pickle_hint(path))
    elif not path.is_file():
        raise WeightsError(f"no such checkpoint: {path} is neither a file nor a folder")
    else:
        file = path
    config = file.with_name(CONFIG)
    shards = read_index(file) if file.name.endswith(INDEX_SUFFIX) else (file,)
    return CheckpointFiles(config if config.is_file() else None, shards)


def choose_weights(names: Iterable[str], where: str) -> str:
    """Pick the weights, or the index of sharded ones, among the files of one folder.

    Args:
        names: the files' names, without a folder.
        where: name of the folder in messages.

    Raises:
        WeightsError: there are none, or several and none has a usual name.
    """
    names = sorted(names)
    for preferred in _PREFERRED:
        if preferred in names:
            return preferred
    indices = [name for name in names if name.endswith(INDEX_SUFFIX)]
    files = indices or [name for name in names if name.endswith(".safetensors")]
    if len(files) == 1:
        return files[0]
    if files:
        raise WeightsError(
            f"{where} holds several checkpoints ({', '.join(files)}) and none is called {WEIGHTS}: "
            "say which file"
        )
    pickles = [name for name in names if name.endswith(PICKLE_SUFFIXES)]
    if pickles:
        raise WeightsError(
            f"{where} holds no safetensors, only {', '.join(pickles)}: pickles are not executed; "
            f"make safetensors of one with: wfvae convert {pickles[0]} -o DIR"
        )
    raise WeightsError(f"{where} holds no safetensors weights (expected {WEIGHTS})")


def pickle_hint(path: Path) -> str:
    """Return the message for pickled weights, with the command that converts them."""
    return (
        f"{path} is a pickle, which could run any program when loaded and so is not executed: "
        f"make safetensors of it with: wfvae convert {path} -o DIR"
    )


def read_index(path: Path) -> tuple[Path, ...]:
    """Read which shards a `.safetensors.index.json` names, in the order of their names.

    Raises:
        WeightsError: it is not an index, or a shard is missing or outside its folder.
    """
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{path} is no index of sharded weights: it has no weight_map")
    shards = sorted({str(name) for name in weight_map.values()})
    for name in shards:
        if PurePosixPath(name).name != name or "\\" in name:
            raise WeightsError(f"{path} names {name[:80]!r}, which is not a file beside it")
    missing = [name for name in shards if not _is_file(path.parent / name)]
    if missing:
        raise WeightsError(
            f"{len(missing)} of the {len(shards)} shards that {path} names are missing: "
            f"{', '.join(name[:80] for name in missing[:8])}; download them again"
        )
    return tuple(path.parent / name for name in shards)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # not a valid file name: too long, or with a NUL
        return False


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object such as `config.json`.

    Raises:
        WeightsError: it cannot be read, is no JSON, or is no object.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_JSON_BYTES + 1)
        if len(text) > _MOST_JSON_BYTES:
            raise WeightsError(f"{path} is larger than {_MOST_JSON_BYTES} bytes: not a config")
        content = json.loads(text.decode())
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except WeightsError:
        raise
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def read_entries(files: Sequence[Path]) -> dict[str, TensorEntry]:
    """Read the headers of one or more safetensors files: tensor names to entries.

    Raises:
        WeightsError: a file is damaged or no safetensors, or two hold a tensor of the same name.
    """
    entries: dict[str, TensorEntry] = {}
    for file in files:
        for name, entry in _read_header(file).items():
            if name in entries:
                raise WeightsError(f"tensor {name} is in both {entries[name].file} and {file}")
            entries[name] = entry
    return entries


def _read_header(path: Path) -> dict[str, TensorEntry]:
    try:
        with path.open("rb") as file:
            _refuse_other_formats(path, file.read(8))
            file.seek(0)
            size = os.fstat(file.fileno()).st_size
            header = read_header(file, size)
            header.check_size(size)
    except LatentError as error:
        raise WeightsError(
            f"{path} is damaged or truncated: {error}; download or copy it again"
        ) from error
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    return {
        name: TensorEntry(
            shape=entry.shape,
            dtype=entry.dtype,
            file=path,
            offset=header.data_start + entry.begin,
            size=entry.end - entry.begin,
        )
        for name, entry in header.tensors.items()
    }


def _refuse_other_formats(path: Path, start: bytes) -> None:
    """Name what is often found where weights should be, by the first 8 bytes."""
    if not start:
        raise WeightsError(f"{path} is empty; download or copy it again")
    # A zip holds what torch.save writes; older files start with the pickle protocol's opcode.
    if start.startswith(b"PK\x03\x04") or (start[0] == 0x80 and 2 <= start[1] <= 5):
        raise WeightsError(pickle_hint(path))
    if start.startswith(b"version "):
        raise WeightsError(
            f"{path} is a Git LFS pointer, not the weights: run git lfs pull where it came from"
        )
    if start.lstrip().startswith((b"<", b"{")):
        raise WeightsError(f"{path} is text, not safetensors: perhaps a web page saved as weights")


def count_parameters(entries: Iterable[TensorEntry]) -> int:
    """Numbers in all the tensors together."""
    return sum(math.prod(entry.shape) for entry in entries)


def weights_sha256(files: Sequence[Path]) -> str:
    """Hash a checkpoint's weights: the model's fingerprint in latent files.

    Returns:
        SHA-256 in hex of the file; where sharded, of its shards' hex digests, one after another
        in the order of the files' names.
    """
    digests = [_file_sha256(file) for file in sorted(files, key=lambda file: file.name)]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
