"""VAEs that diffusers implements and this package does not: one adapter for all of its classes.

`diffusers_table` holds the differences between the classes. Image VAEs, such as Stable
Diffusion's (arXiv 2112.10752), take a video frame by frame; video VAEs take a clip as a whole.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.overrides import TorchFunctionMode

from wfvae_cli.errors import MissingExtraError, WeightsError
from wfvae_cli.latents.normalization import Normalization
from wfvae_cli.models.base import Posterior, VideoVAE
from wfvae_cli.models.config import (
    MOST_BLOCKS,
    MOST_CHANNELS,
    count,
    counts,
    log,
    read_normalization,
)
from wfvae_cli.models.diffusers_table import CLASSES, KNOWN_VERSION, DiffusersClass
from wfvae_cli.nn.stream import Stream
from wfvae_cli.strides import Strides

LEAST_LOGVAR = -30.0
"""The log-variance of latents whose encoder gives none: as good as no variance, so that a sample
is the mean."""
_DEFAULT_CLASS = "AutoencoderKL"
"""Class of a config that names none, whose tensors were recognised."""

_BOUNDS = {
    "layers_per_block": MOST_BLOCKS,
    "latent_channels": MOST_CHANNELS,
    "norm_num_groups": MOST_CHANNELS,
}
"""The largest values of fields that diffusers does not check."""

_OLD_ATTENTION = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}
"""Names that checkpoints from before diffusers 0.17 have, and what they became."""


class DiffusersVAE(VideoVAE):
    """A VAE of diffusers.

    Args:
        autoencoder: the module that diffusers built.
        entry: the table entry of its class.
    """

    encoder_modules = ("autoencoder.encoder", "autoencoder.quant_conv")
    decoder_modules = ("autoencoder.decoder", "autoencoder.post_quant_conv")

    def __init__(self, autoencoder: Any, entry: DiffusersClass) -> None:
        super().__init__()
        self.entry = entry
        self.family = entry.family
        self.patch = entry.patch(autoencoder)
        self.strides = _strides(entry, autoencoder, self.patch)
        self.latent_channels = entry.channels(autoencoder) * self.patch**2
        self.peak_values_per_pixel = 6.0 * entry.width(autoencoder)
        self.whole_clip_only = entry.whole_clip_only
        self.statistics = entry.statistics
        # Not the file's fields: what it leaves out has a default, such as the scaling factor.
        self.config = dict(autoencoder.config)
        if not self.statistics:
            self.normalization = _normalization(self.config, self.latent_channels)
        for name in {name.partition(".")[0] for name in self.statistics}:
            delattr(autoencoder, name)
        # Whole clips only: no tiles, which overlap and leave seams, but where the model was
        # published with them. Allegro's take one clip at a time, which is what slicing means.
        autoencoder.use_framewise_encoding = autoencoder.use_framewise_decoding = False
        if entry.tile is not None:
            self.own_tile = entry.tile(autoencoder)
            autoencoder.use_tiling = autoencoder.use_slicing = True
        self.autoencoder = autoencoder

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> DiffusersVAE:
        """Build the network of a `config.json` that diffusers wrote.

        Raises:
            MissingExtraError: diffusers is not installed.
            WeightsError: it is too old for the class, or cannot build it from this config; or
                its network takes other frames than this package has.
        """
        name = str(config.get("_class_name", _DEFAULT_CLASS))
        entry = CLASSES[name]
        _refuse_variants(name, config)
        _check_bounds(config)
        autoencoder = _build(_find_class(name), name, config)
        channels = (_inputs(autoencoder), _outputs(autoencoder))
        if channels != (entry.inputs, 3):
            raise WeightsError(
                f"config.json: expected {entry.inputs} in_channels and 3 out_channels, for RGB "
                f"frames, got {channels[0]} and {channels[1]}"
            )
        return cls(autoencoder, entry)

    @classmethod
    def rename(cls, names: Iterable[str]) -> dict[str, str]:
        """Map the names of diffusers' checkpoints, old ones included."""
        return {name: f"autoencoder.{_modernise(name)}" for name in names}

    def use_statistics(self, tensors: Mapping[str, Tensor]) -> None:
        """Take `latents_mean` and `latents_std`, or a BatchNorm's running mean and variance."""
        mean, spread, *_ = (tensors.get(name) for name in self.statistics)
        if mean is None or spread is None:
            return
        if self.statistics[1].endswith("running_var"):
            spread = (spread.double() + self.config["batch_norm_eps"]).sqrt()
        lists = {"latents_mean": mean.tolist(), "latents_std": spread.tolist()}
        self.normalization = _normalization(self.config | lists, self.latent_channels)

    def _encode(self, frames: Tensor, stream: Stream) -> Posterior:
        del stream  # frames are independent, or the clip is whole
        if self.entry.takes == "clips":
            return self._encode_clip(frames)
        images = rearrange(frames, "b c t h w -> (b t) c h w")
        posterior = self._posterior(self.autoencoder.encode(images))
        batch = frames.size(0)
        return Posterior(*(self._to_video(x, batch) for x in posterior))

    def _decode(self, latents: Tensor, stream: Stream) -> Tensor:
        del stream
        if self.entry.takes == "clips":
            decoded = _sample(self.autoencoder.decode(latents.contiguous()))
            return self._to_rgb(decoded.transpose(1, 2) if self.entry.gives_time_first else decoded)
        pattern = "b (c i j) t h w -> (b t) c (h i) (w j)"
        images = rearrange(latents, pattern, i=self.patch, j=self.patch)
        decoded = _sample(self.autoencoder.decode(images))
        return rearrange(decoded, "(b t) c h w -> b c t h w", b=latents.size(0))

    def _encode_clip(self, frames: Tensor) -> Posterior:
        if self.entry.leads:
            frames = torch.cat((*[frames[:, :, :1]] * (self.strides.time - 1), frames), dim=2)
        return self._posterior(self.autoencoder.encode(self._from_rgb(frames).contiguous()))

    def _from_rgb(self, frames: Tensor) -> Tensor:
        """Normalise RGB in [-1, 1] as the class expects it."""
        if self.entry.pixels is None:
            return frames
        mean, std = (frames.new_tensor(x).view(3, 1, 1, 1) for x in self.entry.pixels)
        return ((frames + 1) / 2 - mean) / std

    def _to_rgb(self, frames: Tensor) -> Tensor:
        """Undo `_from_rgb`."""
        if self.entry.pixels is None:
            return frames
        mean, std = (frames.new_tensor(x).view(3, 1, 1, 1) for x in self.entry.pixels)
        return (frames * std + mean) * 2 - 1

    def _posterior(self, encoded: Any) -> Posterior:
        """Read what `encode` of any of the classes returned."""
        if self.entry.has_variance:
            return Posterior.from_moments(encoded.latent_dist.parameters)
        if hasattr(encoded, "latent_dist"):
            mean = encoded.latent_dist.mode()
        else:
            mean = encoded.latents if hasattr(encoded, "latents") else encoded.latent
        return Posterior(mean, torch.full_like(mean, LEAST_LOGVAR))

    def _to_video(self, latents: Tensor, batch: int) -> Tensor:
        """Latents of images to BCTHW, with patches as channels: (channel, row, column)."""
        pattern = "(b t) c (h i) (w j) -> b (c i j) t h w"
        return rearrange(latents, pattern, b=batch, i=self.patch, j=self.patch)


def _find_class(name: str) -> Any:
    # Models are built on the meta device, and diffusers imports a class's module when it is asked
    # for: constants of that module (Cosmos's wavelets) would be made without values, for good.
    with torch.device("cpu"):
        try:
            diffusers = importlib.import_module("diffusers")
        except ImportError as error:
            raise MissingExtraError("diffusers", "diffusers", f"a VAE of class {name}") from error
        found = getattr(diffusers, name, None)
    if found is None:
        raise WeightsError(
            f"diffusers {diffusers.__version__}, which is installed, has no {name} yet, version "
            f"{KNOWN_VERSION} has: pip install --upgrade diffusers"
        )
    return found


class _WithoutWeights(TorchFunctionMode):
    """Builds layers without memory for weights, which they allocate by `torch.empty`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        if func is torch.empty:
            options = options | {"device": "meta"}
        return func(*args, **options)


def _build(autoencoder: Any, name: str, config: Mapping[str, Any]) -> Any:
    """Build without memory for weights where the caller asks for that, with constants in any case.

    On the meta device a buffer that no checkpoint holds would have no values: those are a second
    module's, whose weights are on the meta device, too.
    """
    try:
        built = autoencoder.from_config(dict(config))
        persistent = built.state_dict().keys()
        lost = [n for n, b in built.named_buffers() if b.is_meta and n not in persistent]
        if lost:
            with torch.device("cpu"), _WithoutWeights():
                buffers = dict(autoencoder.from_config(dict(config)).named_buffers())
            for buffer in lost:
                owner, _, leaf = buffer.rpartition(".")
                setattr(built.get_submodule(owner), leaf, buffers[buffer])
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise WeightsError(
            f"diffusers cannot build an {name} from this config.json: {error}"
        ) from error
    return built


def _strides(entry: DiffusersClass, autoencoder: Any, patch: int) -> Strides:
    space = entry.space(autoencoder) * patch
    if entry.takes == "images":
        return Strides(1, space, space)
    clips = heights = widths = None
    try:
        if entry.clips is not None:
            clips = entry.clips(autoencoder)
        if entry.sizes is not None:
            heights, widths = entry.sizes(autoencoder)
    except ValueError as error:
        raise WeightsError(
            f"config.json: clips of no length or size can be cut into such tiles: {error}"
        ) from error
    return Strides(entry.time(autoencoder), space, space, clips, heights, widths)


def _inputs(autoencoder: Any) -> int:
    return int(autoencoder.config.get("in_channels", 3))


def _outputs(autoencoder: Any) -> int:
    config = autoencoder.config
    return int(config.get("out_channels", config.get("out_ch", 3)))


def _refuse_variants(name: str, config: Mapping[str, Any]) -> None:
    """Refuse configs whose network is not a map from frames to latents and back, and say why."""
    if config.get("timestep_conditioning") or any(config.get("decoder_inject_noise") or ()):
        raise WeightsError(
            f"config.json: an {name} with timestep_conditioning or decoder_inject_noise draws "
            "noise when it decodes, so that the same latents would give other frames each time"
        )
    if config.get("regularizer", "kl") != "kl":
        raise WeightsError(
            f"config.json: regularizer = {config['regularizer']!r} gives an {name} discrete "
            "tokens, which are no latents; known: 'kl'"
        )
    if not config.get("is_causal", True):
        raise WeightsError(
            f"config.json: an {name} with is_causal = false takes clips of 16n frames and gives "
            "a latent frame for each 4 or 8 of them, none for the first alone"
        )


def _check_bounds(config: Mapping[str, Any]) -> None:
    """Refuse sizes that would take hours or all memory to build.

    Some classes have a list of `layers_per_block`, one for each level.
    """
    for key, most in _BOUNDS.items():
        if isinstance(config.get(key), (list, tuple)):
            for value in counts(config, key):
                count({key: value}, key, most=most)
        elif config.get(key) is not None:
            count(config, key, most=most)
    if "block_out_channels" in config:
        counts(config, "block_out_channels")


def _normalization(config: Mapping[str, Any], channels: int) -> Normalization | None:
    """Parse the normalisation of diffusers' pipelines: `(z - mean) * scaling_factor / std`."""
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None and len(mean) == len(std) > channels:
        log.warning(
            "config.json gives a mean and std for each channel of each latent frame, which one "
            "for each channel cannot stand for: treated as absent"
        )
        return None
    found = read_normalization({k: _plain(v) for k, v in config.items()}, channels)
    if found is None or mean is None or std is None:
        return found
    factor = float(config.get("scaling_factor") or 1.0)
    return Normalization(found.shift, tuple(scale * factor for scale in found.scale))


def _plain(value: Any) -> Any:
    """A field as `config.json` has it: diffusers' defaults are tuples."""
    return list(value) if isinstance(value, tuple) else value


def _sample(decoded: Any) -> Tensor:
    """Read what `decode` of any of the classes returned."""
    sample: Tensor = decoded if isinstance(decoded, Tensor) else decoded.sample
    return sample


def _modernise(name: str) -> str:
    for old, new in _OLD_ATTENTION.items():
        if ".attentions." in name and old in name:
            return name.replace(old, new)
    return name
