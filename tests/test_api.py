"""What `import wfvae_cli` offers, on tensors and datasets."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import wfvae_cli as wfvae
from tests.cli.reports import scenery
from tests.media.conftest import write_clip
from tests.models.diffusers_configs import CONFIGS
from wfvae_cli import api
from wfvae_cli.models.base import LoadedModel


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return wfvae.load_model(device="cpu")


@pytest.fixture(scope="module")
def frames() -> Tensor:
    """Eleven frames of 44x28, which no stride divides."""
    pictures = [torch.from_numpy(picture) for picture in scenery(1, 11, 44, 28)]
    return torch.stack(pictures).permute(0, 3, 1, 2)


def test_names_and_errors_are_there_without_torch() -> None:
    code = "import sys, wfvae_cli as w; w.WfvaeError; assert 'torch' not in sys.modules; w.encode"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path.cwd())
    assert set(wfvae.__all__) >= {"encode", "decode", "roundtrip", "compare", "encode_dataset"}
    assert all(getattr(wfvae, name) is not None for name in wfvae.__all__)


def test_there_and_back(model: LoadedModel, frames: Tensor) -> None:
    z = wfvae.encode(frames, model)
    assert z.shape == (16, 4, 4, 6) and z.dtype == torch.float32
    decoded = wfvae.decode(z, model, frames=11, size=(44, 28))
    assert decoded.shape == frames.shape and decoded.dtype == torch.uint8
    again, scores = wfvae.roundtrip(frames, model)
    assert torch.equal(again, decoded)
    assert (scores.frames, scores.width, scores.height) == (11, 44, 28)
    assert scores.psnr == wfvae.compare(frames, decoded).psnr > 15


def test_a_model_with_lengths_of_its_own_pads_and_cuts_alike(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="it runs through diffusers")
    config = CONFIGS["AutoencoderKLMiniMaxH3"]
    diffusers.AutoencoderKLMiniMaxH3.from_config(config).save_pretrained(tmp_path)
    frames = torch.randint(0, 256, (23, 3, 20, 37), dtype=torch.uint8)
    z = wfvae.encode(frames, str(tmp_path))
    assert z.shape == (4, 12, 2, 3)  # 39 frames of 48x32
    assert wfvae.decode(z, str(tmp_path), frames=23, size=(37, 20)).shape == frames.shape
    with pytest.raises(wfvae.UsageError, match=r"4 channels and 7 \+ 5k frames"):
        wfvae.decode(z[:, :11], str(tmp_path))


def test_chunks_and_floats_change_nothing(model: LoadedModel, frames: Tensor) -> None:
    whole = wfvae.encode(frames, model)
    floats = wfvae.encode(frames.float() / 127.5 - 1, model, chunk=5)
    torch.testing.assert_close(whole, floats, atol=1e-5, rtol=0)
    both = (wfvae.decode(whole, model), wfvae.decode(whole, model, chunk=5))
    assert (both[0].int() - both[1].int()).abs().max() <= 1


def test_a_file_has_the_same_latents(model: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    clip, out = write_clip(tmp_path / "in/a.mp4", 6), tmp_path / "z"
    summary = wfvae.encode_dataset([clip.parent], out)
    assert (summary.done, summary.failed) == (1, 0)
    with wfvae.open_clip(clip) as reader:
        pixels = torch.stack([torch.from_numpy(frame.in_rgb()) for frame in reader])
    with wfvae.LatentFile(out / "a.mp4.safetensors") as file:
        stored = file.read()
    z = wfvae.encode(pixels.permute(0, 3, 1, 2), model)
    torch.testing.assert_close(z, stored, atol=1e-4, rtol=0)
    of_file, of_tensor = wfvae.latent_stats([out / "a.mp4.safetensors"]), wfvae.latent_stats([z])
    assert of_file.mean == pytest.approx(of_tensor.mean, abs=1e-4)
    assert of_file.clips == 1


def test_mistakes(model: LoadedModel, frames: Tensor) -> None:
    with pytest.raises(wfvae.UsageError, match="TCHW with 3 channels"):
        wfvae.encode(frames[0], model)
    with pytest.raises(wfvae.UsageError, match="uint8, or in"):
        wfvae.encode(frames.long(), model)
    with pytest.raises(wfvae.UsageError, match="one shape"):
        wfvae.compare(frames, frames[:3])
    with pytest.raises(wfvae.UsageError, match="one of each"):
        wfvae.compare(frames, "a.mp4")
    with pytest.raises(wfvae.InputError):
        wfvae.latent_stats([])


def test_examples() -> None:
    found = doctest.testmod(api, extraglobs={"wfvae_cli": wfvae, "torch": torch})
    assert found.attempted >= 4 and not found.failed
