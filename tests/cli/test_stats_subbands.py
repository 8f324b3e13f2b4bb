"""`wfvae stats --subbands`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.program import assert_refused, wfvae
from tests.cli.reports import PNG, measure, report


def test_subbands_of_videos_and_of_images(tmp_path: Path, videos: Path) -> None:
    videos_only = ("--include", "*.mp4")
    answer = wfvae(
        "stats", "--subbands", videos, *videos_only, "--levels", "2",
        "-o", tmp_path / "v.json", "--plot", tmp_path / "v.png",
    )  # fmt: skip
    assert answer.code == 0, answer
    assert "HHH" in answer.stdout
    values = report(tmp_path / "v.json")
    assert (values["kind"], values["clips"], len(values["subbands"])) == ("video", 12, 16)
    for level in (1, 2):
        rows = [row for row in values["subbands"] if row["level"] == level]
        assert sum(row["share"] for row in rows) == pytest.approx(1)
        assert max(rows, key=lambda row: row["energy"])["name"] == "LLL"
    assert (tmp_path / "v.png").read_bytes().startswith(PNG)
    answer = wfvae("stats", "--subbands", videos / "still.png", "--json")
    assert json.loads(answer.stdout)["kind"] == "image"
    assert_refused(wfvae("stats", "--subbands", videos), 2, "1 images among 13 files")


def test_subbands_merge(tmp_path: Path, videos: Path) -> None:
    for name, chosen in {"a": "more/*", "b": "0[0-9].mp4", "c": "*.mp4"}.items():
        exclude = ["--exclude", "more/*"] if name == "b" else []
        answer = wfvae(
            "stats", "--subbands", videos, "--include", chosen, *exclude,
            "--exclude", "1*.mp4", "-o", tmp_path / f"{name}.json",
        )  # fmt: skip
        assert answer.code == 0, answer
    merged = measure(tmp_path, "--merge", tmp_path / "a.json", tmp_path / "b.json", name="m.json")
    whole = report(tmp_path / "c.json")
    assert merged["clip_ids"] == whole["clip_ids"]
    for mine, theirs in zip(merged["subbands"], whole["subbands"], strict=True):
        assert mine["energy"] == pytest.approx(theirs["energy"], rel=1e-9)
        assert mine["entropy"] == pytest.approx(theirs["entropy"], rel=1e-9)
