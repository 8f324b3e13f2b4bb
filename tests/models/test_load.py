from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.models.tiny import CONFIG, HAAR, tiny_state, write_checkpoint, write_shards
from wfvae_cli.errors import DeviceError, WeightsError
from wfvae_cli.models.base import Posterior, VideoVAE
from wfvae_cli.models.checkpoint import weights_sha256
from wfvae_cli.models.load import (
    allow_tf32,
    describe_checkpoint,
    load_model,
    normalization_of,
    resolve_device,
    resolve_dtypes,
)
from wfvae_cli.models.weights import match_tensors, read_tensors
from wfvae_cli.nn.stream import Stream


def loads(folder: Path, **options: Any) -> VideoVAE:
    return load_model(str(folder), device="cpu", **options).vae


def same_weights(vae: VideoVAE, state: dict[str, Tensor]) -> bool:
    loaded = vae.state_dict()
    return loaded.keys() == state.keys() - set(HAAR) and all(
        torch.equal(value, state[name].to(value.dtype)) for name, value in loaded.items()
    )


def test_the_default_is_the_embedded_model_and_it_runs() -> None:
    model = load_model(device="cpu")
    assert (model.name, model.device.type) == ("wfvae-tiny", "cpu")
    assert model.dtype_of("encode") == torch.float32
    assert model.config["latent_dim"] == 16
    assert len(model.sha256) == 64
    with torch.inference_mode():
        mean = model.vae.encode(torch.zeros(1, 3, 1, 16, 16), Stream.whole()).mean
        video = model.vae.decode(mean, Stream.whole())
    assert video.shape == (1, 3, 1, 16, 16)
    assert bool(video.isfinite().all())


def test_weights_arrive_unchanged_and_frozen(tmp_path: Path) -> None:
    state = tiny_state()
    model = load_model(str(write_checkpoint(tmp_path, state)), device="cpu")
    assert same_weights(model.vae, state)
    assert not model.vae.training
    assert not any(value.requires_grad for value in model.vae.parameters())
    assert model.sha256 == weights_sha256([tmp_path / "diffusion_pytorch_model.safetensors"])
    assert model.config == CONFIG
    assert model.name == str(tmp_path)


def test_convolutions_are_laid_out_channels_last(tmp_path: Path) -> None:
    vae = loads(write_checkpoint(tmp_path, tiny_state()))
    assert {value.ndim for value in vae.parameters()} >= {4, 5}
    for value in vae.parameters():
        if value.ndim == 4:
            assert value.is_contiguous(memory_format=torch.channels_last)
        if value.ndim == 5:
            # Whole, or tap by tap where a CPU convolves so.
            assert value.is_contiguous(memory_format=torch.channels_last_3d) or all(
                tap.is_contiguous(memory_format=torch.channels_last) for tap in value.unbind(dim=2)
            )


def test_shards_and_a_single_file_load_the_same(tmp_path: Path) -> None:
    state = tiny_state()
    write_shards(tmp_path / "sharded", state)
    file = write_checkpoint(tmp_path / "whole", state) / "diffusion_pytorch_model.safetensors"
    sharded, whole = load_model(str(tmp_path / "sharded"), device="cpu"), loads(file)
    assert same_weights(sharded.vae, state)
    assert same_weights(whole, state)
    assert sharded.sha256 != weights_sha256([file])


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("wanted", ["float32", "bfloat16", "float16"])
def test_any_float_type_becomes_the_one_asked_for(
    tmp_path: Path, stored: torch.dtype, wanted: str
) -> None:
    state = tiny_state(dtype=stored)
    vae = loads(write_checkpoint(tmp_path, state), dtype=wanted)
    assert {value.dtype for value in vae.parameters()} == {getattr(torch, wanted)}
    assert same_weights(vae, state)


def test_haar_tensors_may_be_absent(tmp_path: Path) -> None:
    state = {name: value for name, value in tiny_state().items() if name not in HAAR}
    assert same_weights(loads(write_checkpoint(tmp_path, state)), state)


def test_a_config_without_class_name_is_recognised_by_its_tensors(tmp_path: Path) -> None:
    config = {key: value for key, value in CONFIG.items() if key != "_class_name"}
    assert loads(write_checkpoint(tmp_path, tiny_state(), config)).family == "wfvae"


def test_haar_tensors_must_be_the_constants(tmp_path: Path) -> None:
    state = tiny_state()
    state[HAAR[-1]] = state[HAAR[-1]] * (8**-0.5 / 0.3536)
    with pytest.raises(WeightsError, match=r"gh_v_conv.* is a constant .* differs .* by 4.6\de-05"):
        loads(write_checkpoint(tmp_path, state))


def test_missing_unexpected_and_misshapen_tensors_are_all_listed(tmp_path: Path) -> None:
    state = tiny_state()
    del state["decoder.conv_out.bias"]
    state["decoder.stray"] = torch.zeros(3)
    state["encoder.conv_out.conv.bias"] = torch.zeros(9)
    state["encoder.down1.0.bias"] = torch.zeros(8, dtype=torch.int64)
    state[HAAR[0]] = torch.zeros(1, 2, 2)
    with pytest.raises(WeightsError) as caught:
        loads(write_checkpoint(tmp_path, state))
    message = str(caught.value)
    assert "1 tensor is missing:\n  decoder.conv_out.bias [24]" in message
    assert "1 tensor is unexpected:\n  decoder.stray [3]" in message
    assert "2 tensors are of another shape" in message
    assert "encoder.conv_out.conv.bias [9], expected [8]" in message
    assert f"{HAAR[0]} [1, 2, 2], expected [1, 1, 2, 2]" in message
    assert "encoder.down1.0.bias I64" in message


def test_a_config_that_contradicts_its_tensors_names_the_fields(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        loads(write_checkpoint(tmp_path, tiny_state(), CONFIG | {"base_channels": 16}))
    message = str(caught.value)
    assert "of another shape than the model's" in message
    assert "… and " in message, "a long list is cut"
    assert "base_channels=16" in message
    assert len(message.splitlines()) < 60


def test_missing_blocks_are_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"tensors are missing:\n  encoder.down1"):
        loads(write_checkpoint(tmp_path, tiny_state(), CONFIG | {"encoder_num_resblocks": 2}))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    state = tiny_state()
    state["encoder.down1.0.bias"][3] = value
    with pytest.raises(WeightsError, match=r"encoder.down1.0.bias .* 1 values that are NaN"):
        loads(write_checkpoint(tmp_path, state))


def test_values_beyond_float16_are_refused_in_float16_only(tmp_path: Path) -> None:
    state = tiny_state()
    state["encoder.down1.0.bias"][3] = 1e6
    folder = write_checkpoint(tmp_path, state)
    with pytest.raises(WeightsError, match="beyond what float16 holds"):
        loads(folder, dtype="float16")
    assert same_weights(loads(folder, dtype="bfloat16"), state)


def test_a_pickle_named_safetensors_is_not_run(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, tiny_state())
    torch.save(tiny_state(), tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(WeightsError, match=r"is a pickle.*not executed.*wfvae convert"):
        loads(tmp_path)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path, tiny_state()) / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="damaged or truncated"):
        loads(tmp_path)


def test_an_unknown_family_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, tiny_state(), CONFIG | {"_class_name": "CausalVAEModel"})
    with pytest.raises(WeightsError, match="'CausalVAEModel', which is not supported; supported"):
        loads(tmp_path)


class Renaming(VideoVAE):
    """A family whose checkpoints use other names than its module, as diffusers' forms do."""

    family = "renaming"

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(2))
        self.bias = torch.nn.Parameter(torch.zeros(2))

    @classmethod
    def from_config(cls, config: Any) -> Renaming:
        return cls()

    @classmethod
    def rename(cls, names: Any) -> dict[str, str]:
        return {name: {"old.scale": "scale", "old.bias": "bias"}.get(name, name) for name in names}

    def _encode(self, frames: Tensor, stream: Stream) -> Posterior:
        raise NotImplementedError

    def _decode(self, latents: Tensor, stream: Stream) -> Tensor:
        raise NotImplementedError


def test_tensors_are_matched_under_the_names_of_the_family(tmp_path: Path) -> None:
    from wfvae_cli.models.checkpoint import read_entries

    save_file({"old.scale": torch.ones(2), "bias": torch.ones(2)}, tmp_path / "x.safetensors")
    entries = read_entries([tmp_path / "x.safetensors"])
    matching = match_tensors(Renaming(), entries, {}, "x")
    assert matching.parameters == {"old.scale": "scale", "bias": "bias"}
    save_file(
        {"old.scale": torch.ones(2), "scale": torch.ones(2), "bias": torch.ones(2)},
        tmp_path / "x.safetensors",
    )
    with pytest.raises(WeightsError, match=r"1 tensor is given twice:\n  (old\.)?scale, the same"):
        match_tensors(Renaming(), read_entries([tmp_path / "x.safetensors"]), {}, "x")


def test_tensors_read_own_their_memory(tmp_path: Path) -> None:
    from wfvae_cli.models.checkpoint import read_entries

    path = tmp_path / "x.safetensors"
    save_file({"a": torch.arange(4.0), "s": torch.tensor(2.0)}, path)
    read = dict(read_tensors(read_entries([path]), ["a", "s"]))
    path.write_bytes(b"overwritten")
    assert torch.equal(read["a"], torch.arange(4.0))
    assert read["s"].shape == ()


def test_a_checkpoint_is_described_without_loading_it(tmp_path: Path) -> None:
    state = tiny_state(dtype=torch.float16) | {HAAR[0]: tiny_state()[HAAR[0]]}
    folder = write_checkpoint(tmp_path, state, CONFIG | {"scale": [2.0] * 4, "shift": [0.5] * 4})
    described = json.loads(json.dumps(describe_checkpoint(str(folder))))
    file = folder / "diffusion_pytorch_model.safetensors"
    assert described == {
        "path": str(file),
        "family": "wfvae",
        "recognised_by": "config.json: _class_name WFVAEModel",
        "strides": [4, 8, 8],
        "latent_channels": 4,
        "parameters": sum(value.numel() for name, value in state.items() if name not in HAAR),
        "dtypes": ["F16"],
        "bytes": file.stat().st_size,
        "sha256": weights_sha256([file]),
        "normalization": {"shift": [0.5] * 4, "scale": [2.0] * 4},
        "whole_clip_only": None,
        "state_growth_per_latent": None,
        "config": json.loads((folder / "config.json").read_text()),
    }


def test_normalisation_comes_from_the_config_or_is_an_error(tmp_path: Path) -> None:
    fields = {"scale": [2.0] * 4, "shift": [0.5] * 4}
    with_scale = write_checkpoint(tmp_path / "with", tiny_state(), CONFIG | fields)
    assert normalization_of(load_model(str(with_scale), device="cpu")).scale == (2.0,) * 4
    without = write_checkpoint(tmp_path / "without", tiny_state())
    with pytest.raises(WeightsError, match="no shift and scale for its 4 channels"):
        normalization_of(load_model(str(without), device="cpu"))


def pretend(monkeypatch: pytest.MonkeyPatch, kind: str | None, count: int = 0) -> None:
    """Have PyTorch find `count` accelerators of one kind."""
    found = None if kind is None else torch.device(kind)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: found)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_accelerators_are_devices_like_others(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    pretend(monkeypatch, kind, 2)
    assert resolve_device("auto") == resolve_device(kind) == torch.device(kind)
    assert resolve_device(f"{kind}:1") == torch.device(kind, 1)
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(DeviceError) as caught:
        resolve_device(f"{kind}:2")
    name = kind.upper()
    assert str(caught.value) == f"{name}:2 not available; devices: cpu, {kind}, {kind}:0, {kind}:1"


def test_mps_is_used_when_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "mps", 1)
    assert resolve_device("auto") == torch.device("cpu")
    assert resolve_device("mps") == torch.device("mps")


@pytest.mark.parametrize("kind", [None, "cuda"])
def test_without_an_accelerator_there_is_the_cpu(
    monkeypatch: pytest.MonkeyPatch, kind: str | None
) -> None:
    """PyTorch may be built for CUDA and find none."""
    pretend(monkeypatch, kind)
    assert resolve_device("auto") == torch.device("cpu")
    for device in ("cuda", "npu"):
        with pytest.raises(DeviceError) as caught:
            resolve_device(device)
        assert str(caught.value) == f"{device.upper()} not available; devices: cpu"


@pytest.mark.parametrize("device", ["gpu", "meta", "", "cuda:x", "cuda:", "CUDA"])
def test_an_unknown_device_lists_what_there_is(device: str) -> None:
    with pytest.raises(DeviceError, match=r"expected auto, cpu, cuda, .*; devices: cpu"):
        load_model(device=device)


def test_an_absent_processor_is_told() -> None:
    with pytest.raises(DeviceError, match="CPU:7 not available; devices: cpu"):
        load_model(device="cpu:7")


@pytest.mark.parametrize("fast", [True, False])
def test_types_are_resolved_for_each_half(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    devices = [torch.device(kind) for kind in ("cpu", "cuda", "xpu")]
    backend = SimpleNamespace(is_bf16_supported=lambda: fast)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: fast)
    monkeypatch.setattr(torch, "get_device_module", lambda device: backend)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    lacking = frozenset() if fast else frozenset([torch.bfloat16])
    monkeypatch.setattr("wfvae_cli.nn.arithmetic.WITHOUT_INSTRUCTIONS", lacking)
    decoding = torch.bfloat16 if fast else torch.float32
    for device in devices:
        assert resolve_dtypes("auto", device) == (torch.float32, decoding)
        assert resolve_dtypes("float32", device) == (torch.float32, torch.float32)
        assert resolve_dtypes("float16", device) == (torch.float16, torch.float16)


def test_a_backend_that_does_not_tell_decodes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace())
    assert resolve_dtypes("auto", torch.device("mps")) == (torch.float32, torch.float32)


def test_tf32_is_switched_in_one_place() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    try:
        for allowed, precision in ((True, "high"), (False, "highest")):
            allow_tf32(allowed)
            assert torch.backends.cudnn.allow_tf32 is allowed
            assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_loading_holds_the_weights_once(tmp_path: Path) -> None:
    """Peak memory grows by the weights and little more: no second copy beside them."""
    from wfvae_cli.models.wfvae import WFVAE

    config = CONFIG | {"base_channels": 96, "latent_dim": 16}
    with torch.device("meta"):
        shapes = {
            name: value.shape for name, value in WFVAE.from_config(config).state_dict().items()
        }
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    size = sum(value.numel() for value in state.values()) * 4
    assert size > 200e6
    write_checkpoint(tmp_path, state, config)
    program = (
        "from wfvae_cli.models.load import load_model\n"
        "def peak(): return next(int(line.split()[1]) * 1024 "
        "for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "load_model(device='cpu'); before = peak()\n"
        f"model = load_model({str(tmp_path)!r}, device='cpu'); print(peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        # What is freed goes back at once: holes in the C library's heap are not the question.
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)},
    )
    assert int(done.stdout) < 1.25 * size, json.dumps({"size": size, "grew": done.stdout})


def test_types_without_instructions_are_told_and_planned_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "wfvae")
    for lacking, expected in ((frozenset(), 2), (frozenset([torch.bfloat16]), 4)):
        monkeypatch.setattr("wfvae_cli.nn.arithmetic.WITHOUT_INSTRUCTIONS", lacking)
        assert load_model(device="cpu", dtype="bfloat16").value_bytes == expected
        assert ("this processor convolves bfloat16 in float32" in caplog.text) == (expected == 4)
