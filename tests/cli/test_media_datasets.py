"""`wfvae decode` and `wfvae roundtrip` for datasets: what a user types, sees and gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.program import assert_refused, wfvae
from tests.dataset.clips import write_clip, write_image
from tests.models.tiny import write_checkpoint
from tests.parity.cases import case_config, case_weights
from wfvae_cli.media.reader import open_clip

OUTPUT, USAGE, SOME_FAILED = 5, 2, 7


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    write_clip(folder / "a/clip.mp4", 5, seed=1)
    write_clip(folder / "clip.mkv", 9, seed=2)
    write_image(folder / "still.jpg", seed=3)
    return folder


@pytest.fixture(scope="module")
def coded(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coded") / "z"
    assert wfvae("encode", clips, "-o", folder).code == 0
    return folder


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_folder_of_latents_becomes_videos(coded: Path, tmp_path: Path) -> None:
    answer = wfvae("decode", coded, "-o", tmp_path / "out")
    assert answer.code == 0, answer
    assert names(tmp_path / "out") == ["a/clip.mp4", "clip.mkv", "manifest.jsonl", "still.jpg.png"]
    with open_clip(tmp_path / "out/a/clip.mp4") as reader:
        assert (reader.info.width, reader.info.height, len(list(reader))) == (32, 24, 5)
    again = wfvae("decode", coded, "-o", tmp_path / "out")
    assert "skipping 3 up-to-date files" in " ".join(again.stderr.split())


def test_options_of_videos_are_part_of_what_is_resumed(coded: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert wfvae("decode", coded, "-o", target, "--codec", "ffv1").code == 0
    assert names(target) == ["a/clip.mp4.mkv", "clip.mkv", "manifest.jsonl", "still.jpg.png"]
    answer = wfvae("decode", coded, "-o", target, "--codec", "ffv1", "--chunk", "9")
    assert_refused(answer, OUTPUT, "chunk: auto, now 9", "--overwrite", "--keep")
    options = ("--codec", "ffv1", "--chunk", "9", "--overwrite", "--shard", "0/1")
    assert wfvae("decode", coded, "-o", target, *options).code == 0


def test_one_bad_file_ends_with_7(coded: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/bad.safetensors").write_bytes(b"no latents")
    (tmp_path / "in/good.safetensors").symlink_to(coded / "a/clip.mp4.safetensors")
    answer = wfvae("decode", tmp_path / "in", "-o", tmp_path / "out")
    assert_refused(answer, SOME_FAILED, "1 of 2 files failed", "1 done")
    assert names(tmp_path / "out") == ["good.mp4", "manifest.jsonl"]


def test_a_folder_there_and_back(clips: Path, tmp_path: Path) -> None:
    answer = wfvae("roundtrip", clips, "-o", tmp_path / "out", "--json", "--ms-ssim")
    assert answer.code == 0, answer
    told = [json.loads(line) for line in answer.stdout.splitlines()]
    assert set(told[-1]["metrics"]) >= {"psnr", "ssim"}
    assert names(tmp_path / "out") == ["a/clip.mp4", "clip.mkv", "manifest.jsonl", "still.jpg.png"]
    lines = (tmp_path / "out/manifest.jsonl").read_text().splitlines()
    assert all(json.loads(line)["metrics"]["psnr"] > 0 for line in lines)
    again = wfvae("roundtrip", clips, "-o", tmp_path / "out", "--ms-ssim")
    told_again = " ".join(again.stderr.split())
    assert "skipping 3 up-to-date files" in told_again
    assert "mean over files: PSNR" in told_again


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("decode", "-o", "-"), USAGE, "one clip"),
        (("decode", "-o", "out.mp4"), USAGE, "names one file"),
        (("decode", "-o", "out/", "--audio-from", "x.mp4"), USAGE, "--audio-from is for one clip"),
        (("roundtrip", "-o", "out/", "--fid", "--engine", "ray"), USAGE, "--fid needs the frames"),
        (("roundtrip", "-o", "o.mp4", "-m", "a", "-m", "b"), USAGE, "several models need a folder"),
        (("roundtrip", "-m", "a", "-m", "a"), USAGE, "expected different models"),
        (("roundtrip", "-o", "out/", "--workers", "2"), USAGE, "--engine ray"),
    ],
)
def test_contradictions(
    coded: Path, arguments: tuple[str, ...], code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(coded.parent)
    command, *options = arguments
    assert_refused(wfvae(command, coded, *options), code, words)
    assert not (coded.parent / "out").exists()


def test_the_old_spelling_of_a_format(clips: Path, tmp_path: Path) -> None:
    config = {**case_config("mini-wan"), "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    write_checkpoint(tmp_path / "wan", case_weights("mini-wan"), config)
    model = ("--model", tmp_path / "wan")
    for number, spelling in enumerate(("--format", "--layout")):
        answer = wfvae("encode", clips, "-o", tmp_path / str(number), spelling, "musubi", *model)
        assert answer.code == 0, answer
    one, other = (sorted((tmp_path / each).rglob("*.safetensors")) for each in ("0", "1"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    assert "--layout" not in wfvae("encode", "--help").stdout


def test_verify_finds_other_content_of_the_same_size(coded: Path, tmp_path: Path) -> None:
    command = ("decode", coded, "-o", tmp_path / "out", "--include", "*.mkv.*")
    assert wfvae(*command).code == 0
    video = tmp_path / "out" / "clip.mkv"
    whole = video.read_bytes()
    video.write_bytes(whole[:-64] + bytes(64))
    assert "1 already up to date" in " ".join(wfvae(*command).stderr.split())
    answer = wfvae(*command, "--verify")
    assert answer.code == 0, answer
    assert "clip.mkv" in answer.stderr
    assert "damaged, making it again" in " ".join(answer.stderr.split())
    assert video.read_bytes() == whole
    assert "1 already up to date" in " ".join(wfvae(*command, "--verify").stderr.split())


@pytest.mark.parametrize("level", [".wfvae-journal", ".wfvae-journal/run"])
def test_a_journal_that_is_a_link_is_refused(coded: Path, tmp_path: Path, level: str) -> None:
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.mkdir()
    (victim / "precious.json").write_text("{}")
    link = out / level
    link.parent.mkdir(parents=True)
    link.symlink_to(victim)
    (victim / "run").mkdir()
    (victim / "run" / "precious.json").write_text("{}")
    assert_refused(wfvae("decode", coded, "-o", out), OUTPUT, "is a symbolic link")
    assert sorted(path.name for path in victim.rglob("*.json")) == ["precious.json"] * 2


@pytest.mark.parametrize("text", ["", "[" * 100_000, "5", '{"item": "a", "output": "../victim"}'])
def test_a_damaged_journal_is_left_aside(coded: Path, tmp_path: Path, text: str) -> None:
    journal = tmp_path / "out/.wfvae-journal/run"
    journal.mkdir(parents=True)
    (journal / "0.json").write_text(text)
    answer = wfvae("decode", coded, "-o", tmp_path / "out", "--include", "*.jpg.*")
    assert answer.code == 0, answer
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [
        "manifest.jsonl",
        "still.jpg.png",
    ]
