"""Configs that are damaged, or meant to harm: an answer, soon, and naming the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.models.tiny import CONFIG, tiny_state, write_checkpoint
from wfvae_cli.errors import WeightsError
from wfvae_cli.models.checkpoint import read_index, read_json
from wfvae_cli.models.config import read_normalization
from wfvae_cli.models.load import describe_checkpoint


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("encoder_num_resblocks", 10**9),
        ("decoder_num_resblocks", 65),
        ("connect_res_layer_num", 2**63),
        ("base_channels", 10**9),
        ("latent_dim", 10**4000),
        ("latent_dim", True),
        ("base_channels", 8.0),
        ("norm_type", {"a": [1]}),
        ("norm_type", "x" * 10_000),
    ],
)
def test_sizes_that_no_model_has(tmp_path: Path, field: str, value: Any) -> None:
    write_checkpoint(tmp_path / "m", tiny_state(), {**CONFIG, field: value})
    with pytest.raises(WeightsError, match=field) as caught:
        describe_checkpoint(str(tmp_path / "m"))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["AutoencoderKL", "WanVAE"])
def test_other_families_are_bounded_too(tmp_path: Path, name: str) -> None:
    if name == "AutoencoderKL":
        pytest.importorskip("diffusers", reason="KL VAEs run through diffusers (kl)")
    config = {"_class_name": name, "layers_per_block": 10**9, "dim": 8, "z_dim": 4}
    config |= {"dim_mult": [1] * 17, "num_res_blocks": 1, "temperal_downsample": []}
    write_checkpoint(tmp_path / "m", tiny_state(), {**config, "attn_scales": []})
    with pytest.raises(WeightsError, match=r"layers_per_block|dim_mult"):
        describe_checkpoint(str(tmp_path / "m"))


@pytest.mark.parametrize(
    "fields",
    [
        {"scale": [], "shift": []},
        {"scale": "1.5", "shift": [0.0]},
        {"scale": [1.0, "2"], "shift": [0.0, 0.0]},
        {"scale": [1.0, float("nan")], "shift": [0.0, 0.0]},
        {"scale": [1.0, float("inf")], "shift": [0.0, 0.0]},
        {"scale": [1.0, 10**400], "shift": [0.0, 0.0]},
        {"scale": [1.0, 0.0], "shift": [0.0, 0.0]},
        {"scale": [True, True], "shift": [0.0, 0.0]},
        {"scale": {"a": 1}, "shift": [0.0, 0.0]},
        {"latents_mean": [0.0, 0.0], "latents_std": [1.0, 0.0]},
        {"latents_mean": [0.0, 0.0], "latents_std": [1.0, 1e-320]},
        {"latents_mean": [0.0, 0.0], "latents_std": [1.0, None]},
        {"scaling_factor": "0.18"},
        {"scaling_factor": []},
        {"scaling_factor": float("nan")},
        {"scaling_factor": 1.0, "shift_factor": "a"},
    ],
)
def test_scales_that_are_no_numbers(fields: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match="scale"):
        read_normalization(fields, 2)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "9" * 5000, '{"a": ' * 50_000, "[]", "{}" + " " * (8 << 20), "\xff\xfe"]
)
def test_a_config_that_is_no_config(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(WeightsError, match=r"config\.json"):
        read_json(path)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "é" * 200])
def test_names_of_shards_that_no_file_has(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(WeightsError, match="are missing") as caught:
        read_index(path)
    assert len(str(caught.value)) < 1000
