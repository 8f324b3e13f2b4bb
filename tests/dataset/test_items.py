"""Which files are found, in which order, under which names."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from wfvae_cli.dataset.config import sampling_of
from wfvae_cli.dataset.items import Item, find_inputs, is_single
from wfvae_cli.errors import InputError, UsageError
from wfvae_cli.media.options import Sampling


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for name in (
        "b/clip.mp4",
        "a/clip.mp4",
        "a/clip.mkv",
        "a/deep/still.PNG",
        "a-b/x.webm",
        "notes.md",
        "z.safetensors",
        ".hidden.mp4",
        ".cache/c.mp4",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(items: list[Item]) -> list[str]:
    return [item.relative for item in items]


ALL = ["a/clip.mkv", "a/clip.mp4", "a/deep/still.PNG", "a-b/x.webm", "b/clip.mp4"]


def test_a_directory_is_mirrored_in_order_without_what_is_hidden_or_no_clip(tree: Path) -> None:
    items = find_inputs([str(tree)])
    assert names(items) == ALL
    assert items[1] == Item(str(tree / "a/clip.mp4"), "a/clip.mp4")


def test_kinds_choose_by_suffix(tree: Path) -> None:
    assert names(find_inputs([str(tree)], kinds=["latents"])) == ["z.safetensors"]
    assert names(find_inputs([str(tree)], kinds=["image"])) == ["a/deep/still.PNG"]


def test_include_exclude_and_limit(tree: Path) -> None:
    source = [str(tree)]
    assert names(find_inputs(source, include=["clip.*"], exclude=["b/*"])) == ALL[:2]
    assert names(find_inputs(source, limit=2)) == ALL[:2]
    assert names(find_inputs(source, exclude=["clip.*"], limit=1)) == ALL[2:3]
    with pytest.raises(InputError, match=r"none of 5 files is left after --include \*\.avi"):
        find_inputs(source, include=["*.avi"])
    with pytest.raises(UsageError, match="at least 1, got 0"):
        find_inputs(source, limit=0)


def test_globs_are_relative_to_their_fixed_part(tree: Path) -> None:
    assert names(find_inputs([f"{tree}/*/clip.*"])) == ["a/clip.mkv", "a/clip.mp4", "b/clip.mp4"]
    assert names(find_inputs([f"{tree}/a/**"])) == ["clip.mkv", "clip.mp4", "deep/still.PNG"]
    assert names(find_inputs([f"{tree}/*.md"])) == ["notes.md"]  # asked for by its suffix
    with pytest.raises(InputError, match="nothing found"):
        find_inputs([f"{tree}/*.avi"])


def test_several_sources_are_named_from_what_they_share(tree: Path) -> None:
    both = [str(tree / "b"), str(tree / "a"), str(tree / "a" / "clip.mp4")]
    expected = ["b/clip.mp4", "a/clip.mkv", "a/clip.mp4", "a/deep/still.PNG"]
    assert names(find_inputs(both)) == expected
    single = str(tree / "a" / "clip.mp4")
    assert find_inputs([single, single]) == [Item(single, "clip.mp4")]


def test_a_loop_of_links_ends(tree: Path) -> None:
    (tree / "b" / "again").symlink_to(tree)
    assert names(find_inputs([str(tree)])) == ALL


def test_what_does_not_exist_is_an_answer(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.mp4: no such file"):
        find_inputs([str(tree), "nowhere.mp4"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        InputError,
        match=r"empty: nothing found; looked for files that end in .mp4, .mkv, .* and \d+ more$",
    ):
        find_inputs([str(tmp_path / "empty")])
    with pytest.raises(UsageError, match="standard input"):
        find_inputs(["-"])


def test_a_text_manifest_is_relative_to_itself(tree: Path) -> None:
    manifest = tree / "list.txt"
    manifest.write_text("# mine\n\nb/clip.mp4\na/clip.mp4\nb/clip.mp4\n/elsewhere/c.mov\n")
    assert find_inputs([str(manifest)]) == [
        Item(str(tree / "b/clip.mp4"), "b/clip.mp4"),
        Item(str(tree / "a/clip.mp4"), "a/clip.mp4"),
        Item("/elsewhere/c.mov", "elsewhere/c.mov"),
    ]


def test_rows_may_name_a_part_and_an_id(tree: Path) -> None:
    rows: list[dict[str, object]] = [
        {"path": "a/clip.mp4", "start": 1.5, "duration": 2},
        {"path": "a/clip.mp4", "start": 4},
        {"path": "a/clip.mp4", "start": 4, "id": "scenes/last"},
    ]
    (tree / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tree / "rows.csv").write_text(
        "id,path,start,duration,caption\n,a/clip.mp4,1.5,2,x\n,a/clip.mp4,4,,y\n"
        "scenes/last,a/clip.mp4,4,,z\n"
    )
    path = str(tree / "a/clip.mp4")
    expected = [
        Item(path, "a/clip.mp4@1.5+2", 1.5, 2.0),
        Item(path, "a/clip.mp4@4", 4.0),
        Item(path, "scenes/last", 4.0, None, "scenes/last"),
    ]
    assert find_inputs([str(tree / "rows.jsonl")]) == expected
    assert find_inputs([str(tree / "rows.csv")]) == [
        replace(item, columns={"caption": caption})
        for item, caption in zip(expected, "xyz", strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", "path,start,frames,score\na/clip.mp4,1.5,9,4\n"),
        ("rows.jsonl", '{"path": "a/clip.mp4", "start": 1.5, "frames": 9, "score": "4"}\n'),
    ],
)
def test_a_row_may_name_its_frames(tree: Path, name: str, text: str) -> None:
    (tree / name).write_text(text)
    (item,) = find_inputs([str(tree / name)])
    assert (item.start, item.frames, item.columns) == (1.5, 9, {"score": "4"})
    assert sampling_of(Sampling(frames=99, fps=Fraction(8)), item) == Sampling(
        start=1.5, frames=9, fps=Fraction(8)
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "path,frames\na.mp4,2.5\n", "line 2: expected a number of frames to take.*2.5"),
        ("m.jsonl", '{"path": "a.mp4", "frames": 0}', "expected a number of frames to take"),
        ("m.csv", "video,start\na.mp4,1\n", r"header line with the column path .*got video, start"),
        ("m.jsonl", '{"path": "a.mp4"}\nnonsense\n', "line 2: not JSON"),
        ("m.jsonl", '["a.mp4"]', "line 1: expected an object"),
        ("m.jsonl", '{"file": "a.mp4"}', "line 1: expected a path, got None"),
        ("m.jsonl", '{"path": "a.mp4", "start": -1}', "expected a start in seconds, got -1"),
        ("m.jsonl", '{"path": "a.mp4", "duration": 0}', "above 0 seconds"),
        ("m.jsonl", '{"path": "a.mp4", "id": "../up"}', "relative path without"),
        ("m.jsonl", '{"path": "a.mp4", "id": "x"}\n{"path": "b.mp4", "id": "x"}', "different ids"),
        ("m.txt", "\n", "nothing found"),
        ("m.jsonl", '{"path": "a\\u0000.mp4"}', "line 1: expected the name of a file"),
        ("m.jsonl", '{"path": "a\\ud800.mp4"}', "line 1: expected the name of a file"),
        ("m.jsonl", '{"path": "a.mp4", "id": "x\\ud800"}', "line 1: expected the name of a file"),
        ("m.jsonl", '{"path": "a.mp4", "id": ["x"]}', "expected an id that is a string"),
        ("m.jsonl", '{"path": "a.mp4", "id": ".wfvae-work/x"}', "kept for unfinished outputs"),
        ("m.jsonl", '{"path": "a.mp4", "id": ".WFVAE-clips/x"}', "kept for unfinished outputs"),
        ("m.txt", ".wfvae-work/a.mp4", "kept for unfinished outputs"),
        ("m.jsonl", "[" * 100_000, "line 1: not JSON"),
        (
            "m.jsonl",
            '{"path": "a.mp4", "start": 1' + "0" * 400 + "}",
            "expected a start in seconds",
        ),
        ("m.csv", "path\na\0.mp4\n", "line 2: expected the name of a file"),
        ("m.txt", "a\0.mp4\n", "line 1: expected the name of a file"),
    ],
)
def test_malformed_manifests(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        find_inputs([str(tmp_path / name)])


def test_a_binary_manifest(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match=r"not UTF-8, with the byte 0xff .*iconv"):
        find_inputs([str(tmp_path / "m.txt")])


def test_urls_are_listed_through_fsspec(tree: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="the extra fsspec is not installed")
    store = fsspec.filesystem("memory")
    store.pipe({"/box/in/b.mp4": b"b", "/box/in/a/c.mp4": b"c", "/box/in/notes.md": b""})
    store.pipe("/box/list.txt", b"in/b.mp4\n")
    try:
        assert find_inputs(["memory://box/in"]) == [
            Item("memory:///box/in/a/c.mp4", "a/c.mp4"),
            Item("memory:///box/in/b.mp4", "b.mp4"),
        ]
        assert names(find_inputs(["memory://box/*/*.mp4"])) == ["in/b.mp4"]
        assert find_inputs(["memory://box/list.txt"])[0].relative == "in/b.mp4"
        with pytest.raises(InputError, match="nothing found"):
            find_inputs(["memory://box/none/"])
    finally:
        store.rm("/box", recursive=True)


def test_an_unknown_scheme_is_an_answer() -> None:
    pytest.importorskip("fsspec", reason="the extra fsspec is not installed")
    with pytest.raises(InputError, match="nosuch"):
        find_inputs(["nosuch://bucket/"])


def test_what_looks_like_one_clip(tree: Path) -> None:
    assert is_single(str(tree / "a/clip.mp4"))
    assert is_single("missing.mp4")
    assert is_single("frames/%05d.png")
    assert is_single("-")
    assert not is_single(str(tree))
    assert not is_single("data/*.mp4")
    assert not is_single("list.csv")
    assert not is_single("s3://bucket/folder/")


def test_a_named_file_may_hold_wildcards(tree: Path) -> None:
    odd = tree / "a" / "take[1].mp4"
    odd.touch()
    assert is_single(str(odd))
    assert find_inputs([str(odd)]) == [Item(str(odd), "take[1].mp4")]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_only_line_ends_end_a_line(tmp_path: Path, ending: str) -> None:
    """U+2028, U+0085, form feeds and the like are text, as JSON and CSV have it."""
    odd = "one\u2028two\u2029\x85\x0b\x0c\x1c\x1d\x1eend"
    (tmp_path / "m.jsonl").write_bytes(
        ending.join(
            ['{"path": "a.mp4", "caption": "one\u2028two\x85"}', '{"path": "b.mp4"}']
        ).encode()
    )
    (tmp_path / "m.csv").write_bytes(
        ending.join(["path,caption", f"a.mp4,{odd}", f'b.mp4,"two{ending}lines"']).encode()
    )
    (tmp_path / "m.txt").write_bytes(f"{odd.strip()}.mp4{ending}b.mp4{ending}".encode())
    for name in ("m.jsonl", "m.csv"):
        assert [item.relative for item in find_inputs([str(tmp_path / name)])] == ["a.mp4", "b.mp4"]
    names = [item.relative for item in find_inputs([str(tmp_path / "m.txt")])]
    assert names == [f"{odd}.mp4", "b.mp4"]


def test_a_long_cell_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,caption\na.mp4," + "x" * 200_000 + "\n")
    assert [item.relative for item in find_inputs([str(tmp_path / "m.csv")])] == ["a.mp4"]


def test_what_a_folder_leaves_out_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data" / "sub").mkdir(parents=True)
    for name in ("a.mp4", "b.xyz", "sub/c.XYZ", "sub/d.doc", "README", ".hidden"):
        (tmp_path / "data" / name).touch()
    with caplog.at_level("INFO", logger="wfvae"):
        assert len(find_inputs([str(tmp_path / "data")])) == 1
    (record,) = caplog.records
    message = record.getMessage()
    assert "left out 4 files" in message
    for part in ("2 .xyz", "1 .doc", "1 without a suffix"):
        assert part in message


def test_sidecars_of_clips_are_not_called_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.mp4", "a.txt", "a.json", "b.txt", "deep/a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with caplog.at_level("INFO", "wfvae"):
        find_inputs([str(tmp_path)])
    (record,) = caplog.records
    assert "left out 2 files by suffix: 2 .txt" in record.getMessage()


def test_links_that_lead_out_are_followed_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("data", "elsewhere", "data/own"):
        (tmp_path / folder).mkdir()
    (tmp_path / "elsewhere" / "a.mp4").touch()
    (tmp_path / "data" / "own" / "b.mp4").touch()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "c.mp4").symlink_to(tmp_path / "elsewhere" / "a.mp4")
    (tmp_path / "data" / "inside.mp4").symlink_to(tmp_path / "data" / "own" / "b.mp4")
    with caplog.at_level("INFO", logger="wfvae"):
        found = [item.relative for item in find_inputs([str(tmp_path / "data")])]
    assert found == ["c.mp4", "inside.mp4", "linked/a.mp4", "own/b.mp4"]
    (record,) = caplog.records
    assert "2 links that lead out of it" in record.getMessage()
    assert "elsewhere" in record.getMessage()


def test_a_folder_that_may_not_be_read_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permission bits do not bind the superuser, as whom tests may run."""
    (tmp_path / "closed").mkdir()
    for index in range(9):
        (tmp_path / "closed" / f"{index}.mp4").touch()
    (tmp_path / "a.mp4").touch()
    allowed = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: "closed" not in str(path) and allowed(path, mode)
    )
    with caplog.at_level("INFO", logger="wfvae"):
        assert [item.relative for item in find_inputs([str(tmp_path)])] == ["a.mp4"]
    (record,) = caplog.records
    assert "left out 1 folders that may not be read" in record.getMessage()
    assert "closed" in record.getMessage()
