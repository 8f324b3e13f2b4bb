from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.models import test_wan22
from tests.models.test_wan import DIFFUSERS, to_diffusers
from tests.parity.cases import case_config, case_shapes
from wfvae_cli.models.detect import infer_config, nearest_layout


@pytest.mark.parametrize("case", ["mini-wan", "wan2.1-vae", "mini-wan22", "wan2.2-vae"])
@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_a_wan_checkpoint_needs_no_config(case: str, layout: str) -> None:
    shapes = case_shapes(case)
    if layout == "diffusers":
        rename = to_diffusers if case in ("mini-wan", "wan2.1-vae") else test_wan22.to_diffusers
        shapes = {rename(name, blocks=2): shape for name, shape in shapes.items()}
    inferred = infer_config(shapes)
    assert inferred is not None
    assert inferred.config == case_config(case)
    full = not case.startswith("mini")
    assert ("with its latents' mean and std" in inferred.note) == full
    assert ("latents_mean" in inferred.config) == full


@pytest.mark.parametrize(
    "change",
    [
        {"dim_mult": [1, 3, 2], "temporal_downsample": [True, False]},
        {"dim_mult": [2, 2], "temporal_downsample": [True], "num_res_blocks": 3},
        {"decoder_base_dim": 8},
    ],
)
def test_every_field_of_wan_shows_in_the_tensors(change: dict[str, Any]) -> None:
    diffusers = pytest.importorskip("diffusers", reason="tensors come from diffusers (extra kl)")
    config = {**case_config("mini-wan"), "dim": 4, **change}
    theirs = {key: value for key, value in config.items() if key != "_class_name"}
    theirs["base_dim"] = theirs.pop("dim")
    theirs["temperal_downsample"] = theirs.pop("temporal_downsample")
    # Asked for off the meta device: diffusers imports its modules then, and their constants stay.
    autoencoder = diffusers.AutoencoderKLWan
    with torch.device("meta"):
        weights = autoencoder(**theirs).state_dict()
    inferred = infer_config({name: tuple(value.shape) for name, value in weights.items()})
    assert inferred is not None
    assert inferred.config == config


@pytest.mark.parametrize(
    "change",
    [
        {"dim_mult": [1, 2, 2], "temporal_downsample": [True, False]},
        {"dim_mult": [2, 2], "temporal_downsample": [True], "num_res_blocks": 3},
        {"dec_dim": 4},
    ],
)
def test_every_field_of_wan_22_shows_in_the_tensors(change: dict[str, Any]) -> None:
    diffusers = pytest.importorskip("diffusers", reason="tensors come from diffusers")
    config = {**case_config("mini-wan22"), "dim": 4, "dec_dim": 8, **change}
    theirs = {key: value for key, value in config.items() if key != "_class_name"}
    theirs["base_dim"], theirs["decoder_base_dim"] = theirs.pop("dim"), theirs.pop("dec_dim")
    theirs["temperal_downsample"] = theirs.pop("temporal_downsample")
    theirs |= {"is_residual": True, "in_channels": 12, "out_channels": 12}
    # Asked for off the meta device: diffusers imports its modules then, and their constants stay.
    autoencoder = diffusers.AutoencoderKLWan
    with torch.device("meta"):
        weights = autoencoder(**theirs).state_dict()
    inferred = infer_config({name: tuple(value.shape) for name, value in weights.items()})
    assert inferred is not None
    assert inferred.config == config


def test_other_tensors_do_not_decide_a_config() -> None:
    assert infer_config(case_shapes("mini-wfvae-trilinear")) is None
    assert infer_config(case_shapes("mini-wfvae2-video")) is None
    assert infer_config({}) is None
    wan_22 = {
        name.replace("downsamples.0.", "downsamples.0.downsamples.0."): shape
        for name, shape in case_shapes("mini-wan").items()
    }
    assert infer_config(wan_22) is None


@pytest.mark.parametrize(
    ("case", "layout"),
    [
        ("mini-wfvae-trilinear", "WFVAEModel"),
        ("mini-wfvae-888", "WFVAEModel"),
        ("mini-wfvae2-video", "WFVAE2Model"),
        ("mini-wfvae2-image", "WFVAE2Model"),
        ("mini-wan", "WanVAE"),
    ],
)
def test_a_layout_is_most_like_itself(case: str, layout: str) -> None:
    names = list(case_shapes(case))
    assert nearest_layout(names) == layout
    assert nearest_layout(f"vae.{name}" for name in names) == layout


def test_the_layouts_of_diffusers_are_most_like_themselves() -> None:
    diffusers = pytest.importorskip("diffusers", reason="names come from diffusers (extra kl)")
    wan = diffusers.AutoencoderKLWan(**DIFFUSERS).state_dict()
    assert nearest_layout(wan) == "AutoencoderKLWan"
    kinds = {"down_block_types": ["DownEncoderBlock2D"] * 2, "norm_num_groups": 2}
    kinds |= {"up_block_types": ["UpDecoderBlock2D"] * 2, "block_out_channels": [2, 4]}
    assert nearest_layout(diffusers.AutoencoderKL(**kinds).state_dict()) == "AutoencoderKL"


def test_what_is_like_nothing_has_no_nearest() -> None:
    assert nearest_layout(["model.layers.0.self_attn.q_proj.weight", "lm_head.weight"]) is None
    assert nearest_layout([]) is None
