"""`wfvae stats`: which clips, and the figures of their latents."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.cli.program import assert_refused, wfvae
from tests.cli.reports import measure, report
from wfvae_cli.latents.file import LatentFile


def test_a_folder_of_latents_equals_numpy(tmp_path: Path, encoded: Path) -> None:
    answer = wfvae("stats", encoded, "--json")
    assert answer.code == 0, answer
    values = json.loads(answer.stdout)
    pieces = []
    for path in sorted(encoded.iterdir()):
        with LatentFile(path) as file:
            pieces.append(file.read().double().numpy().reshape(file.shape[0], -1))
    z = np.concatenate(pieces, axis=1)
    mean, std = z.mean(axis=1), z.std(axis=1)
    assert (values["clips"], values["count"]) == (4, z.shape[1])
    for key, expected in {
        "latents_mean": mean,
        "latents_std": std,
        "shift": mean,
        "scale": 1 / std,
        "shift_factor": z.mean(),
        "scaling_factor": 1 / z.std(),
        "skewness": ((z - mean[:, None]) ** 3).mean(axis=1) / std**3,
        "correlation": np.corrcoef(z),
    }.items():
        np.testing.assert_allclose(values[key], expected, rtol=1e-9, err_msg=key)
    assert len(values["kl"]) == len(mean)
    assert values["model"]["name"] == "wfvae-tiny"
    assert "state" not in values


def test_videos_are_encoded_on_the_way(tmp_path: Path, videos: Path, encoded: Path) -> None:
    clips = [videos / f"{name}.mp4" for name in ("01", "02", "04", "05")]
    direct = measure(tmp_path, *clips, name="direct.json")
    stored = measure(tmp_path, encoded, name="stored.json")
    for key in ("latents_mean", "latents_std", "kl", "min", "max"):
        np.testing.assert_allclose(direct[key], stored[key], rtol=1e-6, err_msg=key)
    assert direct["count"] == stored["count"]
    assert direct["model"] == stored["model"]
    assert direct["options"] == stored["options"]


def test_a_mixture_of_kinds_and_sources(tmp_path: Path, videos: Path, encoded: Path) -> None:
    manifest = tmp_path / "list.txt"
    manifest.write_text(f"{videos / '07.mp4'}\n{videos / '08.mp4'}\n")
    pattern = str(videos / "more" / "*.mp4")
    values = measure(tmp_path, manifest, pattern, encoded, videos / "still.png", "--seed", "3")
    assert values["clips"] == 2 + 4 + 4 + 1
    assert values["run"]["seed"] == 3
    assert values["run"]["sources"][0] == str(manifest)


def test_the_table_on_the_terminal(videos: Path) -> None:
    answer = wfvae("stats", videos / "more")
    assert answer.code == 0
    rows = [line.split() for line in answer.stdout.splitlines()]
    assert ["channel", "mean", "std"] in [row[:3] for row in rows]
    assert [str(c) for c in range(16)] == [row[0] for row in rows if row and row[0].isdigit()]
    assert "z_norm = (z - shift_factor) * scaling_factor" in answer.stdout


def test_limit_and_windows_repeat(tmp_path: Path, videos: Path) -> None:
    drawn = ("--limit", "5", "--sample-frames", "5")
    first = measure(tmp_path, videos, *drawn, name="a.json")
    again = measure(tmp_path, videos, *drawn, name="b.json")
    other = measure(tmp_path, videos, *drawn, "--seed", "1", name="c.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert first["clips"] == again["clips"] == 5
    assert first["dataset"] != other["dataset"]


def test_until_says_how_many_clips_it_took(tmp_path: Path, videos: Path) -> None:
    answer = wfvae("stats", videos, "--until", "90%", "-o", tmp_path / "s.json")
    assert answer.code == 0, answer
    assert report(tmp_path / "s.json")["clips"] < 13
    assert "clips: stopped" in answer.stderr
    answer = wfvae("stats", videos, "--until", "0.0001")
    assert answer.code == 0
    assert "was not reached with all 13 clips" in answer.stderr


def test_parts_merge_to_the_whole(tmp_path: Path, videos: Path) -> None:
    whole = measure(tmp_path, videos, "--include", "*.mp4", name="whole.json")
    measure(tmp_path, videos, "--include", "more/*", name="a.json")
    measure(tmp_path, videos, "--include", "*.mp4", "--exclude", "more/*", name="b.json")
    merged = measure(
        tmp_path, "--merge", tmp_path / "b.json", tmp_path / "a.json", name="merged.json"
    )
    assert merged["dataset"] == whole["dataset"]
    for key in ("latents_mean", "latents_std", "kl", "skewness", "kurtosis", "correlation"):
        np.testing.assert_allclose(merged[key], whole[key], rtol=1e-9, err_msg=key)
    assert merged["quantiles"] == whole["quantiles"]
    assert merged["histogram"] == whole["histogram"]
    overlapping = wfvae("stats", "--merge", tmp_path / "a.json", tmp_path / "whole.json")
    assert_refused(overlapping, 2, "4 clips are in more than one")


def test_shards_merge_to_the_whole(tmp_path: Path, videos: Path) -> None:
    drawn = ("--limit", "9", "--sample-frames", "5")
    whole = measure(tmp_path, videos, *drawn, name="whole.json")
    parts = [
        measure(tmp_path, videos, *drawn, "--shard", f"{index}/2", name=f"{index}.json")
        for index in range(2)
    ]
    assert all(part["clips"] > 0 for part in parts)
    paths = [tmp_path / f"{index}.json" for index in range(2)]
    merged = measure(tmp_path, "--merge", *paths, name="merged.json")
    assert merged["dataset"] == whole["dataset"]
    for key in ("latents_mean", "latents_std", "kl", "skewness", "kurtosis", "correlation"):
        np.testing.assert_allclose(merged[key], whole[key], rtol=1e-9, err_msg=key)
    for key in ("clips", "count", "min", "max", "quantiles", "histogram", "model", "options"):
        assert merged[key] == whole[key], key
    answers = [wfvae("stats", videos / "11.mp4", "--shard", f"{index}/2") for index in range(2)]
    assert sorted(answer.code for answer in answers) == [0, 3]
    assert_refused(max(answers, key=lambda answer: answer.code), 3, "holds none of 1 clips")
