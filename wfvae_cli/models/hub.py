"""Checkpoints on the Hugging Face Hub: only config and weights, through the usual cache.

`HF_HOME`, `HF_HUB_OFFLINE`, `HF_TOKEN` and `HF_ENDPOINT` have their usual meaning.
"""

from __future__ import annotations

import contextlib
import glob
import logging
from collections.abc import Sequence
from pathlib import Path

from wfvae_cli.errors import WeightsError
from wfvae_cli.models.checkpoint import CONFIG, INDEX_SUFFIX, choose_weights, locate
from wfvae_cli.models.names import find_source
from wfvae_cli.models.published import PUBLISHED, HubSource, PublishedModel

_log = logging.getLogger("wfvae")


def fetch(source: HubSource) -> Path:
    """Bring a checkpoint into the local cache, unless it is there.

    Args:
        source: repository, folder and revision.

    Returns:
        The cached folder that holds its config and weights.

    Raises:
        WeightsError: it is not there, not allowed, not cached while offline, or no safetensors.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RevisionNotFoundError

    # The HTTP client's own base error: requests' with huggingface_hub < 1, httpx's or its
    # successor's since. Failing to connect raises a child of it that is no HfHubHTTPError.
    http_error: type[Exception] = HfHubHTTPError.__mro__[1]
    try:
        siblings = HfApi().model_info(source.repo, revision=source.revision).siblings
        wanted = _choose_files(source, [file.rfilename for file in siblings or ()])
        folder = snapshot_download(
            source.repo,
            revision=source.revision,
            allow_patterns=[glob.escape(name) for name in wanted],
        )
    except HFValidationError as error:
        raise WeightsError(f"{source.repo} is no name of a repository: {error}") from error
    except RevisionNotFoundError as error:
        raise WeightsError(f"{source.repo} has no revision {source.revision}") from error
    except (http_error, OSError) as error:
        return _from_cache(source, error)
    return Path(folder) / source.subfolder


def _choose_files(source: HubSource, names: Sequence[str]) -> list[str]:
    """Pick the files to download: config and weights of the folder, and nothing below it."""
    prefix = f"{source.subfolder}/" if source.subfolder else ""
    here = [
        name[len(prefix) :]
        for name in names
        if name.startswith(prefix) and "/" not in name[len(prefix) :]
    ]
    try:
        weights = choose_weights(here, f"{source} on the Hugging Face Hub")
    except WeightsError as error:
        raise WeightsError(f"{error}{_elsewhere(source, names)}") from error
    files = [CONFIG, weights]
    if weights.endswith(INDEX_SUFFIX):
        stem = weights.removesuffix(INDEX_SUFFIX)
        files += [name for name in here if name.startswith(f"{stem}-") and name != weights]
    return [prefix + name for name in files]


def _elsewhere(source: HubSource, names: Sequence[str]) -> str:
    """Say where else in the repository there is a config."""
    folders = [name.removesuffix(f"/{CONFIG}") for name in names if name.endswith(f"/{CONFIG}")]
    if not folders:
        return ""
    choices = ", ".join(f"{source.repo}/{folder}" for folder in sorted(folders))
    return f". Folders of this repository that hold a {CONFIG}: {choices}"


def cached_folder(source: HubSource) -> Path | None:
    """Find the folder of a checkpoint in the local cache, without touching the network.

    Returns:
        The folder with its config and weights; None where it is not there, or not whole.
    """
    config = cached_file(source, CONFIG)
    if config is not None:
        with contextlib.suppress(WeightsError):  # the download was broken off
            locate(config.parent)
            return config.parent
    return None


def cached_file(source: HubSource, name: str) -> Path | None:
    """Find one file of a checkpoint's folder in the local cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    prefix = f"{source.subfolder}/" if source.subfolder else ""
    try:
        cached = try_to_load_from_cache(source.repo, prefix + name, revision=source.revision)
    except (HFValidationError, OSError, ValueError):  # not a valid repository name
        return None
    return Path(cached) if isinstance(cached, str) else None


def source_named_by_file(model: str) -> str:
    """Take the model that a latent file names, unless that would download an unrequested model.

    Args:
        model: a name as `load_model` takes it, from the header of a file of whatever origin.

    Returns:
        A name for `load_model`: the same, or the folder of a cached repository.

    Raises:
        WeightsError: it is a repository that is neither published here nor cached.
    """
    source = find_source(model)
    if isinstance(source, Path) or source in [entry.source for entry in PUBLISHED]:
        return model
    folder = cached_folder(source)
    if folder is None:
        raise WeightsError(
            f"the latents name {model} as their model, which is not in the catalogue of wfvae "
            f"models, and what a file names is not downloaded unasked: add --model {model} if you "
            "trust it"
        )
    return str(folder)


def is_cached(entry: PublishedModel) -> bool:
    """Tell if a published model is in the local cache, without network. Embedded ones never are."""
    if entry.source is None:
        return False
    if entry.pickle is not None:
        return cached_file(entry.source, entry.pickle) is not None
    return cached_folder(entry.source) is not None


def _from_cache(source: HubSource, cause: Exception) -> Path:
    """Find the folder as an earlier download left it, for when the Hub does not give it."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    folder = cached_folder(source)
    if folder is not None:
        if not isinstance(cause, OfflineModeIsEnabled):
            _log.warning("using the cached %s, since %s", source, _reason(source, cause))
        return folder
    raise WeightsError(f"no file or folder {source}, and {_reason(source, cause)}") from cause


def _reason(source: HubSource, cause: Exception) -> str:
    """Say why the Hub did not give a checkpoint, and what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    sign_in = "set HF_TOKEN or run hf auth login"
    if isinstance(cause, OfflineModeIsEnabled):
        return (
            "it is not in the Hugging Face cache while HF_HUB_OFFLINE is set: load it once with "
            "HF_HUB_OFFLINE=0"
        )
    if isinstance(cause, GatedRepoError):
        return f"{source.repo} is gated: accept its licence at its page on the Hub, and {sign_in}"
    # The Hub answers 401 for what does not exist, too, to those who are not signed in.
    denied = isinstance(cause, HfHubHTTPError) and cause.response.status_code in (401, 403)
    if denied or isinstance(cause, RepositoryNotFoundError):
        return (
            f"there is no repository {source.repo} on the Hugging Face Hub that you may read: "
            f"check the name; if it is private, {sign_in}"
        )
    return (
        f"it cannot be had from the Hugging Face Hub: {str(cause).partition(chr(10))[0]}; check "
        "the connection, and HF_ENDPOINT where you use a mirror"
    )
