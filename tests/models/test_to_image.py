from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.build import cached
from tests.models.contract import randomise
from tests.parity.cases import case_config, case_shapes, case_weights
from wfvae_cli.errors import UsageError, WeightsError
from wfvae_cli.models.to_image import ImageCheckpoint, sample_stills, still_distance, to_image
from wfvae_cli.models.wfvae2 import WFVAE2, UpBlock
from wfvae_cli.nn.resample import SpaceUpsample, double_space
from wfvae_cli.nn.stream import Stream

VIDEO = "mini-wfvae2-video"
IMAGE = "mini-wfvae2-image"

SPACE_ONLY: dict[str, Any] = {
    **case_config(VIDEO),
    "layer_type": ["hw", "hw"],
    "layer_res_type": ["ResnetBlock2D", "ResnetBlock3D"],
}
DEEP: dict[str, Any] = {
    **case_config(VIDEO),
    "base_channels": [4, 5, 6, 7],
    "decoder_base_channels": [6, 4, 8, 6],
    "layer_type": ["thw", "hw", "thw"],
    "layer_res_type": ["ResnetBlock3D", "ResnetBlock3D", "ResnetBlock2D"],
}


class BilinearUpsample(SpaceUpsample):
    """What the video model does to a first frame where a level halves time."""

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        y: Tensor = self.conv(double_space(x, "bilinear"), stream)
        return y


def random_video(config: dict[str, Any]) -> WFVAE2:
    vae = WFVAE2.from_config(config)
    randomise(vae)
    return vae


def load(made: ImageCheckpoint) -> WFVAE2:
    vae = WFVAE2.from_config(made.config)
    weights = {name: x for name, x in made.state.items() if vae.constant(name) is None}
    vae.load_state_dict(weights, strict=True, assign=True)
    return vae.eval().requires_grad_(False)


def test_it_makes_a_complete_checkpoint_of_the_image_form() -> None:
    made = to_image(case_config(VIDEO), case_weights(VIDEO))
    assert {name: list(x.shape) for name, x in made.state.items()} == case_shapes(IMAGE)
    assert made.config == case_config(IMAGE)


def test_without_levels_that_halve_time_it_is_exact() -> None:
    video = random_video(SPACE_ONLY)
    made = to_image(SPACE_ONLY, video.state_dict())
    distance = still_distance(video, load(made), sample_stills().double())
    assert distance.latents < 1e-12
    assert distance.frames < 1e-12
    assert not any("not exact" in note for note in made.notes)


@pytest.mark.parametrize("config", [case_config(VIDEO), DEEP])
def test_all_but_the_enlarging_is_exact(config: dict[str, Any]) -> None:
    video = random_video(config)
    made = to_image(config, video.state_dict())
    image, stills = load(made), sample_stills().double()
    distance = still_distance(video, image, stills)
    assert distance.latents < 1e-12
    assert 1e-3 < distance.frames < 1
    assert 6 < distance.psnr < 66
    inexact = [note for note in made.notes if note.startswith("not exact")]
    assert len(inexact) == 1
    for index, kind in enumerate(reversed(config["layer_type"])):
        assert (f"decoder.up_blocks.{index}.up" in inexact[0]) == (kind == "thw")
        block = image.decoder.up_blocks[index]
        assert isinstance(block, UpBlock)
        assert isinstance(block.up, SpaceUpsample)
        if kind == "thw":
            bilinear = BilinearUpsample(block.up.conv.in_channels)
            bilinear.conv = block.up.conv
            block.up = bilinear
    exact = still_distance(video, image, stills)
    assert exact.frames < 1e-12
    assert exact.psnr > 200


def test_distance_is_none_between_a_model_and_itself() -> None:
    video = cached(VIDEO)
    distance = still_distance(video, video, sample_stills(1, 64))
    assert (distance.latents, distance.frames, distance.psnr) == (0.0, 0.0, math.inf)


def test_types_are_kept() -> None:
    weights = {name: x.bfloat16() for name, x in case_weights(VIDEO).items()}
    made = to_image(case_config(VIDEO), weights)
    assert made.state["encoder.conv_in.weight"].dtype == torch.bfloat16
    assert made.state["encoder.wavelet_transform_in.aa"].dtype == torch.float32


def test_sample_stills_are_pictures_and_always_the_same() -> None:
    stills = sample_stills(3, 64)
    assert stills.shape == (3, 3, 1, 64, 64)
    assert torch.equal(stills, sample_stills(3, 64))
    assert stills.abs().max() <= 1
    assert stills.std() > 0.2
    neighbours = (stills[..., 1:] - stills[..., :-1]).std()
    assert neighbours < 0.8 * stills.std()  # white noise: 1.4


def test_what_has_no_image_form_is_refused() -> None:
    with pytest.raises(UsageError, match="got WFVAEModel: only that family has an image form"):
        to_image(case_config("mini-wfvae-trilinear"), {})
    with pytest.raises(UsageError, match="of the image form already"):
        to_image(case_config(IMAGE), case_weights(IMAGE))
    weights = case_weights(VIDEO)
    del weights["decoder.conv_out.bias"]
    with pytest.raises(WeightsError, match=r"1 tensors .* such as decoder\.conv_out\.bias"):
        to_image(case_config(VIDEO), weights)
