"""wfvae: videos and images into the latents of a video VAE and back.

    import wfvae_cli as wfvae

    model = wfvae.load_model()
    wfvae.encode_clip("in.mp4", "z.safetensors", model)
    wfvae.decode_clip("z.safetensors", "out.mp4", model)

Names are imported when first used, so that importing the package loads neither torch nor av.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Read when torch is loaded. OpenMP's threads would otherwise spin while they wait for each other,
# against threads that read and write files and against other processes: many times slower where
# cores are few or busy.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    from wfvae_cli.dataset.training import LatentDataset as LatentDataset
    from wfvae_cli.latents.file import LatentFile as LatentFile
    from wfvae_cli.media.options import Sampling as Sampling
    from wfvae_cli.media.options import VideoOptions as VideoOptions
    from wfvae_cli.media.reader import open_clip as open_clip
    from wfvae_cli.media.writer import open_writer as open_writer
    from wfvae_cli.models.load import load_model as load_model
    from wfvae_cli.nn.stream import Stream as Stream
    from wfvae_cli.pipeline.decode import decode_clip as decode_clip
    from wfvae_cli.pipeline.encode import encode_clip as encode_clip
    from wfvae_cli.pipeline.options import EncodeOptions as EncodeOptions
    from wfvae_cli.pipeline.roundtrip import roundtrip_clip as roundtrip_clip

_HOMES = {
    "EncodeOptions": "pipeline.options",
    "LatentDataset": "dataset.training",
    "LatentFile": "latents.file",
    "Sampling": "media.options",
    "Stream": "nn.stream",
    "VideoOptions": "media.options",
    "decode_clip": "pipeline.decode",
    "encode_clip": "pipeline.encode",
    "load_model": "models.load",
    "open_clip": "media.reader",
    "open_writer": "media.writer",
    "roundtrip_clip": "pipeline.roundtrip",
}
__all__ = [*_HOMES, "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
