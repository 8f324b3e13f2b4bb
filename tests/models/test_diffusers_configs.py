"""What diffusers' classes are built from: their configs, the table of classes, the versions."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.models.diffusers_configs import CONFIGS, LENGTHS
from wfvae_cli.errors import MissingExtraError, WeightsError
from wfvae_cli.latents.normalization import Normalization
from wfvae_cli.models.diffusers import DiffusersVAE
from wfvae_cli.models.diffusers_table import CLASSES
from wfvae_cli.models.published import PUBLISHED
from wfvae_cli.models.registry import FAMILIES, find_family
from wfvae_cli.models.weights import build_on_meta

diffusers = pytest.importorskip("diffusers", reason="the adapter runs diffusers (extra diffusers)")


def test_what_runs_without_diffusers_is_not_adapted() -> None:
    native = {name for family in FAMILIES for name in family.class_names if name not in CLASSES}
    assert {"AutoencoderKLWan", "AutoencoderKLQwenImage"} <= native
    assert not native & set(CLASSES)


def build(name: str, config: dict[str, Any]) -> DiffusersVAE:
    vae = build_on_meta(DiffusersVAE, {"_class_name": name, **config})
    assert isinstance(vae, DiffusersVAE)
    return vae


def test_a_config_without_a_scaling_factor_has_stable_diffusions() -> None:
    config = {k: v for k, v in CONFIGS["AutoencoderKL"].items() if "factor" not in k}
    normalization = build("AutoencoderKL", config).normalization
    assert normalization == Normalization((0.0,) * 4, (0.18215,) * 4)


def test_mean_and_std_go_with_the_scaling_factor() -> None:
    """As in Playground v2.5, whose pipeline is Stable Diffusion XL's."""
    lists = {"latents_mean": [1.0, 0.0, -1.0, 2.0], "latents_std": [2.0, 4.0, 1.0, 0.5]}
    config = CONFIGS["AutoencoderKL"] | lists | {"scaling_factor": 0.5}
    normalization = build("AutoencoderKL", config).normalization
    assert normalization == Normalization((1.0, 0.0, -1.0, 2.0), (0.25, 0.125, 0.5, 1.0))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("AutoencoderKL", {"in_channels": 4}, "expected 3 in_channels and 3 out.* got 4 and 3"),
        (
            "AutoencoderKL",
            {"down_block_types": ["NoSuchBlock"] * 4},
            "diffusers cannot build an AutoencoderKL",
        ),
        ("AutoencoderKLMochi", {"in_channels": 3}, "expected 15 in_channels .* got 3 and 3"),
        ("AutoencoderKLLTXVideo", {"timestep_conditioning": True}, "draws noise when it decodes"),
        ("AutoencoderVidTok", {"is_causal": False}, "takes clips of 16n frames"),
        ("AutoencoderKLAllegro", {"sample_size": 120}, r"cut into such tiles: .* 120 \+ 0k"),
        ("AutoencoderKLAllegro", {"temporal_compression_ratio": 32}, r"such tiles: .* 0 \+ 0k"),
        ("AutoencoderKLMiniMaxH3", {"clip_length": 0}, "diffusers cannot build an Auto"),
        (
            "AutoencoderVidTok",
            {"regularizer": "fsq", "codebook_size": 4096, "double_z": False},
            "discrete tokens",
        ),
    ],
)
def test_a_config_it_cannot_run_is_an_answer(
    name: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        build(name, CONFIGS[name] | change)


@pytest.mark.parametrize("name", LENGTHS)
def test_published_lengths_and_sizes_are_those_of_the_class(name: str) -> None:
    entry = next(each for each in PUBLISHED if each.family == CLASSES[name].family)
    vae = build(name, {})
    assert (vae.strides, vae.latent_channels) == (entry.strides, entry.channels)
    sizes = vae.strides.heights, vae.strides.widths
    assert sizes == (entry.strides.heights, entry.strides.widths) != (None, None)
    assert sum(weight.numel() for weight in vae.parameters()) == entry.parameters


def test_what_the_table_does_not_know_gets_the_nearest() -> None:
    for name, nearest in (
        ("AutoencoderKLTemporalDecoder", "AutoencoderKL"),
        ("AutoencoderKLHunyuanImageRefiner", "AutoencoderKLHunyuanImage"),
        ("AutoencoderKLQwenImage21", "AutoencoderKLQwenImage"),
    ):
        with pytest.raises(WeightsError, match=rf"'{name}'.*the nearest is {nearest}"):
            find_family({"_class_name": name}, [], "x")


def test_a_missing_diffusers_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'wfvae\[diffusers\]'"):
        build("AutoencoderKLFlux2", {})


def test_an_older_diffusers_names_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    older = ModuleType("diffusers")
    monkeypatch.setattr(older, "__version__", "0.35.1", raising=False)
    monkeypatch.setitem(sys.modules, "diffusers", older)
    message = r"diffusers 0.35.1, which is installed, has no AutoencoderKLFlux2.*--upgrade"
    with pytest.raises(WeightsError, match=message):
        build("AutoencoderKLFlux2", {})


def test_modules_are_imported_off_the_meta_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or constants of a module, such as Cosmos's wavelets, would have no values for good."""
    made_on, import_module = [], importlib.import_module

    class LazyPackage:
        """Imports the module of a class when it is asked for the class, as diffusers does."""

        def __getattr__(self, name: str) -> object:
            made_on.append(torch.ones(1).device.type)
            return getattr(diffusers, name)

    def lazily(name: str, package: str | None = None) -> object:
        return LazyPackage() if name == "diffusers" else import_module(name, package)

    monkeypatch.setattr(importlib, "import_module", lazily)
    name = "AutoencoderTiny"
    build_on_meta(DiffusersVAE, {"_class_name": name, **CONFIGS[name]})
    assert made_on == ["cpu"]
