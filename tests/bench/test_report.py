from pathlib import Path

import pytest
import torch

from tests.models.tiny import tiny_state, write_checkpoint
from wfvae_cli.bench import report
from wfvae_cli.bench.measure import Spread
from wfvae_cli.bench.picture import moving_picture, write_moving_picture
from wfvae_cli.bench.precision import precision, psnr
from wfvae_cli.bench.report import SweepRow, bench, compare, recommend, sweep
from wfvae_cli.bench.subject import STAGES, Setting, Subject
from wfvae_cli.errors import UsageError
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import open_clip


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    folder = tmp_path_factory.mktemp("model")
    return Setting(str(write_checkpoint(folder, tiny_state())), device="cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moving_picture(tmp_path_factory.mktemp("clip") / "clip.mp4", 9, 32, 16)


def test_the_generated_clip_moves_and_is_the_same_every_time(clip: Path) -> None:
    first, second = list(moving_picture(3, 32, 16)), list(moving_picture(3, 32, 16))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert (first[0] != first[1]).any()
    with open_clip(clip, Sampling()) as reader:
        assert (reader.info.width, reader.info.height) == (32, 16)
        assert len(list(reader)) == 9


def test_every_stage_is_measured(setting: Setting, clip: Path, tmp_path: Path) -> None:
    result = bench(setting, clip, Sampling(frames=5), tmp_path, runs=2)
    assert (result.frames, result.width, result.height) == (5, 32, 16)
    assert tuple(stage.stage for stage in result.stages) == STAGES
    assert result.start_up_seconds > 0
    by_name = {stage.stage: stage for stage in result.stages}
    assert by_name["decode"].gflop > by_name["encode"].gflop > 0
    assert by_name["encode from file"].gflop == by_name["encode"].gflop
    assert by_name["decode to file"].gflop == by_name["decode"].gflop
    for stage in result.stages:
        rate = stage.frames_per_second
        assert 0 < rate.least <= rate.median <= rate.most
        assert stage.megapixels_per_second == pytest.approx(rate.median * 32 * 16 / 1e6)
        assert stage.host_bytes > 2**20
        assert stage.device_bytes is None


def test_a_subject_runs_what_the_commands_run(setting: Setting, clip: Path, tmp_path: Path) -> None:
    chunked = Subject(setting.changed("chunk=5"), clip, Sampling(), tmp_path)
    whole = Subject(setting, clip, Sampling(), tmp_path)
    assert chunked.plan.later == 1
    torch.testing.assert_close(chunked.latents, whole.latents, rtol=1e-5, atol=1e-5)
    assert sum(frames.size(2) for frames in chunked.decoded()) == 9
    chunked.run("decode to file")
    assert (tmp_path / "decoded.mp4").exists()


def test_a_sweep_ends_with_the_whole_clip(setting: Setting, clip: Path, tmp_path: Path) -> None:
    rows = sweep(setting, clip, Sampling(), tmp_path, runs=1)
    assert [row.chunk for row in rows] == [5, 9]


def test_the_smallest_chunk_that_is_fast_enough_is_recommended() -> None:
    def row(chunk: int, speed: float) -> SweepRow:
        return SweepRow(chunk, Spread.of([speed]), Spread.of([speed]), 0, None)

    assert recommend([row(5, 50), row(9, 98), row(17, 100), row(33, 90)]) == 9


def test_two_settings_take_turns(setting: Setting, clip: Path, tmp_path: Path) -> None:
    other = setting.changed("dtype=bfloat16, chunk=5")
    rows = compare(setting, other, clip, Sampling(frames=5), tmp_path, runs=1)
    assert [row.stage for row in rows] == list(STAGES)
    for row in rows:
        assert row.ratio.median == pytest.approx(row.b.median / row.a.median)


@pytest.mark.parametrize("text", ["dtype=float8", "chunk=0", "speed=9", "chunk", "dtype=", ""])
def test_a_setting_that_is_none(setting: Setting, text: str) -> None:
    with pytest.raises(UsageError, match="dtype=bfloat16,chunk=9"):
        setting.changed(text)


def test_rounder_types_are_farther_from_float32(
    setting: Setting, clip: Path, tmp_path: Path
) -> None:
    bfloat16, float16 = precision(setting, clip, Sampling(frames=5), tmp_path)
    assert (bfloat16.dtype, float16.dtype) == ("bfloat16", "float16")
    assert 20 < bfloat16.latents < float16.latents
    assert 20 < bfloat16.pixels < float16.pixels
    assert 20 < bfloat16.roundtrip < float16.roundtrip


def test_psnr() -> None:
    a = torch.zeros(10)
    assert psnr(a, a, 2.0) == float("inf")
    assert psnr(a + 0.2, a, 2.0) == pytest.approx(20)


def test_what_is_compiled_is_counted_and_told(
    setting: Setting, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the real compiler, which takes minutes: operations do not depend on it."""
    monkeypatch.setattr(torch, "compile", lambda run, **options: run)
    monkeypatch.setattr(report, "best_rate", lambda device, dtype: 1e9)
    monkeypatch.setattr(report, "start_up", lambda model, device: 0.0)
    compiled = setting.changed("compile=on")
    assert compiled.describe() == f"{setting.describe()} compile=on"
    assert compiled.changed("compile=off") == setting
    sampling = Sampling(frames=5)
    fast, plain = (bench(each, clip, sampling, tmp_path, runs=1) for each in (compiled, setting))
    assert fast.compile_seconds is not None
    assert fast.compile_seconds > 0
    assert plain.compile_seconds is None
    assert [stage.gflop for stage in fast.stages] == [stage.gflop for stage in plain.stages]
    rows = precision(compiled, clip, sampling, tmp_path)
    assert [row.dtype for row in rows] == [
        f"{dtype}, compiled" for dtype in ("float32", "bfloat16", "float16")
    ]
    assert rows[0].roundtrip == float("inf")


def test_a_setting_takes_no_other_word_for_compile(setting: Setting) -> None:
    with pytest.raises(UsageError, match="compile=on"):
        setting.changed("compile=yes")
