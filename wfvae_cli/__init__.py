"""wfvae: videos and images into the latents of a video VAE and back.

    import wfvae_cli as wfvae

    model = wfvae.load_model()                    # or the name of a model, in its place
    z = wfvae.encode(frames, model)               # TCHW uint8, or in [-1, 1], to [Z, T', H', W']
    video = wfvae.decode(z, model, frames=len(frames))
    video, scores = wfvae.roundtrip(frames, model)
    wfvae.compare("in.mp4", "out.mp4").psnr
    wfvae.latent_stats([z]).factors
    wfvae.encode_dataset(["videos/"], "latents/", "wan-2.1")

    wfvae.encode_clip("in.mp4", "z.safetensors", model)    # files of any length
    wfvae.decode_clip("z.safetensors", "out.mp4", model)

Whatever goes wrong raises a `WfvaeError`, whose `exit_code` is the command line's; most are also
what Python would raise, such as `OSError` for `InputError`.

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
    from wfvae_cli.api import compare as compare
    from wfvae_cli.api import decode as decode
    from wfvae_cli.api import encode as encode
    from wfvae_cli.api import encode_dataset as encode_dataset
    from wfvae_cli.api import latent_stats as latent_stats
    from wfvae_cli.api import roundtrip as roundtrip
    from wfvae_cli.dataset.training import LatentDataset as LatentDataset
    from wfvae_cli.errors import DeviceError as DeviceError
    from wfvae_cli.errors import InputError as InputError
    from wfvae_cli.errors import LatentError as LatentError
    from wfvae_cli.errors import MissingExtraError as MissingExtraError
    from wfvae_cli.errors import OutputError as OutputError
    from wfvae_cli.errors import PartialFailureError as PartialFailureError
    from wfvae_cli.errors import UsageError as UsageError
    from wfvae_cli.errors import VideoError as VideoError
    from wfvae_cli.errors import WeightsError as WeightsError
    from wfvae_cli.errors import WfvaeError as WfvaeError
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
    "DeviceError": "errors",
    "EncodeOptions": "pipeline.options",
    "InputError": "errors",
    "LatentDataset": "dataset.training",
    "LatentError": "errors",
    "LatentFile": "latents.file",
    "MissingExtraError": "errors",
    "OutputError": "errors",
    "PartialFailureError": "errors",
    "Sampling": "media.options",
    "Stream": "nn.stream",
    "UsageError": "errors",
    "VideoError": "errors",
    "VideoOptions": "media.options",
    "WeightsError": "errors",
    "WfvaeError": "errors",
    "compare": "api",
    "decode": "api",
    "decode_clip": "pipeline.decode",
    "encode": "api",
    "encode_clip": "pipeline.encode",
    "encode_dataset": "api",
    "latent_stats": "api",
    "load_model": "models.load",
    "open_clip": "media.reader",
    "open_writer": "media.writer",
    "roundtrip": "api",
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
