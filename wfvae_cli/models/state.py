"""A checkpoint's tensors in memory, from whatever file they were published in."""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wfvae_cli.errors import WeightsError
from wfvae_cli.models.checkpoint import locate, read_entries
from wfvae_cli.models.weights import FLOAT_TYPES, read_tensors

_WRAPPER = "module."
"""Prefix that distributed training adds to every tensor name."""


def read_state(checkpoint: Path) -> tuple[str, dict[str, Tensor]]:
    """Read a checkpoint's tensors, on the CPU and in their own types; nothing is executed.

    Args:
        checkpoint: a file written by `torch.save`, or what `locate` finds safetensors at.

    Returns:
        Where in the checkpoint the weights were (`ema_state_dict`, `state_dict.gen_model`,
        `state_dict`, `plain`, or `safetensors`), and the tensors by name.

    Raises:
        WeightsError: it is no checkpoint, damaged, or needs code to be run.
    """
    if is_safetensors(checkpoint):
        entries = read_entries(locate(checkpoint).weights)
        odd = [f"{n} {e.dtype}" for n, e in entries.items() if e.dtype not in FLOAT_TYPES]
        if odd:
            raise WeightsError(
                f"{checkpoint} holds tensors of a type that weights cannot have: {odd[0]} "
                f"(expected {', '.join(FLOAT_TYPES)})"
            )
        return "safetensors", dict(read_tensors(entries, entries))
    return _choose_state(_unpickle(checkpoint), checkpoint)


def is_safetensors(checkpoint: Path) -> bool:
    """Tell if a checkpoint is read as safetensors: by its suffix, or because it is a folder."""
    return checkpoint.is_dir() or checkpoint.name.endswith((".safetensors", ".index.json"))


def _unpickle(checkpoint: Path) -> Any:
    """Unpickle tensors and plain containers only; anything else is refused, not run."""
    try:
        zipped = zipfile.is_zipfile(checkpoint)  # older files cannot be memory-mapped
        if not zipped and not _is_pickle(checkpoint):
            raise WeightsError(
                f"{checkpoint} is damaged, or no file that torch.save wrote: expected a "
                "checkpoint, or safetensors"
            )
        return torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=zipped)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"cannot read {checkpoint}: {error.strerror or error}") from error
    except Exception as error:  # damaged pickles raise nearly anything
        forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
        if forbidden:
            raise WeightsError(
                f"{checkpoint} holds more than tensors (it refers to {forbidden[1]}), and what "
                "comes with a checkpoint is not executed: ask its publisher for a file of "
                "tensors, or save its state dict alone where you trust it"
            ) from error
        # PyTorch's text may advise to load with weights_only=False, which runs what is in there.
        reason = str(error).partition("\n")[0]
        told = "" if "eights_only" in str(error) else f": {type(error).__name__}: {reason}"
        raise WeightsError(
            f"{checkpoint} is damaged, or no file that torch.save wrote{told}"
        ) from error


def _is_pickle(path: Path) -> bool:
    """Tell if a file starts like those of older versions of `torch.save`: a pickle, or a tar."""
    with path.open("rb") as file:
        start = file.read(2)
    return (len(start) == 2 and start[0] == 0x80 and 2 <= start[1] <= 5) or tarfile.is_tarfile(path)


def _choose_state(content: Any, checkpoint: Path) -> tuple[str, dict[str, Tensor]]:
    """Find the weights in a checkpoint, and say where they were."""
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{checkpoint} holds a {type(content).__name__}, expected a dictionary of tensors"
        )
    training = content.get("state_dict")
    candidates = {
        "ema_state_dict": content.get("ema_state_dict"),
        "state_dict.gen_model": training.get("gen_model")
        if isinstance(training, Mapping)
        else None,
        "state_dict": training,
        "plain": content,
    }
    for source, state in candidates.items():
        if isinstance(state, Mapping) and state:
            return source, _tensors(state, source, checkpoint)
    raise WeightsError(f"{checkpoint} holds no tensors")


def _tensors(state: Mapping[Any, Any], source: str, checkpoint: Path) -> dict[str, Tensor]:
    others = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise WeightsError(
            f"{checkpoint} ({source}) is no dictionary of tensors: it also holds "
            f"{', '.join(others[:8])}; expected ema_state_dict, state_dict.gen_model, state_dict "
            "or tensors by name"
        )
    odd = [(str(name), kind) for name, value in state.items() if (kind := _unusual(value))]
    if odd:
        raise WeightsError(
            f"{checkpoint} ({source}) holds tensors without plain values, such as {odd[0][0]}, "
            f"which is {odd[0][1]}: save dense tensors of the values themselves"
        )
    wrapped = all(str(name).startswith(_WRAPPER) for name in state)
    return {str(name)[len(_WRAPPER) * wrapped :]: value.detach() for name, value in state.items()}


def _unusual(tensor: Tensor) -> str | None:
    """Name a tensor's kind if it is not a plain strided one; None for a plain one."""
    if tensor.is_meta:
        return "on the meta device"
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return f"sparse ({tensor.layout})"
    if tensor.is_quantized:
        return "quantised"
    return None
