"""Optional modules and weights that learned metrics and plots need beyond the package itself."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from wfvae_cli.errors import MissingExtraError, WeightsError


def require(module: str, *, extra: Literal["metrics", "plot"], purpose: str) -> Any:
    """Import an optional module.

    Args:
        module: dotted name.
        extra: the extra of this package that installs it.
        purpose: what needs it, which begins the message: "LPIPS", "a plot".

    Raises:
        MissingExtraError: it, or something that it imports, is not installed or broken.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        # The module may be there while one of its own dependencies is not: name the culprit.
        raise MissingExtraError(error.name or module, extra, purpose) from error


def published_weights(url: str, *, option: str) -> Path:
    """The file of published weights in PyTorch's cache, downloaded if it is not there yet.

    Args:
        url: where it is published; its name ends with the start of its SHA-256.
        option: the command line's option that takes a local file instead.

    Returns:
        Path of a file that was found to hold tensors only.

    Raises:
        WeightsError: it cannot be downloaded, or is damaged.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / url.rpartition("/")[2]
    remedy = f"download {url} elsewhere and place it at {path}, or give the file with {option}"
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            prefix = path.stem.rpartition("-")[2]
            torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=False)
        except (OSError, RuntimeError) as error:
            raise WeightsError(f"cannot download {url} ({error}): {remedy}") from error
    load_tensors(path, remedy=remedy)
    return path


def load_tensors(path: Path, *, remedy: str) -> Mapping[str, Tensor]:
    """Load a `.pth` state dict, running nothing that it may contain.

    Args:
        path: the file.
        remedy: what to do if it is not such a file; ends the message.

    Raises:
        WeightsError: it is missing, damaged, or holds more than tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"cannot read the weights {path} ({reason}): {remedy}") from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"expected tensors by name in {path}, got something else: {remedy}")
    return state
