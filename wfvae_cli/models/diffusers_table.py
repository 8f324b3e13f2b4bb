"""Table of the VAE classes of diffusers that the adapter runs. Imports neither diffusers nor torch.

Sources: the code of the classes in diffusers 0.42, and of its pipelines for the normalisation.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from wfvae_cli.errors import MissingExtraError
from wfvae_cli.strides import ClipLengths, Progression

KNOWN_VERSION = "0.42"
"""The version of diffusers that has all of the classes."""

Measure = Callable[[Any], int]
"""A number of an autoencoder that diffusers built."""


def _fixed(value: int) -> Measure:
    return lambda vae: value


def _field(name: str) -> Measure:
    """Read the field `name` of the VAE's config, or the attribute that it computes."""

    def measure(vae: Any) -> int:
        value = vae.config.get(name)
        return int(getattr(vae, name) if value is None else value)

    return measure


def _halvings(name: str) -> Measure:
    """Compute the stride 2**(n - 1) for the n levels in the config's list `name`."""
    return lambda vae: 2 ** (len(vae.config[name]) - 1)


def _first(name: str) -> Measure:
    """Read the first width in the config's list `name`: that of the level next to the frames."""
    return lambda vae: int(vae.config[name][0])


_ONE = _fixed(1)
_TIME, _SPACE = _field("temporal_compression_ratio"), _field("spatial_compression_ratio")
_WIDTH = _first("block_out_channels")
_CHANNELS = _field("latent_channels")


class PixelScale(NamedTuple):
    """Mean and standard deviation of RGB in [0, 1] that a network's pixels are normalised by."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class DiffusersClass:
    """One class of diffusers, and how the adapter runs it; the defaults are what most have."""

    family: str
    """Family name in latent files."""
    takes: Literal["images", "clips"]
    """Input of one call: single frames, or whole clips."""
    time: Measure = _TIME
    """Of clips, frames of a latent frame, except for the first where `clips` is None."""
    space: Measure = _SPACE
    """Pixels of a latent position along each side."""
    width: Measure = _WIDTH
    """Channels at the frames' size, to which memory is proportional."""
    channels: Measure = _CHANNELS
    """Channels of the latents."""
    clips: Callable[[Any], ClipLengths] | None = None
    """Lengths of clips; None where the class is causal."""
    sizes: Callable[[Any], tuple[Progression, Progression]] | None = None
    """Heights and widths of pictures; None for all multiples of `space`."""
    pixels: PixelScale | None = None
    """Normalisation of RGB that the class leaves to its caller; None where it takes and gives
    RGB in [-1, 1]."""
    tile: Measure | None = None
    """Pixels of all frames of the class's own overlapping tiles, where they are part of the model
    as it was published; None where clips run whole."""
    gives_time_first: bool = False
    """True where decoding gives BTCHW."""
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


def _allegro_clips(vae: Any) -> ClipLengths:
    """Lengths that tiles of `kernel` frames, each `stride` after the last, cover to the end."""
    ratio = int(vae.config["temporal_compression_ratio"])
    frames = Progression(vae.kernel[0], vae.stride[0])
    return ClipLengths(frames, Progression(frames.first // ratio, frames.step // ratio))


def _allegro_sizes(vae: Any) -> tuple[Progression, Progression]:
    """Heights and widths that tiles cover to the edge; of others, diffusers drops the rest."""
    return (
        Progression(vae.kernel[1], vae.stride[1]),
        Progression(vae.kernel[2], vae.stride[2]),
    )


def _minimax_clips(vae: Any) -> ClipLengths:
    """Lengths of a whole number of groups of `clip_length` frames, and the overlap behind them.

    Shorter clips, and images, have latents that diffusers does not decode.
    """
    frames = int(vae.config["clip_length"])
    return ClipLengths(
        Progression(frames + vae.frame_overlap, frames),
        Progression(vae.tokens_chunk_size + vae.token_overlap, vae.tokens_chunk_size),
    )


def _minimax_sizes(vae: Any) -> tuple[Progression, Progression]:
    """Sizes of two latent positions or more: its convolutions mirror the pictures' edges."""
    stride = int(vae.spatial_compression_ratio)
    return Progression(2 * stride, stride), Progression(2 * stride, stride)


def _minimax_tile(vae: Any) -> int:
    """Pixels of a tile as it is decoded, which is longer than one that is encoded."""
    frames = (vae.tokens_chunk_size + vae.token_overlap) * vae.temporal_compression_ratio
    return int(frames * vae.tile_sample_min_height * vae.tile_sample_min_width)


_NO_STATE = "diffusers keeps no state for it between chunks"
_ATTENTION = f"its attention looks at all earlier frames, and {_NO_STATE}"

CLASSES: Mapping[str, DiffusersClass] = {
    "AutoencoderKL": DiffusersClass("kl", "images", space=_halvings("block_out_channels")),
    "AutoencoderKLFlux2": DiffusersClass(
        "flux2",
        "images",
        space=_halvings("block_out_channels"),
        patch=_first("patch_size"),
        statistics=("bn.running_mean", "bn.running_var", "bn.num_batches_tracked"),
    ),
    "AutoencoderKLHunyuanImage": DiffusersClass("hunyuanimage", "images"),
    "AutoencoderDC": DiffusersClass(
        "dc", "images", width=_first("encoder_block_out_channels"), has_variance=False
    ),
    "AutoencoderTiny": DiffusersClass(
        "tiny",
        "images",
        space=_halvings("encoder_block_out_channels"),
        width=_first("encoder_block_out_channels"),
        has_variance=False,
    ),
    "AutoencoderKLKVAE": DiffusersClass(
        "kvae",
        "images",
        space=_halvings("ch_mult"),
        width=_field("channels"),
        channels=_field("z_channels"),
    ),
    "AutoencoderKLHunyuanVideo": DiffusersClass(
        "hunyuanvideo",
        "clips",
        whole_clip_only="its GroupNorm takes statistics over the whole clip",
    ),
    "AutoencoderKLCogVideoX": DiffusersClass(  # run by models.cogvideox, in chunks
        "cogvideox", "clips", space=_halvings("block_out_channels")
    ),
    "AutoencoderKLLTXVideo": DiffusersClass(
        "ltx",
        "clips",
        statistics=("latents_mean", "latents_std"),
        whole_clip_only=f"its decoder looks at later frames, and {_NO_STATE}",
    ),
    "AutoencoderKLMochi": DiffusersClass(
        "mochi",
        "clips",
        width=_first("decoder_block_out_channels"),
        inputs=15,  # RGB and its Fourier features, which the encoder makes
        whole_clip_only=_ATTENTION,
    ),
    "AutoencoderKLCosmos": DiffusersClass(
        "cosmos",
        "clips",
        width=_first("decode_block_out_channels"),
        has_variance=False,
        whole_clip_only=_ATTENTION,
    ),
    "AutoencoderKLKVAEVideo": DiffusersClass(
        "kvae-video",
        "clips",
        time=_field("temporal_compress_times"),
        space=_halvings("ch_mult"),
        width=_field("ch"),
        channels=_field("z_channels"),
        has_variance=False,  # diffusers drops the encoder's log-variance
        whole_clip_only="its segments of 16 frames, and the statistics that they hand on, are "
        "diffusers' own, which runs no segment alone",
    ),
    "AutoencoderVidTok": DiffusersClass(
        "vidtok",
        "clips",
        space=lambda vae: int(2 ** len(vae.encoder.spatial_ds)),
        width=_field("ch"),
        channels=_field("z_channels"),
        leads=True,
        whole_clip_only="its state between chunks lies in its layers, not in a clip's stream",
    ),
    "AutoencoderKLAllegro": DiffusersClass(
        "allegro",
        "clips",
        clips=_allegro_clips,
        sizes=_allegro_sizes,
        tile=lambda vae: math.prod(vae.kernel),
        gives_time_first=True,
        whole_clip_only="its tiles overlap in time, and diffusers blends those of a whole clip",
    ),
    "AutoencoderKLMiniMaxH3": DiffusersClass(
        "minimax-h3",
        "clips",
        clips=_minimax_clips,
        sizes=_minimax_sizes,
        pixels=PixelScale((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet's
        tile=_minimax_tile,
        whole_clip_only="its groups of frames overlap when they are decoded, and diffusers blends "
        "those of a whole clip",
    ),
}
"""By the name of the class. Wan's, Qwen-Image's, LTX-2's and HunyuanVideo 1.5's are not here:
they are run without diffusers."""


def check_installed(family: str) -> None:
    """Say what to install for a family that diffusers runs, before anything is downloaded.

    Raises:
        MissingExtraError: it is not installed.
    """
    name = next((name for name, entry in CLASSES.items() if entry.family == family), None)
    if name is not None and importlib.util.find_spec("diffusers") is None:
        raise MissingExtraError("diffusers", "diffusers", f"a VAE of class {name}")
