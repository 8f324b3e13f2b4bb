import json
from pathlib import Path

import pytest

from tests.cli.program import assert_refused, wfvae

SMALL = ("--size", "16x16", "--frames", "5", "--runs", "1", "--device", "cpu")


def test_figures_as_json() -> None:
    answer = wfvae("bench", *SMALL, "--json")
    assert answer.code == 0
    result = json.loads(answer.stdout)
    assert (result["frames"], result["width"], result["height"]) == (5, 16, 16)
    stages = {stage["stage"]: stage for stage in result["stages"]}
    assert set(stages) == {"encode", "decode", "encode from file", "decode to file"}
    assert stages["decode"]["frames_per_second"]["median"] > 0
    assert stages["decode"]["share_of_ceiling"] > 0


def test_a_clip_of_the_users_and_a_sweep(clip: Path) -> None:
    answer = wfvae("bench", clip, *SMALL, "--sweep")
    assert answer.code == 0
    assert "recommended: --chunk 5" in answer.stdout


def test_a_comparison() -> None:
    answer = wfvae("bench", *SMALL, "--compare", "dtype=bfloat16", "--json")
    result = json.loads(answer.stdout)
    assert (result["a"]["dtype"], result["b"]["dtype"]) == ("auto", "bfloat16")
    assert len(result["rows"]) == 4


def test_a_table_of_precision() -> None:
    answer = wfvae("bench", *SMALL, "--precision")
    assert answer.code == 0
    assert "bfloat16" in answer.stdout
    assert "PSNR against float32" in answer.stdout


def test_the_file_side(clip: Path) -> None:
    answer = wfvae("bench", clip, *SMALL, "--media")
    assert answer.code == 0
    assert "cores" in answer.stdout
    assert " limits decoding: " in answer.stdout
    result = json.loads(wfvae("bench", clip, *SMALL, "--media", "--json").stdout)
    assert result["codec"] == "h264"
    assert result["write"]["frames_per_second"]["median"] > 0
    assert "limits encoding" in result["verdict"]


def test_precision_of_tiles() -> None:
    few = ("--size", "64x64", "--frames", "1", "--device", "cpu")
    rows = json.loads(wfvae("bench", *few, "--precision", "--json").stdout)["rows"]
    assert [row["tile"] for row in rows] == [None, None, 32]
    assert 10 < rows[-1]["roundtrip"] < 80, "tiles are near, and not exact"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--sweep", "--precision"), "choose one"),
        (("--sweep", "--media"), "choose one"),
        (("--compare", "dtype=float8"), "dtype=bfloat16,chunk=9"),
        (("--compare", "tile=large"), "tile="),
        (("--size", "large"), "WIDTHxHEIGHT"),
    ],
)
def test_options_that_have_no_meaning(options: tuple[str, ...], word: str) -> None:
    assert_refused(wfvae("bench", *options), 2, word)


def test_the_help_has_an_example() -> None:
    answer = wfvae("bench", "--help")
    assert "wfvae bench --size 512x512" in answer.stdout.split("Example")[1]
