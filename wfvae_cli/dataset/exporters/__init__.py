"""Writers of finished clips, one file each behind `--format`.

A new one is a class with the methods of `Exporter`, and a line in `make_exporter`.
"""

from __future__ import annotations

from wfvae_cli.dataset.config import EncodeConfig
from wfvae_cli.dataset.exporters.base import Exporter
from wfvae_cli.dataset.store import OutputStore


def make_exporter(store: OutputStore, how: EncodeConfig) -> Exporter:
    """Make the exporter that `--format` names.

    Raises:
        MissingExtraError: it needs a package that is not installed.
    """
    # Imported when asked for: each may need packages of its own.
    match how.format:
        case "files":
            from wfvae_cli.dataset.exporters.files import LatentFiles

            return LatentFiles(store, how)
        case "webdataset":
            from wfvae_cli.dataset.exporters.webdataset import TarShards

            return TarShards(store, how)
        case "musubi":
            from wfvae_cli.dataset.exporters.musubi import MusubiFiles

            return MusubiFiles(store, how)
        case "ltx":
            from wfvae_cli.dataset.exporters.ltx import LtxFiles

            return LtxFiles(store, how)
        case "simpletuner":
            from wfvae_cli.dataset.exporters.simpletuner import SimpleTunerFiles

            return SimpleTunerFiles(store, how)
        case "energon":
            from wfvae_cli.dataset.exporters.energon import EnergonShards

            return EnergonShards(store, how)
