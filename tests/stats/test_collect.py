from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.latents.samples import describe, latents, write
from tests.media.conftest import MakeClip, number_of, write_clip
from wfvae_cli.errors import InputError, UsageError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.latents.normalization import AppliedNormalization
from wfvae_cli.media.options import Sampling
from wfvae_cli.stats import collect as stats_collect
from wfvae_cli.stats.accumulate import ClipStats, FailedClip, LatentStats
from wfvae_cli.stats.collect import Analyse, Collected, collect_subbands
from wfvae_cli.stats.draw import Draw, Source, latent_window, open_window
from wfvae_cli.stats.measure import MeasuredClip, analyse_clip, measure_latents
from wfvae_cli.stats.report import ModelIdentity, StatsReport, merge_reports
from wfvae_cli.stats.subband_clip import Kind
from wfvae_cli.strides import Strides

T = TypeVar("T")
Floats = NDArray[np.float64]

MODEL = ModelIdentity("tiny", "0123456789abcdef" * 4, "wfvae")


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    return lambda name="clip.mp4", *args, **options: write_clip(tmp_path / name, *args, **options)


class Watching:
    """Stands for a model: a clip's frames are its latents, and their numbers are kept."""

    def __init__(self) -> None:
        self.frames: dict[str, list[int]] = {}

    def measure(self, source: Source, draw: Draw) -> MeasuredClip:
        if source.is_latents:
            return measure_latents(source, draw)
        reader, identity = open_window(source, draw)
        clip = ClipStats(source.name, identity)
        with reader:
            for frame in reader:
                self.frames.setdefault(clip.name, []).append(number_of(frame.pixels))
                pixels = frame.pixels.astype(np.float64).transpose(2, 0, 1)[:, None]
                clip.update(pixels + np.random.default_rng(0).normal(size=pixels.shape))
        return MeasuredClip.of(clip, MODEL, "mean", "float32")


def collect(
    sources: Sequence[Source],
    watching: Watching | None = None,
    *,
    draw: Draw | None = None,
    **options: Any,
) -> Collected:
    """The clips measured one after another, in this thread."""
    draw, model = draw or Draw(), watching or Watching()

    def by(chosen: Sequence[Source]) -> Iterator[MeasuredClip | FailedClip]:
        return (attempt(each, partial(model.measure, each, draw)) for each in chosen)

    return stats_collect.collect(sources, by=by, draw=draw, **options)


def attempt(source: Source, work: Callable[[], T]) -> T | FailedClip:
    try:
        return work()
    except InputError as error:
        return FailedClip(source.name, str(error).removeprefix(f"{source.path}: "))


def source(path: Path, sampling: Sampling | None = None) -> Source:
    return Source(str(path), path.name, sampling or Sampling())


def write_latents(folder: Path, count: int = 5) -> list[Source]:
    """Files of several lengths, sizes and kinds."""
    sources = []
    for index in range(count):
        meta = describe(width=24 + 8 * (index % 3), pad_right=0)
        kind = index % 3
        logvar = None
        if kind == 1:
            meta = replace(meta, posterior="moments")
            logvar = latents(2 + index, 50 + index, meta) - 2
        if kind == 2:
            applied = AppliedNormalization((0.5, -1.0, 0.0, 2.0), (2.0, 0.5, 1.0, 4.0), "config")
            meta = replace(meta, normalization=applied)
        path = folder / f"{index}.safetensors"
        write(path, latents(2 + index, index, meta) * 3 + 1, meta, logvar=logvar)
        sources.append(source(path))
    return sources


def raw(path: str) -> Floats:
    """A file's latents as the model gave them, [Z, n]."""
    with LatentFile(path) as file:
        values: Floats = file.read().double().numpy().reshape(4, -1)
        applied = file.metadata.normalization
    if applied is None:
        return values
    scale, shift = (np.array(each)[:, None] for each in (applied.scale, applied.shift))
    undone: Floats = values / scale + shift
    return undone


def test_latent_files_give_what_numpy_gives_on_all_of_them(tmp_path: Path) -> None:
    sources = write_latents(tmp_path)
    summary = collect(sources).report.summary
    values = np.concatenate([raw(each.path) for each in sources], axis=1)
    centred = values - values.mean(axis=1, keepdims=True)
    std = values.std(axis=1)
    assert summary.count == values.shape[1]
    np.testing.assert_allclose(summary.mean, values.mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(summary.std, std, rtol=1e-9)
    np.testing.assert_allclose(summary.minimum, values.min(axis=1), rtol=0)
    np.testing.assert_allclose(summary.skewness, (centred**3).mean(axis=1) / std**3, rtol=1e-9)
    np.testing.assert_allclose(summary.correlation, np.corrcoef(values), rtol=1e-9)
    np.testing.assert_allclose(summary.global_std, values.std(), rtol=1e-9)
    with LatentFile(sources[1].path) as one, LatentFile(sources[4].path) as other:
        mean = torch.cat([f.read().double().reshape(4, -1) for f in (one, other)], dim=1)
        logvar = torch.cat([f.read_logvar().double().reshape(4, -1) for f in (one, other)], dim=1)
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean(dim=1)
    assert summary.kl is not None
    np.testing.assert_allclose(summary.kl, kl.numpy(), rtol=1e-9)


def test_parts_merge_to_the_whole(tmp_path: Path) -> None:
    sources = write_latents(tmp_path, 6)
    whole = collect(sources).report
    parts = [collect(sources[:2]).report, collect(sources[2:]).report]
    merged = merge_reports([StatsReport.load(save(tmp_path, part)) for part in reversed(parts)])
    assert merged.fingerprint == whole.fingerprint
    np.testing.assert_allclose(merged.summary.mean, whole.summary.mean, rtol=1e-9)
    np.testing.assert_allclose(merged.summary.std, whole.summary.std, rtol=1e-9)
    assert merged.summary.quantiles == whole.summary.quantiles


def save(folder: Path, report: StatsReport) -> Path:
    path = folder / f"{report.fingerprint[:8]}.json"
    path.write_text(report.to_json())
    return path


def test_unusable_latents_are_named_and_left_out(tmp_path: Path) -> None:
    good = write_latents(tmp_path, 2)
    broken = tmp_path / "nan.safetensors"
    write(broken, latents(3))
    # The values are the file's end: the last one becomes a NaN.
    broken.write_bytes(broken.read_bytes()[:-4] + np.float32("nan").tobytes())
    other = tmp_path / "other.safetensors"
    write(other, latents(3), describe(model="huge", model_sha256="ff" * 32))
    sampled = tmp_path / "sample.safetensors"
    write(sampled, latents(3), describe(posterior="sample", seed=1))
    seen: list[FailedClip | None] = []
    done = collect(
        [good[0], *map(source, (broken, other, sampled, tmp_path / "no.safetensors")), good[1]],
        on_clip=lambda stats, failed: seen.append(failed),
    )
    reasons = {failed.name: failed.reason for failed in done.report.stats.failed}
    assert reasons["nan.safetensors"] == "1 NaN or infinite values"
    assert "made by huge (ffffffffffff)" in reasons["other.safetensors"]
    assert "holds the posterior's sample" in reasons["sample.safetensors"]
    assert "no such file" in reasons["no.safetensors"]
    assert [failed is not None for failed in seen] == [False, True, True, True, True, False]
    assert done.report.summary == collect(good).report.summary


def test_the_expected_model_may_be_given(tmp_path: Path) -> None:
    done = collect(write_latents(tmp_path, 2), identity=ModelIdentity("else", "0" * 64, "wfvae"))
    assert done.report.stats.clips == 0
    assert len(done.report.stats.failed) == 2


def test_videos_and_latents_mix(tmp_path: Path, make_clip: MakeClip) -> None:
    path = tmp_path / "z.safetensors"
    meta = describe(channels=3)
    write(path, latents(3, 0, meta), meta)
    done = collect([source(path), source(make_clip(frames=4))], Watching())
    assert done.report.stats.clips == 2
    assert done.report.model == MODEL
    assert done.report.summary.count == 3 * 3 * 4 + 4 * 64 * 48


def test_a_clip_that_breaks_off_counts_for_nothing(tmp_path: Path, make_clip: MakeClip) -> None:
    good = source(make_clip("good.mkv", 5))
    # Pictures of another size follow: the error comes after ten good frames.
    first, second = make_clip("a.ts", 10), make_clip("b.ts", 5, width=32, height=32)
    broken = tmp_path / "broken.ts"
    broken.write_bytes(first.read_bytes() + second.read_bytes())
    done = collect([source(broken), good], Watching()).report
    assert [failed.name for failed in done.stats.failed] == ["broken.ts"]
    assert not done.stats.failed[0].reason.startswith(str(tmp_path))
    assert done.summary == collect([good], Watching()).report.summary


def test_a_window_is_random_whole_and_independent_of_the_order(make_clip: MakeClip) -> None:
    sources = [source(make_clip(f"{index}.mp4", 40)) for index in range(4)]
    draw = Draw(sample_frames=5)
    watching, backwards, reseeded = Watching(), Watching(), Watching()
    collect(sources, watching, draw=draw)
    collect(sources[::-1], backwards, draw=draw)
    collect(sources, reseeded, draw=replace(draw, seed=1))
    starts = [frames[0] for frames in watching.frames.values()]
    for name, frames in watching.frames.items():
        assert frames == list(range(frames[0], frames[0] + 5)), name
        assert frames[-1] < 40
    assert len(set(starts)) > 1
    assert watching.frames == backwards.frames != reseeded.frames


def test_a_window_lies_within_what_the_sampling_takes(make_clip: MakeClip) -> None:
    path = make_clip(frames=50)
    for seed in range(6):
        watching = Watching()
        sampling = Sampling(start=0.4, duration=0.8)  # frames 10 to 29 at 25 frames/s
        collect([source(path, sampling)], watching, draw=Draw(sample_frames=8, seed=seed))
        frames = watching.frames["clip.mp4"]
        assert frames == list(range(frames[0], frames[0] + 8))
        assert frames[0] >= 10
        assert frames[-1] <= 29


def test_short_clips_and_images_are_taken_whole(tmp_path: Path, make_clip: MakeClip) -> None:
    watching = Watching()
    collect([source(make_clip(frames=3))], watching, draw=Draw(sample_frames=9))
    assert watching.frames["clip.mp4"] == [0, 1, 2]


def test_windows_of_latents() -> None:
    assert latent_window("a", Draw(), 7, Strides(4, 8, 8)) == (0, 7)
    assert latent_window("a", Draw(sample_frames=33), 7, Strides(4, 8, 8)) == (0, 7)
    windows = {latent_window(f"{i}", Draw(sample_frames=9), 7, Strides(4, 8, 8)) for i in range(99)}
    assert windows == {(begin, begin + 3) for begin in range(5)}


def test_a_subset_depends_on_names_and_seed_alone() -> None:
    sources = [Source(f"/data/{i}.mp4", f"{i}.mp4") for i in range(100)]
    chosen = Draw(limit=10).choose(sources)
    moved = [Source(f"/else/{i}.mp4", f"{i}.mp4") for i in reversed(range(100))]
    assert [each.name for each in Draw(limit=10).choose(moved)] == [each.name for each in chosen]
    assert set(Draw(limit=10, seed=1).choose(sources)) != set(chosen)
    assert set(chosen) <= set(Draw(limit=20).choose(sources))
    assert Draw(limit=100).choose(sources) == sources
    assert Draw(until=0.01).choose(sources) != sources


def test_it_ends_when_enough_is_known(tmp_path: Path) -> None:
    sources = []
    for index in range(40):
        path = tmp_path / f"{index}.safetensors"
        write(path, latents(8, index))
        sources.append(source(path))
    done = collect(sources, draw=Draw(until=0.1))
    assert done.converged
    assert 10 <= done.report.stats.clips < 40
    assert done.report.stats.precision().worst <= 0.1
    assert done.report.run["converged"] is True
    assert not collect(sources, draw=Draw(until=1e-6)).converged


def test_frames_of_latents_cannot_be_sampled(tmp_path: Path) -> None:
    (only,) = write_latents(tmp_path, 1)
    with pytest.raises(UsageError, match="cannot be cut or scaled"):
        collect([replace(only, sampling=Sampling(short_side=64))])


@pytest.mark.parametrize(
    ("draw", "words"), [({"limit": 0}, "--limit"), ({"sample_frames": 0}, "--sample-frames"),
                        ({"until": 1.0}, "--until")]
)  # fmt: skip
def test_a_draw_without_meaning(draw: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Draw(**draw)  # type: ignore[arg-type]  # one field of several types at a time


def test_options_are_what_parts_must_agree_on(make_clip: MakeClip) -> None:
    sampling = Sampling(size=(32, 16), fit="pad")
    path = make_clip(frames=3)
    report = collect(
        [source(path, sampling)], Watching(), draw=Draw(sample_frames=2), run={"a": 1}
    ).report
    assert report.options == {
        "posterior": "mean",
        "compute_dtype": "float32",
        "size": "32x16",
        "fit": "pad",
        "sample_frames": 2,
    }
    assert json.loads(report.to_json())["run"] == {"a": 1}


def test_subbands_of_videos(tmp_path: Path, make_clip: MakeClip) -> None:
    (latent,) = write_latents(tmp_path, 1)
    picture = tmp_path / "picture.png"
    from PIL import Image

    Image.new("RGB", (16, 16), (9, 9, 9)).save(picture)
    clip = source(make_clip(frames=9))
    seen: list[str | None] = []

    def by(kind: Kind, levels: int) -> Analyse:
        return lambda chosen: (
            attempt(each, partial(analyse_clip, each, kind, levels)) for each in chosen
        )

    stats = collect_subbands(
        [clip, source(picture), latent, source(tmp_path / "no.mp4")],
        "video",
        2,
        by=by("video", 2),
        on_clip=lambda _, failed: seen.append(failed.name if failed else None),
    )
    assert stats.clips == 1
    assert seen == [None, "picture.png", "0.safetensors", "no.mp4"]
    assert "this is an image" in stats.failed[0].reason
    alone = collect_subbands([clip], "video", 2, by=by("video", 2))
    assert stats.subbands() == alone.subbands()
    images = collect_subbands([source(picture)], "image", 1, by=by("image", 1))
    # A flat picture has energy in its sum alone: (2 * (9 / 127.5 - 1))^2.
    assert images.subbands()[0].energy == pytest.approx((2 * (9 / 127.5 - 1)) ** 2)
    assert [row.energy for row in images.subbands()[1:]] == [0, 0, 0]


def test_memory_holds_one_clip(tmp_path: Path) -> None:
    # The accumulator after many clips is as large as after few, but for 8 bytes each.
    def size(count: int) -> int:
        stats = LatentStats()
        for index in range(count):
            z = latents(2, index % 3).numpy()
            stats.add_clip(f"{index}", [(z, None)])
        state = stats.to_state()
        state.pop("clip_ids")
        return len(json.dumps(state))

    assert size(200) < 1.1 * size(20)
