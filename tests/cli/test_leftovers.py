"""What lies in an output folder is checked, not believed: lines, indexes, links, other forms."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import assert_refused, wfvae
from tests.dataset.clips import write_image
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.dataset.training import LatentDataset
from wfvae_cli.errors import LatentError, OutputError

OUTPUT = 5
TARS = ("--format", "webdataset", "--shard-clips", "3")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index in range(3):
        write_image(folder / f"{index}.png", seed=index)
    return folder


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    return encoded(images, tmp_path_factory.mktemp("files") / "out")


@pytest.fixture(scope="session")
def tars(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    return encoded(images, tmp_path_factory.mktemp("tars") / "out", *TARS)


def encoded(images: Path, out: Path, *options: str) -> Path:
    answer = wfvae("encode", images, "-o", out, *options)
    assert answer.code == 0, answer
    return out


def copied(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target / "out"))


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        "nonsense",
        "5",
        '{"item": 5, "status": "done"}',
        '{"item": "0.png", "status": ["done"]}',
        '{"item": "0.png", "status": "done", "input": "x", "output": "../victim.txt", "bytes": 9}',
        '{"item": "0.png", "status": "done", "input": "x", "output": "/victim.txt", "bytes": 9}',
        '{"item": "0.png", "status": "done", "input": "x", "output": {"a": 1}}',
        '{"item": "0.png", "status": "done", "input": "x", "shape": ["a"]}',
        '{"item": "0.png", "status": "done", "input": "x", "bytes": 1e999}',
        "x" * (3 << 20),
        "\ufffd\x00",
    ],
)
def test_a_damaged_line_is_ignored_with_a_note(
    images: Path, files: Path, tmp_path: Path, line: str
) -> None:
    out = copied(files, tmp_path)
    with (out / "manifest.jsonl").open("a") as file:
        file.write(line + "\n")
    answer = wfvae("encode", images, "-o", out)
    assert answer.code == 0, answer
    assert "ignoring 1 damaged lines, the first is line 4" in answer.stderr
    assert sorted(path.name for path in out.iterdir() if path.suffix != ".jsonl") == [
        f"{index}.png.safetensors" for index in range(3)
    ]


def names_a_victim(index: dict[str, Any]) -> None:
    index["shards"]["../victim.txt"] = 9
    index["options"]["posterior"] = "moments"


def names_anothers_shard(index: dict[str, Any]) -> None:
    index["shards"]["latents-000001-000.tar"] = 9


def is_mistyped(index: dict[str, Any]) -> None:
    index["options"] = ["a"]


def lacks_sources(index: dict[str, Any]) -> None:
    index["sources"] = {"a": {}}


def points_out(index: dict[str, Any]) -> None:
    index["items"][0]["output"] = "../../victim.txt"


@pytest.mark.parametrize(
    "change", [names_a_victim, names_anothers_shard, is_mistyped, lacks_sources, points_out]
)
def test_a_hostile_index_is_ignored_with_a_note(
    images: Path, tars: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    out = copied(tars, tmp_path)
    (tmp_path / "victim.txt").write_text("precious")
    path = out / "latents-000000.json"
    before, index = path.read_bytes(), json.loads(path.read_bytes())
    change(index)
    path.write_text(json.dumps(index))
    answer = wfvae("encode", images, "-o", out, *TARS, "--overwrite")
    assert answer.code == 0, answer
    assert "ignoring a damaged index" in answer.stderr
    assert (tmp_path / "victim.txt").read_text() == "precious"
    assert json.loads(path.read_bytes())["shards"] == json.loads(before)["shards"]


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{}", "", '{"schema": "wfvae-shards"}'])
def test_an_index_of_nonsense_is_made_again(
    images: Path, tars: Path, tmp_path: Path, text: str
) -> None:
    out = copied(tars, tmp_path)
    (out / "latents-000000.json").write_text(text)
    answer = wfvae("encode", images, "-o", out, *TARS)
    assert answer.code == 0, answer
    assert len(LatentDataset(out)) == 3


@pytest.mark.parametrize("name", [".wfvae-work", ".wfvae-work/run", ".wfvae-clips"])
def test_a_hidden_folder_that_is_a_link(images: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "run").mkdir()
    (tmp_path / "precious" / "run" / "thesis.txt").write_text("precious")
    link = tmp_path / "out" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "precious")
    options = TARS if "clips" in name else ()
    answer = wfvae("encode", images, "-o", tmp_path / "out", *options)
    assert_refused(answer, OUTPUT, "is a symbolic link")
    assert (tmp_path / "precious" / "run" / "thesis.txt").read_text() == "precious"


def test_the_folder_for_a_stores_files_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec", reason="stores go through fsspec")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = OutputStore.of("memory://bucket/latents")
    store.prepare()
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    store.tidy()
    shutil.rmtree(store.root)
    (tmp_path / "elsewhere").mkdir()
    store.root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="is a link or somebody else's"):
        store.prepare()
    store.root.unlink()
    store.root.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(OutputError, match="somebody else's"):
        store.prepare()


@pytest.mark.parametrize("where", ["latents-000000-000.tar", "0.png.safetensors"])
def test_verify_finds_other_content_of_the_same_size(
    images: Path, files: Path, tars: Path, tmp_path: Path, where: str
) -> None:
    is_tar = where.endswith(".tar")
    out = copied(tars if is_tar else files, tmp_path)
    options = TARS if is_tar else ()
    good = (out / where).read_bytes()
    header = good.index(b'{"__metadata__"')
    at = header + int.from_bytes(good[header - 8 : header], "little") + 100
    (out / where).write_bytes(good[:at] + bytes(64) + good[at + 64 :])
    for line in (out / "manifest.jsonl").read_text().splitlines():
        assert len(json.loads(line)["data_sha256"]) == 64
    assert wfvae("encode", images, "-o", out, *options).code == 0
    assert (out / where).read_bytes() != good, "the size is right, and nobody asked"
    answer = wfvae("encode", images, "-o", out, *options, "--verify")
    assert answer.code == 0, answer
    assert "again" in answer.stderr
    assert (out / where).read_bytes() == good
    answer = wfvae("encode", images, "-o", out, *options, "--verify")
    assert "again" not in answer.stderr


def test_info_tells_a_wrong_checksum(files: Path, tmp_path: Path) -> None:
    path = tmp_path / "z.safetensors"
    data = (files / "0.png.safetensors").read_bytes()
    path.write_bytes(data)
    assert json.loads(wfvae("info", path, "--json").stdout)["checksum"] == "matches"
    path.write_bytes(data[:-4] + b"\0\0\0\0")
    assert_refused(wfvae("info", path), 3, "checksum", "damaged")


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (TARS, (), "holds tar shards"),
        ((), TARS, "holds latent files"),
        (TARS, (*TARS, "--shard", "0/2"), "shards of the whole dataset"),
        ((*TARS, "--shard", "0/2"), TARS, "shards of one of 2 shares"),
        ((*TARS, "--shard", "0/2"), (*TARS, "--shard", "1/3"), "shards of one of 2 shares"),
    ],
)
def test_two_forms_in_one_folder_are_refused(
    images: Path, tmp_path: Path, first: tuple[str, ...], second: tuple[str, ...], words: str
) -> None:
    out = encoded(images, tmp_path / "out", *first)
    before = sorted(out.rglob("*"))
    for more in ((), ("--overwrite",)):
        answer = wfvae("encode", images, "-o", out, *second, *more)
        assert_refused(answer, OUTPUT, words, "twice")
    assert [path for path in before if not path.exists()] == []


def starts(shard: bytes | bytearray) -> list[int]:
    """Where the members of a shard begin, two for each clip."""
    found = [at for at in range(0, len(shard), 512) if shard[at : at + 14] == b"././@PaxHeader"]
    assert len(found) == 6
    return found


@pytest.mark.parametrize("with_index", [True, False])
def test_a_flipped_byte_in_a_members_header_is_told(
    tars: Path, tmp_path: Path, with_index: bool
) -> None:
    out = copied(tars, tmp_path)
    path = out / "latents-000000-000.tar"
    data = bytearray(path.read_bytes())
    data[starts(data)[3] + 150] ^= 1
    path.write_bytes(data)
    if not with_index:
        (out / "latents-000000.json").unlink()
    with pytest.raises(LatentError, match=r"latents-000000-000\.tar: .* byte \d+ is damaged"):
        LatentDataset(out)


def test_a_clip_that_a_shard_lacks_is_told(tars: Path, tmp_path: Path) -> None:
    out = copied(tars, tmp_path)
    path = out / "latents-000000-000.tar"
    data = path.read_bytes()
    path.write_bytes(data[: starts(data)[2]] + bytes(1024))
    with pytest.raises(LatentError, match=r"lists 2 clips that are not in it, such as 1\.png"):
        LatentDataset(out)


@pytest.mark.parametrize("kind", ["cut", "gzip", "cut gzip", "text", "empty"])
def test_what_is_no_shard(tars: Path, tmp_path: Path, kind: str) -> None:

    out = tmp_path / "out"
    out.mkdir()
    data = (tars / "latents-000000-000.tar").read_bytes()
    packed = gzip.compress(data)
    broken = {
        "cut": data[: len(data) // 2],
        "gzip": packed,
        "cut gzip": packed[: len(packed) // 2],
        "text": b"no tar\n" * 200,
        "empty": b"",
    }
    (out / "a.tar").write_bytes(broken[kind])
    with pytest.raises(LatentError, match=r"a\.tar: "):
        LatentDataset(out)


def test_a_stopped_run_says_how_far_it_came(tmp_path: Path) -> None:
    for index in range(9):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{index}.png").write_text("no image")
    answer = wfvae(
        "encode", tmp_path / "in", "-o", tmp_path / "out", "--max-failures", "2", "--readers", "1"
    )
    assert answer.code == 7
    failed = len((tmp_path / "out" / "manifest.jsonl").read_text().splitlines())
    assert f"0 done, {failed} failed (" in answer.stderr
    assert f"{9 - failed} not attempted" in answer.stderr
    assert "others are done" not in answer.stderr
