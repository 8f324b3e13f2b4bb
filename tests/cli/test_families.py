"""Every family of models, as a user runs it: small checkpoints on disk, the real commands."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from tests.cli.program import assert_refused, wfvae
from tests.models.diffusers_configs import CONFIGS
from tests.models.tiny import write_checkpoint
from tests.parity.cases import case_config, case_weights
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.media.reader import open_clip

FAMILIES = ("wfvae", "wfvae2", "wfvae2-image", "wan", "wan22", "kl")
CASES = {
    "wfvae": "mini-wfvae-trilinear",
    "wfvae2": "mini-wfvae2-video",
    "wfvae2-image": "mini-wfvae2-image",
    "wan": "mini-wan",
    "wan22": "mini-wan22",
}
CLASSES = {
    "wfvae": "WFVAEModel",
    "wfvae2": "WFVAE2Model",
    "wfvae2-image": "WFVAE2Model",
    "wan": "WanVAE",
    "wan22": "Wan2_2_VAE",
    "kl": "AutoencoderKL",
}
CHANNELS = dict.fromkeys(FAMILIES, 4) | {"wan22": 6}
MEAN, STD = [0.5, -1.0, 0.0, 2.0, 1.0, -0.5], [2.0, 4.0, 0.5, 1.0, 1.5, 0.25]
KL_CONFIG: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [8, 8, 16, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "scaling_factor": 1.0,
}


def kl_state() -> dict[str, Tensor]:
    diffusers = pytest.importorskip("diffusers", reason="KL VAEs run through diffusers (kl)")
    torch.manual_seed(0)
    state: dict[str, Tensor] = diffusers.AutoencoderKL.from_config(KL_CONFIG).state_dict()
    return state


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's small checkpoint, with a mean and std of its latents."""
    root = tmp_path_factory.mktemp("models")

    def make(family: str) -> Path:
        folder = root / family
        if not folder.exists():
            config = KL_CONFIG if family == "kl" else case_config(CASES[family])
            state = kl_state() if family == "kl" else case_weights(CASES[family])
            channels = CHANNELS[family]
            lists = {"latents_mean": MEAN[:channels], "latents_std": STD[:channels]}
            config = {**config, **lists}
            write_checkpoint(folder, state, config)
        return folder

    return make


def strides_of(folder: Path) -> list[int]:
    facts = json.loads(wfvae("info", folder, "--json").stdout)
    strides: list[int] = facts["strides"]
    return strides


@pytest.mark.parametrize("family", FAMILIES)
def test_encode_and_decode(
    tmp_path: Path, clip: Path, model: Callable[[str], Path], family: str
) -> None:
    z, out = tmp_path / "z.safetensors", tmp_path / "out.mp4"
    answer = wfvae("encode", clip, "-o", z, "--model", model(family))
    assert answer.code == 0, answer
    time, height, width = strides_of(model(family))
    with LatentFile(z) as file:
        assert file.shape == (CHANNELS[family], 1 + -(-9 // time), 48 // height, 64 // width)
        assert file.metadata.family == family.removesuffix("-image")
    answer = wfvae("decode", z, "-o", out)  # the file says which model made it
    assert answer.code == 0, answer
    with open_clip(out) as decoded, open_clip(clip) as original:
        assert decoded.info.frame_rate == original.info.frame_rate
        assert (decoded.info.width, decoded.info.height) == (64, 48)
        assert len(list(decoded)) == 10


@pytest.mark.parametrize("family", FAMILIES)
def test_roundtrip_and_info(
    tmp_path: Path, clip: Path, model: Callable[[str], Path], family: str
) -> None:
    out = tmp_path / "out.mp4"
    answer = wfvae("roundtrip", clip, "-o", out, "--model", model(family), "--json")
    assert answer.code == 0, answer
    assert json.loads(answer.stdout)["frames"] == 10
    facts = json.loads(wfvae("info", model(family), "--json").stdout)
    assert facts["kind"] == "checkpoint"
    assert facts["family"] == family.removesuffix("-image")
    assert facts["recognised_by"] == f"config.json: _class_name {CLASSES[family]}"
    assert facts["latent_channels"] == CHANNELS[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_chunked_is_whole(
    tmp_path: Path, clip: Path, model: Callable[[str], Path], family: str
) -> None:
    time = strides_of(model(family))[0]
    latents = []
    # 10 frames: several chunks, then one. Image models take batches of any size, 1 included.
    for chunk in (1 if time == 1 else 1 + time, 33):
        z = tmp_path / f"{chunk}.safetensors"
        answer = wfvae("encode", clip, "-o", z, "--model", model(family), "--chunk", str(chunk))
        assert answer.code == 0, answer
        with LatentFile(z) as file:
            latents.append(file.read())
    torch.testing.assert_close(latents[0], latents[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["wfvae2-image", "kl"])
def test_a_chunk_of_an_image_model_is_a_batch_of_that_many(
    tmp_path: Path, clip: Path, model: Callable[[str], Path], family: str
) -> None:
    z = tmp_path / "z.safetensors"
    assert_refused(wfvae("encode", clip, "-o", z, "-m", model(family), "--chunk", "0"), 2)
    for chunk in ("1", "4"):
        answer = wfvae(
            "encode", clip, "-o", z, "-m", model(family), "--chunk", chunk, "--overwrite"
        )
        assert answer.code == 0, answer
        out = tmp_path / f"{chunk}.mkv"
        assert wfvae("decode", z, "-o", out, "--chunk", chunk, "--codec", "ffv1").code == 0
    with open_clip(tmp_path / "1.mkv") as one, open_clip(tmp_path / "4.mkv") as four:
        for x, y in zip(one, four, strict=True):
            assert np.abs(x.pixels.astype(int) - y.pixels.astype(int)).max() <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_normalized_latents(
    tmp_path: Path, clip: Path, model: Callable[[str], Path], family: str
) -> None:
    raw, normal = tmp_path / "raw.safetensors", tmp_path / "normal.safetensors"
    assert wfvae("encode", clip, "-o", raw, "-m", model(family)).code == 0
    assert wfvae("encode", clip, "-o", normal, "-m", model(family), "--normalize").code == 0
    with LatentFile(raw) as file, LatentFile(normal) as other:
        mean, std = (
            torch.tensor(values[: CHANNELS[family]]).view(-1, 1, 1, 1) for values in (MEAN, STD)
        )
        torch.testing.assert_close(other.read(), (file.read() - mean) / std, atol=1e-5, rtol=0)
    for name, source in (("a.mkv", raw), ("b.mkv", normal)):
        assert wfvae("decode", source, "-o", tmp_path / name, "--codec", "ffv1").code == 0
    with open_clip(tmp_path / "a.mkv") as a, open_clip(tmp_path / "b.mkv") as b:
        for x, y in zip(a, b, strict=True):
            assert np.abs(x.pixels.astype(int) - y.pixels.astype(int)).max() <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_of_any_size(tmp_path: Path, model: Callable[[str], Path], family: str) -> None:
    picture, z, out = tmp_path / "in.png", tmp_path / "z.safetensors", tmp_path / "out.png"
    Image.new("RGB", (37, 21), (200, 30, 90)).save(picture)
    assert wfvae("encode", picture, "-o", z, "-m", model(family)).code == 0
    assert wfvae("decode", z, "-o", out).code == 0
    assert Image.open(out).size == (37, 21)


def test_latents_of_another_family_are_refused(
    tmp_path: Path, clip: Path, model: Callable[[str], Path]
) -> None:
    for family, other in zip(FAMILIES, FAMILIES[1:] + FAMILIES[:1], strict=True):
        z, out = tmp_path / f"{family}.safetensors", tmp_path / "out.mp4"
        assert wfvae("encode", clip, "-o", z, "-m", model(family), "--frames", "1").code == 0
        answer = wfvae("decode", z, "-o", out, "-m", model(other), "--force")
        assert_refused(answer, 3, "give the model that made it with --model")
        assert not out.exists()


def test_wan_without_a_config(tmp_path: Path, clip: Path) -> None:
    state = case_weights("mini-wan")
    save_file(state, tmp_path / "wan.safetensors")
    torch.save(state, tmp_path / "Wan2.1_VAE.pth")
    answer = wfvae(
        "encode", clip, "-o", tmp_path / "z.safetensors", "-m", tmp_path / "wan.safetensors"
    )
    assert answer.code == 0, answer
    assert "taken for a Wan VAE by its tensors" in answer.stderr
    facts = json.loads(wfvae("info", tmp_path / "wan.safetensors", "--json").stdout)
    assert facts["family"] == "wan"
    assert facts["recognised_by"].startswith("tensor names and shapes")

    answer = wfvae("convert", tmp_path / "Wan2.1_VAE.pth", "-o", tmp_path / "wan")
    assert answer.code == 0, answer
    assert "taken for a Wan VAE by its tensors" in answer.stderr
    assert json.loads((tmp_path / "wan" / "config.json").read_text()) == case_config("mini-wan")
    out = tmp_path / "z2.safetensors"
    assert wfvae("encode", clip, "-o", out, "-m", tmp_path / "wan").code == 0
    with LatentFile(tmp_path / "z.safetensors") as a, LatentFile(out) as b:
        assert torch.equal(a.read(), b.read())


def test_wan_beside_the_config_of_its_transformer(tmp_path: Path) -> None:
    torch.save(case_weights("mini-wan"), tmp_path / "Wan2.1_VAE.pth")
    (tmp_path / "config.json").write_text('{"_class_name": "WanModel", "dim": 1536}')
    answer = wfvae("convert", tmp_path / "Wan2.1_VAE.pth", "-o", tmp_path / "wan")
    assert answer.code == 0, answer
    assert "is of WanModel, another model" in " ".join(answer.stderr.split())
    config = json.loads((tmp_path / "wan" / "config.json").read_text())
    assert config["_class_name"] == "WanVAE"


@pytest.mark.parametrize("command", ["info", "convert", "encode"])
def test_other_tensors_without_a_config_name_the_nearest(
    tmp_path: Path, clip: Path, command: str
) -> None:
    file = tmp_path / "x.safetensors"
    save_file(case_weights("mini-wfvae2-video"), file)
    arguments: dict[str, list[str | Path]] = {
        "info": ["info", file],
        "convert": ["convert", file, "-o", tmp_path / "out"],
        "encode": ["encode", clip, "-o", tmp_path / "z.safetensors", "-m", file],
    }
    answer = wfvae(*arguments[command])
    assert_refused(answer, 4, "no config.json beside it", "most like those of WFVAE2Model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.safetensors"]


def test_a_pickle_is_answered_by_how_to_convert_it(tmp_path: Path, clip: Path) -> None:
    pickle = tmp_path / "vae.ckpt"
    torch.save(case_weights("mini-wan"), pickle)
    for answer in (
        wfvae("info", pickle),
        wfvae("encode", clip, "-o", tmp_path / "z.safetensors", "-m", pickle),
    ):
        assert_refused(answer, 4, "is a pickle", "wfvae convert")


def test_convert_to_image(tmp_path: Path, clip: Path, model: Callable[[str], Path]) -> None:
    target = tmp_path / "image"
    answer = wfvae("convert", model("wfvae2"), "-o", target, "--to-image")
    assert answer.code == 0, answer
    words = " ".join(answer.stderr.split())
    assert "exact on still images: the whole encoder" in words
    assert "not exact: decoder.up_blocks" in words
    assert "dB" in words
    assert json.loads((target / "config.json").read_text())["input_type"] == "image"
    answer = wfvae("convert", model("wfvae2"), "-o", target, "--to-image", "--overwrite", "--json")
    distance = json.loads(answer.stdout)["still_distance"]
    assert distance["latents"] < 1e-4
    assert 0 < distance["psnr"] < 100
    latents = []
    for name in (model("wfvae2"), target):  # a clip of one frame: the image model's own case
        z = tmp_path / "z.safetensors"
        arguments = ("encode", clip, "-o", z, "-m", name, "--frames", "1", "--overwrite")
        assert wfvae(*arguments).code == 0
        with LatentFile(z) as file:
            latents.append(file.read())
    torch.testing.assert_close(latents[0], latents[1], atol=1e-4, rtol=0)


def test_what_has_no_image_form_is_refused(tmp_path: Path, model: Callable[[str], Path]) -> None:
    for family, words in (("wan", "only that family"), ("wfvae2-image", "image form already")):
        answer = wfvae("convert", model(family), "-o", tmp_path / "out", "--to-image")
        assert_refused(answer, 2, words)
        assert not (tmp_path / "out").exists()


def test_the_publishers_default_scale_is_a_placeholder(tmp_path: Path, clip: Path) -> None:
    config = case_config("mini-wfvae2-video") | {"scale": [0.18215] * 4, "shift": [0.0] * 4}
    write_checkpoint(tmp_path / "m", case_weights("mini-wfvae2-video"), config)
    answer = wfvae("encode", clip, "-o", tmp_path / "z", "-m", tmp_path / "m", "--normalize")
    assert_refused(answer, 4, "cannot normalise")
    assert "a placeholder, treated as absent" in " ".join(answer.stderr.split())


def test_models_are_listed() -> None:
    rows = json.loads(wfvae("models", "--json").stdout)["models"]
    by_name = {row["name"]: row for row in rows}
    assert by_name["wfvae-tiny"]["embedded"]
    wan = by_name["wan-2.1"]
    assert wan["source"] == "Wan-AI/Wan2.1-T2V-1.3B-Diffusers/vae"
    assert (wan["strides"], wan["channels"], wan["licence"]) == ([4, 8, 8], 16, "Apache-2.0")
    assert wan["cached"] is False
    assert {"wan-2.2", "qwen-image", "ltx-2", "hunyuanvideo-1.5", "flux-2"} <= set(by_name)
    assert by_name["ltx-video"]["licence"] is None  # no source at hand says it
    table = wfvae("models").stdout
    assert all(name in table for name in by_name)


def test_a_name_answers_before_it_goes_to_the_hub(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr("wfvae_cli.models.load.fetch", refuse)
    facts = json.loads(wfvae("info", "wan-2.2", "--json").stdout)
    assert facts["kind"] == "published model"
    assert (facts["strides"], facts["channels"], facts["cached"]) == ([4, 16, 16], 48, False)
    assert facts["licence"] == "Apache-2.0"
    z = tmp_path / "z.safetensors"
    assert wfvae("encode", clip, "-o", z, "--frames", "1").code == 0
    answer = wfvae("decode", z, "-o", tmp_path / "out.mp4", "--model", "wan-2.2")
    assert_refused(answer, 3, "'wan-2.2' is wan22 with 48 channels and strides 4x16x16")


def test_a_model_for_whole_clips_alone(tmp_path: Path, clip: Path) -> None:
    """Of those that diffusers runs: its latents go through files, normalised, and back."""
    name, folder = "AutoencoderKLHunyuanVideo", tmp_path / "model"
    diffusers = pytest.importorskip("diffusers", reason="it runs through diffusers")
    torch.manual_seed(0)
    getattr(diffusers, name).from_config(CONFIGS[name]).save_pretrained(folder)
    raw, normal = tmp_path / "raw.safetensors", tmp_path / "normal.safetensors"
    assert wfvae("encode", clip, "-o", raw, "-m", folder).code == 0
    assert wfvae("encode", clip, "-o", normal, "-m", folder, "--normalize").code == 0
    with LatentFile(raw) as file, LatentFile(normal) as other:
        assert (file.metadata.family, file.shape) == ("hunyuanvideo", (4, 4, 6, 8))
        torch.testing.assert_close(other.read(), file.read() * 0.476986)
    for number, source in enumerate((raw, normal)):
        out = tmp_path / f"{number}.mkv"
        assert wfvae("decode", source, "-o", out, "--codec", "ffv1").code == 0
    with open_clip(tmp_path / "0.mkv") as a, open_clip(tmp_path / "1.mkv") as b:
        for x, y in zip(a, b, strict=True):
            assert np.abs(x.pixels.astype(int) - y.pixels.astype(int)).max() <= 1
    answer = wfvae("encode", clip, "-o", raw, "-m", folder, "--chunk", "5", "--overwrite")
    assert_refused(answer, 2, "takes whole clips only: its GroupNorm takes statistics over")
    assert "whole" in json.dumps(json.loads(wfvae("info", folder, "--json").stdout))


LENGTHS = {"allegro": (24, 16, 6, 4), "minimax-h3": (22, 17, 7, 5)}
"""The shortest clip and the steps between lengths; of latents the same."""
OWN_LENGTHS = {"allegro": "AutoencoderKLAllegro", "minimax-h3": "AutoencoderKLMiniMaxH3"}


@pytest.fixture(scope="module")
def own_lengths(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model whose clips have lengths of their own."""
    diffusers = pytest.importorskip("diffusers", reason="they run through diffusers")
    root = tmp_path_factory.mktemp("own-lengths")

    def make(family: str) -> Path:
        folder, name = root / family, OWN_LENGTHS[family]
        if not folder.exists():
            torch.manual_seed(0)
            getattr(diffusers, name).from_config(CONFIGS[name]).save_pretrained(folder)
        return folder

    return make


@pytest.mark.parametrize(
    ("family", "shape", "padding"),
    [("allegro", (4, 6, 16, 16), (14, 64, 80)), ("minimax-h3", (4, 7, 3, 4), (12, 0, 0))],
)
def test_a_clip_is_padded_to_a_length_that_the_model_takes_and_cut_back(
    tmp_path: Path,
    clip: Path,
    own_lengths: Callable[[str], Path],
    family: str,
    shape: tuple[int, ...],
    padding: tuple[int, int, int],
) -> None:
    model, z, out = own_lengths(family), tmp_path / "z.safetensors", tmp_path / "out.mkv"
    answer = wfvae("encode", clip, "-o", z, "--model", model, "--normalize")
    assert answer.code == 0, answer
    with LatentFile(z) as file:
        meta = file.metadata
        assert (meta.family, file.shape, meta.frames) == (family, shape, 10)
        assert (meta.pad_frames, meta.pad_right, meta.pad_bottom) == padding
    frames, more, latents, more_latents = LENGTHS[family]
    clips = {"clip_frames": f"{frames} + {more}k", "clip_latents": f"{latents} + {more_latents}k"}
    facts = json.loads(wfvae("info", z, "--json").stdout)
    time, height, width = strides_of(model)
    assert facts["strides"] == {"time": time, "height": height, "width": width, **clips}
    assert clips.items() <= json.loads(wfvae("info", model, "--json").stdout).items()
    assert wfvae("decode", z, "-o", out, "--codec", "ffv1").code == 0
    with open_clip(out) as decoded, open_clip(clip) as original:
        times = [frame.pts * original.info.time_base for frame in original]
        assert [frame.pts * decoded.info.time_base for frame in decoded] == times
        assert (decoded.info.width, decoded.info.height) == (64, 48)
    answer = wfvae("roundtrip", clip, "-o", tmp_path / "again.mkv", "-m", model, "--json")
    assert answer.code == 0, answer
    assert json.loads(answer.stdout)["frames"] == 10


@pytest.mark.parametrize("family", ["allegro", pytest.param("minimax-h3", marks=pytest.mark.slow)])
def test_a_dataset_of_a_model_with_lengths_of_its_own(
    tmp_path: Path, clip: Path, own_lengths: Callable[[str], Path], family: str
) -> None:
    model, folder, out = own_lengths(family), tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "clip.mp4").write_bytes(clip.read_bytes())
    Image.new("RGB", (48, 40), (200, 30, 90)).save(folder / "still.png")
    told = json.loads(wfvae("encode", folder, "-o", out, "-m", model, "--dry-run", "--json").stdout)
    assert (told["frames"], told["outputs"]) == (11, 2)
    answer = wfvae("encode", folder, "-o", out, "-m", model)
    assert answer.code == 0, answer
    values = 0
    for name in out.glob("*.safetensors"):
        with LatentFile(name) as file:
            values += math.prod(file.shape)
    assert told["bytes"] == 4 * values + 2 * 2048  # headers are estimated
    answer = wfvae("audit", out, "--source", folder, "--json")
    assert answer.code == 0, answer
    assert {each["kind"] for each in json.loads(answer.stdout)["comparisons"]} == {"equal"}
    for source in (folder, out):  # of videos, and of latents
        report = tmp_path / "stats.json"
        answer = wfvae("stats", source, "-o", report, "-m", model, "--overwrite")
        assert answer.code == 0, answer
        assert json.loads(report.read_text())["clips"] == 2
    back = tmp_path / "back"
    assert wfvae("decode", out, "-o", back).code == 0
    assert Image.open(next(back.glob("still*"))).size == (48, 40)


@pytest.mark.parametrize(
    ("family", "options", "words"),
    [
        ("allegro", ["--buckets", "128x128x25"], ["24 + 16k frames", "nearest: 128x128x24"]),
        ("allegro", ["--buckets", "160x128x24"], ["(128 + 48k)x(128 + 8k) pixels", "176x128x24"]),
        ("minimax-h3", ["--buckets", "64x48x33"], ["22 + 17k frames", "(nearest: 64x48x39)"]),
        ("minimax-h3", ["--buckets", "64x48"], ["22 + 17k frames", "(nearest: 64x48x22)"]),
        ("allegro", ["--chunk", "24"], ["takes whole clips only: its tiles overlap in time"]),
        ("minimax-h3", ["--chunk", "22"], ["takes whole clips only: its groups of frames"]),
        ("allegro", ["--tile", "128"], ["into overlapping tiles of its own: leave --tile out"]),
    ],
)
def test_lengths_and_sizes_that_a_model_does_not_take_are_told(
    tmp_path: Path,
    clip: Path,
    own_lengths: Callable[[str], Path],
    family: str,
    options: list[str],
    words: list[str],
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "clip.mp4").write_bytes(clip.read_bytes())
    answer = wfvae("encode", folder, "-o", out, "-m", own_lengths(family), *options)
    assert_refused(answer, 2, *words)
    assert not list(out.glob("*.safetensors"))


def test_named_models_say_which_lengths_they_take(tmp_path: Path, clip: Path) -> None:
    rows = {row["name"]: row for row in json.loads(wfvae("models", "--json").stdout)["models"]}
    assert rows["allegro"]["clip_frames"] == "24 + 16k"
    assert rows["minimax-h3"]["clip_latents"] == "7 + 5k"
    assert "clip_frames" not in rows["wan-2.1"]
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "clip.mp4").write_bytes(clip.read_bytes())
    answer = wfvae(
        "encode", folder, "-o", tmp_path / "out", "-m", "allegro", "--buckets", "1280x704x88"
    )
    assert_refused(answer, 2, "(320 + 240k)x(320 + 200k) pixels", "(nearest: 1280x720x88)")


def test_models_in_the_cache_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name, wanted in (("config.json", False), ("diffusion_pytorch_model.safetensors", True)):
        repository = tmp_path / "models--stabilityai--sdxl-vae"
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / "main").write_text("a" * 40)
        folder = repository / "snapshots" / ("a" * 40)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
        rows = json.loads(wfvae("models", "--json").stdout)["models"]
        cached = {row["name"] for row in rows if row["cached"]}
        assert cached == ({"sdxl-vae"} if wanted else set())  # half a download is none


def test_quiet_hides_the_bars_of_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "HF_HUB_DISABLE_PROGRESS_BARS"
    monkeypatch.setenv(name, "0")
    wfvae("convert", tmp_path / "absent.ckpt", "-o", tmp_path / "out")
    assert os.environ[name] == "0"
    wfvae("convert", tmp_path / "absent.ckpt", "-o", tmp_path / "out", "--quiet")
    assert os.environ[name] == "1"
