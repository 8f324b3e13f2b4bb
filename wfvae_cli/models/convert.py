"""Checkpoints to config and safetensors, without running what they contain."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from wfvae_cli.atomic import atomic_file, check_directory, check_not_input, check_output
from wfvae_cli.errors import OutputError, WeightsError
from wfvae_cli.models.base import VideoVAE
from wfvae_cli.models.checkpoint import CONFIG, WEIGHTS, locate, read_json
from wfvae_cli.models.registry import find_family, settle_config
from wfvae_cli.models.state import is_safetensors, read_state
from wfvae_cli.models.to_image import StillDistance, sample_stills, still_distance, to_image
from wfvae_cli.models.weights import (
    FLOAT_TYPES,
    Matching,
    build_on_meta,
    check_constant,
    check_finite,
    match_tensors,
)

_log = logging.getLogger("wfvae")

_TYPE_NAMES = {dtype: name for name, dtype in FLOAT_TYPES.items()}


@dataclass(frozen=True)
class ConvertReport:
    """Summary of one conversion."""

    output: Path
    family: str
    source: str
    """Path of the weights within the checkpoint: `ema_state_dict`, `state_dict.gen_model`,
    `state_dict`, `plain`, or `safetensors`."""
    tensors: int
    parameters: int
    """Weights, without constants of the architecture."""
    notes: tuple[str, ...] = ()
    """Notes on an image checkpoint: what carried over from the video one and what could not."""
    still_distance: StillDistance | None = None
    """Distance of an image checkpoint from the video one on still images."""

    @property
    def ema(self) -> bool:
        """True where the weights are the training's moving average."""
        return self.source == "ema_state_dict"


@dataclass(frozen=True)
class _Held:
    """Shape and dtype of a tensor in memory, as `weights.Matching` reads them."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class _Checkpoint:
    """Config and tensors that are to be written."""

    config: dict[str, Any]
    content: bytes
    """Bytes of the `config.json` to write."""
    tensors: Mapping[str, Tensor]

    def build(self) -> VideoVAE:
        """The model without its weights."""
        return build_on_meta(find_family(self.config, self.tensors, CONFIG).load(), self.config)

    def load(self) -> VideoVAE:
        """The model with its weights, in float32."""
        vae = self.build()
        names = [name for name in self.tensors if vae.constant(name) is None]
        renamed = vae.rename(names)
        state = {renamed[name]: self.tensors[name].float() for name in names}
        vae.load_state_dict(state, strict=True, assign=True)
        return vae.eval().requires_grad_(False)


def convert(
    checkpoint: Path,
    output: Path,
    *,
    config: Path | None = None,
    overwrite: bool = False,
    image: bool = False,
) -> ConvertReport:
    """Write the weights of a checkpoint as `config.json` and safetensors.

    The moving average (`ema_state_dict`) is taken where there is one, else the generator
    (`state_dict.gen_model`), else `state_dict`, else the file's own tensors. Names, apart from a
    `module.` in front of all of them, and types stay as they are.

    Args:
        checkpoint: a file written by `torch.save`, or safetensors: a file, or a folder of them.
        output: the folder to write into; made if its parent exists.
        config: its `config.json`; by default the one beside the checkpoint, or, where there is
            none, what the tensors say if they decide it (Wan's do).
        overwrite: replace files that are in `output` already.
        image: derive the image form of a second-generation WF-VAE (see `to_image`).

    Raises:
        WeightsError: it is no checkpoint, needs code to be run, or does not fit its config.
        UsageError: `image`, and it is of a family without an image form.
        OutputError: `output` cannot be written, or holds a checkpoint already.
    """
    given = _find_config(checkpoint, config)
    files = locate(checkpoint).weights if is_safetensors(checkpoint) else (checkpoint,)
    check_not_input([output / WEIGHTS], files)
    _check_output(output, None if image else given, overwrite)
    source, tensors = read_state(checkpoint)
    made = _settle(checkpoint, given, tensors, chosen=config is not None)
    matching = _verify(made, f"{checkpoint} ({source})")
    notes: tuple[str, ...] = ()
    distance = None
    if image:
        video, derived = made, to_image(made.config, tensors)
        made = _Checkpoint(derived.config, _json(derived.config), derived.state)
        matching = _verify(made, f"the image form of {checkpoint}")
        notes, distance = derived.notes, _distance(video, made)
    keep = given is not None and made.content == given.read_bytes()
    if not keep:
        check_not_input([output / CONFIG], [given])
    _check_output(output, given if keep else None, overwrite)
    _write(output, made, given if keep else None, overwrite)
    return ConvertReport(
        output=output,
        family=made.build().family,
        source=source,
        tensors=len(made.tensors),
        parameters=sum(made.tensors[name].numel() for name in matching.parameters),
        notes=notes,
        still_distance=distance,
    )


def _find_config(checkpoint: Path, config: Path | None) -> Path | None:
    if is_safetensors(checkpoint):
        return config or locate(checkpoint).config
    if not checkpoint.is_file():
        raise WeightsError(f"no such checkpoint: {checkpoint} is not a file")
    beside = checkpoint.with_name(CONFIG)
    return config or (beside if beside.is_file() else None)


def _settle(
    checkpoint: Path, given: Path | None, tensors: Mapping[str, Tensor], *, chosen: bool
) -> _Checkpoint:
    """Put config and tensors together; a config that the user chose is never replaced."""
    fields = None if given is None else read_json(given)
    if fields is None or not chosen:
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        remedy = "Give the one that was published with it as --config"
        settled = settle_config(fields, shapes, str(checkpoint), remedy)
        if settled.note is not None:
            _log.info("%s: %s", checkpoint, settled.note)
            given = None
        fields = settled.config
    family = find_family(fields, tensors, str(checkpoint))
    fields = {"_class_name": family.class_names[0], **fields}
    return _Checkpoint(fields, _json(fields) if given is None else given.read_bytes(), tensors)


def _verify(made: _Checkpoint, where: str) -> Matching:
    """Check that all tensors are accounted for, finite, and right where they are constants."""
    headers = {
        name: _Held(tuple(value.shape), _TYPE_NAMES.get(value.dtype, str(value.dtype)))
        for name, value in made.tensors.items()
    }
    vae = made.build()
    matching = match_tensors(vae, headers, made.config, where)
    for name, value in made.tensors.items():
        check_finite(name, value, where)
        constant = vae.constant(name)
        if constant is not None:
            check_constant(name, value, constant)
    return matching


def _distance(video: _Checkpoint, image: _Checkpoint) -> StillDistance:
    return still_distance(video.load(), image.load(), sample_stills())


def _json(config: Mapping[str, Any]) -> bytes:
    return (json.dumps(config, indent=2) + "\n").encode()


def _check_output(output: Path, config: Path | None, overwrite: bool) -> None:
    """Fail before minutes of work; a config that is the checkpoint's own may stay."""
    if not output.exists():
        check_directory(output.parent, output)
        return
    check_directory(output, output)
    check_output(output / WEIGHTS, overwrite=overwrite)
    if config is None or not _same_file(config, output / CONFIG):
        check_output(output / CONFIG, overwrite=overwrite)


def _same_file(first: Path, second: Path) -> bool:
    return second.exists() and first.samefile(second)


def _write(output: Path, made: _Checkpoint, config: Path | None, overwrite: bool) -> None:
    created = not output.exists()
    try:
        output.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {output}: {error.strerror}") from error
    try:
        with atomic_file(output / WEIGHTS, overwrite=overwrite) as file:
            write_safetensors(file, made.tensors)
        if config is None or not _same_file(config, output / CONFIG):
            with atomic_file(output / CONFIG, overwrite=overwrite) as file:
                file.write(made.content)
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
