"""What a step of training minimises."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fine import BLOCK, blocks, fine, lines
from footage import Crops
from linear_code import NEVER_BELOW, LinearCode, log_error
from optimise import fast_in_bfloat16
from readings import Readings, colour_changes, pair_means
from wfvae_cli.models.base import Posterior
from wfvae_cli.models.wfvae import WFVAE
from wfvae_cli.nn.stream import Stream

WEIGHTS = {
    "l1": 1.0,
    "share": 0.25,
    "passing": 5.0,
    "colour": 2.0,
    "lines": 0.5,
    "fine": 0.12,
    "readings": 0.05,
    "kl": 1e-6,
    "wavelet": 0.02,
}
"""Of the terms of `Losses`."""
HALF_RANGE = 127.5
"""Levels of 255 in a unit of frames in [-1, 1]."""
ROUGH = 1.5
"""Levels of fine structure of its own with which a block counts as smooth by half."""
LEVELS = ("connect_l1", "connect_l2")
"""Layers through which wavelet bands join the encoder and leave the decoder."""


class Losses:
    """The loss terms of the whole network.

    Args:
        vae: what learns.
        errors: what each clip loses; kept up to date.
        readings: of `vae`; they learn with it.
    """

    def __init__(self, vae: WFVAE, errors: ClipErrors, readings: Readings) -> None:
        self.vae, self.errors, self.readings = vae, errors, readings
        self.bands = Bands(vae)

    def __call__(self, crops: Crops, seed: int, frozen: bool) -> dict[str, Tensor]:
        """Terms of a batch, and "loss", their sum; a `frozen` encoder learns nothing from them."""
        vae, frames = self.vae, crops.frames
        with autocast(frames.device):
            with torch.set_grad_enabled(not frozen):
                posterior = vae.encode(frames, Stream.whole())
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn(posterior.mean.shape, generator=generator).to(frames.device)
            decoded = vae.decode(posterior.sample(noise), Stream.whole()).float()
        error = decoded - frames
        terms = {
            "l1": error.abs().mean(),
            "share": self.errors.share(error, crops.names),
            "passing": (error.abs() * passing(frames)).mean(),
            "colour": colour(error),
            **where_smooth(error, frames),
            "readings": self.readings.error(frames),
            "kl": kl(posterior),
            "wavelet": self.bands.distance(),
        }
        loss = sum((WEIGHTS[name] * term for name, term in terms.items()), frames.new_zeros(()))
        return terms | {"loss": loss}


def encoder_losses(vae: WFVAE, code: LinearCode, frames: Tensor) -> dict[str, Tensor]:
    """What is lost where the code's decoder stands in for the network's."""
    with autocast(frames.device):
        latents = vae.encode(frames, Stream.whole()).mean
    return {"loss": log_error(code.decode(latents.float()), frames)}


def kl(posterior: Posterior) -> Tensor:
    """KL divergence from the standard normal, in nats a latent value."""
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def passing(frames: Tensor) -> Tensor:
    """Where something has just passed or soon will, and by how much it differs: B1THW, 0 to 2.

    A latent's frames easily leave a pale copy of it there, which squared errors hardly see. It is
    how far a grey value is from both extremes of 7 frames while it is near their median.
    """
    grey = frames.mean(dim=1, keepdim=True)
    near = functional.pad(grey, (0, 0, 0, 0, 3, 3), mode="reflect").unfold(2, 7, 1)
    reach = near.amax(-1) - near.amin(-1)
    return reach - (grey - near.median(-1).values).abs()


def colour(error: Tensor) -> Tensor:
    """Mean absolute error of the changes of colour within pairs of frames and from pair to pair."""
    both = (error, pair_means(error))
    changes = [functional.avg_pool3d(colour_changes(x), (1, 2, 2)) for x in both]
    return torch.stack([change.abs().mean() for change in changes]).sum()


def where_smooth(error: Tensor, frames: Tensor) -> dict[str, Tensor]:
    """Fine structure of the error where the frames have next to none, in levels of 255.

    An eye sees it there long before a sum of squares does. "lines" is the mean square of what keeps
    on over a block, "fine" the mean magnitude of all.
    """
    stride = BLOCK // 2
    own, made = fine(frames * HALF_RANGE), fine(error * HALF_RANGE)
    smooth = 1 / (1 + (blocks(own.abs().amax(dim=(0, 2)), stride) / ROUGH).square())
    grey = lines(made.mean(dim=2, keepdim=True), stride)
    rows_and_columns = blocks(made[:2].abs().sum(dim=0).mean(dim=1), stride)
    return {
        "lines": (grey.square().sum(dim=(0, 2)) * smooth).mean(),
        "fine": (rows_and_columns * smooth).mean(),
    }


class ClipErrors:
    """What each clip loses by and large: a moving average of its crops' squared errors.

    A crop's gradient counts by it, as in the PSNR of the whole picture: hard parts of a clip more
    than its flat ones.

    Args:
        known: the averages so far, by name of the clip; kept up to date.
    """

    def __init__(self, known: dict[str, float]) -> None:
        self.known = known

    def share(self, error: Tensor, names: list[str]) -> Tensor:
        """Squared error of crops (B3THW) as a share of their clips', mean over the batch."""
        shares = []
        squares = error.square().mean(dim=(1, 2, 3, 4)).add(NEVER_BELOW)
        for name, square in zip(names, squares, strict=True):
            value = float(square.detach())
            known = 0.9 * self.known.get(name, value) + 0.1 * value
            self.known[name] = known
            shares.append(square / (0.75 * known + 0.25 * value))
        return torch.stack(shares).mean()


class Bands:
    """The wavelet bands of both levels as they pass by in encoder and decoder."""

    def __init__(self, vae: WFVAE) -> None:
        self.seen: dict[str, Tensor] = {}
        for level in LEVELS:
            vae.encoder.get_submodule(level).register_forward_pre_hook(
                lambda _, args, level=level: self.seen.update({f"encoder.{level}": args[0]})
            )
            # The decoder adds the low band to this very tensor afterwards, as it should be here.
            vae.decoder.get_submodule(level).register_forward_hook(
                lambda _, __, out, level=level: self.seen.update({f"decoder.{level}": out})
            )

    def distance(self) -> Tensor:
        """Mean absolute difference of the decoder's bands from the encoder's, both levels."""
        distances = [
            (self.seen[f"encoder.{level}"].float() - self.seen[f"decoder.{level}"].float()).abs()
            for level in LEVELS
        ]
        return torch.stack([distance.mean() for distance in distances]).sum()


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where it is fast; weights, norms and losses stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=fast_in_bfloat16(device))
