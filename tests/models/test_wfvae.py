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
from tests.parity.cases import case_config
from wfvae_cli.errors import UsageError, WeightsError
from wfvae_cli.models.wfvae import WFVAE
from wfvae_cli.nn.stream import Stream
from wfvae_cli.strides import Strides

MINIS = ["mini-wfvae-trilinear", "mini-wfvae-nearest", "mini-wfvae-888"]


@pytest.mark.parametrize("case", [*MINIS, "mini-wfvae-groupnorm"])
def test_agrees_with_its_publishers(case: str) -> None:
    check_parity(cached(case), case)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", ["wfvae-s-8ch", "wfvae-l-16ch", "wfvae-m-888-32ch"])
def test_full_size_agrees_with_its_publishers(case: str) -> None:
    check_parity(build(case), case)


@pytest.mark.parametrize("longest", [5, pytest.param(6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", MINIS)
def test_chunked_is_whole(case: str, longest: int) -> None:
    check_every_chunking(cached(case), longest)


@pytest.mark.parametrize("case", MINIS)
def test_in_strips_is_whole(case: str) -> None:
    vae = WFVAE.from_config(case_config(case) | {"base_channels": 8})
    randomise(vae)
    check_strips(vae)


def test_groupnorm_cannot_be_run_in_bands() -> None:
    vae = cached("mini-wfvae-groupnorm")
    assert vae.footprint is None
    with pytest.raises(UsageError, match="cannot be run in row bands"):
        vae.encode(random_clip(vae, 1), Stream(last=True, row_bands=2))


@pytest.mark.parametrize("case", MINIS)
def test_a_plan_knows_how_much_state_there_is(case: str) -> None:
    check_footprint(cached(case))


@pytest.mark.parametrize("case", MINIS)
def test_streams_do_not_mix(case: str) -> None:
    check_interleaving(cached(case))
    check_batch(cached(case))


@pytest.mark.parametrize("case", MINIS)
def test_the_future_never_alters_the_past(case: str) -> None:
    check_causality(cached(case))


@pytest.mark.parametrize("case", MINIS)
def test_a_forked_stream_continues_alone(case: str) -> None:
    vae = cached(case)
    s = vae.strides.time
    with torch.inference_mode():
        x = random_clip(vae, 4)
        stream = Stream()
        vae.encode(x[:, :, : 1 + s], stream)
        fork = stream.fork()
        first = vae.encode(x[:, :, 1 + s : 1 + 2 * s], stream).mean
        vae.encode(x[:, :, 1 + 2 * s :], stream)
        assert torch.equal(vae.encode(x[:, :, 1 + s : 1 + 2 * s], fork).mean, first)


@pytest.mark.parametrize("case", MINIS)
def test_a_stream_keeps_no_more_as_the_clip_grows(case: str) -> None:
    vae = cached(case)
    s = vae.strides.time
    kept = []
    with torch.inference_mode():
        encoder, decoder = Stream(), Stream()
        x = random_clip(vae, 8)
        for i in range(8):
            frames = x[:, :, :1] if i == 0 else x[:, :, 1 + s * (i - 1) : 1 + s * i]
            vae.decode(vae.encode(frames, encoder).mean, decoder)
            kept.append((encoder.nbytes, decoder.nbytes))
    assert kept[2] == kept[7]


def test_the_last_chunk_leaves_nothing_behind() -> None:
    vae = cached("mini-wfvae-trilinear")
    stream = Stream.whole()
    with torch.inference_mode():
        z = vae.encode(random_clip(vae, 3), stream).mean
        assert stream.nbytes == 0
        decoder = Stream.whole()
        vae.decode(z, decoder)
        assert decoder.nbytes == 0


def test_groupnorm_cannot_be_chunked_and_says_why() -> None:
    vae = cached("mini-wfvae-groupnorm")
    assert vae.whole_clip_only is not None
    with pytest.raises(UsageError, match="whole clips only: its GroupNorm"):
        vae.encode(random_clip(vae, 2), Stream())


@pytest.mark.parametrize(
    ("case", "strides", "channels"),
    [
        ("wfvae-s-8ch", (4, 8, 8), 8),
        ("wfvae-l-16ch", (4, 8, 8), 16),
        ("wfvae-m-888-32ch", (8, 8, 8), 32),
    ],
)
def test_published_configs(case: str, strides: tuple[int, int, int], channels: int) -> None:
    with torch.device("meta"):
        vae = WFVAE.from_config(case_config(case))
    assert vae.strides == Strides(*strides)
    assert vae.latent_channels == channels
    assert (vae.normalization is not None) == (case == "wfvae-m-888-32ch")


def test_a_placeholder_scale_is_reported_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    placeholder = {"scale": [0.1] * 4, "shift": [0.0] * 4}
    with torch.device("meta"), caplog.at_level("WARNING", logger="wfvae"):
        vae = WFVAE.from_config(case_config("wfvae-l-16ch") | placeholder)
    assert vae.normalization is None
    assert "4 scales and 4 shifts for 16 latent channels" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_type": "AttnBlock3D"}, "attention_type = 'AttnBlock3D' is not supported"),
        ({"norm_type": "batchnorm"}, "norm_type = 'batchnorm' is not supported; known: 'layer"),
        ({"latent_dim": 0}, "expected latent_dim to be an integer from 1 to 65536, got 0"),
        (
            {"base_channels": "16"},
            "expected base_channels to be an integer from 1 to 65536, got '16'",
        ),
        ({"l1_upsample_block": "Spatial2xTime2x3DUpsample"}, "contradicts itself: at level 1"),
        ({"t_interpolation": ["nearest"]}, "is not supported"),
    ],
)
def test_a_bad_config_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        WFVAE.from_config(case_config("mini-wfvae-nearest") | change)


def test_a_missing_field_is_named() -> None:
    config = case_config("mini-wfvae-nearest")
    del config["l2_dowmsample_block"]
    with pytest.raises(WeightsError, match="no field 'l2_dowmsample_block'"):
        WFVAE.from_config(config)


@pytest.mark.parametrize(
    ("shape", "stream", "message"),
    [
        ((1, 4, 5, 16, 16), Stream(), "expected B3THW"),
        ((1, 3, 5, 12, 16), Stream(), "width and height multiples of 8x8"),
        ((1, 3, 4, 16, 16), Stream(), r"expected 1 \+ 4k frames first in this stream, got 4"),
        ((1, 3, 5, 16, 16), Stream(first=False), "expected 4k frames next in this stream, got 5"),
    ],
)
def test_chunks_of_another_shape_are_refused(
    shape: tuple[int, ...], stream: Stream, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        cached("mini-wfvae-trilinear").encode(torch.zeros(shape), stream)


def test_latents_of_other_channels_are_refused() -> None:
    with pytest.raises(UsageError, match="expected latents BCTHW with 4 channels"):
        cached("mini-wfvae-trilinear").decode(torch.zeros(1, 5, 2, 2, 2), Stream())
