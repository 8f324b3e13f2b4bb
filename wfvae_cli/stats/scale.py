"""Scale factors in every convention, and the files that carry them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from wfvae_cli.errors import InputError, WeightsError
from wfvae_cli.json_text import to_json
from wfvae_cli.unreadable import why_unreadable

SCHEMA = "wfvae-stats"
SCHEMA_VERSION = 1

FORMULAS: Mapping[str, str] = {
    "shift, scale (WF-VAE, per channel)": (
        "z_norm = (z - shift) * scale; z = z_norm / scale + shift"
    ),
    "latents_mean, latents_std (Wan, diffusers, per channel)": (
        "z_norm = (z - latents_mean) / latents_std; z = z_norm * latents_std + latents_mean"
    ),
    "shift_factor, scaling_factor (Stable Diffusion, one number)": (
        "z_norm = (z - shift_factor) * scaling_factor; z = z_norm / scaling_factor + shift_factor"
    ),
}
"""Formulas that encoding applies and decoding undoes, per convention."""

_WFVAE = ("shift", "scale")
_WAN = ("latents_mean", "latents_std")
_STABLE_DIFFUSION = ("shift_factor", "scaling_factor")
_FIELDS: Mapping[str, tuple[str, str]] = {
    "WFVAEModel": _WFVAE,
    "WFVAE2Model": _WFVAE,
    "WanVAE": _WAN,
    "Wan2_2_VAE": _WAN,
    "AutoencoderKLWan": _WAN,
    "AutoencoderKLLTX2Video": _WAN,
    "AutoencoderKLHunyuanVideo15": _STABLE_DIFFUSION,
    "AutoencoderKLConv3D": _STABLE_DIFFUSION,
    "AutoencoderKLQwenImage": _WAN,
    "AutoencoderKL": _STABLE_DIFFUSION,
}
_CHANNELS = ("latent_dim", "z_dim", "latent_channels")


@dataclass(frozen=True)
class ScaleFactors:
    """Factors that give zero mean and unit variance, in three conventions (see `FORMULAS`)."""

    latents_mean: tuple[float, ...]
    latents_std: tuple[float, ...]
    """Both per channel: mean and population standard deviation, never zero."""
    shift_factor: float
    scaling_factor: float
    """Mean, and one over the standard deviation, of all values of all channels together."""

    @property
    def shift(self) -> tuple[float, ...]:
        """Per channel, the same numbers as `latents_mean`."""
        return self.latents_mean

    @property
    def scale(self) -> tuple[float, ...]:
        """Per channel, one over `latents_std`."""
        return tuple(1 / std for std in self.latents_std)

    def to_json(self) -> dict[str, Any]:
        """Give the six figures under the names that trainers read."""
        return {
            "latents_mean": list(self.latents_mean),
            "latents_std": list(self.latents_std),
            "shift": list(self.shift),
            "scale": list(self.scale),
            "shift_factor": self.shift_factor,
            "scaling_factor": self.scaling_factor,
        }


class StoredNormalization(NamedTuple):
    """Shift and scale of `encode --normalize --stats`: `(z - shift) * scale`, per channel."""

    shift: tuple[float, ...]
    scale: tuple[float, ...]
    identity: str
    """`sha256:` and the hash of the statistics file, to be recorded with the latents."""


def load_normalization(path: Path, *, model_sha256: str | None = None) -> StoredNormalization:
    """Read shift and scale from a file that `wfvae stats -o` wrote.

    Args:
        path: the JSON file.
        model_sha256: of the model that will encode; None leaves it unchecked.

    Raises:
        InputError: the file is missing, is no such file, or its figures are unusable.
        WeightsError: the statistics are of another model's latents.
    """
    data = read_json(path)
    values = read_stats_object(data, path)
    shift, scale = _numbers(values, "shift", path), _numbers(values, "scale", path)
    if len(shift) != len(scale) or not shift or not all(s > 0 for s in scale):
        raise InputError(
            f"{path}: expected as many shifts as scales, all scales above 0, got {len(shift)} "
            f"shifts and {len(scale)} scales; write the file anew with wfvae stats -o"
        )
    model = values.get("model")
    found = model.get("sha256") if isinstance(model, dict) else None
    if model_sha256 is not None and found != model_sha256:
        raise WeightsError(
            f"{path}: these statistics are of latents made by the weights {found}, the model "
            f"in use is {model_sha256}; run wfvae stats with the model that encodes"
        )
    return StoredNormalization(shift, scale, f"sha256:{hashlib.sha256(data).hexdigest()}")


def config_with_scale(config: Mapping[str, Any] | Path, factors: ScaleFactors) -> dict[str, Any]:
    """Give a copy of a model's configuration that holds `factors`.

    Which fields are set depends on `_class_name`: `shift` and `scale` for WF-VAE,
    `latents_mean` and `latents_std` for Wan, `shift_factor` and `scaling_factor` for
    Stable Diffusion's `AutoencoderKL`. All other fields stay as they are.

    Args:
        config: the configuration, its `config.json`, or the directory that holds it.
        factors: of this model's latents.

    Raises:
        InputError: the file cannot be read.
        WeightsError: the model's class is unknown, or has another number of latent channels.
    """
    if isinstance(config, Path):
        path = config / "config.json" if config.is_dir() else config
        loaded = json.loads(read_json(path))
        if not isinstance(loaded, dict):
            raise WeightsError(f"{path}: expected a JSON object with a model's configuration")
        config = loaded
    name = config.get("_class_name")
    fields = _FIELDS.get(name) if isinstance(name, str) else None
    if fields is None:
        raise WeightsError(
            f"cannot tell which scale fields a configuration of {name!r} has: expected "
            f"_class_name to be one of {', '.join(_FIELDS)}; copy the figures from the report"
        )
    channels = len(factors.latents_mean)
    for key in _CHANNELS:
        if config.get(key, channels) != channels:
            raise WeightsError(
                f"the configuration has {key} = {config[key]}, the statistics have {channels} "
                "channels; use those of this model's latents"
            )
    values = factors.to_json()
    return {**config, **{field: values[field] for field in fields}}


def read_json(path: Path) -> bytes:
    """Read a file that holds valid JSON.

    Raises:
        InputError: it cannot be read or is not JSON.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {why_unreadable(path, 'a JSON file', error)}") from error
    try:
        json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON: {error}") from error
    return data


def json_lines(fields: Mapping[str, Any]) -> str:
    """A JSON object with one line for each field: equal fields, equal bytes.

    Floats are written with as many digits as it takes to read the same ones back.
    """
    lines = (
        f"  {json.dumps(key)}: " + to_json(value, allow_nan=False, separators=(",", ":"))
        for key, value in fields.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_stats_object(data: bytes, path: Path) -> dict[str, Any]:
    """Parse a statistics file, and check its schema and version.

    Raises:
        InputError: it is something else, or of another version.
    """
    values = json.loads(data)
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise InputError(f"{path}: expected a file that wfvae stats -o wrote")
    if values.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{path}: expected schema version {SCHEMA_VERSION}, got "
            f"{values.get('schema_version')}; use the version of wfvae that wrote it"
        )
    return values


def _numbers(values: Mapping[str, Any], key: str, path: Path) -> tuple[float, ...]:
    """Read the list of finite numbers under `key`."""
    found = values.get(key)
    if not isinstance(found, Sequence) or isinstance(found, str):
        found = [None]
    try:
        numbers = tuple(float(x) if type(x) in (int, float) else math.nan for x in found)
    except OverflowError:  # of an integer
        numbers = (math.inf,)
    if not all(map(math.isfinite, numbers)):
        raise InputError(f"{path}: expected {key} to be a list of finite numbers")
    return numbers
