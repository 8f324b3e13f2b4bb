"""The cache files of musubi-tuner, against the names, shapes and metadata that it documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.dataset.clips import contents, write_clip, write_image
from tests.models.checkpoints import write_wan
from wfvae_cli.dataset.config import EncodeConfig
from wfvae_cli.dataset.encode_job import EncodeJob
from wfvae_cli.dataset.items import Item, find_inputs
from wfvae_cli.dataset.run import Summary, run_dataset
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.errors import InputError, UsageError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.latents.normalization import AppliedNormalization
from wfvae_cli.models.load import load_model, normalization_of
from wfvae_cli.pipeline.encode import encode_clip
from wfvae_cli.pipeline.options import EncodeOptions


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_wan(tmp_path_factory.mktemp("models") / "wan"))


def run(items: list[Item], output: Path, model: str) -> Summary:
    values = normalization_of(load_model(model))
    applied = AppliedNormalization(values.shift, values.scale, "config")
    options = EncodeOptions(normalization=applied, save_dtype="bfloat16")
    config = EncodeConfig(options, format="musubi")
    return run_dataset(items, EncodeJob(OutputStore(output), config, model=model, threads=1))


def test_names_tensors_and_metadata(tmp_path: Path, wan: str) -> None:
    write_clip(tmp_path / "in/my_clip.mp4", 9, 48, 32)
    write_image(tmp_path / "in/deep/a_still.png", 64, 48)
    assert run(find_inputs([str(tmp_path / "in")]), tmp_path / "out", wan).done == 2
    assert list(contents(tmp_path / "out")) == [
        "a_still_0064x0048_wan.safetensors",
        "my_clip_00000-009_0048x0032_wan.safetensors",
    ]
    path = tmp_path / "out/my_clip_00000-009_0048x0032_wan.safetensors"
    # what the trainer does with the name
    parts = path.name.split("_")
    assert "_".join(parts[:-3]) == "my_clip"
    assert re.fullmatch(r"(\d{5})-(\d{3})", parts[-3])
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == ["latents_3x4x6_bfloat16"]
        latents = file.get_tensor("latents_3x4x6_bfloat16")
        strings = file.metadata()
    assert (latents.shape, latents.dtype) == ((4, 3, 4, 6), torch.bfloat16)
    documented = ("architecture", "width", "height", "format_version", "frame_count")
    assert [strings[name] for name in documented] == ["wan", "48", "32", "1.0.1", "9"]
    encode_clip(tmp_path / "in/my_clip.mp4", tmp_path / "z.safetensors", load_model(wan))
    values = normalization_of(load_model(wan))
    with LatentFile(tmp_path / "z.safetensors") as alone:
        shift = torch.tensor(values.shift).view(-1, 1, 1, 1)
        scale = torch.tensor(values.scale).view(-1, 1, 1, 1)
        assert torch.equal(latents, ((alone.read() - shift) * scale).bfloat16())
    with safe_open(tmp_path / "out/a_still_0064x0048_wan.safetensors", "pt") as file:
        assert list(file.keys()) == ["latents_1x6x8_bfloat16"]
        assert "frame_count" not in file.metadata()


def test_images_among_videos_are_warned_of(
    tmp_path: Path, wan: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_clip(tmp_path / "in/a.mp4")
    for name, warned in (("b.mp4", False), ("c.png", True)):
        (write_image if warned else write_clip)(tmp_path / "in" / name)
        run(find_inputs([str(tmp_path / "in")]), tmp_path / "out", wan)
        assert ("1 images among 2 videos" in caplog.text) is warned


def test_a_part_has_its_position(tmp_path: Path, wan: str) -> None:
    path = write_clip(tmp_path / "film.mp4", 24, 32, 32, rate=8)
    items = [Item(str(path), "film.mp4@1.5+1", 1.5, 1.0), Item(str(path), "film.mp4")]
    run(items, tmp_path / "out", wan)
    assert list(contents(tmp_path / "out")) == [
        "film_00000-024_0032x0032_wan.safetensors",
        "film_00012-008_0032x0032_wan.safetensors",
    ]


def test_it_resumes(tmp_path: Path, wan: str) -> None:
    for i in range(3):
        write_clip(tmp_path / f"in/{i}.mp4", 5, seed=i)
    items = find_inputs([str(tmp_path / "in")])
    run(items, tmp_path / "out", wan)
    before = contents(tmp_path / "out")
    (tmp_path / "out/1_00000-005_0032x0024_wan.safetensors").unlink()
    assert run(items, tmp_path / "out", wan).current == 2
    (tmp_path / "out/manifest.jsonl").unlink()
    assert run(items, tmp_path / "out", wan).done == 3
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("other", ["a.mkv", "deep/a.mp4"])
def test_names_that_the_trainer_cannot_tell_apart_are_refused(
    other: str, tmp_path: Path, wan: str
) -> None:
    write_clip(tmp_path / "in/a.mp4")
    write_clip(tmp_path / "in" / other)
    with pytest.raises(InputError, match=r"both be 'a' to musubi-tuner"):
        run(find_inputs([str(tmp_path / "in")]), tmp_path / "out", wan)


def test_what_it_cannot_store_is_refused() -> None:
    with pytest.raises(UsageError, match="leave --posterior moments out"):
        EncodeConfig(EncodeOptions(posterior="moments"), format="musubi")
