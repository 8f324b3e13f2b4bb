"""Captions and columns travel from sidecars and manifests to samples."""

from __future__ import annotations

import datetime
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.dataset.clips import contents, write_image
from wfvae_cli.dataset import remote
from wfvae_cli.dataset.captions import add_captions
from wfvae_cli.dataset.config import EncodeConfig
from wfvae_cli.dataset.encode_job import EncodeJob
from wfvae_cli.dataset.items import Item, find_inputs
from wfvae_cli.dataset.manifest import last_results
from wfvae_cli.dataset.run import Summary, run_dataset
from wfvae_cli.dataset.store import OutputStore
from wfvae_cli.dataset.training import LatentDataset
from wfvae_cli.dataset.windows import Windows
from wfvae_cli.errors import InputError, MissingExtraError, OutputError
from wfvae_cli.latents.file import LatentFile

EVIL = "a cat, “said” \U0001f600\nsecond line\t\x07 日本語"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for i in range(3):
        write_image(folder / f"{i}.png", seed=i)
    (folder / "0.txt").write_text(EVIL + "\n", encoding="utf-8-sig")
    (folder / "1.json").write_text(json.dumps({"caption": "one", "score": 0.5, "empty": None}))
    return folder


def listed(source: Path) -> list[Item]:
    return add_captions(find_inputs([str(source)]))


def encode(source: Path, output: Path, *, conflict: Any = "refuse", **how: Any) -> Summary:
    job = EncodeJob(OutputStore(output), EncodeConfig(**how), threads=1, readers=2)
    return run_dataset(listed(source), job, conflict=conflict)


def test_sidecars_are_read_beside_each_clip(folder: Path) -> None:
    assert [(item.caption, item.columns) for item in listed(folder)] == [
        (EVIL, {}),
        ("one", {"score": 0.5}),
        (None, {}),
    ]


def test_a_text_comes_before_an_object_and_a_manifest_before_both(folder: Path) -> None:
    (folder / "1.txt").write_text("text")
    rows = [{"path": "1.png", "score": 2, "tags": ["a", "b"]}, {"path": "0.png", "caption": "row"}]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [(item.caption, item.columns) for item in listed(folder / "m.jsonl")] == [
        ("text", {"score": 2, "tags": ["a", "b"]}),
        ("row", {}),
    ]


@pytest.mark.parametrize("format", ["files", "webdataset"])
def test_captions_and_columns_travel_to_samples(format: Any, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert encode(folder, output, format=format).done == 3
    line = last_results(output / "manifest.jsonl")["1.png"]
    assert (line.caption, line.columns) == ("one", {"score": 0.5})
    samples = LatentDataset(output)
    assert [sample["caption"] for sample in map(samples.__getitem__, range(3))] == [EVIL, "one", ""]
    some = LatentDataset(output, columns=["score"])
    assert some[1]["columns"] == {"score": 0.5}
    with pytest.raises(InputError, match=r"0.png.* has no column 'score'; it has none"):
        some[0]
    if format == "files":
        with LatentFile(output / "0.png.safetensors") as file:
            assert file.metadata.extra["caption"] == EVIL


def test_tar_members_hold_them_too(folder: Path, tmp_path: Path) -> None:
    encode(folder, tmp_path / "out", format="webdataset")
    with tarfile.open(tmp_path / "out/latents-000000-000.tar") as box:
        texts = {m.name: box.extractfile(m).read() for m in box if "safe" not in m.name}  # type: ignore[union-attr]
    assert sorted(texts) == [
        "0%2Epng.json",
        "0%2Epng.txt",
        "1%2Epng.json",
        "1%2Epng.txt",
        "2%2Epng.json",
    ]
    assert texts["0%2Epng.txt"].decode() == EVIL
    told = json.loads(texts["1%2Epng.json"])
    assert (told["caption"], told["columns"]) == ("one", {"score": 0.5})


def test_a_caption_that_was_edited_is_another_output(folder: Path, tmp_path: Path) -> None:
    encode(folder, tmp_path / "out")
    assert encode(folder, tmp_path / "out").current == 3
    before = contents(tmp_path / "out")
    (folder / "1.json").write_text(json.dumps({"caption": "uno", "score": 0.5}))
    with pytest.raises(OutputError, match=r"caption or columns: edited, .* \(1 files"):
        encode(folder, tmp_path / "out")
    assert encode(folder, tmp_path / "out", conflict="overwrite").done == 1
    after = contents(tmp_path / "out")
    assert [n for n in before if before[n] != after[n]] == ["1.png.safetensors"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "0.txt",
            "café".encode("latin-1"),
            r"0.txt: expected .* UTF-8, got the byte 0xe9 at offset 3",
        ),
        ("0.txt", "x".encode("utf-16"), "perhaps UTF-16"),
        ("0.txt", b"x" * (2 << 20), "at most 1024 KiB"),
        ("0.json", b"{", "0.json: .* not JSON"),
        ("0.json", b"[1]", r"expected an object .* got \[1\]"),
        ("0.json", b'{"caption": 3}', "a caption that is a text, got 3"),
        ("0.json", b'{"a": "\\ud800"}', "the column a is not valid Unicode"),
    ],
)
def test_a_bad_sidecar_fails_its_clip_and_no_other(
    name: str, data: bytes, message: str, folder: Path, tmp_path: Path
) -> None:
    (folder / "0.txt").unlink()
    (folder / name).write_bytes(data)
    items = listed(folder)
    with pytest.raises(InputError, match=message):
        raise InputError(items[0].problem)
    assert [item.problem for item in items[1:]] == [None, None]


def test_a_bad_caption_is_recorded(folder: Path, tmp_path: Path) -> None:
    (folder / "0.txt").write_bytes(b"\xff\xfe\x00")
    summary = encode(folder, tmp_path / "out")
    assert (summary.done, summary.failed, dict(summary.failures)) == (2, 1, {"input": 1})


def test_a_row_with_more_fields_than_columns(folder: Path) -> None:
    (folder / "m.csv").write_text("path,caption\n0.png,a cat, and a dog\n")
    with pytest.raises(InputError, match=r"line 2: more fields than columns: put texts"):
        listed(folder / "m.csv")


def test_a_row_may_name_its_windows(folder: Path) -> None:
    (folder / "m.csv").write_text("path,windows\n0.png,all:9\n1.png,\n")
    assert [item.windows for item in listed(folder / "m.csv")] == [Windows("all", 9), None]
    (folder / "m.csv").write_text("path,windows\n0.png,tail\n")
    with pytest.raises(InputError, match=r"line 2: expected head\[:N\].*got 'tail'"):
        listed(folder / "m.csv")


def test_parquet(folder: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    from pyarrow import parquet

    table = arrow.table(
        {
            "path": ["0.png", "1.png"],
            "caption": ["zero", None],
            "start": [None, 0.5],
            "when": [datetime.date(2026, 1, 2), None],
            "tags": [["a"], None],
            "bytes": [b"x", b"y"],
            "nan": [float("nan"), 1.0],
        }
    )
    parquet.write_table(table, folder / "m.parquet")
    items = listed(folder / "m.parquet")
    assert [(i.caption, i.start, i.columns) for i in items] == [
        ("zero", 0.0, {"when": "2026-01-02", "tags": ["a"]}),
        ("one", 0.5, {"score": 0.5, "nan": 1.0}),
    ]
    parquet.write_table(
        table.rename_columns(["video", *table.column_names[1:]]), folder / "x.parquet"
    )
    with pytest.raises(InputError, match=r"expected the column path .*, got video, caption, start"):
        listed(folder / "x.parquet")
    (folder / "y.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"y.parquet: cannot be read as a Parquet manifest"):
        listed(folder / "y.parquet")
    with pytest.raises(InputError, match=r"z.parquet: no such file"):
        listed(folder / "z.parquet")


def test_parquet_without_pyarrow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'wfvae\[parquet\]'"):
        find_inputs([str(folder / "m.parquet")])


def test_sidecars_in_a_store(folder: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/captions", recursive=True)
    try:
        items = add_captions(find_inputs(["memory://captions/"]))
        assert [item.caption for item in items] == [EVIL, "one", None]
    finally:
        memory.rm("/captions", recursive=True)


def test_the_hub_spells_urls_as_they_were_given() -> None:
    pytest.importorskip("huggingface_hub")
    url = "hf://datasets/owner/name/videos/a.mp4"
    assert remote.canonical(url) == url
    assert remote.is_url(url) and not remote.is_web(url)


def test_copies_of_a_folder_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    encode(folder, tmp_path / "a")
    encode(Path(shutil.copytree(folder, tmp_path / "copy")), tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
