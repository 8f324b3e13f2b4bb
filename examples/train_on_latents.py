"""Train a small flow-matching model on latents, and sample from it.

    wfvae encode videos/ -o latents/ --size 64x64 --frames 17
    wfvae stats latents/ -o stats.json
    python examples/train_on_latents.py latents/ stats.json --steps 200 -o sample.png

What a trainer needs of a cache is all here: windows of one length, latents of zero mean and unit
variance, and the way back. The network is a toy of three convolutions: put yours in its place.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import wfvae_cli as wfvae  # before torch, whose threads would spin while they wait

# isort: split
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader


class Velocity(nn.Module):
    """Predict the velocity from data to noise, of BCTHW latents at times `t` in [0, 1]."""

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(channels + 1, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv3d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv3d(width, channels, 3, padding=1),
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Give the velocity at `x`, of which `t` is noise."""
        times = t.view(-1, 1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        velocity: Tensor = self.layers(torch.cat((x, times), dim=1))
        return velocity


def batches(dataset: wfvae.LatentDataset, size: int) -> Iterator[Tensor]:
    """Give batches of latents for ever, other windows of each clip in every epoch."""
    for epoch in itertools.count():
        dataset.set_epoch(epoch)
        for batch in DataLoader(dataset, batch_size=size, shuffle=True):
            yield batch["latents"]


def train(net: Velocity, data: Iterator[Tensor], steps: int) -> None:
    """Take `steps` steps of flow matching."""
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    for step in range(1, steps + 1):
        x = next(data)
        noise, t = torch.randn_like(x), torch.rand(len(x))
        mixing = t.view(-1, 1, 1, 1, 1)
        loss = (net((1 - mixing) * x + mixing * noise, t) - (noise - x)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == 1 or step % 20 == 0 or step == steps:
            print(f"step {step}: loss {loss.item():.3f}")


@torch.inference_mode()
def sample(net: Velocity, shape: tuple[int, ...], steps: int = 20) -> Tensor:
    """Walk from noise to latents in Euler steps."""
    x = torch.randn(shape)
    for i in range(steps, 0, -1):
        x -= net(x, torch.full((len(x),), i / steps)) / steps
    return x


@torch.inference_mode()
def decode(latents: Tensor, stats: Path) -> Tensor:
    """Undo the normalisation, and decode BCTHW latents to frames in [-1, 1]."""
    values = json.loads(stats.read_text())
    mean, std = (
        torch.tensor(values[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std")
    )
    model = wfvae.load_model(values["model"]["name"], task="decode")
    frames: Tensor = model.vae.decode((latents * std + mean).to(model.device), wfvae.Stream.whole())
    return frames.float().cpu()


def main() -> None:
    """Train on the latents of a folder, then draw a sample."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("latents", help="a folder that wfvae encode wrote")
    parser.add_argument("stats", type=Path, help="a file that wfvae stats wrote")
    parser.add_argument("-o", "--output", type=Path, default=Path("sample.png"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--frames", type=int, default=3, help="latent frames of a window")
    options = parser.parse_args()

    torch.manual_seed(0)
    dataset = wfvae.LatentDataset(options.latents, normalize=options.stats, frames=options.frames)
    shape = dataset[0]["latents"].shape
    net = Velocity(shape[0])
    train(net, batches(dataset, size=4), options.steps)

    frames = decode(sample(net, (1, *shape)), options.stats)
    pictures = ((frames[0] + 1) * 127.5).round().clamp(0, 255).byte()  # CTHW
    strip = torch.cat(tuple(pictures[:, ::4].unbind(1)), dim=2)  # every fourth, side by side
    Image.fromarray(strip.permute(1, 2, 0).numpy()).save(options.output)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
