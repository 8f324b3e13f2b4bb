"""Datasets decoded to media, and taken there and back: named, resumed, isolated."""

from __future__ import annotations

import json
import os
import shutil
from fractions import Fraction
from pathlib import Path

import pytest

from tests.dataset.clips import write_clip, write_image
from tests.dataset.conftest import run
from tests.media.conftest import write_clip as write_variable
from wfvae_cli.dataset.config import DecodeConfig, RoundtripConfig
from wfvae_cli.dataset.decode_job import DecodeJob
from wfvae_cli.dataset.items import Kind, find_inputs
from wfvae_cli.dataset.manifest import last_results
from wfvae_cli.dataset.media_files import media_name
from wfvae_cli.dataset.plan import Conflict
from wfvae_cli.dataset.result import ItemResult
from wfvae_cli.dataset.roundtrip_job import RoundtripJob
from wfvae_cli.dataset.run import NoRunCallbacks, Summary, run_dataset
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.errors import InputError, OutputError
from wfvae_cli.media.options import VideoOptions
from wfvae_cli.media.reader import open_clip
from wfvae_cli.models.load import load_model
from wfvae_cli.pipeline.decode import decode_clip
from wfvae_cli.pipeline.roundtrip import roundtrip_clip

NAMES = ["clip0.mkv", "clip0.mp4", "clip1.mp4", "clip2.mp4", "deep/clip0.mp4"]
IMAGES = ["still0.png", "still1.png"]


@pytest.fixture(scope="module")
def latents(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latents")
    run(source, folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """Every output; neither manifests nor what is hidden."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("[!.]*"))
        if path.is_file()
        and path.suffix != ".jsonl"
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def decode(
    source: Path,
    output: Path,
    config: DecodeConfig | None = None,
    *,
    conflict: Conflict = "refuse",
    callbacks: NoRunCallbacks | None = None,
) -> Summary:
    job = DecodeJob(OutputStore(output), config or DecodeConfig(), threads=1, readers=2)
    kinds: tuple[Kind, ...] = ("latents",)
    items = find_inputs([str(source)], kinds=kinds)
    return run_dataset(items, job, conflict=conflict, callbacks=callbacks)


def there_and_back(source: Path, output: Path, config: RoundtripConfig | None = None) -> Summary:
    job = RoundtripJob(OutputStore(output), config or RoundtripConfig(), threads=1, readers=2)
    return run_dataset(find_inputs([str(source)]), job)


def test_a_folder_is_decoded_as_each_file_alone(latents: Path, tmp_path: Path) -> None:
    assert decode(latents, tmp_path / "out").done == 7
    found = files(tmp_path / "out")
    assert sorted(found) == sorted(NAMES + IMAGES)
    for name in ("deep/clip0.mp4", "still0.png"):
        alone = tmp_path / Path(name).name
        decode_clip(latents / f"{name}.safetensors", alone, load_model())
        assert alone.read_bytes() == found[name]


def test_a_decoded_folder_is_resumed(latents: Path, tmp_path: Path) -> None:
    decode(latents, tmp_path)
    before = files(tmp_path)
    (tmp_path / "clip1.mp4").unlink()
    os.utime(latents / "clip2.mp4.safetensors", (1, 1))
    summary = decode(latents, tmp_path)
    assert (summary.done, summary.current) == (2, 5)  # one made anew, one the same by content
    assert files(tmp_path) == before


def test_what_was_made_differently_is_refused(latents: Path, tmp_path: Path) -> None:
    decode(latents, tmp_path)
    other = DecodeConfig(VideoOptions(crf=40))
    with pytest.raises(OutputError, match=r"7 outputs .* crf: unset, now 40"):
        decode(latents, tmp_path, other)
    assert decode(latents, tmp_path, other, conflict="keep").skipped == 7
    assert decode(latents, tmp_path, other, conflict="overwrite").done == 7
    assert decode(latents, tmp_path, other).current == 7


@pytest.mark.parametrize("change", ["unknown", "edited"])
def test_files_that_the_manifest_does_not_know_are_refused(
    latents: Path, tmp_path: Path, change: str
) -> None:
    if change == "edited":
        decode(latents, tmp_path)
    (tmp_path / "clip1.mp4").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"not what the manifest knows \(1 files"):
        decode(latents, tmp_path)
    assert (tmp_path / "clip1.mp4").read_bytes() == b"mine"


def test_a_run_killed_before_its_line_is_written_resumes(latents: Path, tmp_path: Path) -> None:
    class Killed(NoRunCallbacks):
        def settled(self, result: ItemResult) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode(latents, tmp_path / "out", callbacks=Killed())
    assert files(tmp_path / "out")
    assert not last_results(tmp_path / "out/manifest.jsonl")
    assert decode(latents, tmp_path / "out").failed == 0
    decode(latents, tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert len(last_results(tmp_path / "out/manifest.jsonl")) == 7
    assert not list((tmp_path / "out").glob(".*"))


def test_bad_latents_fail_alone(latents: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(latents, tmp_path / "in")
    (folder / "bad.mp4.safetensors").write_bytes(b"half")
    summary = decode(folder, tmp_path / "out")
    assert (summary.done, summary.failures) == (7, {"bad latents": 1})
    assert sorted(files(tmp_path / "out")) == sorted(NAMES + IMAGES)


def test_there_and_back_with_scores(source: Path, tmp_path: Path) -> None:
    summary = there_and_back(source, tmp_path / "out")
    assert (summary.done, summary.failed) == (7, 0)
    last = last_results(tmp_path / "out/manifest.jsonl")
    alone = roundtrip_clip(source / "deep/clip0.mp4", tmp_path / "alone.mp4", load_model())
    scores = last["deep/clip0.mp4"].metrics
    assert scores is not None
    assert scores["psnr"] == pytest.approx(alone.metrics.psnr, abs=1e-5)
    assert (tmp_path / "alone.mp4").read_bytes() == files(tmp_path / "out")["deep/clip0.mp4"]
    psnr = [result.metrics["psnr"] for result in last.values() if result.metrics]
    assert summary.metrics["psnr"] == pytest.approx(sum(psnr) / 7)
    again = there_and_back(source, tmp_path / "out")
    assert again.current == 7
    assert again.metrics == pytest.approx(summary.metrics)
    line = json.loads((tmp_path / "out/manifest.jsonl").read_text().splitlines()[0])
    assert line["options"]["job"] == "roundtrip"


def test_an_output_never_replaces_an_input(copy: Path) -> None:
    before = files(copy)
    job = RoundtripJob(OutputStore(copy), RoundtripConfig(), threads=1)
    with pytest.raises(OutputError, match="would replace an input"):
        run_dataset(find_inputs([str(copy)]), job, conflict="overwrite")
    assert files(copy) == before


def test_outputs_of_one_name_are_refused(latents: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.safetensors", "a.mp4.safetensors"):
        shutil.copy(latents / "clip1.mp4.safetensors", folder / name)
    with pytest.raises(InputError, match=r"both become 'a.mp4'"):
        decode(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("a/x.mp4.safetensors", VideoOptions(), "a/x.mp4"),
        ("x.avi.safetensors", VideoOptions(), "x.avi.mp4"),
        ("z.safetensors", VideoOptions(), "z.mp4"),
        ("x.mp4.safetensors", VideoOptions(codec="ffv1"), "x.mp4.mkv"),
        ("x.mkv.safetensors", VideoOptions(codec="ffv1"), "x.mkv"),
        ("x.mp4.safetensors", VideoOptions(container="webm"), "x.mp4.webm"),
    ],
)
def test_names_of_videos(name: str, options: VideoOptions, expected: str) -> None:
    assert media_name(name, options, is_image=False) == expected


def test_names_of_images() -> None:
    assert media_name("a/x.png.safetensors", VideoOptions(), is_image=True) == "a/x.png"
    assert media_name("x.jpg.safetensors", VideoOptions(codec="ffv1"), is_image=True) == "x.jpg.png"


def test_one_clip_and_image_types(tmp_path: Path) -> None:
    write_clip(tmp_path / "in/a.mov", 5)
    write_image(tmp_path / "in/b.bmp")
    there_and_back(tmp_path / "in", tmp_path / "out")
    assert sorted(files(tmp_path / "out")) == ["a.mov", "b.bmp.png"]


def test_clips_of_variable_rate_keep_their_times(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    times = [0, 40, 80, 95, 200]
    for i in range(3):
        write_variable(
            tmp_path / "in" / f"{i}.mp4",
            len(times),
            pts=times,
            time_base=Fraction(1, 1000),
            options={"bf": "0"},
        )
    run(tmp_path / "in", tmp_path / "z")
    summary = decode(tmp_path / "z", tmp_path / "out")
    assert (summary.done, summary.failed) == (3, 0)
    for path in (tmp_path / "out").glob("*.mp4"):
        with open_clip(path) as reader:
            assert [frame.pts * reader.info.time_base * 1000 for frame in reader] == times
