"""Table of the VAE classes of diffusers that the adapter runs. Imports neither diffusers nor torch.

Sources: the code of the classes in diffusers 0.42, and of its pipelines for the normalisation.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from wfvae_cli.errors import MissingExtraError

KNOWN_VERSION = "0.42"
"""The version of diffusers that has all of the classes."""

Measure = Callable[[Any], int]
"""A number of an autoencoder that diffusers built."""


def _fixed(value: int) -> Measure:
    return lambda vae: value


def _field(name: str) -> Measure:
    """Read the field `name` of the VAE's config."""
    return lambda vae: int(vae.config[name])


def _attribute(name: str) -> Measure:
    """Read the attribute `name`, which the VAE computes from its config."""
    return lambda vae: int(getattr(vae, name))


def _halvings(name: str) -> Measure:
    """Compute the stride 2**(n - 1) for the n levels in the config's list `name`."""
    return lambda vae: 2 ** (len(vae.config[name]) - 1)


def _product(name: str) -> Measure:
    """Multiply the factors in the config's list `name`."""
    return lambda vae: math.prod(vae.config[name])


def _first(name: str) -> Measure:
    """Read the first width in the config's list `name`: that of the level next to the frames."""
    return lambda vae: int(vae.config[name][0])


_ONE = _fixed(1)
_LATENT_CHANNELS = _field("latent_channels")


@dataclass(frozen=True)
class DiffusersClass:
    """One class of diffusers, and how the adapter runs it: all take and give RGB in [-1, 1]."""

    family: str
    """Family name in latent files."""
    takes: Literal["images", "clips"]
    """Input of one call: single frames, or whole clips."""
    space: Measure
    """Pixels of a latent position along each side."""
    width: Measure
    """Channels at the frames' size, to which memory is proportional."""
    time: Measure = _ONE
    """Frames of a latent frame, except for the first."""
    channels: Measure = _LATENT_CHANNELS
    """Channels of the latents."""
    leads: bool = False
    """True where copies of a clip's first frame go in front, until they fill a latent frame: the
    publishers' code does so, and diffusers leaves it to the caller."""
    patch: Measure = _ONE
    """Latent positions along each side that become channels behind the encoder."""
    statistics: tuple[str, ...] = ()
    """Tensors of the checkpoint that say how latents are distributed. Without them the config
    does: `latents_mean` and `latents_std`, or `shift_factor` and `scaling_factor`."""
    inputs: int = 3
    """Value of `in_channels` for RGB frames."""
    has_variance: bool = True
    """True where the encoder returns a log-variance; otherwise -30, its minimum, stands in."""
    whole_clip_only: str | None = None
    """Reason that it is not run in chunks; None where it is, or where frames are independent."""
    refused: str | None = None
    """Reason that it is not supported; None where it is."""


_NO_STATE = "diffusers keeps no state for it between chunks"

CLASSES: Mapping[str, DiffusersClass] = {
    "AutoencoderKL": DiffusersClass(
        family="kl",
        takes="images",
        space=_halvings("block_out_channels"),
        width=_first("block_out_channels"),
    ),
    "AutoencoderKLFlux2": DiffusersClass(
        family="flux2",
        takes="images",
        space=_halvings("block_out_channels"),
        width=_first("block_out_channels"),
        patch=_first("patch_size"),
        statistics=("bn.running_mean", "bn.running_var", "bn.num_batches_tracked"),
    ),
    "AutoencoderKLHunyuanImage": DiffusersClass(
        family="hunyuanimage",
        takes="images",
        space=_field("spatial_compression_ratio"),
        width=_first("block_out_channels"),
    ),
    "AutoencoderDC": DiffusersClass(
        family="dc",
        takes="images",
        space=_halvings("encoder_block_out_channels"),
        width=_first("encoder_block_out_channels"),
        has_variance=False,
    ),
    "AutoencoderTiny": DiffusersClass(
        family="tiny",
        takes="images",
        space=_halvings("encoder_block_out_channels"),
        width=_first("encoder_block_out_channels"),
        has_variance=False,
    ),
    "AutoencoderKLKVAE": DiffusersClass(
        family="kvae",
        takes="images",
        space=_halvings("ch_mult"),
        width=_field("channels"),
        channels=_field("z_channels"),
    ),
    "AutoencoderKLHunyuanVideo": DiffusersClass(
        family="hunyuanvideo",
        takes="clips",
        time=_field("temporal_compression_ratio"),
        space=_field("spatial_compression_ratio"),
        width=_first("block_out_channels"),
        whole_clip_only="its GroupNorm takes statistics over the whole clip",
    ),
    "AutoencoderKLCogVideoX": DiffusersClass(  # run by models.cogvideox, in chunks
        family="cogvideox",
        takes="clips",
        time=_field("temporal_compression_ratio"),
        space=_halvings("block_out_channels"),
        width=_first("block_out_channels"),
    ),
    "AutoencoderKLLTXVideo": DiffusersClass(
        family="ltx",
        takes="clips",
        time=_attribute("temporal_compression_ratio"),
        space=_attribute("spatial_compression_ratio"),
        width=_first("block_out_channels"),
        statistics=("latents_mean", "latents_std"),
        whole_clip_only=f"its decoder looks at later frames, and {_NO_STATE}",
    ),
    "AutoencoderKLMochi": DiffusersClass(
        family="mochi",
        takes="clips",
        time=_product("temporal_expansions"),
        space=_product("spatial_expansions"),
        width=_first("decoder_block_out_channels"),
        inputs=15,  # RGB and its Fourier features, which the encoder makes
        whole_clip_only=f"its attention looks at all earlier frames, and {_NO_STATE}",
    ),
    "AutoencoderKLCosmos": DiffusersClass(
        family="cosmos",
        takes="clips",
        time=_field("temporal_compression_ratio"),
        space=_field("spatial_compression_ratio"),
        width=_first("decode_block_out_channels"),
        has_variance=False,
        whole_clip_only=f"its attention looks at all earlier frames, and {_NO_STATE}",
    ),
    "AutoencoderKLKVAEVideo": DiffusersClass(
        family="kvae-video",
        takes="clips",
        time=_field("temporal_compress_times"),
        space=_halvings("ch_mult"),
        width=_field("ch"),
        channels=_field("z_channels"),
        has_variance=False,  # diffusers drops the encoder's log-variance
        whole_clip_only="its segments of 16 frames, and the statistics that they hand on, are "
        "diffusers' own, which runs no segment alone",
    ),
    "AutoencoderVidTok": DiffusersClass(
        family="vidtok",
        takes="clips",
        time=_attribute("temporal_compression_ratio"),
        space=lambda vae: int(2 ** len(vae.encoder.spatial_ds)),
        width=_field("ch"),
        channels=_field("z_channels"),
        leads=True,
        whole_clip_only="its state between chunks lies in its layers, not in a clip's stream",
    ),
    "AutoencoderKLAllegro": DiffusersClass(
        family="allegro",
        takes="clips",
        time=_field("temporal_compression_ratio"),
        space=_halvings("block_out_channels"),
        width=_first("block_out_channels"),
        refused="it takes clips of 24 + 16n frames (24, 40, 56, 72, 88, …), in overlapping tiles, "
        "and gives a latent frame for each 4 of them, none for the first alone, as here clips of "
        "1 + 4k frames have one",
    ),
    "AutoencoderKLMiniMaxH3": DiffusersClass(
        family="minimax-h3",
        takes="clips",
        time=_product("temporal_downsample_factors"),
        space=_product("spatial_downsample_factors"),
        width=_first("block_out_channels"),
        refused="it takes clips of 17n + 5 frames (22, 39, 56, 73, …), in overlapping tiles and in "
        "ImageNet's mean and std, and gives 5n + 2 latent frames, where here clips of 1 + 4k "
        "frames have 1 + k",
    ),
}
"""By the name of the class. Wan's, Qwen-Image's, LTX-2's and HunyuanVideo 1.5's are not here:
they are run without diffusers."""

RUNNABLE = tuple(name for name, entry in CLASSES.items() if entry.refused is None)
"""The classes that are run."""


def check_installed(family: str) -> None:
    """Say what to install for a family that diffusers runs, before anything is downloaded.

    Raises:
        MissingExtraError: it is not installed.
    """
    name = next((name for name, entry in CLASSES.items() if entry.family == family), None)
    if name is not None and importlib.util.find_spec("diffusers") is None:
        raise MissingExtraError("diffusers", "diffusers", f"a VAE of class {name}")
