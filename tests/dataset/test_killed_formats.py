"""Every format, with buckets and windows: whenever a run dies, the next one ends in its bytes."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import wfvae
from tests.dataset.clips import write_clip, write_image
from tests.dataset.kill_and_resume import compare_after_kills
from tests.models import checkpoints
from wfvae_cli.dataset.exporters import webdataset
from wfvae_cli.dataset.manifest import RunManifest
from wfvae_cli.dataset.store import OutputStore

SOME_FAILED = 7
FORMATS = {
    "files": "wfvae-tiny",
    "webdataset": "wfvae-tiny",
    "musubi": "wan",
    "ltx": "ltx",
    "simpletuner": "wan",
    "energon": "wan",
}
"""Model by format."""
PARTS = {
    "all": ("--windows", "slide:9:8"),
    "one": ("--windows", "middle"),
    "none": (),
}
BUCKETS = ("--buckets", "64x32x9,32x32x9,32x32x1")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "wfvae-tiny": "wfvae-tiny",
        "wan": str(checkpoints.write_wan(folder / "wan")),
        "ltx": str(checkpoints.write_ltx2(folder / "ltx")),
    }


def write_dataset(folder: Path, clips: int) -> Path:
    """Clips that give one to four windows, two images, one too short, one broken; captions."""
    for i in range(clips):
        path = folder / f"part{i % 2}/clip.{i}.mp4"
        write_clip(path, (25, 9, 14, 33)[i % 4], 64, 32 + 16 * (i % 2), seed=i)
        path.with_suffix(".txt").write_text(f"the caption of {i}")
    write_clip(folder / "short.mkv", 4, 48, 48, seed=90)
    write_image(folder / "still0.png", 64, 48, seed=91)
    write_image(folder / "still1.png", 48, 64, seed=92)
    (folder / "part0/broken.mp4").write_text("no video")
    return folder


def options(form: str, parts: str, models: dict[str, str]) -> list[str]:
    shards: tuple[str, ...] = ()
    if form in ("webdataset", "energon"):
        pytest.importorskip("webdataset", reason="the extra webdataset is not installed")
        shards = ("--shard-clips", "3")
    model = ("--model", models[FORMATS[form]])
    return ["--format", form, *model, *BUCKETS, *PARTS[parts], *shards]


def content(folder: Path) -> dict[str, Any]:
    """Every file of an output folder, and what counts of its manifest but for the seconds."""
    found: dict[str, Any] = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    lines = found["manifest.jsonl"].decode().splitlines()
    results = {line["item"]: {**line, "seconds": None} for line in map(json.loads, lines)}
    return {**found, "manifest.jsonl": results}


def states(
    folder: Path, output: Path, chosen: list[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Run once, and yield copies of the output folder as it was at every step of the run.

    What a process leaves when it is killed is its files as they are: so each copy is what a kill at
    this moment would leave. Steps are before and after an output gets its name, and a line.
    """
    copies: list[Path] = []

    def copy(*_: object) -> None:
        target = output.with_name(f"{output.name}-killed-{len(copies)}")
        copies.append(target)
        shutil.copytree(output, target, ignore_dangling_symlinks=True, copy_function=_copy)

    def stepping(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any) -> Any:
            copy()
            result = function(*args)
            copy()
            return result

        return step

    with monkeypatch.context() as patched:
        patched.setattr(OutputStore, "publish", stepping(OutputStore.publish))
        patched.setattr(RunManifest, "append", stepping(RunManifest.append))
        patched.setattr(webdataset, "_publish", stepping(webdataset._publish))
        assert wfvae("encode", folder, "-o", output, *chosen, "--threads", "1").code == SOME_FAILED
    yield from copies


def _copy(source: str, target: str) -> None:
    # A part file of another thread may have got its name since.
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(source, target)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("parts", "most"),
    [("all", 4), *(pytest.param(each, 100, marks=pytest.mark.slow) for each in PARTS)],
)
def test_every_state_of_a_run_is_continued_to_the_same_bytes(
    form: str,
    parts: str,
    most: int,
    models: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write_dataset(tmp_path / "in", 3)
    chosen = options(form, parts, models)
    copies = list(states(folder, tmp_path / "whole", chosen, monkeypatch))
    expected = content(tmp_path / "whole")
    assert len(copies) > 10
    for output in copies[1 :: max(1, len(copies) // most)]:
        answer = wfvae("encode", folder, "-o", output, *chosen, "--threads", "1")
        assert answer.code == SOME_FAILED, answer
        assert content(output) == expected, output.name


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("form", FORMATS)
def test_runs_that_are_killed_end_in_the_same_bytes(
    form: str, parts: str, models: dict[str, str], tmp_path: Path
) -> None:
    folder = write_dataset(tmp_path / "in", 8)
    chosen = options(form, parts, models)
    verdict = compare_after_kills(folder, tmp_path, 4, seed=5, options=chosen)
    assert verdict.differences == ()
    assert verdict.outputs > 0
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
