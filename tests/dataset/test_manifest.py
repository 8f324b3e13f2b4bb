"""A manifest that is readable whatever happened to its writer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wfvae_cli.dataset.items import Item
from wfvae_cli.dataset.manifest import RunManifest, last_results, read_outcomes
from wfvae_cli.dataset.result import ItemResult, failure, kind_of
from wfvae_cli.errors import DeviceError, OutputError, VideoError


def outcome(name: str, **changes: object) -> ItemResult:
    return ItemResult.from_json(
        {"item": name, "input": f"/in/{name}", "status": "done", "shape": [4, 1, 2, 3], **changes}
    )


def test_the_last_line_of_an_item_counts(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    with RunManifest(path) as ledger:
        ledger.append(failure(Item("/in/a", "a"), VideoError("broken")))
        ledger.append(outcome("b"))
    with RunManifest(path) as ledger:
        ledger.append(outcome("a", frames=5))
    assert [each.item for each in read_outcomes(path)] == ["a", "b", "a"]
    assert last_results(path) == {"a": outcome("a", frames=5), "b": outcome("b")}


@pytest.mark.parametrize("cut", [1, 30, 70_000])
def test_a_torn_line_is_left_aside_and_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "manifest.jsonl"
    with RunManifest(path) as ledger:
        ledger.append(outcome("a"))
        ledger.append(outcome("b", error="x" * 100_000))
    path.write_bytes(path.read_bytes()[:-cut])
    assert list(last_results(path)) == ["a"]
    with RunManifest(path) as ledger:
        ledger.append(outcome("c"))
    assert [json.loads(line)["item"] for line in path.read_text().splitlines()] == ["a", "c"]


def test_a_file_that_is_only_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(b'{"item": "a')
    with RunManifest(path):
        assert path.read_bytes() == b""


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    with RunManifest(path) as ledger:
        ledger.append(outcome(name))
    assert list(last_results(path)) == [name]


def test_another_file_of_that_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"path": "mine.mp4"}\n')
    with pytest.raises(OutputError, match="line 1: not a manifest of wfvae"):
        last_results(path)
    assert last_results(tmp_path / "none.jsonl") == {}


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with RunManifest(tmp_path / "m.jsonl"), pytest.raises(OutputError, match="another run"):
        RunManifest(tmp_path / "m.jsonl")


def test_kinds_of_failure() -> None:
    assert kind_of(VideoError("x")) == "unreadable"
    assert kind_of(DeviceError("x")) == "memory or device"
    assert kind_of(ZeroDivisionError("x")) == "bug (ZeroDivisionError)"
    assert failure(Item("/in/a", "a"), ZeroDivisionError("x")).error == "ZeroDivisionError: x"
