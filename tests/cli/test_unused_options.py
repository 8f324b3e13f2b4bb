"""Options that would do nothing are refused, with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.program import assert_refused, wfvae
from tests.dataset.clips import write_clip

USAGE = 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fit", "pad"), "there is none: add --size"),
        (("--short-side", "16", "--fit", "stretch"), "--fit stretch says how"),
        (("--seed", "4"), "--seed is of --posterior sample"),
        (("--bucket-step", "16"), "--bucket-step is for --buckets auto"),
        (("--buckets", "16x16x5", "--bucket-step", "16"), "--bucket-step is for --buckets auto"),
        (("--shard-clips", "4"), "--shard-size are for tar shards"),
        (("--shard-size", "4", "--format", "ltx"), "--format is ltx"),
        (("--format", "energon", "--save-dtype", "float32"), "stores bfloat16: leave --save-dtype"),
        (("--format", "energon", "--posterior", "moments"), "leave --posterior moments out"),
    ],
)
def test_of_datasets(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    write_clip(tmp_path / "in" / "a.mp4")
    answer = wfvae("encode", tmp_path / "in", "-o", tmp_path / "out", *options)
    assert_refused(answer, USAGE, message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--include", "*"),
        ("--exclude", "x"),
        ("--limit", "1"),
        ("--readers", "2"),
        ("--max-failures", "2"),
        ("--keep",),
        ("--verify",),
        ("--profile",),
        ("--time-limit", "9"),
        ("--stall-limit", "9"),
        ("--no-captions",),
    ],
)
def test_of_one_clip(tmp_path: Path, options: tuple[str, ...]) -> None:
    clip, output = write_clip(tmp_path / "a.mp4"), tmp_path / "z.safetensors"
    answer = wfvae("encode", clip, "-o", output, *options)
    assert_refused(answer, USAGE, f"{options[0]} is for datasets, and")
    assert not output.exists()


def test_what_is_the_default_does_no_harm(tmp_path: Path) -> None:
    clip, output = write_clip(tmp_path / "a.mp4"), tmp_path / "z.safetensors"
    options = ("--format", "files", "--engine", "local", "--seed", "0", "--bucket-step", "32")
    assert wfvae("encode", clip, "-o", output, *options).code == 0


def test_of_roundtrip_and_stats(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    assert_refused(wfvae("roundtrip", clip, "--fit", "pad"), USAGE, "--fit pad says how")
    assert_refused(wfvae("compare", clip, clip, "--fit", "pad"), USAGE, "--fit pad says how")
    assert_refused(wfvae("stats", clip, "--fit", "pad"), USAGE, "--fit pad says how")
    assert_refused(wfvae("roundtrip", clip, "--keep"), USAGE, "--keep is for datasets")


def test_a_pipe_has_no_name_in_a_folder(tmp_path: Path) -> None:
    answer = wfvae("encode", "-", "-o", f"{tmp_path}/z/")
    assert_refused(answer, USAGE, "has no name", "clip.safetensors")
    assert not (tmp_path / "z").exists()
