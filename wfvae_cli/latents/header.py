"""The safetensors header: the tensors of a file, their positions, and its strings.

The format (https://github.com/huggingface/safetensors#format) is a little-endian 64-bit header
length, a JSON header, and the tensors' bytes. It is read and written here by hand so that a
file's bytes are ours to pin, and so that looking into one loads neither torch nor numpy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Literal, NamedTuple

from wfvae_cli.errors import LatentError
from wfvae_cli.latents.raw import read_up_to

LatentDtype = Literal["float32", "float16", "bfloat16"]
"""Types that latents may be stored in, by torch's names."""

SAFETENSORS_DTYPES: Mapping[LatentDtype, str] = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
}
ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64"), 8),
}
"""Bytes of one number, by safetensors' name of its type."""

MAX_HEADER_BYTES = 8 << 20
"""Longest header that is parsed: some 70,000 tensors. The library allows 100 MB, which takes
gigabytes as Python objects."""
_LIBRARY_LIMIT = 100_000_000
"""Longest header that the safetensors library writes; more is another format's first 8 bytes."""

_ALIGNMENT = 8
_LARGEST_INTEGER = 2**63 - 1
_MAX_RANK = 64


class TensorEntry(NamedTuple):
    """One tensor of a header; `begin` and `end` count bytes from the start of the data."""

    dtype: str
    """safetensors' name: `F32`, `BF16`, `I64`, …"""
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """A parsed header whose tensors lie end to end, without holes or overlaps."""

    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    data_start: int
    """Bytes of the file before the data."""

    @property
    def data_bytes(self) -> int:
        """Bytes of all tensors together."""
        return max((entry.end for entry in self.tensors.values()), default=0)

    def check_size(self, file_bytes: int) -> None:
        """Check that a file of `file_bytes` ends where its last tensor does.

        Raises:
            LatentError: it is shorter or longer.
        """
        expected = self.data_start + self.data_bytes
        if file_bytes < expected:
            raise LatentError(
                f"truncated: its header describes {expected} bytes, the file has {file_bytes}"
            )
        if file_bytes > expected:
            raise LatentError(
                f"its header describes {expected} bytes, the file has {file_bytes}: something was "
                "appended to it, or it is damaged"
            )

    def describe_tensors(self, most: int = 5) -> str:
        """Name up to `most` tensors with shape and dtype, for messages."""
        parts = [
            f"{name[:80]!r} {list(entry.shape[:8])} {entry.dtype[:16]!r}"
            for name, entry in list(self.tensors.items())[:most]
        ]
        if len(self.tensors) > most:
            parts.append(f"{len(self.tensors) - most} more")
        return ", ".join(parts) or "none"


def encode_header(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> bytes:
    """Write a header, its length included, padded so that the data starts 8-byte aligned.

    Args:
        tensors: (name, safetensors dtype, shape) in the order in which their data follows.
        metadata: the `__metadata__` strings.

    Returns:
        The same bytes for the same content, whatever the order of `metadata`.
    """
    content: dict[str, object] = {"__metadata__": dict(metadata)}
    begin = 0
    for name, dtype, shape in tensors:
        end = begin + math.prod(shape) * ITEM_BYTES[dtype]
        content[name] = {"dtype": dtype, "shape": shape, "data_offsets": (begin, end)}
        begin = end
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    encoded = text.encode()
    encoded += b" " * (-len(encoded) % _ALIGNMENT)
    return len(encoded).to_bytes(8, "little") + encoded


def read_header(stream: IO[bytes], file_bytes: int | None = None) -> Header:
    """Read and check a safetensors header, and leave `stream` where the data starts.

    Args:
        stream: binary, at its start; need not be seekable.
        file_bytes: size of the whole file if known, so that a wrong length is found before
            anything is read.

    Raises:
        LatentError: this is no safetensors header, it is too long, or it contradicts itself.
    """
    prefix = read_up_to(stream, 8)
    if len(prefix) < 8:
        raise LatentError(
            "expected a safetensors file, got "
            + (f"one of {len(prefix)} bytes" if prefix else "an empty one")
        )
    length = int.from_bytes(prefix, "little")
    if length > _LIBRARY_LIMIT:
        raise LatentError("expected a safetensors file, but this is another format")
    if length > MAX_HEADER_BYTES:
        raise LatentError(
            f"its header takes {length} bytes, and at most {MAX_HEADER_BYTES} are read"
        )
    if file_bytes is not None and length > file_bytes - 8:
        raise LatentError(
            f"its header should take {length} bytes, but only {file_bytes - 8} follow: the file "
            "is truncated, or not safetensors"
        )
    text = read_up_to(stream, length)
    if len(text) < length:
        raise LatentError(
            f"truncated: its header should take {length} bytes, but only {len(text)} follow"
        )
    return _parse(text)


def _parse(text: bytes) -> Header:
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    # deep nesting exhausts the parser's stack before it is found to be nonsense
    except (ValueError, RecursionError) as error:
        if isinstance(error, LatentError):
            raise
        raise LatentError(
            f"its header is not JSON ({error}): damaged, or not safetensors"
        ) from None
    if not isinstance(content, dict):
        raise LatentError(f"its header should be a JSON object, got {type(content).__name__}")
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise LatentError("its header's __metadata__ should map strings to strings")
    tensors = {name: _parse_entry(name, entry) for name, entry in content.items()}
    _check_end_to_end(tensors)
    return Header(tensors, metadata, data_start=8 + len(text))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object, refusing names that come twice."""
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise LatentError(f"its header names {name[:80]!r} twice")
        result[name] = value
    return result


def _parse_entry(name: str, entry: Any) -> TensorEntry:
    fields = entry if isinstance(entry, dict) else {}
    dtype = fields.get("dtype")
    shape = _integers(fields.get("shape"))
    offsets = _integers(fields.get("data_offsets"))
    if not isinstance(dtype, str) or shape is None or offsets is None or len(offsets) != 2:
        raise LatentError(
            f"its header's entry for {name[:80]!r} should have a dtype string, a shape and two "
            "data_offsets of non-negative integers, and has not: damaged, or not safetensors"
        )
    return TensorEntry(dtype, shape, *offsets)


def _integers(value: Any) -> tuple[int, ...] | None:
    """The list as a tuple if it holds at most 64 integers below 2**63 (bools excluded)."""
    if not isinstance(value, list) or len(value) > _MAX_RANK:
        return None
    if not all(type(item) is int and 0 <= item <= _LARGEST_INTEGER for item in value):
        return None
    return tuple(value)


def _check_end_to_end(tensors: Mapping[str, TensorEntry]) -> None:
    position = 0
    for name, entry in sorted(tensors.items(), key=lambda item: item[1][2:]):
        if entry.begin != position or entry.end < entry.begin:
            raise LatentError(
                f"its header puts {name[:80]!r} at bytes {entry.begin} to {entry.end} of the data, "
                f"where it should start at {position}: tensors overlap or leave holes"
            )
        if entry.dtype in ITEM_BYTES:
            expected = math.prod(entry.shape) * ITEM_BYTES[entry.dtype]
            if entry.end - entry.begin != expected:
                raise LatentError(
                    f"its header gives {name[:80]!r} {entry.end - entry.begin} bytes, but shape "
                    f"{list(entry.shape)} in {entry.dtype} takes {expected}"
                )
        position = entry.end
