"""Reading fields of a model's `config.json`, each with an error that names it."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

from wfvae_cli.errors import WeightsError
from wfvae_cli.models.base import Normalization

log = logging.getLogger("wfvae")

T = TypeVar("T")

_STABLE_DIFFUSION_FACTOR = 0.18215


def required(config: Mapping[str, Any], key: str) -> Any:
    """The value of `key`; WeightsError where the config lacks it."""
    if key not in config:
        raise WeightsError(f"config.json has no field {key!r}, which this family needs")
    return config[key]


def choice(config: Mapping[str, Any], key: str, meaning: Mapping[Any, T]) -> T:
    """What `meaning` maps the value of `key` to; WeightsError where it is none of the known."""
    value = required(config, key)
    if not isinstance(value, Hashable) or value not in meaning:
        known = ", ".join(repr(v) for v in meaning)
        raise WeightsError(f"config.json: {key} = {value!r} is not supported; known: {known}")
    return meaning[value]


def count(config: Mapping[str, Any], key: str, least: int = 1) -> int:
    """The integer at `key`, at least `least`."""
    value = required(config, key)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise WeightsError(f"config.json: expected {key} >= {least}, an integer, got {value!r}")
    return value


def choices(config: Mapping[str, Any], key: str, meaning: Mapping[Any, T]) -> tuple[T, ...]:
    """What `meaning` maps each value of the list at `key` to."""
    return tuple(choice({key: value}, key, meaning) for value in _list(config, key))


def counts(config: Mapping[str, Any], key: str) -> tuple[int, ...]:
    """The integers in the list at `key`, each at least 1."""
    return tuple(count({key: value}, key) for value in _list(config, key))


def _list(config: Mapping[str, Any], key: str) -> list[Any]:
    value = required(config, key)
    if not isinstance(value, (list, tuple)):
        raise WeightsError(f"config.json: expected {key} to be a list, got {value!r}")
    return list(value)


def read_normalization(config: Mapping[str, Any], channels: int) -> Normalization | None:
    """The config's per-channel shift and scale, in whichever convention it spells them.

    Known are WF-VAE's `scale` and `shift`, diffusers' and Wan's `latents_mean` and
    `latents_std`, Stable Diffusion's `scaling_factor` and `shift_factor`. Lists that have not
    one value a channel are placeholders (one published config carries 4 for 16 channels), and so
    is a `scale` of Stable Diffusion's factor throughout, which is what WF-VAE's code has where
    nothing was measured: they are reported to the log and treated as absent.
    """
    if config.get("scale") is not None and config.get("shift") is not None:
        shift, scale = _floats(config["shift"]), _floats(config["scale"])
        if set(scale) == {_STABLE_DIFFUSION_FACTOR} and set(shift) == {0.0}:
            log.warning(
                "config.json gives a scale of %g for all channels, Stable Diffusion's: a "
                "placeholder, treated as absent (`wfvae stats` measures a real one)",
                _STABLE_DIFFUSION_FACTOR,
            )
            return None
    elif config.get("latents_mean") is not None and config.get("latents_std") is not None:
        shift = _floats(config["latents_mean"])
        scale = [1 / std if std else 0.0 for std in _floats(config["latents_std"])]
    elif config.get("scaling_factor") is not None:
        shift = [float(config.get("shift_factor") or 0.0)] * channels
        scale = [float(config["scaling_factor"])] * channels
    else:
        return None
    if len(shift) != channels or len(scale) != channels:
        log.warning(
            "config.json gives %d scales and %d shifts for %d latent channels: a placeholder, "
            "treated as absent (`wfvae stats` measures real ones)",
            len(scale),
            len(shift),
            channels,
        )
        return None
    if not all(scale):
        raise WeightsError("config.json: a latent scale must not be zero (or a std infinite)")
    return Normalization(tuple(shift), tuple(scale))


def _floats(value: Any) -> list[float]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, (int, float)) for v in values):
        raise WeightsError(f"config.json: expected a list of numbers as latent scale, got {value}")
    return [float(v) for v in values]
