from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.stats.conftest import Make, latents
from wfvae_cli.errors import InputError, WeightsError
from wfvae_cli.stats.scale import config_with_scale, load_normalization


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("WFVAEModel", ("shift", "scale")),
        ("WFVAE2Model", ("shift", "scale")),
        ("WanVAE", ("latents_mean", "latents_std")),
        ("AutoencoderKLWan", ("latents_mean", "latents_std")),
        ("AutoencoderKL", ("shift_factor", "scaling_factor")),
    ],
)
def test_config_gets_the_fields_of_its_family(
    name: str, fields: tuple[str, str], make_report: Make, tmp_path: Path
) -> None:
    config = {"_class_name": name, "latent_dim": 4, "scale": [9.0] * 4, "other": "kept"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    report = make_report()
    values = report.summary.factors.to_json()
    expected = {**config, **{field: values[field] for field in fields}}
    assert config_with_scale(config, report.summary.factors) == expected
    assert config_with_scale(tmp_path, report.summary.factors) == expected
    assert config_with_scale(tmp_path / "config.json", report.summary.factors) == expected
    assert config["scale"] == [9.0] * 4


def test_normalised_latents_have_unit_variance(make_report: Make, tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    path.write_text(make_report().to_json())
    shift, scale, identity = load_normalization(path, model_sha256="ab" * 32)
    z = np.concatenate([latents(seed).reshape(4, -1) for seed in range(12)], axis=1)
    normalised = (z.astype(np.float64) - np.array(shift)[:, None]) * np.array(scale)[:, None]
    assert normalised.mean(axis=1) == pytest.approx(np.zeros(4), abs=1e-9)
    assert normalised.std(axis=1) == pytest.approx(np.ones(4), rel=1e-9)
    assert identity.startswith("sha256:")
    assert len(identity) == 7 + 64


def test_wrong_models_are_refused(make_report: Make, tmp_path: Path) -> None:
    report = make_report()
    with pytest.raises(WeightsError, match=r"'GAN'.*WFVAEModel"):
        config_with_scale({"_class_name": "GAN"}, report.summary.factors)
    with pytest.raises(WeightsError, match="latent_dim = 16, the statistics have 4"):
        config_with_scale({"_class_name": "WFVAEModel", "latent_dim": 16}, report.summary.factors)
    with pytest.raises(InputError, match=r"config\.json"):
        config_with_scale(tmp_path, report.summary.factors)
    path = tmp_path / "stats.json"
    path.write_text(report.to_json())
    with pytest.raises(WeightsError, match="run wfvae stats with the model that encodes"):
        load_normalization(path, model_sha256="cd" * 32)


@pytest.mark.parametrize(
    "change", [{"scale": [1, 2, 3, 0]}, {"scale": [1.0]}, {"shift": "1"}, {"shift": [None] * 4}]
)
def test_unusable_factors_are_refused(
    change: dict[str, object], make_report: Make, tmp_path: Path
) -> None:
    path = tmp_path / "stats.json"
    path.write_text(json.dumps({**json.loads(make_report().to_json()), **change}))
    with pytest.raises(InputError, match="expected"):
        load_normalization(path)
