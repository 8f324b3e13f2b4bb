from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.models.build import build, cached, check_parity
from tests.models.contract import (
    check_batch,
    check_causality,
    check_every_chunking,
    check_footprint,
    check_interleaving,
    check_strips,
    random_clip,
    randomise,
)
from tests.parity.cases import case_config, case_shapes
from wfvae_cli.errors import UsageError, WeightsError
from wfvae_cli.models.wfvae2 import WFVAE2
from wfvae_cli.nn.stream import Stream
from wfvae_cli.strides import Strides

VIDEO = "mini-wfvae2-video"
IMAGE = "mini-wfvae2-image"

SMALL: dict[str, Any] = {
    **case_config(VIDEO),
    "latent_dim": 2,
    "base_channels": [4, 6, 8],
    "encoder_energy_flow_size": 3,
    "decoder_energy_flow_size": 5,
}
DEEP: dict[str, Any] = {
    **SMALL,
    "base_channels": [4, 5, 6, 7],
    "decoder_base_channels": [6, 4, 8, 6],
    "layer_type": ["thw", "hw", "thw"],
    "layer_res_type": ["ResnetBlock3D", "ResnetBlock3D", "ResnetBlock2D"],
}
ALL_TIME: dict[str, Any] = {
    **SMALL,
    "layer_type": ["thw", "thw"],
    "layer_res_type": ["ResnetBlock3D", "ResnetBlock3D"],
}


def small(config: dict[str, Any]) -> WFVAE2:
    vae = WFVAE2.from_config(config)
    randomise(vae)
    return vae


@pytest.mark.parametrize("case", [VIDEO, IMAGE])
def test_it_agrees_with_the_publishers(case: str) -> None:
    check_parity(cached(case), case)


@pytest.mark.parametrize("config", [SMALL, DEEP, ALL_TIME, case_config(IMAGE)])
def test_in_strips_is_whole(config: dict[str, Any]) -> None:
    check_strips(small(config))


@pytest.mark.parametrize("case", [VIDEO, IMAGE])
def test_a_plan_knows_how_much_state_there_is(case: str) -> None:
    check_footprint(cached(case))


@pytest.mark.parametrize("case", [VIDEO, IMAGE])
def test_every_published_tensor_is_a_weight_or_a_constant(case: str) -> None:
    vae = WFVAE2.from_config(case_config(case))
    shapes = {name: list(value.shape) for name, value in vae.state_dict().items()}
    for name in case_shapes(case):
        constant = vae.constant(name)
        if constant is not None:
            shapes[name] = list(constant.shape)
    assert shapes == case_shapes(case)


@pytest.mark.parametrize("longest", [5, pytest.param(6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("interpolation", ["nearest", "trilinear"])
def test_chunked_is_whole(interpolation: str, longest: int) -> None:
    check_every_chunking(small({**SMALL, "t_interpolation": interpolation}), longest)


def test_chunked_is_whole_in_single_precision() -> None:
    check_every_chunking(cached(VIDEO), longest=4)


def test_chunked_is_whole_at_any_depth_and_with_separate_decoder_widths() -> None:
    vae = small(DEEP)
    assert vae.strides == Strides(8, 16, 16)
    assert (vae.encoder.conv_in.out_channels, vae.decoder.conv_out.in_channels) == (4, 6)
    check_every_chunking(vae, longest=4)


def test_chunked_is_whole_where_every_level_halves_time() -> None:
    vae = small(ALL_TIME)
    assert vae.strides == Strides(8, 8, 8)
    check_every_chunking(vae, longest=5)


@pytest.mark.parametrize("config", [SMALL, DEEP])
def test_streams_do_not_mix(config: dict[str, Any]) -> None:
    check_interleaving(small(config))
    check_batch(small(config))


def test_the_future_never_alters_the_past() -> None:
    check_causality(small(SMALL))


def test_a_stream_keeps_no_more_as_the_clip_grows() -> None:
    vae = small(DEEP)
    encoding, decoding = Stream(), Stream()
    kept = []
    clip = random_clip(vae, 10)
    for chunk in (clip[:, :, :1], *clip[:, :, 1:].chunk(9, dim=2)):
        vae.decode(vae.encode(chunk, encoding).mean, decoding)
        kept.append((encoding.nbytes, decoding.nbytes))
    assert kept[3:] == [kept[2]] * 7


def test_the_image_form_takes_each_frame_of_a_video_alone() -> None:
    vae = cached(IMAGE)
    assert vae.strides == Strides(1, 8, 8)
    frames = torch.rand(2, 3, 5, 16, 40, generator=torch.Generator().manual_seed(3)) * 2 - 1
    whole = vae.encode(frames, Stream.whole())
    decoded = vae.decode(whole.mean, Stream.whole())
    assert decoded.shape == frames.shape
    for t in range(5):
        alone = vae.encode(frames[:, :, t : t + 1], Stream.whole())
        again = vae.decode(alone.mean, Stream.whole())
        torch.testing.assert_close(alone.mean, whole.mean[:, :, t : t + 1], atol=1e-5, rtol=0)
        torch.testing.assert_close(again, decoded[:, :, t : t + 1], atol=1e-5, rtol=0)


def test_the_image_form_streams() -> None:
    check_every_chunking(cached(IMAGE), longest=3)
    check_interleaving(cached(IMAGE))
    check_batch(cached(IMAGE))


def test_group_norm_streams_in_the_image_form_only() -> None:
    changes = {
        "base_channels": [32, 32, 32],
        "encoder_energy_flow_size": 32,
        "decoder_energy_flow_size": 32,
        "norm_type": "groupnorm",
    }
    video = small({**case_config(VIDEO), **changes})
    with pytest.raises(UsageError, match="GroupNorm takes statistics over all frames"):
        video.encode(random_clip(video, 1), Stream())
    assert video.encode(random_clip(video, 2), Stream.whole()).mean.shape[2] == 2
    check_every_chunking(small({**case_config(IMAGE), **changes}), longest=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_type": ["hw", "t"]}, "layer_type = 't' is not supported; known: 'hw', 'thw'"),
        ({"layer_type": "hw"}, "expected layer_type to be a list of at most 16, got 'hw'"),
        ({"layer_res_type": ["ResnetBlock2D"]}, "2 levels .* 2 values in layer_res_type, got 1"),
        ({"base_channels": [4, 8]}, "need 3 values in base_channels, got 2"),
        ({"decoder_base_channels": [4]}, "need 3 values in decoder_base_channels, got 1"),
        (
            {"base_channels": [4, 0, 8]},
            "expected base_channels to be an integer from 1 to 65536, got 0",
        ),
        (
            {"decoder_num_resblocks": 1},
            "expected decoder_num_resblocks to be an integer from 2 to 64",
        ),
        ({"mid_layers_type": ["AttnBlock3D"]}, "mid_layers_type = 'AttnBlock3D' is not supported"),
        ({"input_type": "image"}, "input_type = 'image' has no time"),
        ({"input_type": "audio"}, "input_type = 'audio' is not supported"),
    ],
)
def test_a_config_it_cannot_build_is_an_answer(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        WFVAE2.from_config({**SMALL, **change})


def test_a_missing_field_is_named() -> None:
    config = {key: value for key, value in SMALL.items() if key != "layer_type"}
    with pytest.raises(WeightsError, match="no field 'layer_type'"):
        WFVAE2.from_config(config)


def test_scale_and_shift_are_read() -> None:
    normalization = build(VIDEO, scale=[2.0] * 4, shift=[0.5, -1.0, 0.0, 1.0]).normalization
    assert normalization is not None
    assert normalization.scale == (2.0,) * 4
    assert normalization.shift == (0.5, -1.0, 0.0, 1.0)
