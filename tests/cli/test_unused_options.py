"""Options that would do nothing are refused, or a note says that they are not used."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.program import assert_refused, wfvae
from tests.dataset.clips import write_clip

USAGE = 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
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
    assert answer.code == 0, answer
    assert f"note: {options[0]}: not used, since {clip} is one clip" in answer.stderr
    assert output.exists()


def test_what_is_the_default_does_no_harm(tmp_path: Path) -> None:
    clip, output = write_clip(tmp_path / "a.mp4"), tmp_path / "z.safetensors"
    options = ("--format", "files", "--engine", "local", "--seed", "0", "--bucket-step", "32")
    answer = wfvae("encode", clip, "-o", output, *options)
    assert answer.code == 0
    assert "not used" not in answer.stderr


@pytest.mark.parametrize(
    ("options", "note"),
    [
        (("--fit", "pad"), "--fit pad: not used"),
        (("--short-side", "16", "--fit", "stretch"), "--fit stretch: not used"),
        (("--seed", "4"), "--seed: not used"),
    ],
)
def test_of_any_clip(tmp_path: Path, options: tuple[str, ...], note: str) -> None:
    clip, output = write_clip(tmp_path / "a.mp4"), tmp_path / "z.safetensors"
    answer = wfvae("encode", clip, "-o", output, *options)
    assert answer.code == 0, answer
    assert f"note: {note}, since" in answer.stderr


def test_of_other_commands(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    for command in (("roundtrip", clip), ("compare", clip, clip), ("stats", clip)):
        answer = wfvae(*command, "--fit", "pad")
        assert answer.code == 0, answer
        assert "note: --fit pad: not used" in answer.stderr
    assert "note: --keep: not used" in wfvae("roundtrip", clip, "--keep").stderr


def test_a_pipe_has_no_name_in_a_folder(tmp_path: Path) -> None:
    answer = wfvae("encode", "-", "-o", f"{tmp_path}/z/")
    assert_refused(answer, USAGE, "has no name", "clip.safetensors")
    assert not (tmp_path / "z").exists()
