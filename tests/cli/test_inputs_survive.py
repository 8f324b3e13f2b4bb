"""No command replaces what it reads, and no output is named as another format."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.cli.program import Answer, assert_refused, wfvae

OUTPUT, USAGE = 5, 2


@pytest.fixture
def here(tmp_path: Path, clip: Path, latents: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with in.mp4, sound.mp4, z.safetensors and links to them; the working one."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(clip, "in.mp4")
    shutil.copy(clip, "sound.mp4")
    shutil.copy(latents, "z.safetensors")
    Path("link.mp4").symlink_to("in.mp4")
    Path("hard.mp4").hardlink_to("in.mp4")
    Path("folder").mkdir()
    Path("folder/frame.png").write_bytes(b"precious")
    Path("stats.json").write_text("{}")
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.mark.parametrize(
    "command",
    [
        "roundtrip in.mp4 -o in.mp4",
        "roundtrip in.mp4 -o ./link.mp4",
        "roundtrip link.mp4 -o in.mp4",
        "roundtrip in.mp4 -o hard.mp4",
        "roundtrip in.mp4 --plot in.mp4",
        "encode in.mp4 -o in.mp4",
        "encode z.safetensors -o z.safetensors",
        "encode in.mp4 -o z.safetensors --normalize --stats z.safetensors",
        "decode z.safetensors -o sound.mp4 --audio-from sound.mp4",
        "decode z.safetensors -o link.mp4 --audio-from in.mp4",
        "compare in.mp4 sound.mp4 --plot in.mp4",
        "compare folder folder --plot folder/frame.png",
        "stats in.mp4 -o stats.json --merge stats.json",
        "stats folder --plot folder/frame.png",
        "roundtrip folder/%01d.png -o folder/1.png",
        "roundtrip file://HERE/in.mp4 -o in.mp4",
        "decode z.safetensors -o sound.mp4 --audio-from file://HERE/sound.mp4",
        "roundtrip list.ffconcat -o sound.mp4",
        "encode list.m3u8 -o sound.mp4",
        "roundtrip list.txt -o new --plot folder/1.png",
        "roundtrip folder/?.png -o new --plot folder/1.png",
    ],
)
def test_an_output_that_is_an_input_is_refused(here: Path, command: str) -> None:
    shutil.copy("sound.mp4", "folder/1.png")
    Path("list.ffconcat").write_text("ffconcat version 1.0\nfile 'sound.mp4'\n")
    Path("list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nsound.mp4\n")
    Path("list.txt").write_text("folder/1.png\n")
    before = contents(here)
    words = command.replace("HERE", str(here)).split()
    if "--merge" in words:
        words = ["stats", "--merge", "stats.json", "-o", "stats.json"]
    answer = wfvae(*words, "--overwrite")
    assert_refused(answer, OUTPUT, "is the input")
    assert contents(here) == before


def test_an_output_of_a_dataset_that_is_an_input_by_its_url(here: Path) -> None:
    shutil.copy("sound.mp4", "folder/a.mp4")
    Path("urls.jsonl").write_text(f'{{"path": "file://{here}/folder/a.mp4", "id": "a"}}\n')
    before = contents(here)
    answer = wfvae("roundtrip", "urls.jsonl", "-o", "folder", "--overwrite")
    assert_refused(answer, OUTPUT, "would replace an input")
    assert contents(here) == before


def test_a_models_weights_are_an_input(here: Path) -> None:
    from wfvae_cli.models.names import embedded_folder

    shutil.copytree(embedded_folder("wfvae-tiny"), "model")
    before = contents(here)
    target = "model/diffusion_pytorch_model.safetensors"
    answer = wfvae("encode", "in.mp4", "-o", target, "--model", "model", "--overwrite")
    assert_refused(answer, OUTPUT, "is the input")
    answer = wfvae("stats", "in.mp4", "-o", "model/config.json", "--model", "model", "--overwrite")
    assert_refused(answer, OUTPUT, "is the input")
    assert contents(here) == before


@pytest.mark.parametrize("suffix", [".mp4", ".pt", ".npy", ".png", ".json", ".SAFETENSORS.bak"])
def test_latents_keep_their_suffix(here: Path, suffix: str) -> None:
    before = contents(here)
    answer = wfvae("encode", "in.mp4", "-o", f"new{suffix}")
    assert_refused(answer, USAGE, ".safetensors")
    assert contents(here) == before


def test_a_dataset_does_not_go_into_a_file(here: Path) -> None:
    for name in ("out.mp4", "out.tar", "out.safetensors"):
        assert_refused(wfvae("encode", "folder", "-o", name), USAGE, "give a folder")
    assert not list(here.glob("out*"))


def test_reports_keep_their_suffix(here: Path) -> None:
    for name in ("report.png", "report.csv"):
        assert_refused(wfvae("stats", "in.mp4", "-o", name), USAGE, ".json")
    assert_refused(wfvae("roundtrip", "in.mp4", "--report", "r.mp4"), USAGE, "*.json or *.csv")


def test_the_list_of_a_dataset_is_an_input(here: Path) -> None:
    Path("out").mkdir()
    Path("out/manifest.jsonl").write_text('{"path": "../in.mp4"}\n')
    before = contents(here)
    answer = wfvae("encode", "out/manifest.jsonl", "-o", "out", "--overwrite")
    assert_refused(answer, OUTPUT, "is the input")
    assert contents(here) == before


def test_an_input_under_the_name_of_an_output(here: Path) -> None:
    Path("out").mkdir()
    shutil.copy("in.mp4", "out/a.safetensors")
    Path("list.jsonl").write_text('{"path": "out/a.safetensors", "id": "a"}\n')
    Path("also.mp4").symlink_to("out/a.safetensors")
    before = contents(here)
    answers: list[Answer] = [
        wfvae("encode", "list.jsonl", "-o", "out", "--overwrite"),
        wfvae("encode", "also.mp4", "in.mp4", "-o", "out", "--overwrite"),
    ]
    for answer in answers:
        assert_refused(answer, OUTPUT, "lies in the output folder")
    assert contents(here) == before
