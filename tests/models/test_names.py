from __future__ import annotations

import json
from pathlib import Path

import pytest

from wfvae_cli.errors import LatentError, MissingExtraError, WeightsError
from wfvae_cli.models.base import VideoVAE
from wfvae_cli.models.checkpoint import count_parameters, locate, read_entries, read_json
from wfvae_cli.models.diffusers_table import CLASSES
from wfvae_cli.models.load import load_model
from wfvae_cli.models.names import check_could_have_made, embedded_folder, find_source
from wfvae_cli.models.published import PUBLISHED, HubSource
from wfvae_cli.models.registry import FAMILIES, find_family, settle_config
from wfvae_cli.models.wfvae import WFVAE
from wfvae_cli.strides import Strides

CASES = Path(__file__).parents[1] / "parity"


def test_the_embedded_name_is_a_folder_of_this_installation() -> None:
    folder = find_source("wfvae-tiny")
    assert isinstance(folder, Path)
    assert locate(folder).weights[0].is_file()


def test_a_published_name_is_a_repository() -> None:
    assert find_source("wf-vae-l-16chn") == HubSource("chestnutlzj/WF-VAE-L-16Chn")


def test_a_name_published_as_a_pickle_says_how_to_convert_it() -> None:
    with pytest.raises(WeightsError) as caught:
        find_source("open-sora-plan-v1.3")
    message = str(caught.value)
    assert "hf download LanguageBind/Open-Sora-Plan-v1.3.0" in message
    assert "wfvae convert DOWNLOADED/vae/merged.ckpt -o DIR" in message


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("owner/repo", HubSource("owner/repo")),
        ("owner/repo.v1-x_2", HubSource("owner/repo.v1-x_2")),
        ("owner/repo/vae", HubSource("owner/repo", "vae")),
        ("owner/repo/a/b@v1", HubSource("owner/repo", "a/b", "v1")),
        ("owner/repo@refs/pr/3", HubSource("owner/repo", "", "refs/pr/3")),
        ("owner/repo/vae/", HubSource("owner/repo", "vae")),
    ],
)
def test_repositories_are_parsed(text: str, source: HubSource) -> None:
    assert find_source(text) == source


def test_a_source_prints_as_it_is_typed() -> None:
    assert str(HubSource("o/r", "a/b", "v1")) == "o/r/a/b@v1"
    assert str(HubSource("o/r")) == "o/r"


def test_an_existing_path_wins_over_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner" / "repo").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_source("owner/repo") == Path("owner/repo")
    assert find_source("owner/other") == HubSource("owner/other")


def test_a_stray_folder_does_not_replace_the_default_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wfvae-tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_source("wfvae-tiny") == embedded_folder("wfvae-tiny")
    assert find_source("./wfvae-tiny") == Path("wfvae-tiny")


@pytest.mark.parametrize(
    "text",
    ["nonsense", "./absent/folder", "/absent/folder", "runs/vae.safetensors", "runs/vae.ckpt", ""],
)
def test_what_is_neither_is_an_error_that_lists_the_names(text: str) -> None:
    with pytest.raises(WeightsError) as caught:
        find_source(text)
    assert all(entry.name in str(caught.value) for entry in PUBLISHED)


def test_a_misspelt_name_gets_the_closest_one() -> None:
    with pytest.raises(WeightsError, match="Did you mean wf-vae-l-16chn"):
        find_source("WF-VAE-L-16ch")


def test_the_table_agrees_with_the_embedded_model() -> None:
    entry = next(entry for entry in PUBLISHED if entry.source is None)
    files = locate(embedded_folder(entry.name))
    entries = read_entries(files.weights)
    weights = [entry for name, entry in entries.items() if WFVAE.constant(name) is None]
    assert files.config is not None
    vae = WFVAE.from_config(read_json(files.config))
    assert count_parameters(weights) == entry.parameters
    assert (vae.strides, vae.latent_channels) == (entry.strides, entry.channels)
    assert vae.family == entry.family


def test_latents_that_a_named_model_cannot_have_made_are_refused_before_a_download() -> None:
    check_could_have_made("wan-2.1", "wan", 16, Strides(4, 8, 8))
    check_could_have_made("some/folder", "wan", 16, Strides(4, 8, 8))
    with pytest.raises(LatentError, match=r"family wan with 16 .*'wan-2.2' is wan22 with 48"):
        check_could_have_made("wan-2.2", "wan", 16, Strides(4, 8, 8))


def test_names_are_of_families_that_load() -> None:
    native = {each.load().family for each in FAMILIES if each.class_names[0] not in CLASSES}
    adapted = {entry.family for entry in CLASSES.values()}
    assert not native & adapted
    assert {entry.family for entry in PUBLISHED} <= native | adapted
    assert len({entry.name for entry in PUBLISHED}) == len(PUBLISHED)


def test_a_missing_extra_is_told_before_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"HunyuanVideo needs diffusers.*\[diffusers\]"):
        load_model("hunyuanvideo", device="cpu")


def test_every_family_loads_its_class() -> None:
    assert all(issubclass(family.load(), VideoVAE) for family in FAMILIES)


def test_the_family_is_told_by_the_config_or_else_by_the_tensors() -> None:
    names = ["encoder.down1.0.weight", "encoder.connect_l1.weight", "x"]
    assert find_family({"_class_name": "WFVAEModel"}, [], "x").load() is WFVAE
    assert find_family({}, names, "x").load() is WFVAE
    with pytest.raises(WeightsError, match=r'supported: WFVAEModel.*add "_class_name"'):
        find_family({}, ["conv.weight"], "x")


@pytest.mark.parametrize(
    ("case", "family"),
    [
        ("mini-wfvae-trilinear", "WFVAE"),
        ("mini-wfvae-888", "WFVAE"),
        ("mini-wfvae2-video", "WFVAE2"),
        ("mini-wfvae2-image", "WFVAE2"),
        ("mini-wan", "WanVAE"),
        ("mini-wan22", "Wan22VAE"),
    ],
)
def test_published_tensor_names_are_of_one_family_only(case: str, family: str) -> None:
    published = json.loads((CASES / f"{case}.json").read_text())
    names = set(published["tensors"])
    assert find_family({}, names, case) == find_family(published["config"], [], case)
    fitting = [each for each in FAMILIES if any(names.issuperset(layout) for layout in each.marks)]
    assert [each.load().__name__ for each in fitting] == [family]


def test_an_unknown_family_lists_the_supported_ones_and_the_nearest() -> None:
    with pytest.raises(WeightsError, match=r"supported: .*WFVAEModel.*nearest is WFVAEModel"):
        find_family({"_class_name": "WFVAEModle"}, [], "here")
    with pytest.raises(WeightsError, match="'AutoencoderKLMagvit'"):
        find_family({"_class_name": "AutoencoderKLMagvit"}, [], "here")


def test_a_config_beside_wan_weights_that_is_of_another_model_is_told() -> None:
    shapes = json.loads((CASES / "mini-wan.json").read_text())["tensors"]
    settled = settle_config({"_class_name": "WanModel"}, shapes, "here", "remedy")
    assert settled.config["_class_name"] == "WanVAE"
    assert settled.note is not None
    assert "WanModel" in settled.note
    own = {"_class_name": "AutoencoderKLWan", "base_dim": 8}
    assert settle_config(own, shapes, "here", "remedy").config == own
    assert settle_config({"dim": 8}, shapes, "here", "remedy").recognised_by == "tensor names"
    with pytest.raises(WeightsError, match=r"no supported model; supported: WFVAEModel.*remedy"):
        settle_config(None, {"lm_head.weight": [3]}, "here", "remedy")
