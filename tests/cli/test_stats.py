from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.cli.program import assert_refused, start, wfvae
from tests.media.conftest import write_clip
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.models.load import describe_checkpoint
from wfvae_cli.models.names import embedded_folder

PNG = b"\x89PNG\r\n"


def scenery(seed: int, frames: int, width: int = 32, height: int = 32) -> list[NDArray[np.uint8]]:
    """A smooth random picture that moves to the left."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 4, (width + frames) // 4 + 1, 3), dtype=np.uint8)
    wide = Image.fromarray(small).resize((width + frames, height), Image.Resampling.BICUBIC)
    whole = np.asarray(wide)
    return [np.ascontiguousarray(whole[:, k : k + width]) for k in range(frames)]


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips of 3 to 14 frames in two sizes and two folders, and an image."""
    root = tmp_path_factory.mktemp("videos")
    (root / "more").mkdir()
    for index in range(12):
        folder = root / "more" if index % 3 == 0 else root
        size = (32, 32) if index % 2 else (40, 24)
        write_clip(folder / f"{index:02d}.mp4", scenery(index, 3 + index, *size))
    Image.fromarray(scenery(99, 1)[0]).save(root / "still.png")
    return root


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Path:
    """The latent files of four of the clips."""
    root = tmp_path_factory.mktemp("encoded")
    for name in ("01", "02", "04", "05"):
        answer = wfvae(
            "encode", videos / f"{name}.mp4", "-o", root / f"{name}.safetensors",
            "--posterior", "moments",
        )  # fmt: skip
        assert answer.code == 0, answer
    return root


def report(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text())
    assert isinstance(values, dict)
    return values


def measure(tmp_path: Path, *arguments: str | Path, name: str = "stats.json") -> dict[str, Any]:
    answer = wfvae("stats", *arguments, "-o", tmp_path / name)
    assert answer.code == 0, answer
    return report(tmp_path / name)


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
    assert "z = z_norm / scaling_factor + shift_factor" in answer.stdout


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


def test_bad_files_are_named_and_the_rest_is_written(tmp_path: Path, videos: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("hello")
    cut = tmp_path / "cut.mp4"
    whole = (videos / "11.mp4").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    answer = wfvae("stats", tmp_path, videos / "11.mp4", "-o", tmp_path / "s.json")
    assert_refused(answer, 7, "text.mp4", "cut.mp4", "2 of 3 clips")
    values = report(tmp_path / "s.json")
    assert values["clips"] == 1
    assert [failed["name"].rpartition("/")[2] for failed in values["failed"]] == [
        "cut.mp4",
        "text.mp4",
    ]
    alone = wfvae("stats", text, "-o", tmp_path / "none.json")
    assert_refused(alone, 3, "no clip", "1 failed", "text.mp4")
    assert not (tmp_path / "none.json").exists()


def test_an_empty_folder(tmp_path: Path) -> None:
    assert_refused(wfvae("stats", tmp_path), 3, str(tmp_path), "nothing found")


def test_a_constant_channel_has_no_scale(tmp_path: Path, encoded: Path) -> None:
    source = encoded / "01.safetensors"
    with LatentFile(source) as file:
        size = 4 * int(np.prod(file.shape[1:]))  # bytes of a channel
        channels = file.shape[0]
    data = bytearray(source.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    begin += header["latents"]["data_offsets"][0]
    data[begin : begin + size] = bytes(size)
    (tmp_path / "flat.safetensors").write_bytes(data)
    assert channels > 1
    answer = wfvae("stats", tmp_path, "-o", tmp_path / "s.json", "--plot", tmp_path / "s.png")
    assert_refused(answer, 3, "these are constant: 0;", "add clips that differ")
    assert not list(tmp_path.glob("s.*"))


def test_a_plot_of_one_page(tmp_path: Path, videos: Path) -> None:
    answer = wfvae("stats", videos / "more", "--plot", tmp_path / "s.png", "-q")
    assert (answer.code, answer.stdout, answer.stderr) == (0, "", "")
    assert (tmp_path / "s.png").read_bytes().startswith(PNG)
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.width > 1000


@pytest.mark.parametrize("option", ["-o", "--plot"])
def test_what_exists_is_refused_before_any_work(tmp_path: Path, videos: Path, option: str) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    # Were the dataset looked at first, its absence would be the answer.
    answer = wfvae("stats", videos / "no such file.mp4", option, taken)
    assert_refused(answer, 5, "taken exists already", "--overwrite")
    assert taken.read_text() == "mine"


def test_the_config_gets_a_copy_with_the_scale(tmp_path: Path, videos: Path) -> None:
    folder = tmp_path / "vae"
    copy_model(folder)
    original = (folder / "config.json").read_text()
    values = measure(tmp_path, videos / "more", "--write-config", folder, "--model", str(folder))
    assert (folder / "config.json").read_text() == original
    copy = report(folder / "config.stats.json")
    assert copy["scale"] == values["scale"]
    assert copy["shift"] == values["shift"]
    assert {k: v for k, v in copy.items() if k not in ("scale", "shift")} == {
        k: v for k, v in json.loads(original).items() if k not in ("scale", "shift")
    }
    # The report is as good as the run; with --overwrite the config itself is completed.
    answer = wfvae(
        "stats", "--merge", tmp_path / "stats.json", "--write-config", folder, "--overwrite"
    )
    assert answer.code == 0, answer
    normalization = describe_checkpoint(str(folder))["normalization"]
    assert normalization["scale"] == tuple(values["scale"])


def test_an_empty_folder_gets_the_models_config(tmp_path: Path, videos: Path) -> None:
    (tmp_path / "new").mkdir()
    values = measure(tmp_path, videos / "more", "--write-config", tmp_path / "new")
    config = report(tmp_path / "new" / "config.json")
    assert config["scale"] == values["scale"]
    assert config["_class_name"] == "WFVAEModel"


def test_the_config_of_other_weights_is_refused(tmp_path: Path, videos: Path) -> None:
    folder = tmp_path / "vae"
    copy_model(folder)
    weights = folder / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    answer = wfvae("stats", videos / "more", "--write-config", folder)
    assert_refused(answer, 4, "holds the weights", "wfvae-tiny")
    assert not (folder / "config.stats.json").exists()


def copy_model(folder: Path) -> None:
    """The embedded model in a folder of its own."""
    folder.mkdir()
    for file in embedded_folder("wfvae-tiny").iterdir():
        if file.suffix in (".json", ".safetensors"):
            (folder / file.name).write_bytes(file.read_bytes())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--subbands", "--until", "1%"], ["--subbands", "--until"]),
        (["--levels", "2"], ["--levels belongs to --subbands"]),
        (["--subbands", "--write-config", "."], ["--subbands", "--write-config"]),
        (["--merge", "--until", "1%", "--limit", "3"], ["only reads", "--limit, --until"]),
        (["--until", "1%", "--shard", "0/2"], ["--until looks at all clips", "--shard"]),
        (["--shard", "2/2"], ["from 0 to N - 1, got 2/2"]),
        (["--workers", "2"], ["--engine ray"]),
        (["--subbands", "--engine", "ray"], ["--subbands", "--engine"]),
        (["--merge", "--shard", "0/2"], ["only reads", "--shard"]),
        (["--until", "soon"], ["0.5%"]),
        (["--limit", "0"], ["--limit must be at least 1"]),
        (["-o", "-"], ["--json"]),
        (["--chunk", "4"], ["1 + 4k"]),
    ],
)
def test_options_without_meaning(
    videos: Path, arguments: Sequence[str], words: Sequence[str]
) -> None:
    assert_refused(wfvae("stats", videos / "more", *arguments), 2, *words)


def test_sampling_options_are_not_for_latents(encoded: Path) -> None:
    assert_refused(wfvae("stats", encoded, "--short-side", "64"), 2, "cannot be cut or scaled")


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


@pytest.mark.parametrize("seconds", [1.0, 4.0])
def test_an_interruption_leaves_nothing(tmp_path: Path, videos: Path, seconds: float) -> None:
    # A thousand names of one clip: more than can be done in time.
    manifest = tmp_path / "many.jsonl"
    rows = ({"path": str(videos / "11.mp4"), "id": f"{index}"} for index in range(5000))
    manifest.write_text("\n".join(map(json.dumps, rows)))
    process = start("stats", manifest, "-o", tmp_path / "s.json", "--plot", tmp_path / "s.png")
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert b"Traceback" not in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["many.jsonl"]


def test_normalised_latents_have_no_mean_and_unit_variance(tmp_path: Path, videos: Path) -> None:
    clip = videos / "11.mp4"
    measure(tmp_path, clip)
    stats, z, out = (tmp_path / name for name in ("stats.json", "z.safetensors", "out.mkv"))
    answer = wfvae("encode", clip, "-o", z, "--normalize", "--stats", stats)
    assert answer.code == 0, answer
    with LatentFile(z) as file:
        values = file.read().double().numpy().reshape(file.shape[0], -1)
        applied = file.metadata.normalization
    np.testing.assert_allclose(values.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(values.std(axis=1), 1, rtol=1e-5)
    assert applied is not None
    assert "sha256:" in applied.source
    # Statistics are of the model's own latents again, and decoding undoes it.
    undone = measure(tmp_path, z, name="again.json")
    np.testing.assert_allclose(undone["latents_std"], report(stats)["latents_std"], rtol=1e-5)
    assert wfvae("decode", z, "-o", out, "--codec", "ffv1").code == 0
    plain = json.loads(wfvae("roundtrip", clip, "--json").stdout)["psnr"]
    compared = wfvae("compare", clip, out, "--json")
    assert json.loads(compared.stdout)["psnr"] == pytest.approx(plain, abs=0.05)


def test_stats_of_another_model_are_refused(tmp_path: Path, videos: Path) -> None:
    measure(tmp_path, videos / "11.mp4")
    stats = tmp_path / "stats.json"
    stats.write_text(stats.read_text().replace(report(stats)["model"]["sha256"], "0" * 64))
    z = tmp_path / "z.safetensors"
    answer = wfvae("encode", videos / "11.mp4", "-o", z, "--normalize", "--stats", stats)
    assert_refused(answer, 4, "statistics are of latents made by the weights 0000")
    assert not z.exists()
    answer = wfvae("encode", videos / "11.mp4", "-o", z, "--stats", stats)
    assert_refused(answer, 2, "--normalize")
