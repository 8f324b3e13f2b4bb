"""KL image VAEs, the family of Stable Diffusion's (arXiv 2112.10752), run by diffusers.

Their `AutoencoderKL` is not implemented again here: this adapts it, and a video goes through it
frame by frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from einops import rearrange
from torch import Tensor

from wfvae_cli.errors import MissingExtraError, WeightsError
from wfvae_cli.models.base import Posterior, VideoVAE
from wfvae_cli.models.config import MOST_BLOCKS, MOST_CHANNELS, count, counts, read_normalization
from wfvae_cli.nn.stream import Stream
from wfvae_cli.strides import Strides

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

_OLD_ATTENTION = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}
"""Names that checkpoints from before diffusers 0.17 have, and what they became."""


_BOUNDS = {
    "layers_per_block": MOST_BLOCKS,
    "latent_channels": MOST_CHANNELS,
    "norm_num_groups": MOST_CHANNELS,
}
"""The largest values of fields that diffusers does not check."""


class KLImageVAE(VideoVAE):
    """A diffusers `AutoencoderKL`: every frame of a video is an image to it."""

    family = "kl"
    encoder_modules = ("autoencoder.encoder", "autoencoder.quant_conv")
    decoder_modules = ("autoencoder.decoder", "autoencoder.post_quant_conv")

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        config = autoencoder.config
        space = 2 ** (len(config.block_out_channels) - 1)
        self.strides = Strides(1, space, space)
        self.latent_channels = int(config.latent_channels)
        self.peak_values_per_pixel = 6.0 * config.block_out_channels[0]
        # Not the file's fields: what it leaves out has a default, such as the scaling factor.
        self.normalization = read_normalization(dict(config), self.latent_channels)
        self.autoencoder = autoencoder

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> KLImageVAE:
        """Build the network of a `config.json` that diffusers wrote.

        Raises:
            MissingExtraError: diffusers is not installed.
        """
        try:
            from diffusers import AutoencoderKL
        except ImportError as error:
            raise MissingExtraError("diffusers", "kl", "a KL image VAE (AutoencoderKL)") from error
        for key, most in _BOUNDS.items():
            if config.get(key) is not None:
                count(config, key, most=most)
        if "block_out_channels" in config:
            counts(config, "block_out_channels")
        try:
            autoencoder = AutoencoderKL.from_config(dict(config))
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            raise WeightsError(
                f"diffusers cannot build an AutoencoderKL from this config.json: {error}"
            ) from error
        channels = (autoencoder.config.in_channels, autoencoder.config.out_channels)
        if channels != (3, 3):
            raise WeightsError(
                "config.json: expected 3 in_channels and out_channels, for RGB frames, got "
                f"{channels[0]} and {channels[1]}"
            )
        return cls(autoencoder)

    @classmethod
    def rename(cls, names: Iterable[str]) -> dict[str, str]:
        """Map the names of diffusers' checkpoints, old ones included."""
        return {name: f"autoencoder.{_modernise(name)}" for name in names}

    def _encode(self, frames: Tensor, stream: Stream) -> Posterior:
        del stream  # frames know nothing of each other
        images = rearrange(frames, "b c t h w -> (b t) c h w")
        moments = self.autoencoder.encode(images).latent_dist.parameters
        batch = frames.size(0)
        return Posterior.from_moments(rearrange(moments, "(b t) c h w -> b c t h w", b=batch))

    def _decode(self, latents: Tensor, stream: Stream) -> Tensor:
        del stream
        images = rearrange(latents, "b c t h w -> (b t) c h w")
        decoded: Tensor = self.autoencoder.decode(images).sample
        return rearrange(decoded, "(b t) c h w -> b c t h w", b=latents.size(0))


def _modernise(name: str) -> str:
    for old, new in _OLD_ATTENTION.items():
        if ".attentions." in name and old in name:
            return name.replace(old, new)
    return name
