"""Which bucket a clip goes to, what is refused, and what is written."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.program import assert_refused, wfvae
from tests.dataset.clips import contents, write_clip, write_image
from tests.dataset.conftest import run
from wfvae_cli.cli.buckets_view import show_reasons
from wfvae_cli.dataset.buckets import (
    Bucket,
    Buckets,
    UnsuitableError,
    auto_buckets,
    check_buckets,
    parse_buckets,
    parse_frames,
)
from wfvae_cli.dataset.config import EncodeConfig
from wfvae_cli.dataset.manifest import last_results
from wfvae_cli.errors import OutputError, UsageError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.media.clip import ClipInfo
from wfvae_cli.media.options import Sampling
from wfvae_cli.models.load import load_model
from wfvae_cli.pipeline.encode import encode_clip
from wfvae_cli.strides import Strides

STRIDES = Strides(4, 8, 8)


def buckets(text: str, *, upscale: bool = True) -> Buckets:
    shapes = parse_buckets(text)
    assert not isinstance(shapes, str)
    return Buckets.of(shapes, upscale=upscale)


def chosen(text: str, width: int, height: int, frames: int, *, upscale: bool = True) -> str:
    info = ClipInfo(width, height, is_image=frames == 1)
    return str(buckets(text, upscale=upscale).choose(info, frames))


TWO = "96x64x9,64x96x9,96x64x17,64x96x17,96x64x1"


@pytest.mark.parametrize(
    ("width", "height", "frames", "expected"),
    [
        (1920, 1080, 100, "96x64x17"),
        (1920, 1080, 16, "96x64x9"),
        (1080, 1920, 17, "64x96x17"),
        (500, 500, 1, "96x64x1"),
        (1920, 1080, 8, "96x64x1"),
    ],
)
def test_the_nearest_aspect_and_the_most_frames_that_are_filled(
    width: int, height: int, frames: int, expected: str
) -> None:
    assert chosen(TWO, width, height, frames) == expected


def test_pixels_that_are_not_square_count_as_they_are_shown() -> None:
    info = ClipInfo(720, 1440, sample_aspect=Fraction(4))
    assert str(buckets(TWO).choose(info, 9)) == "96x64x9"


def test_of_several_sizes_the_largest_that_enlarges_nothing() -> None:
    sizes = "64x64x5,128x128x5,256x256x5"
    assert chosen(sizes, 200, 200, 5) == "128x128x5"
    assert chosen(sizes, 32, 32, 5) == "64x64x5"
    with pytest.raises(UnsuitableError, match=r"too small: 32x32 pixels .* 64x64x5"):
        chosen(sizes, 32, 32, 5, upscale=False)


def test_what_fits_no_bucket_says_why() -> None:
    with pytest.raises(UnsuitableError, match="it has 4 frames, the shortest bucket has 9"):
        chosen("96x64x9", 96, 64, 4)
    with pytest.raises(UnsuitableError, match="an image has 1 frame"):
        chosen("96x64x9", 96, 64, 1)


@given(
    area=st.tuples(st.integers(64, 2000), st.integers(64, 2000)),
    step=st.sampled_from([8, 16, 32, 64]),
)
def test_automatic_buckets_fill_the_area_with_multiples(area: tuple[int, int], step: int) -> None:
    made = auto_buckets(area, step, [1, 17], STRIDES)
    check_buckets(made, STRIDES)
    for bucket in made:
        assert bucket.width % step == bucket.height % step == 0
        assert bucket.width * bucket.height <= area[0] * area[1]
        assert bucket.width * (bucket.height + step) > area[0] * area[1]
        assert 0.25 <= bucket.width / bucket.height <= 4
    assert {bucket.frames for bucket in made} == {1, 17}


def test_the_area_itself_is_a_bucket_of_auto() -> None:
    assert Bucket(960, 544, 49) in auto_buckets((960, 544), 32, [49], STRIDES)


def test_buckets_that_the_model_would_pad_are_refused_with_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"8x8 pixels with 1 \+ 4k frames, got 100x64x9 .*104x64x9"
    ):
        check_buckets([Bucket(100, 64, 9), Bucket(64, 64, 9)], STRIDES)
    with pytest.raises(UsageError, match=r"64x64x48 \(nearest: 64x64x49\)"):
        check_buckets([Bucket(64, 64, 48)], STRIDES)
    with pytest.raises(UsageError, match=r"multiple of 32 .* got 40; the nearest is 32"):
        auto_buckets((960, 544), 40, [9], Strides(8, 32, 32))
    with pytest.raises(UsageError, match="holds no bucket"):
        auto_buckets((16, 16), 32, [9], STRIDES)


@pytest.mark.parametrize("text", ["", "96", "96x64x0", "0x64x1", "96x64x9,", "axb"])
def test_a_list_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="expected WIDTHxHEIGHTxFRAMES"):
        parse_buckets(text)
    with pytest.raises(ValueError, match="expected numbers of frames"):
        parse_frames("1,x")


def test_buckets_and_a_size_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="leave --size and --short-side out"):
        EncodeConfig(sampling=Sampling(size=(64, 64)), buckets=buckets("64x64x5"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    write_clip(folder / "wide.mkv", 7, 48, 32, seed=1)
    write_clip(folder / "tall.mkv", 12, 32, 48, seed=2)
    write_clip(folder / "short.mkv", 2, 48, 32, seed=3)
    write_image(folder / "still.png", 48, 24, seed=4)
    return folder


CONFIG = EncodeConfig(buckets=buckets("32x24x5,24x32x9,32x24x1"))


def test_every_clip_is_what_its_bucket_asks_for(mixed: Path, tmp_path: Path) -> None:
    summary = run(mixed, tmp_path / "out", CONFIG)
    assert (summary.done, summary.failed, summary.skipped) == (4, 0, 0)
    assert summary.buckets == {"32x24x1": (2, 2), "32x24x5": (1, 5), "24x32x9": (1, 9)}
    lines = last_results(tmp_path / "out/manifest.jsonl")
    assert {name: line.bucket for name, line in lines.items()} == {
        "wide.mkv": "32x24x5",
        "tall.mkv": "24x32x9",
        "short.mkv": "32x24x1",
        "still.png": "32x24x1",
    }
    alone = tmp_path / "alone.safetensors"
    encode_clip(mixed / "tall.mkv", alone, load_model(), sampling=Sampling(size=(24, 32), frames=9))
    with LatentFile(alone) as a, LatentFile(tmp_path / "out/tall.mkv.safetensors") as b:
        assert b.metadata.extra["bucket"] == "24x32x9"
        assert (b.metadata.width, b.metadata.height, b.metadata.frames) == (24, 32, 9)
        assert torch.equal(a.read(), b.read())


def test_a_lost_manifest_is_made_up_for_with_buckets(mixed: Path, tmp_path: Path) -> None:
    summary = run(mixed, tmp_path, CONFIG)
    path = tmp_path / "manifest.jsonl"
    before = {name: line.bucket for name, line in last_results(path).items()}
    path.unlink()
    assert run(mixed, tmp_path, CONFIG).buckets == summary.buckets
    assert {name: line.bucket for name, line in last_results(path).items()} == before


def test_what_fits_none_is_skipped_and_not_opened_again(mixed: Path, tmp_path: Path) -> None:
    config = EncodeConfig(buckets=buckets("32x24x5"))
    summary = run(mixed, tmp_path, config)
    assert (summary.done, summary.failed, summary.skipped) == (2, 0, 2)
    line = last_results(tmp_path / "manifest.jsonl")["short.mkv"]
    assert (line.status, line.output) == ("skipped", None)
    assert line.error == "fits no bucket: it has 2 frames, the shortest bucket has 5"
    again = run(mixed, tmp_path, config)
    assert (again.current, again.done, again.skipped) == (2, 0, 2)
    assert again.buckets == summary.buckets


def test_buckets_are_among_the_options_that_resuming_compares(mixed: Path, tmp_path: Path) -> None:
    run(mixed, tmp_path, CONFIG)
    before = contents(tmp_path)
    other = EncodeConfig(buckets=buckets("32x24x5,24x32x9,32x24x1,24x24x1"))
    with pytest.raises(OutputError, match="buckets: 24x32x9,32x24x1,32x24x5, now 24x24x1"):
        run(mixed, tmp_path, other)
    assert contents(tmp_path) == before
    assert run(mixed, tmp_path, CONFIG).current == 4


def test_batches_within_buckets_change_no_byte_with_who_shares_them(
    mixed: Path, tmp_path: Path
) -> None:
    config = EncodeConfig(buckets=CONFIG.buckets, batch=2)
    run(mixed, tmp_path / "all", config)
    run(mixed / "still.png", tmp_path / "one", config)
    assert contents(tmp_path / "one").items() <= contents(tmp_path / "all").items()
    options = json.loads(
        LatentFile(tmp_path / "one/still.png.safetensors").metadata.extra["options"]
    )
    assert (options["batch"], options["fit"]) == ("2", "crop")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (("--buckets", "32x24x5"), "--buckets"),
        (("--windows", "all:5"), "--windows"),
        (("--format", "webdataset"), "--format webdataset"),
        (("--dry-run",), "--dry-run"),
    ],
)
def test_one_clip_in_buckets_or_windows_still_needs_a_folder(
    tmp_path: Path, options: tuple[str, ...], name: str
) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    answer = wfvae("encode", clip, "-o", tmp_path / "z.safetensors", *options)
    assert_refused(answer, 2, f"with {name} the outputs go into a folder, even those of one clip")
    answer = wfvae("encode", clip, "-o", "-", *options)
    assert_refused(answer, 2, f"{name} needs files and a folder")
    answer = wfvae("encode", "-", "-o", tmp_path / "z", *options)
    assert_refused(answer, 2, f"{name} needs files and a folder")


def test_one_clip_in_a_bucket(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 7)
    answer = wfvae("encode", clip, "-o", tmp_path / "z", "--buckets", "32x24x5")
    assert answer.code == 0, answer
    assert "32x24x5" in answer.stderr
    with LatentFile(tmp_path / "z/a.mp4.safetensors") as file:
        assert file.metadata.frames == 5


def test_reasons_that_differ_in_numbers_are_shown_by_an_example() -> None:
    reasons = {
        "too short: it has 4 frames": 2,
        "too short: it has 5 frames": 1,
        "too small: 8x8": 9,
    }
    assert show_reasons(reasons) == [
        "9 because 'too small: 8x8'",
        "3 because 'too short', such as 'it has 4 frames'",
    ]
