"""Measured scale factors in a copy of a model's `config.json`."""

from __future__ import annotations

import json
from pathlib import Path

from wfvae_cli.atomic import atomic_file, check_output
from wfvae_cli.errors import OutputError, WeightsError
from wfvae_cli.models.checkpoint import CONFIG, locate, read_json, weights_sha256
from wfvae_cli.models.load import describe_checkpoint
from wfvae_cli.stats.report import ModelIdentity, StatsReport
from wfvae_cli.stats.scale import config_with_scale

COPY = "config.stats.json"
"""Name of the copy, next to a `config.json` that is not changed."""


def scaled_config_path(folder: Path, *, overwrite: bool = False) -> Path:
    """Return the path that `write_scaled_config` will write, checked early.

    Args:
        folder: of a checkpoint. Where it has a `config.json`, that stays as it is, unless
            `overwrite`, and the copy goes beside it.
        overwrite: whether existing files may be replaced.

    Raises:
        OutputError: the folder is missing or no folder, or the copy exists already.
    """
    if not folder.is_dir():
        raise OutputError(
            f"{folder} is no folder: give that of the checkpoint, or create one for the "
            "config.json to come"
        )
    taken = (folder / CONFIG).exists()
    path = folder / (COPY if taken and not overwrite else CONFIG)
    check_output(path, overwrite=overwrite)
    return path


def write_scaled_config(folder: Path, report: StatsReport, *, overwrite: bool = False) -> Path:
    """Write a config with the scale factors that a report measured.

    Args:
        folder: as of `scaled_config_path`; without a `config.json` of its own it gets the
            model's.
        report: of latents that this checkpoint makes.
        overwrite: whether existing files may be replaced, the original `config.json` included.

    Returns:
        The file written.

    Raises:
        InputError: the report is empty or has a constant channel.
        OutputError: as `scaled_config_path`, or it cannot be written.
        WeightsError: the folder holds the weights of another model, or a config of unknown kind.
    """
    path = scaled_config_path(folder, overwrite=overwrite)
    if (folder / CONFIG).exists():
        check_weights(folder, report.model)
        config = read_json(folder / CONFIG)
    else:
        config = describe_checkpoint(report.model.name)["config"]
    scaled = config_with_scale(config, report.summary.factors)
    with atomic_file(path, overwrite=overwrite) as file:
        file.write((json.dumps(scaled, indent=2, ensure_ascii=False) + "\n").encode())
    return path


def check_weights(folder: Path, model: ModelIdentity) -> None:
    """Refuse a checkpoint whose latents the statistics are not about.

    Raises:
        WeightsError: the folder holds the weights of another model.
    """
    if not any(folder.glob("*.safetensors")):
        return  # a config whose weights are not there yet
    found = weights_sha256(locate(folder).weights)
    if found != model.sha256:
        raise WeightsError(
            f"{folder} holds the weights {found[:12]}, and the statistics are of "
            f"{model.name} ({model.sha256[:12]}): give that model's folder"
        )
