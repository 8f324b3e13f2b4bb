"""Each usual mistake, made here by hand, is found and named."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.audit.make import FRAMES, SIZE, Musubi, centre, posterior, read_rgb, signed, write_source
from tests.models.checkpoints import write_wan
from wfvae_cli.audit.cache import open_cache
from wfvae_cli.audit.reencode import Comparison, compare_clip
from wfvae_cli.latents.normalization import Normalization
from wfvae_cli.media.options import Fit, Sampling
from wfvae_cli.media.reader import open_clip
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.models.load import load_model, normalization_of

COUNT = 9


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source") / "clip.mkv", 0)


@pytest.fixture(scope="module", params=["wan", pytest.param("wfvae-tiny", marks=pytest.mark.slow)])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    name: str = request.param
    if name == "wan":
        name = str(write_wan(tmp_path_factory.mktemp("models") / "wan"))
    return load_model(name, device="cpu")


def scaled(source: Path, fit: Fit = "crop") -> Tensor:
    """All frames as the cache should have them, uint8 THWC."""
    with open_clip(source, Sampling(size=(SIZE, SIZE), fit=fit)) as reader:
        return torch.stack([torch.from_numpy(frame.in_rgb().copy()) for frame in reader])


def check(
    tmp_path: Path, source: Path, model: LoadedModel, clip: Tensor, *, position: int = 0
) -> Comparison:
    """Compare a cache of these CTHW pixels, normalised once, with its source."""
    mean, _ = posterior(model, clip)
    latents = normalization_of(model).apply(mean)
    return compare(tmp_path, source, model, latents, position)


def compare(
    tmp_path: Path,
    source: Path,
    model: LoadedModel,
    latents: Tensor,
    position: int = 0,
    dtype: torch.dtype = torch.bfloat16,
) -> Comparison:
    path = Musubi(tmp_path / "cache").write("clip", latents, COUNT, position, dtype)
    (entry,) = open_cache(path).entries
    return compare_clip(entry, source, model)


def test_what_is_right_is_equal_to_the_mean(
    tmp_path: Path, source: Path, model: LoadedModel
) -> None:
    found = check(tmp_path, source, model, signed(scaled(source)[:COUNT]))
    assert (found.found.kind, found.found.scale, found.problems) == ("equal", "normalised", ())
    later = signed(scaled(source)[7 : 7 + COUNT])
    found = check(tmp_path, source, model, later, position=7)
    assert (found.found.kind, found.problems) == ("equal", ())


def test_a_sample_is_told_by_its_sigmas(tmp_path: Path, source: Path, model: LoadedModel) -> None:
    mean, sigma = posterior(model, signed(scaled(source)[:COUNT]))
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(1))
    latents = normalization_of(model).apply(mean + sigma * noise)
    found = compare(tmp_path, source, model, latents, dtype=torch.float32)
    assert found.found.kind == "sample"
    assert found.found.sigmas == pytest.approx(1, abs=0.1)
    assert found.problems == ("a sample of the posterior, where its mean is expected",)


PIXELS: dict[str, Callable[[Tensor], Tensor]] = {
    "pixels in [0, 1] in place of [-1, 1]": lambda x: x.permute(3, 0, 1, 2).float() / 255,
    "pixels in [0, 255] in place of [-1, 1]": lambda x: x.permute(3, 0, 1, 2).float(),
    "BGR in place of RGB": lambda x: signed(x[..., [2, 1, 0]]),
    "limited range taken for full": lambda x: signed((x.float() * 219 / 255 + 16).round()),
    "full range taken for limited": lambda x: signed(
        ((x.float() - 16) * 255 / 219).round().clamp(0, 255)
    ),
    "mirrored left to right": lambda x: signed(x.flip(2)),
}


@pytest.mark.parametrize("mistake", PIXELS)
def test_other_pixels(tmp_path: Path, source: Path, model: LoadedModel, mistake: str) -> None:
    clip = PIXELS[mistake](scaled(source)[:COUNT])
    assert check(tmp_path, source, model, clip).problems == (mistake,)


@pytest.mark.parametrize(
    ("mistake", "take"),
    [
        ("frames from one later", slice(1, 1 + COUNT)),
        ("frames from the middle of the source", slice(10, 10 + COUNT)),
        ("frames from the end of the source", slice(FRAMES - COUNT, FRAMES)),
        ("every 2. frame of the source", slice(0, 2 * COUNT, 2)),
        ("every 3. frame of the source", slice(0, 3 * COUNT, 3)),
    ],
)
def test_other_frames(
    tmp_path: Path, source: Path, model: LoadedModel, mistake: str, take: slice
) -> None:
    clip = signed(scaled(source)[take])
    assert check(tmp_path, source, model, clip).problems == (mistake,)


def test_another_rate(tmp_path: Path, source: Path, model: LoadedModel) -> None:
    with open_clip(source, Sampling(size=(SIZE, SIZE), fps=Fraction(8))) as reader:
        frames = torch.stack([torch.from_numpy(frame.in_rgb().copy()) for frame in reader])
    found = check(tmp_path, source, model, signed(frames[:COUNT]))
    assert found.problems == ("resampled to 8 frames/s",)


def test_another_resize_or_crop(tmp_path: Path, source: Path, model: LoadedModel) -> None:
    stretched = signed(scaled(source, "stretch")[:COUNT])
    found = check(tmp_path, source, model, stretched)
    assert found.problems == ("stretched without regard to the aspect",)
    cropped = signed(centre(read_rgb(source)[:COUNT]))
    found = check(tmp_path, source, model, cropped)
    assert found.problems == ("cropped at the centre without scaling",)
    corner = signed(read_rgb(source)[:COUNT, :SIZE, :SIZE])
    found = check(tmp_path, source, model, corner)
    assert found.problems == ("cropped at the top left without scaling",)


def test_other_scales(tmp_path: Path, source: Path, model: LoadedModel) -> None:
    mean, _ = posterior(model, signed(scaled(source)[:COUNT]))
    normalization = normalization_of(model)
    assert compare(tmp_path, source, model, mean).problems == ("never normalised",)
    twice = normalization.apply(normalization.apply(mean))
    assert compare(tmp_path, source, model, twice).problems == ("normalised twice",)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("scaled by 7", lambda z, n: 7 * z),
        ("scaled by 0.18215", lambda z, n: 0.18215 * z),
        ("normalised without the shift", lambda z, n: n.apply(z) - n.apply(0 * z)),
        ("normalised without the scale", lambda z, n: z - n.undo(0 * z)),
        ("divided by scale", lambda z, n: n.apply(z) * (n.undo(0 * z + 1) - n.undo(0 * z)) ** 2),
        (
            "normalised with another shift and scale",
            lambda z, n: (
                (z + torch.arange(len(z)).view(-1, 1, 1, 1))
                * torch.arange(1, 1 + len(z)).view(-1, 1, 1, 1)
            ),
        ),
    ],
)
def test_scales_of_all_kinds(
    tmp_path: Path,
    source: Path,
    model: LoadedModel,
    name: str,
    change: Callable[[Tensor, Normalization], Tensor],
) -> None:
    mean, _ = posterior(model, signed(scaled(source)[:COUNT]))
    latents = change(mean, normalization_of(model))
    found = compare(tmp_path, source, model, latents, dtype=torch.float32)
    assert (found.found.kind, found.problems) == ("equal", (name,))


def test_channels_in_another_order(tmp_path: Path, source: Path, model: LoadedModel) -> None:
    mean, _ = posterior(model, signed(scaled(source)[:COUNT]))
    latents = normalization_of(model).apply(mean)
    found = compare(tmp_path, source, model, latents.roll(1, 0))
    assert "channels of the latents in another order" in found.problems


def test_rounded_numbers_in_a_wider_dtype_are_no_sample(
    tmp_path: Path, source: Path, model: LoadedModel
) -> None:
    mean, _ = posterior(model, signed(scaled(source)[:COUNT]))
    latents = normalization_of(model).apply(mean).bfloat16().float()
    found = compare(tmp_path, source, model, latents, dtype=torch.float32)
    assert (found.found.kind, found.problems) == ("equal", ())


def test_another_resizing_filter_is_named_and_no_fault(
    tmp_path: Path, source: Path, model: LoadedModel
) -> None:
    native = signed(read_rgb(source)[:COUNT]).transpose(0, 1)
    resized = torch.nn.functional.interpolate(native, (32, 51), mode="area")
    found = check(tmp_path, source, model, resized[..., 9 : 9 + SIZE].transpose(0, 1))
    assert "resized with another filter (area)" in found.verdict
    assert found.problems == ()


def test_other_orders_of_axes(tmp_path: Path, source: Path, model: LoadedModel) -> None:
    mean, _ = posterior(model, signed(scaled(source)[:COUNT]))
    latents = normalization_of(model).apply(mean)
    found = compare(tmp_path, source, model, latents.transpose(0, 1))
    assert found.problems == ("channels and time of the latents transposed",)
    found = compare(tmp_path, source, model, latents.transpose(2, 3))
    assert found.problems == ("height and width of the latents transposed",)


def test_another_clip_is_no_usual_mistake(tmp_path: Path, source: Path, model: LoadedModel) -> None:
    other = write_source(tmp_path / "other.mkv", 5)
    (problem,) = check(tmp_path, source, model, signed(scaled(other)[:COUNT])).problems
    assert problem.startswith("made from other pixels, or by other weights: ")


def test_two_mistakes_at_once(tmp_path: Path, source: Path, model: LoadedModel) -> None:
    mean, _ = posterior(model, signed(scaled(source)[:COUNT].flip(3)))
    found = compare(tmp_path, source, model, mean)
    assert found.problems == ("BGR in place of RGB", "never normalised")
