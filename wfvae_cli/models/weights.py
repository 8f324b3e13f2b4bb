"""Checkpoint tensors into a model: every one accounted for, streamed straight to the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from wfvae_cli.errors import WeightsError
from wfvae_cli.models.base import HalfTypes, Task, VideoVAE
from wfvae_cli.models.checkpoint import TensorEntry
from wfvae_cli.nn.conv import laid_out

FLOAT_TYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""The types that weights may be stored in, by safetensors' names."""
_LISTED = 12
"""Tensors of each kind that an error lists before it counts the rest."""


class _Header(Protocol):
    """Shape and dtype of a tensor to match: an entry of a file, or one in memory."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...


@dataclass(frozen=True)
class Matching:
    """Checkpoint tensor of each parameter, with every tensor accounted for."""

    parameters: dict[str, str]
    """Checkpoint name to the model's parameter name."""
    constants: tuple[str, ...]
    """Checkpoint tensors that hold constants of the architecture."""


def build_on_meta(family: type[VideoVAE], config: Mapping[str, Any]) -> VideoVAE:
    """Build a model without memory for its weights.

    Raises:
        WeightsError: the config is incomplete, or describes what cannot be built.
    """
    with torch.device("meta"):
        try:
            return family.from_config(config)
        except (RuntimeError, OverflowError, ZeroDivisionError) as error:
            reason = str(error).partition("\n")[0]
            raise WeightsError(
                f"config.json describes a model that cannot be built: {reason}"
            ) from error


def match_tensors(
    vae: VideoVAE, tensors: Mapping[str, _Header], config: Mapping[str, Any], where: str
) -> Matching:
    """Compare a checkpoint's names, shapes and types with a model's.

    Nothing is ignored but what the model's `statistics` names.

    Args:
        vae: the model, built on the meta device.
        tensors: the checkpoint's tensors by name.
        config: the content of its `config.json`, for the message.
        where: name of the checkpoint in messages.

    Raises:
        WeightsError: lists every missing, unexpected, misshapen or non-float tensor.
    """
    expected = {name: tuple(value.shape) for name, value in vae.state_dict().items()}
    tensors = {name: header for name, header in tensors.items() if name not in vae.statistics}
    constants = {
        name: tuple(value.shape) for name in tensors if (value := vae.constant(name)) is not None
    }
    renamed = vae.rename(name for name in tensors if name not in constants)
    parameters = {name: renamed.get(name, name) for name in tensors if name not in constants}
    wanted = constants | {name: expected.get(ours, ()) for name, ours in parameters.items()}

    unexpected = [name for name, ours in parameters.items() if ours not in expected]
    missing = sorted(expected.keys() - parameters.values())
    misshapen = [
        name
        for name in tensors
        if name not in unexpected and tuple(tensors[name].shape) != wanted[name]
    ]
    mistyped = [name for name, header in tensors.items() if header.dtype not in FLOAT_TYPES]
    problems = [
        *_listing("missing", missing, lambda name: f"{name} {list(expected[name])}"),
        *_listing("unexpected", unexpected, lambda name: f"{name} {list(tensors[name].shape)}"),
        *_listing(
            "of another shape than the model's",
            misshapen,
            lambda name: f"{name} {list(tensors[name].shape)}, expected {list(wanted[name])}",
        ),
        *_listing(
            f"of a type that weights cannot have (expected {', '.join(FLOAT_TYPES)})",
            mistyped,
            lambda name: f"{name} {tensors[name].dtype}",
        ),
        *_listing("given twice", *_twice(parameters)),
    ]
    if problems:
        raise WeightsError(
            f"{where} does not fit its config.json:\n" + "\n".join(problems) + _fields(config)
        )
    return Matching(parameters, tuple(constants))


def _twice(parameters: Mapping[str, str]) -> tuple[list[str], Callable[[str], str]]:
    """Find checkpoint tensors that would become a parameter that another one becomes already."""
    first: dict[str, str] = {}
    again = [name for name, ours in parameters.items() if first.setdefault(ours, name) != name]
    return again, lambda name: f"{name}, the same as {first[parameters[name]]}"


def _listing(kind: str, names: list[str], describe: Callable[[str], str]) -> list[str]:
    if not names:
        return []
    noun = "tensor is" if len(names) == 1 else "tensors are"
    lines = [f"{len(names)} {noun} {kind}:", *(f"  {describe(name)}" for name in names[:_LISTED])]
    if len(names) > _LISTED:
        lines.append(f"  … and {len(names) - _LISTED} more")
    return lines


def _fields(config: Mapping[str, Any]) -> str:
    shaping = [
        f"{key}={value}"
        for key, value in config.items()
        if not key.startswith("_") and isinstance(value, (bool, int, str))
    ]
    return "\nThese fields of config.json shape the tensors: " + ", ".join(shaping)


def read_tensors(
    entries: Mapping[str, TensorEntry], names: Iterable[str]
) -> Iterable[tuple[str, Tensor]]:
    """Yield tensors one by one, in the order of the files, each in memory of its own.

    They are read, not mapped: a mapped file counts towards the process's memory beside the
    copy on the device, and changes with the file when that is overwritten.
    """
    with ExitStack() as stack:
        opened: dict[Path, FileIO] = {}
        for name in sorted(names, key=lambda name: (entries[name].file, entries[name].offset)):
            entry = entries[name]
            if entry.file not in opened:
                opened[entry.file] = stack.enter_context(FileIO(entry.file))
            data = torch.empty(entry.size, dtype=torch.uint8)
            _read_exactly(opened[entry.file], entry, data)
            yield name, data.view(FLOAT_TYPES[entry.dtype]).reshape(entry.shape)


def _read_exactly(file: FileIO, entry: TensorEntry, data: Tensor) -> None:
    view = data.numpy().data
    try:
        file.seek(entry.offset)
        done = 0
        while done < entry.size:
            count = file.readinto(view[done:])  # one call may give less, above 2 GiB always
            if not count:
                raise WeightsError(f"{entry.file} was truncated while it was read")
            done += count
    except OSError as error:
        raise WeightsError(f"cannot read {entry.file}: {error.strerror}") from error


def check_constant(name: str, stored: Tensor, constant: Tensor) -> None:
    """Check that a checkpoint tensor holds the constant of the architecture that it should.

    Raises:
        WeightsError: it differs by more than rounding to its own type explains.
    """
    tolerance = max(1e-6, torch.finfo(stored.dtype).eps)
    distance = float((stored.double() - constant.double()).abs().max())
    if not distance <= tolerance:
        raise WeightsError(
            f"{name} is a constant of the architecture and differs from it by {distance:.3g}: "
            "these weights were made for another transform, and would give wrong results here"
        )


def check_finite(name: str, stored: Tensor, where: str) -> None:
    """Check that a checkpoint tensor has neither NaNs nor infinities.

    Raises:
        WeightsError: it has.
    """
    if not bool(stored.isfinite().all()):
        bad = int((~stored.isfinite()).sum())
        raise WeightsError(
            f"{name} in {where} holds {bad} values that are NaN or infinite: the checkpoint is "
            "damaged, or its training diverged"
        )


def fill(
    vae: VideoVAE,
    entries: Mapping[str, TensorEntry],
    matching: Matching,
    device: torch.device,
    types: HalfTypes,
    task: Task,
) -> None:
    """Replace a meta model's parameters by the checkpoint's, on `device` and in `types`.

    One tensor at a time is in memory beside the model. Convolution weights are laid out
    channels-last, which the networks run in. `matching` covers every parameter; those that `task`
    does not run are not read, and stay on the meta device.

    Raises:
        WeightsError: a value is not finite, does not fit its type, or a constant is another.
    """
    needed = [
        name
        for name in entries
        if name in matching.constants
        or (name in matching.parameters and vae.is_needed(matching.parameters[name], task))
    ]
    vae.loaded_for = task
    for name, stored in read_tensors(entries, needed):
        check_finite(name, stored, str(entries[name].file))
        if name in matching.constants:
            constant = vae.constant(name)
            assert constant is not None
            check_constant(name, stored, constant)
            continue
        dtype = _type_of(matching.parameters[name], vae, types)
        owner, _, leaf = matching.parameters[name].rpartition(".")
        layer = vae.get_submodule(owner.rpartition(".")[0])
        placed = laid_out(stored.to(device, dtype), layer)
        if dtype == torch.float16 and not bool(placed.isfinite().all()):
            raise WeightsError(
                f"{name} has values beyond what float16 holds: load these weights in bfloat16 or "
                "float32"
            )
        setattr(vae.get_submodule(owner), leaf, nn.Parameter(placed, requires_grad=False))
    _place_buffers(vae, device, types)


def _type_of(parameter: str, vae: VideoVAE, types: HalfTypes) -> torch.dtype:
    """Give the type of a parameter or buffer; what both halves run is of the encoder's."""
    return types.encode if vae.is_needed(parameter, "encode") else types.decode


def read_statistics(vae: VideoVAE, entries: Mapping[str, TensorEntry]) -> None:
    """Give a model what its checkpoint holds of the distribution of its latents.

    Raises:
        WeightsError: a value is not finite, or does not fit the model.
    """
    if not vae.statistics:
        return
    found = [
        name for name in vae.statistics if name in entries and entries[name].dtype in FLOAT_TYPES
    ]
    tensors = dict(read_tensors(entries, found))
    for name, stored in tensors.items():
        check_finite(name, stored, str(entries[name].file))
    vae.use_statistics(tensors)


def _place_buffers(vae: VideoVAE, device: torch.device, types: HalfTypes) -> None:
    """Move constants that a module computed when it was built to where its weights are."""
    for name, value in list(vae.named_buffers()):
        if not value.is_meta:
            owner, _, leaf = name.rpartition(".")
            kind = _type_of(name, vae, types) if value.is_floating_point() else value.dtype
            setattr(vae.get_submodule(owner), leaf, value.to(device, kind))
