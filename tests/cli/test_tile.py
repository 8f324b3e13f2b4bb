"""`--tile`, through the real program."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.program import assert_refused, wfvae
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.media.reader import open_clip
from wfvae_cli.pipeline.plan import Memory

SAMPLE = Path(__file__).parents[1] / "data" / "sample.mp4"
FEW = ("--frames", "2", "--size", "64x48", "--device", "cpu")
NOTICE = "tiles of 32 pixels: not exact"


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latents of the sample, in tiles."""
    path = tmp_path_factory.mktemp("tiled") / "z.safetensors"
    answer = wfvae("encode", SAMPLE, "-o", path, *FEW, "--tile", "32", "--json")
    assert answer.code == 0, answer
    assert json.loads(answer.stdout)["tile"] == 32
    return path


def test_the_header_says_that_there_were_tiles(tmp_path: Path, tiled: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    answer = wfvae("encode", SAMPLE, "-o", whole, *FEW, "--tile", "off")
    assert answer.code == 0
    assert NOTICE not in answer.stderr
    with LatentFile(tiled) as a, LatentFile(whole) as b:
        assert (a.metadata.tile, b.metadata.tile) == (32, None)
        assert a.shape == b.shape
        difference = (a.read() - b.read()).abs()
        assert difference.max() > 1e-4
        assert difference.mean() < 0.3 * b.read().std()


def test_decoding_in_tiles_says_that_it_is_not_exact(tmp_path: Path, tiled: Path) -> None:
    out, exact = tmp_path / "out.mkv", tmp_path / "exact.mkv"
    answer = wfvae("decode", tiled, "-o", out, "--codec", "ffv1", "--tile", "32")
    assert answer.code == 0, answer
    assert " ".join(answer.stderr.split()).count(NOTICE) == 1
    answer = wfvae("decode", tiled, "-o", exact, "--codec", "ffv1")
    assert NOTICE not in " ".join(answer.stderr.split())
    with open_clip(out) as a, open_clip(exact) as b:
        difference = [
            np.abs(x.pixels.astype(float) - y.pixels).mean() for x, y in zip(a, b, strict=True)
        ]
    assert 0 < max(difference) < 12


def test_a_roundtrip_in_tiles(tmp_path: Path) -> None:
    answer = wfvae("roundtrip", SAMPLE, *FEW, "--tile", "32", "--json")
    result = json.loads(answer.stdout)
    assert (result["tile"], result["frames"]) == (32, 2)
    assert result["psnr"] > 15


def test_a_tile_as_large_as_the_picture_is_no_tile(tmp_path: Path) -> None:
    target = tmp_path / "z.safetensors"
    answer = wfvae("encode", SAMPLE, "-o", target, *FEW, "--tile", "64", "--json")
    assert json.loads(answer.stdout)["tile"] is None
    with LatentFile(target) as file:
        assert file.metadata.tile is None


def test_auto_makes_tiles_only_where_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("encode", SAMPLE, "--frames", "1", "--size", "512x32", "--device", "cpu")
    # A device with next to nothing left, beside a host with room for state.
    short = Memory(free=2**10, host=2**40)
    for name, tile in (("roomy", "auto"), ("off", "off"), ("auto", "auto")):
        answer = wfvae(*arguments, "-o", tmp_path / f"{name}.safetensors", "--tile", tile)
        assert answer.code == 0, answer
        said = "tiles of 256 pixels: not exact" in " ".join(answer.stderr.split())
        with LatentFile(tmp_path / f"{name}.safetensors") as file:
            assert file.metadata.tile == (256 if said else None)
        assert said == (name == "auto")
        monkeypatch.setattr(Memory, "now", lambda device: short)


def test_a_dataset_in_tiles(tmp_path: Path) -> None:
    out = tmp_path / "latents"
    arguments = ("encode", SAMPLE, "-o", f"{out}/", *FEW, "--readers", "1")
    answer = wfvae(*arguments, "--tile", "32")
    assert answer.code == 0, answer
    assert NOTICE in " ".join(answer.stderr.split())
    [path] = out.glob("**/*.safetensors")
    with LatentFile(path) as file:
        assert file.metadata.tile == 32
    assert_refused(wfvae(*arguments), 5, "tile: 32, now unset")


@pytest.mark.parametrize("tile", ["large", "-8", "60", "16"])
def test_bad_values_are_usage_errors(tmp_path: Path, tile: str) -> None:
    answer = wfvae("encode", SAMPLE, "-o", tmp_path / "z.safetensors", *FEW, f"--tile={tile}")
    assert_refused(answer, 2, "--tile: expected")
    assert not list(tmp_path.iterdir())


def test_batches_are_never_tiled(tmp_path: Path) -> None:
    arguments = ("encode", SAMPLE, "-o", f"{tmp_path}/", *FEW, "--batch", "2", "--tile", "32")
    assert_refused(wfvae(*arguments), 2, "--tile takes clips one by one")
