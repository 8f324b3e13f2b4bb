"""What became of an item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from types import NoneType
from typing import Any, Literal

from wfvae_cli.dataset.items import Item
from wfvae_cli.errors import DeviceError, LatentError, VideoError, WfvaeError

Status = Literal["done", "failed", "skipped"]
_STATUSES: tuple[Status, ...] = ("done", "failed", "skipped")
_TEXT, _NUMBER = (str, NoneType), (int, NoneType)
_TYPES: Mapping[str, tuple[type, ...]] = {
    "item": (str,),
    "input": (str,),
    "output": _TEXT,
    "frames": _NUMBER,
    "shape": (list, tuple, NoneType),
    "seconds": (int, float, NoneType),
    "error": _TEXT,
    "kind": _TEXT,
    "bytes": _NUMBER,
    "stamp": _TEXT,
    "fingerprint": _TEXT,
    "data_sha256": _TEXT,
}
"""What each field of a line may be."""


class TimeLimitError(VideoError):
    """A file that takes longer than it may."""


class ChangedError(VideoError):
    """A file that changed while it was read."""


@dataclass(frozen=True)
class ItemResult:
    """One line of `manifest.jsonl`; the last line of an item counts."""

    item: str
    """Its name below the output folder."""
    input: str
    """What was opened."""
    status: Status
    output: str | None = None
    """The file that holds its latents, relative to the output folder."""
    frames: int | None = None
    shape: tuple[int, ...] | None = None
    """`[Z, T', H', W']`."""
    seconds: float | None = None
    """That it took from opening it to its last byte, waiting included."""
    error: str | None = None
    kind: str | None = None
    """What kind of error, for the summary."""
    bytes: int | None = None
    """Size of the output."""
    stamp: str | None = None
    """Size and time of change of the input."""
    fingerprint: str | None = None
    """Of the weights and options: see `EncodeConfig.fingerprint`."""
    data_sha256: str | None = None
    """Checksum of the output's data, as its header has it; None of formats without one."""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ItemResult:
        """Undo `to_json`; fields of later versions are left aside.

        Nothing is believed: whoever can write to the output folder can write lines.

        Raises:
            TypeError, ValueError: this is no result.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"expected an object, got {type(values).__name__}")
        known: dict[str, Any] = {name: values.get(name) for name in cls.__dataclass_fields__}
        if known["status"] not in _STATUSES:
            raise ValueError("expected an item and a status")
        for name, types in _TYPES.items():
            if not isinstance(known[name], types) or isinstance(known[name], bool):
                raise TypeError(f"unexpected {name}: {known[name]!r}")
        if known["shape"] is not None:
            if not all(type(size) is int for size in known["shape"]):
                raise TypeError("expected a shape of integers")
            known["shape"] = tuple(known["shape"])
        if known["output"] is not None and not is_below(known["output"]):
            raise ValueError(f"expected an output within the folder, got {known['output']!r}")
        return cls(**known)


def is_below(name: str) -> bool:
    """Whether a relative name stays within the folder that it is joined to."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and "\0" not in name


def failure(item: Item, error: BaseException, seconds: float | None = None) -> ItemResult:
    """The outcome of an item that could not be encoded."""
    text = str(error) if isinstance(error, WfvaeError) else f"{type(error).__name__}: {error}"
    return ItemResult(
        item.relative, item.path, "failed", error=text, kind=kind_of(error), seconds=seconds
    )


def kind_of(error: BaseException) -> str:
    """What kind of failure an error is, in a word or two."""
    match error:
        case TimeLimitError():
            return "time limit"
        case ChangedError():
            return "changed"
        case LatentError():
            return "bad latents"
        case DeviceError():
            return "memory or device"
        case VideoError():
            return "unreadable"
        case WfvaeError():
            return type(error).__name__.removesuffix("Error").lower()
        case OSError():
            return "unreadable"
        case _:
            return f"bug ({type(error).__name__})"
