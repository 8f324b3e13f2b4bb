"""Load the model that `--model` names onto a device, ready to run."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from wfvae_cli.errors import DeviceError, WeightsError, is_out_of_memory
from wfvae_cli.heap import return_freed_memory
from wfvae_cli.latents.normalization import Normalization
from wfvae_cli.models.base import HalfTypes, LoadedModel, Task, VideoVAE
from wfvae_cli.models.checkpoint import (
    CheckpointFiles,
    TensorEntry,
    count_parameters,
    locate,
    read_entries,
    read_json,
    weights_sha256,
)
from wfvae_cli.models.compiled import compile_halves
from wfvae_cli.models.diffusers_table import check_installed
from wfvae_cli.models.hub import fetch
from wfvae_cli.models.names import find_source
from wfvae_cli.models.options import DEFAULT_MODEL, DType
from wfvae_cli.models.published import find_published
from wfvae_cli.models.registry import find_family, settle_config
from wfvae_cli.models.weights import (
    Matching,
    build_on_meta,
    fill,
    match_tensors,
    read_statistics,
)
from wfvae_cli.nn.accelerator import available_devices
from wfvae_cli.nn.arithmetic import multiplies_bfloat16, probe_conv3d_tf32
from wfvae_cli.strides import Strides

_log = logging.getLogger("wfvae")

_DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_DEVICE_TYPES = ("cpu", "cuda", "mps", "npu", "xpu")


def load_model(
    name: str = DEFAULT_MODEL,
    *,
    device: str = "auto",
    dtype: DType = "auto",
    task: Task = "both",
    compile: bool = False,
) -> LoadedModel:
    """Load a video VAE, ready to run: in evaluation mode, without gradients.

    Args:
        name: an embedded or published name; a folder with `config.json` and safetensors; a
            `.safetensors` file beside a `config.json` (Wan's do without); or
            `owner/repo[/subfolder][@revision]` on the Hugging Face Hub, taken from
            its cache when it is there.
        device: `auto` (an accelerator if there is one, else the CPU), `cpu`, or an accelerator by
            PyTorch's name: `cuda`, `cuda:N`, `mps`, `npu`, `xpu`.
        dtype: what to compute in; `auto` is what `resolve_dtypes` says, and on CUDA lets float32
            be multiplied as TF32, which an explicit `float32` does not.
        task: what the model is for; to `encode` or `decode` alone, the other half's weights stay
            in their file.
        compile: whether each kind of chunk is compiled when it first comes, as `compile_halves`
            says.

    Returns:
        The model, its config, and the SHA-256 of its weights.

    Raises:
        WeightsError: there is no such model, or its files are incomplete, damaged or
            contradictory.
        DeviceError: the device is absent or too small, or has no compiler for `compile`.
    """
    placed = resolve_device(device)
    types = resolve_dtypes(dtype, placed)
    found = _find(name)
    vae = found.vae
    if found.note is not None:
        _log.info("%s: %s", name, found.note)
    with ThreadPoolExecutor(1, thread_name_prefix="sha256") as pool:
        digest = pool.submit(weights_sha256, found.files.weights)  # hashlib releases the GIL
        try:
            fill(vae, found.entries, found.matching, placed, types, task)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceError(f"{name} does not fit into the memory of {placed}") from error
        sha256 = digest.result()
    return_freed_memory()  # frees the weights as stored, after they were laid out anew
    if placed.type == "cuda":
        allow_tf32(dtype == "auto")
        if dtype == "auto":
            probe_conv3d_tf32(placed)
    vae.eval().requires_grad_(False)
    if compile:
        compile_halves(vae, placed)
    model = LoadedModel(vae, name, sha256, found.config)
    if types.decode != types.encode and task != "encode":
        _log.info("decoding in bfloat16, which is fast on %s: --dtype float32 is exact", placed)
    if model.value_bytes > max(types.encode.itemsize, types.decode.itemsize):
        _log.info(
            "this processor convolves %s in float32: weights take half, time is the same", dtype
        )
    return model


@dataclass(frozen=True)
class _Found:
    """A checkpoint that fits its config, and its model without weights."""

    files: CheckpointFiles
    config: dict[str, Any]
    recognised_by: str
    note: str | None
    entries: dict[str, TensorEntry]
    vae: VideoVAE
    matching: Matching


def _find(name: str) -> _Found:
    source = find_source(name)
    published = find_published(name)
    if published is not None:
        check_installed(published.family)
    files = locate(source if isinstance(source, Path) else fetch(source))
    entries = read_entries(files.weights)
    config, recognised_by, note = settle_config(
        None if files.config is None else read_json(files.config),
        {name: entry.shape for name, entry in entries.items()},
        str(files),
        f"Put the one that was published with these weights into {files.weights[0].parent}",
    )
    vae = build_on_meta(find_family(config, entries, str(files)).load(), config)
    matching = match_tensors(vae, entries, config, str(files))
    read_statistics(vae, entries)
    return _Found(files, config, recognised_by, note, entries, vae, matching)


def describe_checkpoint(name: str) -> dict[str, Any]:
    """Say what a checkpoint is, without loading its weights; everything is fit for JSON.

    Args:
        name: as for `load_model`.

    Raises:
        WeightsError: as `load_model`, except for what only the weights' values show.
    """
    found = _find(name)
    vae = found.vae
    weights = [found.entries[name] for name in found.matching.parameters]
    return {
        "path": str(found.files),
        "family": vae.family,
        "recognised_by": found.recognised_by,
        "strides": list(vae.strides.values),
        **vae.strides.clip_strings,
        "latent_channels": vae.latent_channels,
        "parameters": count_parameters(weights),
        "dtypes": sorted({entry.dtype for entry in weights}),
        "bytes": sum(file.stat().st_size for file in found.files.weights),
        "sha256": weights_sha256(found.files.weights),
        "normalization": None if vae.normalization is None else asdict(vae.normalization),
        "whole_clip_only": vae.whole_clip_only,
        "state_growth_per_latent": vae.state_growth_per_latent or None,
        "config": found.config,
    }


def find_strides(name: str) -> Strides:
    """Give the strides of a checkpoint, without loading its weights.

    Args:
        name: as for `load_model`.

    Raises:
        WeightsError: as `describe_checkpoint`.
    """
    return _find(name).vae.strides


def normalization_of(model: LoadedModel) -> Normalization:
    """Give the shift and scale of a model's latents.

    Raises:
        WeightsError: its checkpoint has none that is usable.
    """
    if model.vae.normalization is None:
        raise WeightsError(
            f"{model.name} cannot normalise latents: its checkpoint gives no shift and scale for "
            f"its {model.vae.latent_channels} channels; measure them with wfvae stats"
        )
    return model.vae.normalization


def resolve_device(device: str) -> torch.device:
    """Turn what `--device` says into a device that is there.

    `auto` never picks `mps`: its 3D convolutions are not verified here.

    Raises:
        DeviceError: unknown, or not on this machine.
    """
    present = available_devices()
    if device == "auto":
        return next((found for found in present[1:] if found.type != "mps"), present[0])
    for found in present:
        if str(found) == device:
            return found
    listed = f"devices: {', '.join(map(str, present))}"
    kind, _, index = device.partition(":")
    if kind not in _DEVICE_TYPES or not (index.isdigit() or device == kind):
        raise DeviceError(
            f"unknown device {device!r}: expected auto, cpu, cuda, cuda:N, mps, npu or xpu; "
            f"{listed}"
        )
    raise DeviceError(f"{kind.upper()}{device[len(kind) :]} not available; {listed}")


def resolve_dtypes(dtype: DType, device: torch.device) -> HalfTypes:
    """Turn what `--dtype` says into types.

    `auto` encodes in float32, because what an encoder rounds stays in the dataset for good; and
    decodes in bfloat16 where the device or the CPU has instructions for it.
    """
    if dtype != "auto":
        return HalfTypes(_DTYPES[dtype], _DTYPES[dtype])
    fast = multiplies_bfloat16(device)
    return HalfTypes(torch.float32, torch.bfloat16 if fast else torch.float32)


def allow_tf32(allowed: bool) -> None:
    """Let CUDA compute float32 convolutions and products in TF32, or not; process-wide.

    TF32 keeps float32's range and 10 bits of its mantissa.
    """
    torch.backends.cudnn.allow_tf32 = allowed
    torch.set_float32_matmul_precision("high" if allowed else "highest")
