import dataclasses
import sys

import pytest
import torch

from tests.models.build import build, cached
from wfvae_cli.errors import DeviceError, UsageError
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.pipeline.plan import (
    ChunkPlan,
    Memory,
    Picture,
    _budget,
    check_memory,
)


def model(case: str = "mini-wfvae-trilinear") -> LoadedModel:
    return LoadedModel(cached(case), case, "0" * 64, {})


def test_a_given_chunk_is_taken() -> None:
    assert ChunkPlan.of(model(), 17, 64, 64) == ChunkPlan(5, 4)


def test_the_default_shrinks_with_the_resolution_and_never_below_one_latent_frame() -> None:
    sizes = [ChunkPlan.of(model(), None, side, side).later for side in (64, 1024, 2048, 100_000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 8
    assert sizes[-1] == 1


@pytest.mark.parametrize(("gib", "expected"), [(None, 16), (24, 16), (80, 32)])
def test_large_accelerators_take_longer_chunks(
    monkeypatch: pytest.MonkeyPatch, gib: int | None, expected: int
) -> None:
    total = None if gib is None else gib << 30
    monkeypatch.setattr("wfvae_cli.pipeline.plan.total_device_memory", lambda device: total)
    assert _budget(torch.device("xpu")) == expected << 30
    assert _budget(torch.device("cpu")) == 2 << 30


def test_chunks_do_not_depend_on_free_memory_that_is_enough() -> None:
    plans = {
        ChunkPlan.of(model(), None, 640, 360, memory=Memory(gib * 2**30)) for gib in (8, 64, 512)
    }
    assert len(plans) == 1
    assert not plans.pop().is_reduced


def test_little_memory_makes_shorter_chunks_and_says_so() -> None:
    usual = ChunkPlan.of(model(), None, 512, 512, memory=Memory(2**40))
    short = ChunkPlan.of(model(), None, 512, 512, memory=Memory(2**30))
    assert short.later < usual.later
    assert short.is_reduced
    assert "memory is short: chunks of" in short.notices[0]


def test_what_does_not_fit_is_refused_before_it_is_tried() -> None:
    plan = ChunkPlan.of(model(), 5, 64, 64)
    check_memory(model(), plan, 5, 64, 64)
    with pytest.raises(DeviceError, match=r"5 frames of 100000x100000 need about .* GiB"):
        check_memory(model(), plan, 5, 100_000, 100_000)
    whole = ChunkPlan.of(model("mini-wfvae-groupnorm"), None, 64, 64)
    with pytest.raises(DeviceError, match=r"900000 frames of 640x640 need about .* GiB"):
        check_memory(model("mini-wfvae-groupnorm"), whole, 900_000, 640, 640)


def plan_4k(gib: float, *, host: int | None = 512, chunk: int | None = None) -> ChunkPlan:
    memory = Memory(int(gib * 2**30), None if host is None else host * 2**30)
    return ChunkPlan.of(model(), chunk, 3840, 2160, tile="auto", memory=memory)


def test_auto_takes_what_is_exact_before_tiles() -> None:
    kinds: list[int | str] = []
    for step in range(60):
        memory = Memory(int(2**33 * 0.9**step), 2**40)
        plan = ChunkPlan.of(model(), None, 600, 480, tile="auto", memory=memory)
        kinds.append("tiles" if plan.tile else "bands" if plan.row_bands > 1 else plan.later)
        if "tiles" not in kinds:
            assert Picture(model(), 600, 480).fits(plan, memory)
    order = [7, 6, 5, 4, 3, 2, 1, "bands", "tiles"]
    assert list(dict.fromkeys(kinds)) == order


def test_less_memory_makes_more_row_bands_then_smaller_tiles() -> None:
    plans = [plan_4k(gib / 10, chunk=5) for gib in range(100, 1, -1)]
    bands = [plan.row_bands for plan in plans if plan.tile is None]
    assert bands == sorted(bands)
    assert len(set(bands)) > 2
    tiles = [plan.tile for plan in plans if plan.tile is not None]
    assert tiles == sorted(tiles, reverse=True)
    assert len(set(tiles)) > 2


def test_state_is_offloaded_only_where_the_device_has_no_room_and_the_host_has() -> None:
    assert not plan_4k(64).offloaded
    offloaded = [gib for gib in range(1, 12) if plan_4k(gib).offloaded]
    assert offloaded
    assert not any(plan_4k(gib, host=0).offloaded for gib in offloaded)


def test_state_that_grows_is_told() -> None:
    growing = dataclasses.replace(model(), vae=build("mini-wfvae-trilinear"))
    growing.vae.state_growth_per_latent = 2048
    memory = Memory(2**40)
    plan = ChunkPlan.of(growing, 5, 512, 256, memory=memory)
    positions = 64 * 32
    assert plan.growth == 2 * 2048 * positions * growing.value_bytes
    assert "32.0 MiB more for each" in plan.notices[0]
    half = ChunkPlan.of(growing, 5, 512, 256, memory=memory, task="encode")
    assert 2 * half.growth == plan.growth
    assert ChunkPlan.of(model(), 5, 512, 256, memory=memory).notices == []


def test_memory_of_a_device_and_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wfvae_cli.pipeline.plan.free_memory", lambda: 7)
    assert Memory.now(torch.device("cpu")) == Memory(7)
    monkeypatch.setattr("wfvae_cli.pipeline.plan.free_device_memory", lambda device: 5)
    assert Memory.now(torch.device("cuda")) == Memory(5, 7)


def test_off_and_models_of_whole_clips_never_make_tiles() -> None:
    little = Memory(2**20, 2**40)
    for case, tile in (("mini-wfvae-trilinear", "off"), ("mini-wfvae-groupnorm", "auto")):
        assert tile in ("off", "auto")
        plan = ChunkPlan.of(
            model(case), None, 3840, 2160, tile="off" if tile == "off" else "auto", memory=little
        )
        assert plan.tile is None


def test_a_model_without_row_bands_goes_from_chunks_to_tiles() -> None:
    blind = model()
    blind = dataclasses.replace(blind, vae=build("mini-wfvae-trilinear"))
    blind.vae.footprint = None
    plans = [
        ChunkPlan.of(blind, None, 1920, 1080, tile="auto", memory=Memory(gib * 2**28))
        for gib in range(64, 0, -1)
    ]
    assert {plan.row_bands for plan in plans} == {1}
    assert plans[0].tile is None
    assert plans[-1].tile is not None


def test_tiles_that_are_asked_for_are_taken() -> None:
    memory = Memory(2**40)
    plan = ChunkPlan.of(model(), 9, 200, 100, tile=64, memory=memory)
    assert plan == ChunkPlan(3, 2, tile=64)
    whole = ChunkPlan.of(model(), 9, 200, 100, tile=208, memory=memory)
    assert whole == ChunkPlan(3, 2), "a tile as large as the picture is no tile"
    assert whole.notices == []
    assert "tiles of 64 pixels: not exact" in plan.notices[0]
    with pytest.raises(UsageError, match="a multiple of 8 pixels"):
        ChunkPlan.of(model(), 9, 200, 100, tile=60, memory=memory)


def test_a_whole_clip_model_takes_whole_clips() -> None:
    groupnorm = model("mini-wfvae-groupnorm")
    assert list(ChunkPlan.of(groupnorm, None, 64, 64).cuts(1000)) == [(0, 1000)]
    with pytest.raises(UsageError, match="--chunk 17 cannot be used with mini-wfvae-groupnorm"):
        ChunkPlan.of(groupnorm, 17, 64, 64)


def test_a_network_with_tiles_of_its_own_takes_no_more_than_one_at_a_time() -> None:
    loaded = LoadedModel(build("mini-wfvae-groupnorm"), "tiled", "0" * 64, {})
    loaded.vae.own_tile = 24 * 64 * 64
    values, memory = loaded.vae.peak_values_per_pixel, Memory(2**40)
    for frames, size in ((25, 640), (9, 32)):
        plan = ChunkPlan(loaded.vae.strides.latent_frames(frames), 1)
        needed, _ = Picture(loaded, size, size).needs(plan, memory)
        at_once = min(frames * size**2, loaded.vae.own_tile)
        assert needed == pytest.approx(4 * (values * at_once + 16 * frames * size**2))


def test_cuts_cover_everything_once() -> None:
    assert list(ChunkPlan(3, 2).cuts(8)) == [(0, 3), (3, 5), (5, 7), (7, 8)]
    assert list(ChunkPlan(3, 2).cuts(1)) == [(0, 1)]
    assert list(ChunkPlan(sys.maxsize, sys.maxsize).cuts(2)) == [(0, 2)]


def test_plans_are_values() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ChunkPlan(1, 1).first = 2  # type: ignore[misc]  # that it is refused is the test
