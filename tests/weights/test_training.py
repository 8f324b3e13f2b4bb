"""The parts of `weights/train_tiny.py` that can be wrong without a long run showing it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from footage import HELD_OUT_CLIPS, Crops, Footage, Shape, cut_out, pan_and_zoom, to_tensor
from linear_code import VALUES, LinearCode, from_blocks, solve, to_blocks
from losses import HALF_RANGE, ROUGH, ClipErrors, Losses, colour, passing, where_smooth
from optimise import Run, orthogonal
from overlay import draw_over, move
from readings import SOFTEST, Readings, colour_changes
from starts import build, read_weights, warm_start
from tests.dataset.clips import write_clip, write_image
from train_tiny import CONFIG, divide_latents, learning_rate, main
from wfvae_cli.nn.conv import CausalConv3d
from wfvae_cli.nn.stream import Stream

SMALL = CONFIG | {
    "base_channels": 8,
    "latent_dim": 4,
    "encoder_energy_flow_hidden_size": 8,
    "decoder_energy_flow_hidden_size": 8,
    "encoder_num_resblocks": 1,
    "decoder_num_resblocks": 1,
}


def frames(count: int = 5, size: int = 16, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand((batch, 3, count, size, size), generator=generator) * 2 - 1


def test_blocks_hold_every_frame_once_and_the_first_four_times() -> None:
    clip = frames(9)
    blocks = to_blocks(clip)
    assert blocks.shape == (1, VALUES, 3, 2, 2)
    assert torch.equal(from_blocks(blocks), clip)


def test_a_code_of_all_components_loses_nothing() -> None:
    code = LinearCode(VALUES)
    directions, _ = torch.linalg.qr(torch.randn(VALUES, VALUES))
    code.start_from_components(torch.rand(VALUES), torch.rand(VALUES) + 0.5, directions)
    torch.testing.assert_close(code(frames()), frames(), atol=1e-4, rtol=0)


def test_solving_a_layer_finds_the_one_that_made_the_examples() -> None:
    torch.manual_seed(0)
    wanted, found = CausalConv3d(2, 3), CausalConv3d(2, 5)
    untouched = found.conv.weight[3:].detach().clone()
    inputs = [torch.randn(2, 2, 5, 8, 8) for _ in range(2)]
    solve(found, slice(3), [(x, wanted(x, Stream.whole()).detach()) for x in inputs])
    assert wanted.conv.bias is not None and found.conv.bias is not None
    torch.testing.assert_close(found.conv.weight[:3], wanted.conv.weight, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.conv.bias[:3], wanted.conv.bias, atol=1e-3, rtol=0)
    assert torch.equal(found.conv.weight[3:], untouched)


def test_added_blocks_change_nothing_at_first(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = build(SMALL)
    tensors = {name: tensor.contiguous() for name, tensor in small.state_dict().items()}
    save_file(tensors, tmp_path / "small.safetensors")
    larger = build(SMALL | {"encoder_num_resblocks": 2, "decoder_num_resblocks": 3})
    warm_start(larger, read_weights(tmp_path / "small.safetensors"))
    for vae in (small, larger):
        vae.requires_grad_(False)
    latents = small.encode(frames(), Stream.whole()).mean
    torch.testing.assert_close(larger.encode(frames(), Stream.whole()).mean, latents)
    torch.testing.assert_close(
        larger.decode(latents, Stream.whole()), small.decode(latents, Stream.whole())
    )


def test_smaller_latents_decode_to_the_very_same() -> None:
    torch.manual_seed(0)
    vae = build(SMALL).requires_grad_(False)
    before = vae.encode(frames(), Stream.whole())
    picture = vae.decode(before.mean, Stream.whole())
    divide_latents(vae.state_dict(), 4, 8.0)
    after = vae.encode(frames(), Stream.whole())
    assert torch.equal(after.mean * 8, before.mean)
    torch.testing.assert_close(after.logvar, before.logvar - 2 * math.log(8))
    assert torch.equal(vae.decode(after.mean, Stream.whole()), picture)


@pytest.mark.parametrize("shape", [(8, 40), (40, 8)])
def test_updates_are_nearly_orthogonal(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    singular = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
    assert singular.min() > 0.5 and singular.max() < 1.3


def test_a_frozen_encoder_stays_and_a_run_resumes_where_it_was(tmp_path: Path) -> None:
    def start() -> tuple[nn.ModuleDict, Run]:
        torch.manual_seed(0)
        vae = build(SMALL)
        readings = Readings(vae)
        nets = nn.ModuleDict({"encoder": vae.encoder, "decoder": vae.decoder})
        nets["readings"] = readings
        run = Run(nets, tmp_path, torch.device("cpu"))
        losses = Losses(vae, ClipErrors(run.clip_errors), readings)
        crops = Crops(frames(), ["clip"])
        for step in range(run.step, 4):
            frozen = step < 2
            run.update(losses(crops, step, frozen)["loss"], 1e-3)
            learnt = not torch.equal(vae.encoder.conv_out.conv.weight, untrained)
            assert learnt != frozen
            if step == 2 and not run.file.exists():
                run.save()
        return nets, run

    torch.manual_seed(0)
    untrained = build(SMALL).encoder.conv_out.conv.weight.detach().clone()
    whole, first = start()
    resumed, second = start()
    assert first.step == second.step == 4
    for name, weight in whole.named_parameters():
        torch.testing.assert_close(dict(resumed.named_parameters())[name], weight)
    kept = {name for name, _ in whole.named_parameters() if not name.startswith("readings.")}
    assert set(read_weights(tmp_path)) == kept


def test_the_rate_rises_stays_and_falls() -> None:
    assert learning_rate(0, 1000, 2.0) == pytest.approx(2.0 / 50)
    assert learning_rate(49, 1000, 2.0) == learning_rate(800, 1000, 2.0) == 2.0
    assert learning_rate(900, 1000, 2.0) == pytest.approx(1.0)
    assert learning_rate(1000, 1000, 2.0) == 0.0


def test_errors_weigh_where_something_passes_and_not_on_it() -> None:
    clip = torch.zeros(1, 3, 9, 1, 12)
    for t in range(9):
        clip[..., t, :, t] = 1.0  # one white pixel, a pixel further in each frame
    weight = passing(clip)[0, 0, :, 0]
    for t in range(9):
        for x in range(12):
            there = 0 < abs(x - t) <= 3 and x < 9
            assert weight[t, x] == (1.0 if there else 0.0)
    assert not passing(clip[:, :, :1].expand(-1, -1, 9, -1, -1)).any()  # still


def flicker(red: float, green: float, blue: float) -> Tensor:
    """Black, then a colour in the first of every two frames."""
    clip = torch.zeros(1, 3, 5, 16, 16)
    clip[:, :, 1::2] = torch.tensor([red, green, blue]).view(1, 3, 1, 1, 1)
    return clip


def test_changes_of_colour_are_those_of_a_pair_and_not_of_grey() -> None:
    assert colour_changes(flicker(0.5, 0.5, 0.5)).abs().max() < 1e-6
    assert not colour_changes(flicker(0, 1, 0)[:, :, 1:2].expand(-1, -1, 5, -1, -1)).any()
    green = colour_changes(flicker(0.0, 1.0, 0.0))
    assert green.shape == (1, 2, 2, 16, 16)
    assert green[:, 0].mean() == pytest.approx(1 / math.sqrt(6)) and not green[:, 1].any()


def test_a_colour_that_changes_between_pairs_counts_as_one_within_a_pair() -> None:
    within = colour(flicker(0.0, 1.0, 0.0))
    pairs = torch.zeros(1, 3, 9, 16, 16)
    pairs[:, 1, 1:3] = pairs[:, 1, 5:7] = 1.0
    assert within.item() == pytest.approx(1 / math.sqrt(6) / 2)  # one axis of two
    assert colour(pairs).item() == pytest.approx(within.item())
    assert not colour(torch.ones(1, 3, 9, 16, 16)).any()


def test_lines_count_where_the_picture_is_smooth() -> None:
    rows = ((-1.0) ** torch.arange(34))[:, None].expand(1, 3, 5, 34, 34) * 2 / HALF_RANGE
    smooth = where_smooth(rows, torch.zeros(1, 3, 5, 34, 34))
    assert smooth["lines"].item() == pytest.approx(4.0)  # of amplitude 2
    assert smooth["fine"].item() == pytest.approx(2.0)
    rough = where_smooth(rows, rows * ROUGH / 2)
    assert rough["lines"].item() == pytest.approx(2.0)  # by half
    slope = torch.linspace(-1, 1, 34).expand(1, 3, 5, 34, 34)
    assert where_smooth(slope, torch.zeros(1, 3, 5, 34, 34))["lines"].item() < 1e-6


def test_readings_that_know_nothing_miss_every_change_at_every_level() -> None:
    vae = build(SMALL).requires_grad_(False)
    readings, clip = Readings(vae), flicker(0.0, 1.0, 0.0)
    vae.decode(vae.encode(clip, Stream.whole()).mean, Stream.whole())
    pair = 1 / 12  # mean square of both axes
    latent = 2 / 3 * pair  # nothing from pair to pair
    expected = 4 * pair / (pair + SOFTEST) + 4 * latent / (latent + SOFTEST)
    assert readings.error(clip).item() == pytest.approx(expected)


def test_readings_lead_to_every_level_of_the_network() -> None:
    torch.manual_seed(0)
    vae, crops = build(SMALL), Crops(flicker(0.0, 1.0, 0.0) + 0.1 * frames(), ["clip"])
    readings = Readings(vae)
    losses = Losses(vae, ClipErrors({}), readings)
    for parameter in readings.parameters():
        nn.init.normal_(parameter)
    torch.autograd.backward(losses(crops, 0, frozen=False)["readings"])
    for layer in (
        vae.encoder.down1[1],
        vae.encoder.mid[0],
        vae.decoder.conv_in,
        vae.decoder.up1[0],
    ):
        assert all(p.grad is not None and p.grad.any() for p in layer.parameters())


def test_a_crop_counts_by_what_its_clip_loses() -> None:
    errors = ClipErrors({"hard": 1.0, "easy": 0.01})
    frames = torch.zeros(2, 3, 1, 4, 4)
    decoded = torch.full_like(frames, 0.1).requires_grad_()
    torch.autograd.backward(errors.share(decoded - frames, ["hard", "easy"]))
    assert decoded.grad is not None
    hard, easy = decoded.grad.mean(dim=(1, 2, 3, 4))
    assert easy / hard == pytest.approx((0.75 * 0.901 + 0.25 * 0.01) / 0.01, rel=0.01)
    assert errors.known == {
        "hard": pytest.approx(0.901, rel=0.01),
        "easy": pytest.approx(0.01, rel=0.01),
    }


def test_what_is_drawn_over_a_crop_moves_within_it() -> None:
    rng = np.random.default_rng(0)
    crop = torch.zeros(3, 9, 64, 64)
    drawn = draw_over(crop, rng)
    assert drawn.shape == crop.shape and drawn.min() >= -1 and drawn.max() <= 1
    changed = (drawn != 0).any(dim=0)
    assert 0 < changed.float().mean() < 0.7
    paths = np.stack([move(28.0, 9, 64, rng) for _ in range(100)])
    assert paths.min() >= -8 and paths.max() <= 72
    steps = np.abs(np.diff(paths, axis=1)).max(axis=(1, 2))
    assert (steps == 0).any() and 14 < steps.max() <= 28


def test_a_clip_that_is_too_short_is_played_to_and_fro() -> None:
    clip = np.arange(5, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)
    seen = [cut_out(clip, Shape(1, 13, 8), np.random.default_rng(seed)) for seed in range(9)]
    there = to_tensor(clip)[0, :, 0, 0]
    expected = there[[0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4]]
    for crop in seen:
        levels = crop[0, :, 0, 0]
        assert torch.equal(levels, expected) or torch.equal(levels, expected.flip(0))
    assert cut_out(clip, Shape(1, 5, 8), np.random.default_rng(0)).shape == (3, 5, 8, 8)
    still = cut_out(clip[3:4], Shape(1, 5, 8), np.random.default_rng(0))
    assert torch.equal(still, to_tensor(clip[[3] * 5]))


def test_kinds_of_footage_and_the_held_out_are_told_apart(tmp_path: Path) -> None:
    from PIL import Image

    from footage import HELD_OUT_PHOTOS

    folder = tmp_path / "train_photos"
    folder.mkdir()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8))
    for name in ("mine", HELD_OUT_PHOTOS[0]):
        picture.save(folder / f"{name}.jpg")
    footage = Footage(tmp_path, tmp_path / "cache")
    assert list(footage.train["photo"]) == ["mine"]
    shape = Shape(batch=1, frames=5, size=32)
    crop = pan_and_zoom(footage.train["photo"]["mine"], shape, np.random.default_rng(0))
    assert crop.shape == (3, 5, 32, 32)
    assert crop.min() >= -1 and crop.max() <= 1


def test_kinds_of_crops_take_turns_also_where_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("train", "train_photos"):
        (tmp_path / folder).mkdir()
    write_clip(tmp_path / "train" / f"{HELD_OUT_CLIPS[0]}.mp4", frames=1)
    write_image(tmp_path / "train_photos" / "mine.jpg")
    monkeypatch.setattr("footage.KIND_SHARE", {"photo": 1.0})
    shapes: list[Shape] = []
    batch = Footage.batch

    def noted(footage: Footage, shape: Shape, rng: np.random.Generator) -> Crops:
        shapes.append(shape)
        return batch(footage, shape, rng)

    monkeypatch.setattr(Footage, "batch", noted)
    torch.manual_seed(0)
    start = {name: value.contiguous() for name, value in build(SMALL).state_dict().items()}
    save_file(start, tmp_path / "start.safetensors")
    argv = ["train_tiny.py", "train", str(tmp_path), str(tmp_path / "work")]
    argv += ["--init", str(tmp_path / "start.safetensors"), "--config", json.dumps(SMALL)]
    for steps in ("1", "3"):
        options = f"--batch 1 --frames 5 9 --size 32 16 --steps {steps}"
        monkeypatch.setattr("sys.argv", argv + options.split())
        main()
    wide, long = Shape(1, 5, 32), Shape(1, 9, 16)
    assert shapes == [wide, long, wide]
    records = [json.loads(line) for line in (tmp_path / "work" / "log.jsonl").open()]
    assert [record["step"] for record in records] == [0, 1, 3]
    assert all(record["clips"][HELD_OUT_CLIPS[0]] > 0 for record in records)
