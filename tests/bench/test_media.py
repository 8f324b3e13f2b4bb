from dataclasses import replace
from pathlib import Path

import pytest

from tests.models.tiny import tiny_state, write_checkpoint
from wfvae_cli.bench.measure import Spread
from wfvae_cli.bench.media import MediaProfile, Side, SideResult, profile
from wfvae_cli.bench.picture import write_moving_picture
from wfvae_cli.bench.subject import Setting
from wfvae_cli.media.options import Sampling


@pytest.fixture
def measured(tmp_path: Path) -> MediaProfile:
    setting = Setting(str(write_checkpoint(tmp_path, tiny_state())), device="cpu")
    clip = write_moving_picture(tmp_path / "clip.mp4", 9, 32, 16)
    return profile(setting, clip, Sampling(frames=5, size=(16, 16)), tmp_path, runs=2)


def test_both_sides_of_encoding_and_decoding_are_measured(measured: MediaProfile) -> None:
    assert [side.side for side in measured.sides] == ["read", "encode", "decode", "write"]
    assert (measured.frames, measured.width, measured.height) == (5, 16, 16)
    assert measured.codec == "h264"
    for side in measured.sides:
        rate = side.frames_per_second
        assert 0 < rate.least <= rate.median <= rate.most
        assert side.megapixels_per_second == pytest.approx(rate.median * 16 * 16 / 1e6)
        assert side.cores > 0


def side(name: Side, rate: float) -> SideResult:
    return SideResult(name, Spread(rate, rate, rate), 0.0, 1.0)


def test_the_verdict_names_the_slower_side(measured: MediaProfile) -> None:
    result = replace(
        measured,
        read=side("read", 300.0),
        encode=side("encode", 100.0),
        decode=side("decode", 90.0),
        write=side("write", 30.0),
    )
    assert result.verdict == (
        "the model limits encoding: reading files alone is 3.0 times as fast; "
        "writing files limits decoding: the model alone is 3.0 times as fast"
    )
