from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tests.models.tiny import CONFIG, HAAR, tiny_state, write_checkpoint
from wfvae_cli.errors import OutputError, WeightsError
from wfvae_cli.models.convert import ConvertReport, convert, write_safetensors
from wfvae_cli.models.load import load_model

WEIGHTS = "diffusion_pytorch_model.safetensors"


def save(folder: Path, content: Any, config: Any = CONFIG, **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    torch.save(content, folder / "merged.ckpt", **options)
    return folder / "merged.ckpt"


def module(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": value for name, value in state.items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        value.dtype == second[name].dtype and torch.equal(value, second[name])
        for name, value in first.items()
    )


GENERATOR, AVERAGE = tiny_state(1), tiny_state(2)
TRAINING = {
    "epoch": 3,
    "current_step": 10,
    "optimizer_state": {"gen_optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}},
    "state_dict": {"gen_model": GENERATOR, "dics_model": {"w": torch.zeros(1)}},
}


@pytest.mark.parametrize(
    ("content", "source", "expected"),
    [
        (TRAINING | {"ema_state_dict": module(AVERAGE)}, "ema_state_dict", AVERAGE),
        (TRAINING | {"ema_state_dict": {}}, "state_dict.gen_model", GENERATOR),
        (TRAINING | {"ema_state_dict": None}, "state_dict.gen_model", GENERATOR),
        (TRAINING, "state_dict.gen_model", GENERATOR),
        ({"state_dict": {"gen_model": module(GENERATOR)}}, "state_dict.gen_model", GENERATOR),
        ({"state_dict": GENERATOR}, "state_dict", GENERATOR),
        (OrderedDict(GENERATOR), "plain", GENERATOR),
    ],
)
def test_the_best_weights_of_a_training_checkpoint_are_taken(
    tmp_path: Path, content: Any, source: str, expected: dict[str, Tensor]
) -> None:
    report = convert(save(tmp_path / "in", content), tmp_path / "out")
    assert equal(load_file(tmp_path / "out" / WEIGHTS), expected)
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == CONFIG
    weights = [value for name, value in expected.items() if name not in HAAR]
    assert report == ConvertReport(
        output=tmp_path / "out",
        family="wfvae",
        source=source,
        tensors=len(expected),
        parameters=sum(value.numel() for value in weights),
    )
    assert report.ema == (source == "ema_state_dict")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", WEIGHTS]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_was_converted_loads(tmp_path: Path, dtype: torch.dtype) -> None:
    state = tiny_state(dtype=dtype)
    convert(save(tmp_path / "in", state), tmp_path / "out")
    vae = load_model(str(tmp_path / "out"), device="cpu").vae
    assert all(torch.equal(value, state[name].float()) for name, value in vae.named_parameters())


def test_files_of_old_pytorch_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "in", GENERATOR, _use_new_zipfile_serialization=False)
    convert(path, tmp_path / "out")
    assert equal(load_file(tmp_path / "out" / WEIGHTS), GENERATOR)


def test_the_config_may_be_elsewhere(tmp_path: Path) -> None:
    path = save(tmp_path / "in", GENERATOR, config=None)
    with pytest.raises(WeightsError, match=r"no config.json beside it.*--config"):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "my.json").write_text(json.dumps(CONFIG))
    convert(path, tmp_path / "out", config=tmp_path / "my.json")
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == CONFIG


def test_the_output_may_be_the_folder_of_the_checkpoint(tmp_path: Path) -> None:
    convert(save(tmp_path / "in", GENERATOR), tmp_path / "in")
    assert equal(load_file(tmp_path / "in" / WEIGHTS), GENERATOR)


def test_views_of_one_storage_are_written_apart(tmp_path: Path) -> None:
    state = tiny_state()
    shared = torch.randn(16)
    state["encoder.down1.0.bias"], state["encoder.down1.1.conv1.bias"] = shared[::2], shared[8:]
    convert(save(tmp_path / "in", state), tmp_path / "out")
    assert equal(load_file(tmp_path / "out" / WEIGHTS), state)


def test_existing_output_is_kept_without_overwrite(tmp_path: Path) -> None:
    path = save(tmp_path / "in", GENERATOR)
    write_checkpoint(tmp_path / "out", AVERAGE)
    with pytest.raises(OutputError, match=r"exists already.*--overwrite"):
        convert(path, tmp_path / "out")
    assert equal(load_file(tmp_path / "out" / WEIGHTS), AVERAGE)
    convert(path, tmp_path / "out", overwrite=True)
    assert equal(load_file(tmp_path / "out" / WEIGHTS), GENERATOR)


def test_an_output_without_parent_or_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "in", GENERATOR)
    with pytest.raises(OutputError, match="does not exist"):
        convert(path, tmp_path / "a" / "b")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is not a directory"):
        convert(path, tmp_path / "file")


def test_a_failure_while_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "in", GENERATOR)

    def fail(file: Any, tensors: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wfvae_cli.models.convert.write_safetensors", fail)
    with pytest.raises(OutputError, match="disk is full"):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Malicious:
    """Unpickling this would make a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, zipped: bool) -> None:
    content = {"state_dict": GENERATOR, "extra": Malicious(tmp_path / "trace")}
    path = save(tmp_path / "in", content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"refers to (posix|nt|os)\.mkdir.* not executed"):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "out").exists()


def test_the_malice_of_the_test_above_is_real(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Malicious(tmp_path / "trace")))
    assert (tmp_path / "trace").is_dir()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(40), b"\x80\x02garbage"])
def test_what_torch_did_not_write_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = save(tmp_path / "in", GENERATOR)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"is damaged, or no file that torch.save wrote"):
        convert(path, tmp_path / "out")


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.floats(0, 0.999))
def test_any_truncation_is_an_error(tmp_path: Path, cut: float) -> None:
    path = save(tmp_path / "in", GENERATOR)
    content = path.read_bytes()
    path.write_bytes(content[: int(cut * len(content))])
    with pytest.raises(WeightsError):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, expected a dictionary"),
        ({}, "holds no tensors"),
        ({"epoch": 3, "lr": 0.1}, "it also holds epoch, lr"),
        ({"state_dict": {"other": {"w": torch.zeros(1)}}}, "it also holds other"),
    ],
)
def test_a_checkpoint_without_weights_says_what_it_holds(
    tmp_path: Path, content: Any, message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        convert(save(tmp_path / "in", content), tmp_path / "out")


def test_tensors_that_do_not_fit_the_config_are_listed(tmp_path: Path) -> None:
    state = tiny_state()
    del state["decoder.conv_out.bias"]
    state["step"] = torch.tensor(3)
    with pytest.raises(WeightsError) as caught:
        convert(save(tmp_path / "in", {"state_dict": state}), tmp_path / "out")
    message = str(caught.value)
    assert "merged.ckpt (state_dict) does not fit" in message
    assert "missing:\n  decoder.conv_out.bias" in message
    assert "unexpected:\n  step []" in message
    assert not (tmp_path / "out").exists()


def test_damaged_values_and_other_constants_are_refused(tmp_path: Path) -> None:
    state = tiny_state()
    state[HAAR[0]] = -state[HAAR[0]]
    with pytest.raises(WeightsError, match="constant of the architecture"):
        convert(save(tmp_path / "in", state), tmp_path / "out")
    state = tiny_state()
    state["encoder.down1.0.bias"][0] = float("nan")
    with pytest.raises(WeightsError, match="NaN or infinite"):
        convert(save(tmp_path / "in", state), tmp_path / "out")


def unusual(kind: str) -> Tensor:
    dense = torch.zeros(4)
    match kind:
        case "on the meta device":
            return dense.to("meta")
        case "nested":
            return torch.nested.nested_tensor([dense, dense[:2]])
        case "sparse":
            return dense.to_sparse()
        case _:
            return torch.quantize_per_tensor(dense, 0.1, 0, torch.qint8)


@pytest.mark.parametrize("kind", ["on the meta device", "nested", "sparse", "quantised"])
def test_tensors_without_plain_values_are_refused(tmp_path: Path, kind: str) -> None:
    state = tiny_state()
    state["decoder.conv_out.bias"] = unusual(kind)
    torch.save(state, tmp_path / "model.ckpt")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(WeightsError, match=r"decoder\.conv_out\.bias|damaged") as caught:
        convert(tmp_path / "model.ckpt", tmp_path / "out")
    assert kind in str(caught.value) or "damaged" in str(caught.value)
    assert "eights_only" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_parameters_that_require_gradients_are_converted(tmp_path: Path) -> None:
    state = {name: torch.nn.Parameter(value) for name, value in tiny_state().items()}
    torch.save(state, tmp_path / "model.ckpt")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert convert(tmp_path / "model.ckpt", tmp_path / "out").family == "wfvae"


@pytest.mark.parametrize("content", [b"\0\0\0 ftypisom", b"\x80\x02not a pickle", b"", b"GIF89a"])
def test_pytorchs_advice_to_run_code_is_not_repeated(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in.ckpt").write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        convert(tmp_path / "in.ckpt", tmp_path / "out")
    assert "eights_only" not in str(caught.value)
    assert "torch.save" in str(caught.value)


def test_a_checkpoint_never_replaces_itself(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model", tiny_state(), CONFIG)
    weights = folder / "diffusion_pytorch_model.safetensors"
    before = weights.read_bytes()
    for checkpoint in (weights, folder):
        with pytest.raises(OutputError, match="is the input"):
            convert(checkpoint, folder, overwrite=True)
    assert weights.read_bytes() == before


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such checkpoint"):
        convert(tmp_path / "absent.ckpt", tmp_path / "out")


def test_the_written_file_is_what_the_library_reads(tmp_path: Path) -> None:
    tensors = {
        "half": torch.randn(3, 5).half(),
        "double": torch.randn(2, dtype=torch.float64),
        "scalar": torch.tensor(3.0),
        "turned": torch.randn(4, 6).t(),
        "brain": torch.randn(7).bfloat16(),
        "empty": torch.zeros(0, 3),
    }
    with (tmp_path / "x.safetensors").open("wb") as file:
        write_safetensors(file, tensors)
    assert equal(load_file(tmp_path / "x.safetensors"), tensors)
    with safe_open(tmp_path / "x.safetensors", framework="np") as opened:
        assert opened.metadata() == {"format": "pt"}
