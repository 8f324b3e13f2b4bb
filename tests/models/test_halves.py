"""Loading what one task needs: the other half of a model stays in its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.models.tiny import HAAR, tiny_state, write_checkpoint, write_shards
from tests.parity.cases import case_config, case_weights
from wfvae_cli.errors import UsageError, WeightsError
from wfvae_cli.models.base import LoadedModel, Task
from wfvae_cli.models.load import load_model
from wfvae_cli.nn.stream import Stream

FAMILIES = ("mini-wfvae-trilinear", "mini-wfvae2-image", "mini-wan", "mini-wan22")


def load(folder: Path, task: Task = "both", dtype: str = "float32") -> LoadedModel:
    return load_model(str(folder), device="cpu", dtype=dtype, task=task)  # type: ignore[arg-type]


def write_case(folder: Path, case: str) -> Path:
    return write_checkpoint(folder, case_weights(case), case_config(case))


def run(model: LoadedModel, task: Task) -> Tensor:
    """What a model makes of the same input every time."""
    generator = torch.Generator().manual_seed(0)
    vae = model.vae
    with torch.inference_mode():
        if task == "encode":
            frames = 1 + vae.strides.time
            x = torch.rand(1, 3, frames, 32, 32, generator=generator) * 2 - 1
            return torch.cat(vae.encode(x.to(model.dtype_of("encode")), Stream.whole()), dim=1)
        z = torch.randn(1, vae.latent_channels, 2, 4, 4, generator=generator)
        return vae.decode(z.to(model.dtype_of("decode")), Stream.whole())


@pytest.mark.parametrize("case", FAMILIES)
def test_each_half_gives_what_the_whole_gives_and_the_two_make_it(
    tmp_path: Path, case: str
) -> None:
    folder = write_case(tmp_path, case)
    whole, encoder, decoder = (load(folder, task) for task in ("both", "encode", "decode"))
    assert torch.equal(run(encoder, "encode"), run(whole, "encode"))
    assert torch.equal(run(decoder, "decode"), run(whole, "decode"))
    assert 0 < encoder.nbytes < whole.nbytes
    assert encoder.nbytes + decoder.nbytes == whole.nbytes
    assert encoder.sha256 == decoder.sha256 == whole.sha256
    assert encoder.dtype_of("encode") == decoder.dtype_of("decode") == torch.float32
    assert encoder.device.type == decoder.device.type == "cpu"


def test_kl_models_load_by_halves_too(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    diffusers.AutoencoderKL(
        block_out_channels=[8, 8, 8, 8],
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        norm_num_groups=4,
        latent_channels=4,
    ).save_pretrained(tmp_path)
    whole, encoder, decoder = (load(tmp_path, task) for task in ("both", "encode", "decode"))
    assert torch.equal(run(encoder, "encode"), run(whole, "encode"))
    assert torch.equal(run(decoder, "decode"), run(whole, "decode"))
    assert encoder.nbytes + decoder.nbytes == whole.nbytes


def test_the_missing_half_says_so(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, tiny_state())
    with pytest.raises(UsageError, match=r"loaded to encode only and cannot decode: .*'both'"):
        run(load(folder, "encode"), "decode")
    with pytest.raises(UsageError, match=r"loaded to decode only and cannot encode: .*'both'"):
        run(load(folder, "decode"), "encode")


def test_names_and_shapes_of_the_missing_half_are_checked(tmp_path: Path) -> None:
    state = tiny_state()
    state["decoder.conv_out.bias"] = torch.zeros(9)
    del state["decoder.conv_in.conv.bias"]
    with pytest.raises(WeightsError) as caught:
        load(write_checkpoint(tmp_path, state), "encode")
    assert "decoder.conv_out.bias [9], expected [24]" in str(caught.value)
    assert "missing:\n  decoder.conv_in.conv.bias" in str(caught.value)


def test_constants_are_checked_in_both_halves(tmp_path: Path) -> None:
    state = tiny_state()
    state[HAAR[0]] = 2 * state[HAAR[0]]  # the encoder's
    with pytest.raises(WeightsError, match="is a constant of the architecture"):
        load(write_checkpoint(tmp_path, state), "decode")


def test_the_missing_half_is_not_read(tmp_path: Path) -> None:
    """What only a half holds, and only that half's values would show, is no error here."""
    state = tiny_state(dtype=torch.float32)
    state["decoder.conv_out.bias"][0] = 1e6  # beyond float16
    folder = write_checkpoint(tmp_path, state)
    assert load(folder, "encode", "float16").dtype_of("encode") == torch.float16
    with pytest.raises(WeightsError, match="beyond what float16 holds"):
        load(folder, "decode", "float16")


def test_shards_of_the_missing_half_are_hashed_but_not_loaded(tmp_path: Path) -> None:
    state = tiny_state()
    write_shards(tmp_path / "mixed", state)
    folder = tmp_path / "halves"
    folder.mkdir()
    (folder / "config.json").write_text((tmp_path / "mixed/config.json").read_text())
    weight_map: dict[str, str] = {}
    for number, half in enumerate(("decoder.", "encoder."), start=1):
        file = f"diffusion_pytorch_model-{number:05}-of-00002.safetensors"
        part = {name: value for name, value in state.items() if name.startswith(half)}
        save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    for at in (tmp_path / "mixed", folder):
        encoder, whole = load(at, "encode"), load(at)
        assert torch.equal(run(encoder, "encode"), run(whole, "encode"))
        assert encoder.sha256 == whole.sha256
        assert encoder.nbytes < whole.nbytes


@pytest.mark.parametrize("case", FAMILIES)
def test_auto_encodes_in_float32_and_decodes_in_bfloat16_where_that_is_fast(
    tmp_path: Path,
    case: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "wfvae")
    monkeypatch.setattr("wfvae_cli.models.load.multiplies_bfloat16", lambda device: True)
    folder = write_case(tmp_path, case)
    mixed = load(folder, dtype="auto")
    assert caplog.messages == [
        "decoding in bfloat16, which is fast on cpu: --dtype float32 is exact"
    ]
    caplog.clear()
    encoder = load(folder, "encode", "auto")
    assert caplog.messages == []
    decoder = load(folder, "decode", "bfloat16")
    assert mixed.nbytes == encoder.nbytes + decoder.nbytes
    assert mixed.compute_dtype == "float32, bfloat16"
    assert mixed.compute_dtype_of("encode") == encoder.compute_dtype == "float32"
    assert mixed.compute_dtype_of("decode") == decoder.compute_dtype == "bfloat16"
    assert mixed.value_bytes == 4
    mean, _ = run(mixed, "encode").chunk(2, dim=1)
    assert torch.equal(run(mixed, "encode"), run(encoder, "encode"))
    with torch.inference_mode():
        decoded = mixed.vae.decode(mean, Stream.whole())
        expected = decoder.vae.decode(mean, Stream.whole())
    assert decoded.dtype == torch.bfloat16
    assert torch.equal(decoded, expected)
