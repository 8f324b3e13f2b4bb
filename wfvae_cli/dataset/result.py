"""Tasks, and item results as lines of the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from types import NoneType
from typing import Any, Literal

from wfvae_cli.dataset.items import Item
from wfvae_cli.errors import (
    ChangedError,
    CrashError,
    DeviceError,
    LatentError,
    TimeLimitError,
    VideoError,
    WfvaeError,
)

Status = Literal["done", "failed", "skipped"]
_SPARSE = (
    *("options", "source_sha256", "sha256", "data_sha256", "metrics"),
    *("bucket", "windows", "caption", "columns"),
)
"""Fields that lines leave out where they are empty."""
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
    "options": (dict, NoneType),
    "source_sha256": _TEXT,
    "sha256": _TEXT,
    "data_sha256": _TEXT,
    "metrics": (dict, NoneType),
    "bucket": _TEXT,
    "windows": (list, tuple, NoneType),
    "caption": _TEXT,
    "columns": (dict, NoneType),
}
"""Types that each field of a line may have."""


SKIPPED = "unsuitable"
"""`kind` of a clip that is skipped since it fits no bucket or window."""


@dataclass(frozen=True)
class Task:
    """An item that is to be worked on."""

    item: Item
    made_of: str | None = None
    """SHA-256 of the source that an existing output of these options was made of: while the
    source still has it, there is nothing to do."""
    current: ItemResult | None = None
    """The item's result in that case, but for the source's stamp."""
    replaces: tuple[str, ...] = ()
    """Outputs that were made of it with other options; those of other names are removed."""

    def __str__(self) -> str:
        """Return what messages call it."""
        return self.item.path


@dataclass(frozen=True)
class WindowResult:
    """One of several outputs of a clip."""

    output: str
    """The file that was written, relative to the output folder."""
    start: int
    """Number of its first frame, from 0, after resampling."""
    frames: int
    shape: tuple[int, ...]
    """`[Z, T', H', W']` of its latents."""
    bytes: int

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> WindowResult:
        """Build a window's result from the dict that `asdict` made of it.

        Raises:
            TypeError, ValueError: this is none.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"expected an object, got {type(values).__name__}")
        known: dict[str, Any] = {name: values.get(name) for name in cls.__dataclass_fields__}
        numbers = [known["start"], known["frames"], known["bytes"]]
        if not isinstance(known["output"], str) or not isinstance(known["shape"], (list, tuple)):
            raise TypeError("expected the output and the shape of a window")
        if not all(type(number) is int for number in [*numbers, *known["shape"]]):
            raise TypeError("expected start, frames, bytes and shape of a window as integers")
        return cls(**{**known, "shape": tuple(known["shape"])})


@dataclass(frozen=True)
class ItemResult:
    """One line of `manifest.jsonl`; the last line of an item counts."""

    item: str
    """Name of the item below the output folder."""
    input: str
    """The path or URL that was opened."""
    status: Status
    output: str | None = None
    """The file that was written, relative to the output folder."""
    frames: int | None = None
    shape: tuple[int, ...] | None = None
    """`[Z, T', H', W']` of its latents."""
    seconds: float | None = None
    """Time from opening the item to its last byte, waiting included."""
    error: str | None = None
    kind: str | None = None
    """Kind of error, for the summary."""
    bytes: int | None = None
    """Size of the output."""
    stamp: str | None = None
    """Size and time of change of the input."""
    fingerprint: str | None = None
    """Hash of the weights and options, as of `Config.fingerprint`."""
    options: Mapping[str, str] | None = None
    """Every option that decided its bytes, and the weights' hash; for outputs without a
    header of ours."""
    source_sha256: str | None = None
    """Hash of the input's content, for such outputs."""
    sha256: str | None = None
    """Hash of the output's content, for such outputs."""
    data_sha256: str | None = None
    """Checksum of a latent file's data, as in its header."""
    metrics: Mapping[str, float] | None = None
    """Metrics of a roundtrip, by name."""
    bucket: str | None = None
    """Bucket, such as `960x544x49`."""
    windows: tuple[WindowResult, ...] | None = None
    """The outputs of a clip that has several; `output` is empty then, `frames` counts all."""
    caption: str | None = None
    columns: Mapping[str, Any] | None = None
    """Further columns of its manifest and sidecar."""

    @property
    def outputs(self) -> dict[str, int | None]:
        """Bytes of every file that was written, by name."""
        if self.windows is not None:
            return {window.output: window.bytes for window in self.windows}
        return {} if self.output is None else {self.output: self.bytes}

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        fields = asdict(self)
        return {k: v for k, v in fields.items() if v is not None or k not in _SPARSE}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ItemResult:
        """Read the values of `to_json`; fields of later versions are ignored.

        Every value is checked: whoever can write to the output folder can write lines.

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
        outputs = [] if known["output"] is None else [known["output"]]
        if known["windows"] is not None:
            known["windows"] = tuple(map(WindowResult.from_json, known["windows"]))
            outputs += [window.output for window in known["windows"]]
        for output in outputs:
            if not is_below(output):
                raise ValueError(f"expected an output within the folder, got {output!r}")
        return cls(**known)


def is_below(name: str) -> bool:
    """Return True where a relative name stays within the folder that it is joined to."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and "\0" not in name


def failure(item: Item, error: BaseException, seconds: float | None = None) -> ItemResult:
    """Make the result of an item that failed."""
    text = str(error) if isinstance(error, WfvaeError) else f"{type(error).__name__}: {error}"
    return ItemResult(
        item.relative, item.path, "failed", error=text, kind=kind_of(error), seconds=seconds
    )


def kind_of(error: BaseException) -> str:
    """Name the kind of failure that an error is, in a word or two."""
    match error:
        case TimeLimitError():
            return "time limit"
        case ChangedError():
            return "changed"
        case CrashError():
            return "crash"
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
