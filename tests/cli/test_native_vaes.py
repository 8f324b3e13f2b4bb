"""LTX-2's and HunyuanVideo 1.5's VAEs as diffusers saves them, through the real commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cli.program import assert_refused, wfvae
from tests.models.test_hunyuan15 import SMALL as HUNYUAN
from tests.models.test_ltx2 import LTX_20
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.media.reader import open_clip
from wfvae_cli.models.base import Task
from wfvae_cli.models.load import load_model

FAMILIES = ("ltx2", "hunyuanvideo15")
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "ltx2": ("AutoencoderKLLTX2Video", {**LTX_20, "decoder_causal": False}),
    "hunyuanvideo15": ("AutoencoderKLHunyuanVideo15", HUNYUAN),
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder that diffusers saved a small, seeded model of each family into."""
    diffusers = pytest.importorskip("diffusers", reason="the models are saved by diffusers (dev)")
    folders = {}
    for family, (name, config) in CONFIGS.items():
        torch.manual_seed(0)
        model = getattr(diffusers, name).from_config(config)
        if family == "ltx2":
            model.latents_mean.copy_(torch.linspace(-1, 1, config["latent_channels"]))
            model.latents_std.copy_(torch.linspace(0.5, 2, config["latent_channels"]))
        folders[family] = tmp_path_factory.mktemp(family)
        model.save_pretrained(folders[family])
    return folders


@pytest.mark.parametrize("family", FAMILIES)
def test_roundtrip_info_and_bench(
    tmp_path: Path, clip: Path, models: dict[str, Path], family: str
) -> None:
    out = tmp_path / "out.mp4"
    answer = wfvae("roundtrip", clip, "-o", out, "-m", models[family], "--json")
    assert answer.code == 0, answer
    assert json.loads(answer.stdout)["frames"] == 10
    facts = json.loads(wfvae("info", models[family], "--json").stdout)
    assert facts["family"] == family
    assert facts["recognised_by"] == f"config.json: _class_name {CONFIGS[family][0]}"
    if family == "ltx2":
        assert facts["strides"] == [8, 32, 32]
        assert facts["normalization"]["shift"] == pytest.approx(np.linspace(-1, 1, 8).tolist())
        assert facts["normalization"]["scale"][0] == 2.0
        assert facts["state_growth_per_latent"] is None
    else:
        assert facts["strides"] == [4, 4, 4]
        assert facts["normalization"]["scale"] == [1.03682] * 2
        assert facts["state_growth_per_latent"] == 16
    few = ("--size", "64x64", "--frames", "9", "--runs", "1", "--device", "cpu")
    answer = wfvae("bench", "-m", models[family], *few, "--json")
    assert answer.code == 0, answer
    assert {stage["stage"] for stage in json.loads(answer.stdout)["stages"]} >= {"encode", "decode"}


@pytest.mark.parametrize("family", FAMILIES)
def test_chunked_normalised_and_decoded(
    tmp_path: Path, clip: Path, models: dict[str, Path], family: str
) -> None:
    model, files = models[family], [tmp_path / f"{name}.safetensors" for name in "abc"]
    for file, *options in zip(
        files, ("--chunk", "--chunk", "--normalize"), ("9", "33", None), strict=True
    ):
        chosen = [option for option in options if option is not None]
        answer = wfvae("encode", clip, "-o", file, "-m", model, *chosen)
        assert answer.code == 0, answer
    read = []
    for file in files:
        with LatentFile(file) as opened:
            read.append(opened.read())
    torch.testing.assert_close(read[0], read[1], atol=1e-5, rtol=0)
    normalization = load_model(str(model), device="cpu").vae.normalization
    assert normalization is not None
    shift, scale = (torch.tensor(v).view(-1, 1, 1, 1) for v in vars(normalization).values())
    torch.testing.assert_close(read[2], (read[0] - shift) * scale, atol=1e-5, rtol=0)
    decoded = []
    for file, chunk in zip(files, ("9", "33", "17"), strict=True):
        out = file.with_suffix(".mkv")
        answer = wfvae("decode", file, "-o", out, "--codec", "ffv1", "--chunk", chunk)
        assert answer.code == 0, answer
        with open_clip(out) as frames:
            decoded.append(np.stack([frame.pixels.astype(int) for frame in frames]))
    assert decoded[0].shape == (10, 48, 64, 3)
    for other in decoded[1:]:
        assert np.abs(other - decoded[0]).max() <= 1


def test_statistics_are_not_rounded_with_the_weights(models: dict[str, Path]) -> None:
    exact, short = (
        load_model(str(models["ltx2"]), device="cpu", dtype=dtype)
        for dtype in ("float32", "bfloat16")
    )
    assert short.dtype_of("encode") == torch.bfloat16
    assert exact.vae.normalization == short.vae.normalization is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_half_a_model_loads(clip: Path, models: dict[str, Path], family: str) -> None:
    halves: tuple[tuple[Task, str], ...] = (("encode", "encoder"), ("decode", "decoder"))
    for task, half in halves:
        vae = load_model(str(models[family]), device="cpu", task=task).vae
        needed = {name for name, weight in vae.named_parameters() if not weight.is_meta}
        assert needed.issuperset(name for name, _ in vae.named_parameters() if half in name)
        assert len(needed) < len(list(vae.parameters()))


@pytest.mark.parametrize("family", FAMILIES)
def test_measured_statistics_go_into_a_config(
    tmp_path: Path, clip: Path, models: dict[str, Path], family: str
) -> None:
    z, report = tmp_path / "z.safetensors", tmp_path / "stats.json"
    assert wfvae("encode", clip, "-o", z, "-m", models[family]).code == 0
    answer = wfvae("stats", z, "-o", report, "--write-config", models[family])
    assert answer.code == 0, answer
    config = json.loads((models[family] / "config.stats.json").read_text())
    field = "latents_std" if family == "ltx2" else "scaling_factor"
    assert config[field] != json.loads((models[family] / "config.json").read_text()).get(field)


def test_latents_of_another_family_are_refused(
    tmp_path: Path, clip: Path, models: dict[str, Path]
) -> None:
    for family, other in (FAMILIES, FAMILIES[::-1]):
        z, out = tmp_path / f"{family}.safetensors", tmp_path / "out.mp4"
        assert wfvae("encode", clip, "-o", z, "-m", models[family], "--frames", "1").code == 0
        answer = wfvae("decode", z, "-o", out, "-m", models[other], "--force")
        assert_refused(answer, 3, "give the model that made it with --model")
        assert not out.exists()
