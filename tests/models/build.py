"""Models of the parity cases, with their weights by rule."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from tests.parity.cases import case_answers, case_config, case_weights
from wfvae_cli.models.base import VideoVAE
from wfvae_cli.models.registry import find_family
from wfvae_cli.nn.conv import laid_out
from wfvae_cli.nn.stream import Stream

PARITY_TOLERANCE = 1e-4


def build(case: str, **changes: Any) -> VideoVAE:
    """The model of a parity case; `changes` replace fields of its config."""
    config = case_config(case) | changes
    weights = case_weights(case)
    cls = find_family(config, weights, case).load()
    with torch.device("meta"):
        vae = cls.from_config(config)
    names = cls.rename(weights)
    vae.load_state_dict({names[name]: weights[name] for name in weights}, assign=True)
    for name, weight in vae.named_parameters():
        layer = vae.get_submodule(name.rpartition(".")[0].rpartition(".")[0])
        weight.data = laid_out(weight.data, layer)
    return vae.eval().requires_grad_(False)


@cache
def cached(case: str) -> VideoVAE:
    """The model of a parity case, built once. A model holds weights only, so tests may share."""
    return build(case)


def check_parity(vae: VideoVAE, case: str) -> None:
    """Moments and reconstruction agree with the publishers' own answers."""
    answers = case_answers(case)
    with torch.inference_mode():
        x = answers["x"] if answers["x"].dim() == 5 else answers["x"].unsqueeze(2)
        posterior = vae.encode(x, Stream.whole())
        mean, logvar = answers["moments"].chunk(2, dim=1)
        z = answers["mean"]
        if answers["x"].dim() == 4:
            mean, logvar, z = mean.unsqueeze(2), logvar.unsqueeze(2), z.unsqueeze(2)
        assert posterior.mean.shape == mean.shape
        assert (posterior.mean - mean).abs().max() <= PARITY_TOLERANCE
        assert (posterior.logvar - logvar.clamp(-30, 20)).abs().max() <= PARITY_TOLERANCE
        y = vae.decode(z, Stream.whole())
        assert (y - answers["reconstruction"].reshape(y.shape)).abs().max() <= PARITY_TOLERANCE
