"""What `wfvae stats` writes besides its report, and what encoding makes of that."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.program import assert_refused, wfvae
from tests.cli.reports import PNG, measure, report
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.models.load import describe_checkpoint
from wfvae_cli.models.names import embedded_folder


def test_a_plot_of_one_page(tmp_path: Path, videos: Path) -> None:
    answer = wfvae("stats", videos / "more", "--plot", tmp_path / "s.png", "-q")
    assert (answer.code, answer.stdout, answer.stderr) == (0, "", "")
    assert (tmp_path / "s.png").read_bytes().startswith(PNG)
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.width > 1000


@pytest.mark.parametrize(
    ("option", "name", "words"),
    [("-o", "s.csv", "*.json"), ("--plot", "s.gif", "*.png, *.svg or *.pdf")],
)
def test_other_formats_are_refused_before_any_work(
    tmp_path: Path, option: str, name: str, words: str
) -> None:
    answer = wfvae("stats", tmp_path / "no such file.mp4", option, tmp_path / name)
    assert_refused(answer, 2, words, name)


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


def test_a_broken_file_whose_name_is_no_text_loses_no_report(tmp_path: Path, videos: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    shutil.copy(videos / "more" / "00.mp4", source)
    broken = os.fsencode(source) + b"/bad\xff.mp4"
    Path(os.fsdecode(broken)).write_text("no video")
    answer = wfvae("stats", source, "-o", tmp_path / "s.json")
    assert answer.code == 7
    (failed,) = json.loads((tmp_path / "s.json").read_bytes())["failed"]
    assert os.fsencode(failed["name"]) == b"bad\xff.mp4"
    assert r"bad\xff.mp4" in answer.stderr


def test_statistics_are_logged_to_a_tracker(tmp_path: Path, clip: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    target = f"tensorboard:{tmp_path / 'runs'}"
    answer = wfvae("stats", clip, "--log-to", target, "-q")
    assert answer.code == 0, answer
    assert list((tmp_path / "runs/wfvae-tiny").glob("events.*"))
    frames = wfvae("stats", clip, "--subbands", "--log-to", target)
    assert_refused(frames, 2, "leave --log-to out")
    assert_refused(wfvae("stats", clip, "--log-to", "elsewhere"), 2, "tensorboard:DIR")
