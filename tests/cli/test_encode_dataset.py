"""`wfvae encode` for datasets: what a user types, sees and gets."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import assert_refused, start, wfvae
from tests.dataset.clips import contents, write_clip, write_image
from tests.models.checkpoints import write_wan
from wfvae_cli.dataset.manifest import read_outcomes
from wfvae_cli.latents.file import LatentFile

INPUT, OUTPUT, USAGE, SOME_FAILED, INTERRUPTED = 3, 5, 2, 7, 130


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    write_clip(folder / "a/clip.mp4", 5, seed=1)
    write_clip(folder / "b/clip.mp4", 9, seed=2)
    write_image(folder / "b/still.png", seed=3)
    return folder


@pytest.fixture(scope="session")
def with_a_bad_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    write_clip(folder / "good.mp4", 5)
    (folder / "bad.mp4").write_text("no video")
    return folder


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_folder_is_mirrored(tmp_path: Path, videos: Path) -> None:
    answer = wfvae("encode", videos, "-o", tmp_path / "z", "--profile")
    assert answer.code == 0, answer
    assert list(contents(tmp_path / "z")) == [
        "a/clip.mp4.safetensors",
        "b/clip.mp4.safetensors",
        "b/still.png.safetensors",
    ]
    told = " ".join(answer.stderr.split())
    assert "3 done; 15 frames" in told
    assert told.startswith("warning: wfvae-tiny is a toy")
    assert "wfvae-tiny (wfvae), cpu, float32, 33 frames a chunk" in told
    assert "time of the model's thread:" in told
    again = wfvae("encode", videos, "-o", tmp_path / "z")
    assert again.code == 0
    assert "0 done, 3 already up to date" in " ".join(again.stderr.split())


@pytest.mark.parametrize("form", ["glob", "several", "manifest", "folder of outputs"])
def test_forms_of_input(tmp_path: Path, videos: Path, form: str) -> None:
    target = tmp_path / "z"
    sources: list[str | Path] = [f"{videos}/*/clip.mp4"]
    if form == "several":
        sources = [videos / "a/clip.mp4", videos / "b/clip.mp4"]
    elif form == "manifest":
        (tmp_path / "list.csv").write_text(
            f"path,id\n{videos}/a/clip.mp4,a/clip.mp4\n{videos}/b/clip.mp4,b/clip.mp4\n"
        )
        sources = [tmp_path / "list.csv"]
    elif form == "folder of outputs":
        target.mkdir()
        sources = [videos / "a/clip.mp4"]
    answer = wfvae("encode", *sources, "-o", target)
    assert answer.code == 0, answer
    expected = ["a/clip.mp4.safetensors", "b/clip.mp4.safetensors"]
    if form == "folder of outputs":
        expected = ["clip.mp4.safetensors"]
    assert list(contents(target)) == expected


def test_failures_end_with_7_and_a_summary_by_kind(tmp_path: Path, with_a_bad_one: Path) -> None:
    answer = wfvae("encode", with_a_bad_one, "-o", tmp_path / "z")
    assert_refused(answer, SOME_FAILED, "1 of 2 files failed (1 unreadable)", "manifest.jsonl")
    assert "bad.mp4: a text file" in " ".join(answer.stderr.split())
    assert list(contents(tmp_path / "z")) == ["good.mp4.safetensors"]


def test_json_has_an_event_a_line(tmp_path: Path, with_a_bad_one: Path) -> None:
    answer = wfvae("encode", with_a_bad_one, "-o", tmp_path / "z", "--json", "--profile")
    told = events(answer.stdout)
    assert told[0] == {"event": "planned", "todo": 2, "current": 0, "kept": 0}
    assert {"event": "started", "item": "good.mp4"} in told
    done = next(event for event in told if event["event"] == "done")
    assert (done["item"], done["frames"], done["shape"]) == ("good.mp4", 5, [16, 2, 3, 4])
    failed = next(event for event in told if event["event"] == "failed")
    assert (failed["item"], failed["kind"]) == ("bad.mp4", "unreadable")
    assert told[-1]["event"] == "summary"
    assert told[-1]["failures"] == {"unreadable": 1}
    assert set(told[-1]["profile"]) == {"input", "model", "output"}
    assert 0 < sum(told[-1]["profile"].values()) <= 1


def test_other_options_are_refused(tmp_path: Path, videos: Path) -> None:
    assert wfvae("encode", videos, "-o", tmp_path / "z").code == 0
    answer = wfvae("encode", videos, "-o", tmp_path / "z", "--save-dtype", "bfloat16")
    assert_refused(answer, OUTPUT, "save_dtype: float32, now bfloat16", "--overwrite", "--keep")
    answer = wfvae("encode", videos, "-o", tmp_path / "z", "--save-dtype", "bfloat16", "--keep")
    assert (answer.code, "3 skipped" in " ".join(answer.stderr.split())) == (0, True)
    options = ("--save-dtype", "bfloat16", "--overwrite", "--normalize", "--batch", "auto")
    assert wfvae("encode", videos, "-o", tmp_path / "z", *options).code == 0
    with LatentFile(tmp_path / "z/a/clip.mp4.safetensors") as file:
        assert file.dtype == "bfloat16"
        assert file.metadata.normalization is not None


def test_selection_and_shards(tmp_path: Path, videos: Path) -> None:
    for share in ("0/2", "1/2"):
        answer = wfvae(
            "encode", videos, "-o", tmp_path / "z", "--shard", share, "--include", "clip.*"
        )
        assert answer.code in (0, INPUT), answer
    assert list(contents(tmp_path / "z")) == ["a/clip.mp4.safetensors", "b/clip.mp4.safetensors"]


def test_musubi_layout(tmp_path: Path, videos: Path) -> None:
    command = ("encode", videos, "-o", tmp_path / "z", "--layout", "musubi", "--limit", "1")
    assert_refused(wfvae(*command), USAGE, "family wfvae")
    answer = wfvae(*command, "--model", write_wan(tmp_path / "wan"))
    assert answer.code == 0, answer
    assert list(contents(tmp_path / "z")) == ["clip_00000-005_0032x0024_wan.safetensors"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--shard", "4/4"], "I/N"),
        (["--keep", "--overwrite"], "contradict"),
        (["--batch", "many"], "number or auto"),
        (["--batch", "0"], "batch of 1 to 4096"),
        (["--workers", "2"], "--engine ray"),
        (["--layout", "musubi", "--format", "webdataset"], "no tar shards"),
        (["--format", "energon", "--posterior", "sample"], "the posterior's mean"),
        (["--stats", "x.json"], "add --normalize"),
        (["--limit", "0"], "at least 1"),
        (["--time-limit", "0"], "--time-limit must be more than 0 seconds, got 0"),
        (["--stall-limit", "-1"], "--stall-limit must be more than 0 seconds, got -1"),
        (["--stall-limit", "nan"], "--stall-limit must be more than 0 seconds, got nan"),
        (["--chunk", "6"], "1 + 4k"),
    ],
)
def test_contradictions(tmp_path: Path, videos: Path, options: list[str], words: str) -> None:
    answer = wfvae("encode", videos, "-o", tmp_path / "z", *options)
    assert_refused(answer, USAGE, words)
    assert contents(tmp_path) == {}


def test_places_that_cannot_be_written(tmp_path: Path, videos: Path) -> None:
    assert_refused(wfvae("encode", videos, "-o", tmp_path / "no/z"), OUTPUT, "does not exist")
    (tmp_path / "file").touch()
    assert_refused(wfvae("encode", videos, "-o", tmp_path / "file"), OUTPUT, "not a directory")
    assert_refused(wfvae("encode", videos, "-o", "-"), USAGE, "one clip")
    (tmp_path / "list.txt").write_text(f"{videos}\n")
    for source in (videos, tmp_path / "list.txt"):
        answer = wfvae("encode", source, "-o", tmp_path / "z.safetensors")
        assert_refused(answer, USAGE, "z.safetensors names one file", "-o latents/")
    assert not (tmp_path / "z.safetensors").exists()
    assert_refused(wfvae("encode", tmp_path / "none/", "-o", tmp_path / "z"), INPUT, "none")


def interrupt(folder: Path, target: Path, after: dict[str, str], times: int) -> str:
    """Encode until an event comes, then press Ctrl-C; what was said."""
    with start("encode", folder, "-o", target, "--json", "--readers", "1") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if after.items() <= json.loads(line).items():
                break
        process.send_signal(signal.SIGINT)
        told = ""
        while "finishing the current files" not in told:
            message = process.stderr.readline().decode()
            assert message, told
            told += message
        if times == 2:
            process.send_signal(signal.SIGINT)
        process.stdout.read()
        told += process.stderr.read().decode()
    assert process.returncode == INTERRUPTED, told
    assert "Traceback" not in told
    assert [path.name for path in target.rglob(".*")] == []
    return told


def test_ctrl_c_once_finishes_what_has_begun(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for i in range(24):
        write_clip(folder / f"{i:02d}.mp4", 80, 96, 96, seed=i)
    interrupt(folder, tmp_path / "z", {"event": "done"}, 1)
    done = [o.item for o in read_outcomes(tmp_path / "z/manifest.jsonl") if o.status == "done"]
    assert 1 <= len(done) < 24
    assert [f"{name}.safetensors" for name in done] == list(contents(tmp_path / "z"))


def test_ctrl_c_twice_stops_now(tmp_path: Path) -> None:
    write_clip(tmp_path / "in/0.mp4", 5)
    write_clip(tmp_path / "in/1.mp4", 400, 160, 160)
    interrupt(tmp_path / "in", tmp_path / "z", {"event": "started", "item": "1.mp4"}, 2)
    assert list(contents(tmp_path / "z")) == ["0.mp4.safetensors"]


def test_a_compiled_dataset_needs_one_size(tmp_path: Path, videos: Path) -> None:
    answer = wfvae("encode", videos, "-o", tmp_path / "z", "--compile")
    assert_refused(answer, USAGE, "--compile suits clips of one size", "--size")
    assert not (tmp_path / "z").exists()
