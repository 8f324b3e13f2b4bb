"""What the network starts from: older weights, and single layers solved by least squares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from linear_code import LinearCode, solve
from optimise import HEADS, STATE
from wfvae_cli.models.wfvae import WFVAE
from wfvae_cli.nn.conv import CausalConv3d
from wfvae_cli.nn.stream import Stream

QUIET = -10.0
"""Log-variance of the latents to start with: noise of 0.7 % of a latent's deviation."""


def build(config: dict[str, Any]) -> WFVAE:
    """The network, with channels-last weights; added residual blocks start as identities."""
    vae = WFVAE.from_config(config)
    for module in vae.modules():
        if isinstance(module, CausalConv3d):
            module.by_tap = False
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            weight = module.weight
            layout = torch.channels_last_3d if weight.ndim == 5 else torch.channels_last
            weight.data = weight.data.contiguous(memory_format=layout)
    return vae


def read_weights(path: Path) -> dict[str, Tensor]:
    """A checkpoint's trained tensors; of a work folder, the averaged ones."""
    if path.is_dir():
        state = load_file(path / STATE)
        heads = tuple(f"average/{name}" for name in HEADS)
        trained = (k for k in state if k.startswith("average/") and not k.startswith(heads))
        return {k.removeprefix("average/"): state[k] for k in trained}
    return {k: v.float() for k, v in load_file(path).items() if WFVAE.constant(k) is None}


def warm_start(vae: WFVAE, given: dict[str, Tensor]) -> None:
    """Copy a smaller relative: blocks it lacks become identities (their last conv zero).

    Blocks are matched within each chain: layers before the added ones keep their numbers, the
    layers after them (resampling, widening) are counted from the chain's end.
    """
    own = vae.state_dict()
    given = dict(given)
    for chain in sorted({".".join(k.split(".")[:2]) for k in own if k.split(".")[2].isdigit()}):
        length = 1 + max(int(k.split(".")[2]) for k in own if k.startswith(f"{chain}."))
        had = 1 + max(int(k.split(".")[2]) for k in given if k.startswith(f"{chain}."))
        # The last two layers of down*/up* chains, and a connect's conv, stay last.
        kept = 1 if "down" in chain or "connect" in chain else 2
        for name in [k for k in own if k.startswith(f"{chain}.")]:
            layer, rest = int(name.split(".")[2]), name.split(".", 3)[3]
            if layer < had - kept:
                old = layer
            elif layer >= length - kept:
                old = layer - (length - had)
            else:
                if rest.startswith("conv2."):
                    own[name].zero_()
                continue
            own[name] = given.pop(f"{chain}.{old}.{rest}")
    own.update(given)
    vae.load_state_dict(own)


@torch.no_grad()
def encode_the_code(vae: WFVAE, code: LinearCode, batches: Iterator[Tensor]) -> None:
    """Set the encoder's last conv so that its means come as near to `code` as they can."""
    last, channels = vae.encoder.conv_out, vae.latent_channels
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, args: seen.append(args[0]))

    def examples() -> Iterator[tuple[Tensor, Tensor]]:
        for frames in batches:
            vae.encode(frames, Stream.whole())
            yield seen.pop(), code.encode(frames)

    solve(last, slice(channels), examples())
    last.conv.weight[channels:] = 0
    assert last.conv.bias is not None
    last.conv.bias[channels:] = QUIET
    hook.remove()


@torch.no_grad()
def decode_the_new(vae: WFVAE, known: WFVAE, batches: Iterator[Tensor]) -> None:
    """Set the decoder's first conv so that new latents look like those that it `known`."""

    def examples() -> Iterator[tuple[Tensor, Tensor]]:
        for frames in batches:
            old = known.encode(frames, Stream.whole()).mean
            new = vae.encode(frames, Stream.whole()).mean
            yield new, known.decoder.conv_in(old, Stream.whole())

    solve(vae.decoder.conv_in, slice(None), examples())
