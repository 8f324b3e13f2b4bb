"""How colours change from one frame to the next: what a small network leaves out, and comes to see.

Few clips have such changes within a latent's four frames, and a network that was trained on them
carries none: a red ball that flies by is red by half in two frames. No gradient leads back through
a dozen layers of which not one carries them. A linear reading of every level is a short way there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wfvae_cli.models.wfvae import WFVAE

AXES = ((-1.0, 2.0, -1.0), (1.0, 0.0, -1.0))
"""Of colour, over R, G and B: green against magenta, red against blue."""
SOFTEST = 0.002
"""Added to the mean square of the changes, so that a still crop counts little."""


def colour_changes(frames: Tensor) -> Tensor:
    """Half the difference of colour in each pair of frames after the first, B 2 (T-1)/2 H W."""
    axes = functional.normalize(torch.tensor(AXES, device=frames.device), dim=1)
    change = (frames[:, :, 1::2] - frames[:, :, 2::2]) / 2
    return torch.einsum("ac,bcthw->bathw", axes, change)


def pair_means(frames: Tensor) -> Tensor:
    """The first frame and the mean of each pair after it, BC(1+(T-1)/2)HW."""
    return torch.cat((frames[:, :, :1], (frames[:, :, 1::2] + frames[:, :, 2::2]) / 2), dim=2)


class Readings(nn.Module):
    """Linear readings of the changes of colour from every level of encoder and decoder.

    Those within pairs of frames, and from pair to pair where a level has both in one frame.

    Args:
        vae: what each level receives is kept as it passes by, until `error` has used it.
    """

    def __init__(self, vae: WFVAE) -> None:
        super().__init__()
        encoder, decoder = vae.encoder, vae.decoder
        base, flow = encoder.config.base_channels, encoder.config.encoder_energy_flow
        # Changes in a frame of the level: that of one pair, or of two pairs and between them.
        levels: dict[str, tuple[nn.Module, int, int]] = {  # layer, channels, changes
            "down2": (encoder.down2[0], base + flow, 1),
            "down_mid": (encoder.mid[0], 2 * base + flow, 3),
            "moments": (encoder.conv_out, 4 * base, 3),
            "latents": (decoder.conv_in, vae.latent_channels, 3),
            "up2": (decoder.up2[0], 4 * base, 3),
            "up1": (decoder.up1[0], 4 * base, 1),
            "layer": (decoder.layer[0], 2 * base, 1),
            "bands": (decoder.conv_out, base, 1),
        }
        self.read = nn.ModuleDict()
        self.seen: dict[str, Tensor] = {}
        for name, (layer, channels, count) in levels.items():
            linear = nn.Conv3d(channels, len(AXES) * count, 1)
            for parameter in linear.parameters():
                nn.init.zeros_(parameter)
            self.read[name] = nn.Sequential(ChannelsToUnit(), linear)
            layer.register_forward_pre_hook(
                lambda _, args, name=name: self.seen.update({name: args[0]})
            )

    def error(self, frames: Tensor) -> Tensor:
        """Sum over the levels of a reading's squared error, as a share of the changes' square."""
        changes, between = colour_changes(frames), colour_changes(pair_means(frames))
        of_latents = torch.cat((changes[:, :, ::2], changes[:, :, 1::2], between), dim=1)
        total = frames.new_zeros(())
        for name, read in self.read.items():
            found = read(self.seen.pop(name)[:, :, 1:].float())  # the first frame has no pair
            stride = changes.size(-1) // found.size(-1)
            wanted = changes if found.size(1) == len(AXES) else of_latents
            wanted = functional.avg_pool3d(wanted, (1, stride, stride))
            total = total + functional.mse_loss(found, wanted) / (wanted.square().mean() + SOFTEST)
        return total


class ChannelsToUnit(nn.Module):
    """Every pixel's channels to mean 0 and deviation 1, as the network's own layers see them."""

    def forward(self, x: Tensor) -> Tensor:
        """BCTHW."""
        return functional.layer_norm(x.movedim(1, -1), (x.size(1),)).movedim(-1, 1)
