"""Training checkpoints (`.ckpt`, `.pth`) to safetensors, without running what they contain."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from wfvae_cli.atomic import atomic_file, check_directory, check_output
from wfvae_cli.errors import OutputError, WeightsError
from wfvae_cli.models.checkpoint import CONFIG, WEIGHTS, read_json
from wfvae_cli.models.registry import find_family
from wfvae_cli.models.weights import (
    FLOAT_TYPES,
    build_on_meta,
    check_constant,
    check_finite,
    match_tensors,
)

_WRAPPER = "module."
"""What distributed training puts in front of every name."""
_TYPE_NAMES = {dtype: name for name, dtype in FLOAT_TYPES.items()}


@dataclass(frozen=True)
class ConvertReport:
    """What was converted."""

    output: Path
    family: str
    source: str
    """Where in the checkpoint the weights were: `ema_state_dict`, `state_dict.gen_model`,
    `state_dict`, or `plain`."""
    tensors: int
    parameters: int
    """Weights, without constants of the architecture."""

    @property
    def ema(self) -> bool:
        """Whether they are the training's moving average."""
        return self.source == "ema_state_dict"


@dataclass(frozen=True)
class _Held:
    """What matching needs to know of a tensor in memory."""

    shape: tuple[int, ...]
    dtype: str


def convert(
    checkpoint: Path, output: Path, *, config: Path | None = None, overwrite: bool = False
) -> ConvertReport:
    """Write the weights of a training checkpoint as `config.json` and safetensors.

    The moving average (`ema_state_dict`) is taken where there is one, else the generator
    (`state_dict.gen_model`), else `state_dict`, else the file's own tensors. Names, apart from a
    `module.` in front of all of them, and types stay as they are.

    Args:
        checkpoint: a file written by `torch.save`.
        output: the folder to write into; made if its parent exists.
        config: its `config.json`; by default the one beside the checkpoint.
        overwrite: replace files that are in `output` already.

    Raises:
        WeightsError: it is no checkpoint, needs code to be run, or does not fit its config.
        OutputError: `output` cannot be written, or holds a checkpoint already.
    """
    config = _find_config(checkpoint, config)
    _check_output(output, config, overwrite)
    fields = read_json(config)
    source, tensors = _choose_state(_load(checkpoint), checkpoint)
    headers = {
        name: _Held(tuple(value.shape), _TYPE_NAMES.get(value.dtype, str(value.dtype)))
        for name, value in tensors.items()
    }
    vae = build_on_meta(find_family(fields, tensors, str(checkpoint)).load(), fields)
    matching = match_tensors(vae, headers, fields, f"{checkpoint} ({source})")
    for name, value in tensors.items():
        check_finite(name, value, str(checkpoint))
        constant = vae.constant(name)
        if constant is not None:
            check_constant(name, value, constant)
    _write(output, tensors, config, overwrite)
    return ConvertReport(
        output=output,
        family=vae.family,
        source=source,
        tensors=len(tensors),
        parameters=sum(tensors[name].numel() for name in matching.parameters),
    )


def _find_config(checkpoint: Path, config: Path | None) -> Path:
    if not checkpoint.is_file():
        raise WeightsError(f"no such checkpoint: {checkpoint} is not a file")
    if config is None:
        config = checkpoint.with_name(CONFIG)
        if not config.is_file():
            raise WeightsError(
                f"{checkpoint} has no {CONFIG} beside it, which says how its model is built: give "
                "the one that was published with it as --config"
            )
    return config


def _check_output(output: Path, config: Path, overwrite: bool) -> None:
    """Fail before minutes of work; a config that is the checkpoint's own may stay."""
    if not output.exists():
        check_directory(output.parent, output)
        return
    check_directory(output, output)
    check_output(output / WEIGHTS, overwrite=overwrite)
    if not _same_file(config, output / CONFIG):
        check_output(output / CONFIG, overwrite=overwrite)


def _same_file(first: Path, second: Path) -> bool:
    return second.exists() and first.samefile(second)


def _load(checkpoint: Path) -> Any:
    """Unpickle tensors and plain containers only; anything else is refused, not run."""
    try:
        zipped = zipfile.is_zipfile(checkpoint)  # older files cannot be memory-mapped
        return torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=zipped)
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
        raise WeightsError(
            f"{checkpoint} is damaged, or no file that torch.save wrote: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from error


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
    wrapped = all(str(name).startswith(_WRAPPER) for name in state)
    return {str(name)[len(_WRAPPER) * wrapped :]: value for name, value in state.items()}


def _write(output: Path, tensors: Mapping[str, Tensor], config: Path, overwrite: bool) -> None:
    created = not output.exists()
    try:
        output.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {output}: {error.strerror}") from error
    try:
        with atomic_file(output / WEIGHTS, overwrite=overwrite) as file:
            write_safetensors(file, tensors)
        if not _same_file(config, output / CONFIG):
            with atomic_file(output / CONFIG, overwrite=overwrite) as file:
                file.write(config.read_bytes())
    except BaseException:
        if created:
            (output / WEIGHTS).unlink(missing_ok=True)
            output.rmdir()
        raise


def write_safetensors(file: BinaryIO, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors in the safetensors format, one after another: no second copy in memory.

    Args:
        file: opened for writing bytes.
        tensors: on the CPU; float64, float32, float16 or bfloat16.
    """
    assert sys.byteorder == "little"
    # Wider types first, as the library does: every tensor is then aligned to its own type.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _TYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        file.write(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
