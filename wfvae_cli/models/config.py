"""Reading fields of a model's `config.json`, each with an error that names it."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

from wfvae_cli.errors import WeightsError
from wfvae_cli.latents.normalization import Normalization

log = logging.getLogger("wfvae")

T = TypeVar("T")

_STABLE_DIFFUSION_FACTOR = 0.18215
MOST_CHANNELS = 1 << 16
MOST_BLOCKS = 64
"""Maximum for one level: far beyond any VAE, yet cheap to build, as configs may be hostile."""
_MOST_LEVELS = 16


def required(config: Mapping[str, Any], key: str) -> Any:
    """The value of `key`; WeightsError where the config lacks it."""
    if key not in config:
        raise WeightsError(f"config.json has no field {key!r}, which this family needs")
    return config[key]


def choice(config: Mapping[str, Any], key: str, meaning: Mapping[Any, T]) -> T:
    """Map the value of `key` through `meaning`; WeightsError for an unknown value."""
    value = required(config, key)
    if not isinstance(value, Hashable) or value not in meaning:
        known = ", ".join(repr(v) for v in meaning)
        raise WeightsError(
            f"config.json: {key} = {repr(value)[:80]} is not supported; known: {known}"
        )
    return meaning[value]


def count(config: Mapping[str, Any], key: str, least: int = 1, most: int = MOST_CHANNELS) -> int:
    """The integer at `key`, from `least` to `most`."""
    value = required(config, key)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise WeightsError(
            f"config.json: expected {key} to be an integer from {least} to {most}, got "
            f"{repr(value)[:80]}"
        )
    return value


def choices(config: Mapping[str, Any], key: str, meaning: Mapping[Any, T]) -> tuple[T, ...]:
    """Map each value of the list at `key` through `meaning`."""
    return tuple(choice({key: value}, key, meaning) for value in _list(config, key))


def counts(config: Mapping[str, Any], key: str) -> tuple[int, ...]:
    """The integers in the list at `key`, each at least 1."""
    return tuple(count({key: value}, key) for value in _list(config, key))


def _list(config: Mapping[str, Any], key: str) -> list[Any]:
    value = required(config, key)
    if not isinstance(value, (list, tuple)) or len(value) > _MOST_LEVELS:
        raise WeightsError(
            f"config.json: expected {key} to be a list of at most {_MOST_LEVELS}, got "
            f"{repr(value)[:80]}"
        )
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
        scale = [_inverse(std) for std in _floats(config["latents_std"])]
    elif config.get("scaling_factor") is not None:
        shift = _floats(config.get("shift_factor") or 0.0)[:1] * channels
        scale = _floats(config["scaling_factor"])[:1] * channels
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
    if not all(scale) or not all(map(math.isfinite, scale)):
        raise WeightsError("config.json: a latent scale must not be zero, nor a std, nor infinite")
    return Normalization(tuple(shift), tuple(scale))


def _inverse(std: float) -> float:
    try:
        return 1 / std
    except ZeroDivisionError:
        return 0.0


def _floats(value: Any) -> list[float]:
    """The finite numbers of a list, or of a number by itself."""
    values = value if isinstance(value, list) else [value]
    try:
        numbers = [float(v) if type(v) in (int, float) else math.nan for v in values]
    except OverflowError:  # of an integer
        numbers = [math.inf]
    if not numbers or not all(map(math.isfinite, numbers)):
        raise WeightsError(
            "config.json: expected finite numbers as the latents' shift and scale, got "
            f"{repr(value)[:80]}"
        )
    return numbers
