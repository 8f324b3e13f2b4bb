from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.models.tiny import CONFIG, tiny_state, write_checkpoint, write_shards
from wfvae_cli.errors import WeightsError
from wfvae_cli.models.checkpoint import (
    choose_weights,
    count_parameters,
    locate,
    read_entries,
    read_json,
    weights_sha256,
)

STATE = {"b.weight": torch.arange(6.0).reshape(2, 3), "a": torch.ones(4, dtype=torch.float16)}


@pytest.mark.parametrize(
    "name", ["diffusion_pytorch_model.safetensors", "model.safetensors", "anything.safetensors"]
)
def test_a_folder_is_found_by_its_usual_or_only_weights(tmp_path: Path, name: str) -> None:
    write_checkpoint(tmp_path, STATE, name=name)
    (tmp_path / "README.md").write_text("x")
    files = locate(tmp_path)
    assert files.weights == (tmp_path / name,)
    assert files.config == tmp_path / "config.json"
    assert locate(tmp_path / name) == files


def test_the_usual_name_wins_over_others(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, STATE)
    save_file(STATE, tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    assert locate(tmp_path).weights == (tmp_path / "diffusion_pytorch_model.safetensors",)


def test_several_unusual_names_are_ambiguous() -> None:
    with pytest.raises(WeightsError, match=r"several checkpoints \(a.safetensors, b.safetensors\)"):
        choose_weights(["b.safetensors", "a.safetensors", "config.json"], "here")


def test_a_folder_of_pickles_points_to_convert() -> None:
    with pytest.raises(WeightsError, match=r"wfvae convert merged.ckpt -o DIR"):
        choose_weights(["merged.ckpt", "config.json"], "here")


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected diffusion_pytorch_model.safetensors"):
        locate(tmp_path)


def test_a_missing_config_is_told(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    assert locate(tmp_path / "model.safetensors").config is None
    assert locate(tmp_path).config is None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such checkpoint"):
        locate(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("suffix", [".ckpt", ".pth", ".pt", ".bin"])
def test_pickles_by_name_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"vae{suffix}"
    path.write_bytes(b"anything")
    with pytest.raises(WeightsError, match=r"not executed.*wfvae convert"):
        locate(path)


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    state = tiny_state()
    shards = write_shards(tmp_path, state)
    files = locate(tmp_path)
    assert list(files.weights) == shards
    assert locate(tmp_path / "diffusion_pytorch_model.safetensors.index.json") == files
    entries = read_entries(files.weights)
    assert {name: entry.shape for name, entry in entries.items()} == {
        name: tuple(value.shape) for name, value in state.items()
    }


def test_a_missing_shard_is_listed(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, tiny_state())
    shards[1].unlink()
    with pytest.raises(WeightsError, match=r"1 of the 2 shards .* are missing: .*00002-of-00002"):
        locate(tmp_path)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/x.safetensors", "a\\b", ".."])
def test_an_index_cannot_name_files_elsewhere(tmp_path: Path, name: str) -> None:
    write_shards(tmp_path, tiny_state())
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(WeightsError, match=r"not a file beside it|are missing"):
        locate(tmp_path)


def test_an_index_without_a_weight_map_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, tiny_state())
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text("{}")
    with pytest.raises(WeightsError, match="no weight_map"):
        locate(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "1.safetensors")
    save_file(STATE, tmp_path / "2.safetensors")
    with pytest.raises(WeightsError, match=r"tensor (a|b.weight) is in both"):
        read_entries([tmp_path / "1.safetensors", tmp_path / "2.safetensors"])


def test_entries_point_at_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(STATE, path, metadata={"format": "pt"})
    entries = read_entries([path])
    assert set(entries) == set(STATE)
    assert count_parameters(entries.values()) == 10
    entry = entries["b.weight"]
    assert (entry.dtype, entry.shape) == ("F32", (2, 3))
    data = path.read_bytes()[entry.offset : entry.offset + entry.size]
    assert struct.unpack("<6f", data) == (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04" + bytes(60), "is a pickle"),
        (b"\x80\x02}q\x00." + bytes(60), "is a pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\xff" * 64, "damaged or truncated"),
        (b"\x02\x00\x00", "damaged or truncated"),
    ],
)
def test_other_formats_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_entries([path])


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_truncation_is_an_error(tmp_path: Path, data: st.DataObject) -> None:
    whole = tmp_path / "whole.safetensors"
    save_file(STATE, whole)
    content = whole.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(WeightsError):
        read_entries([cut])


@pytest.mark.parametrize(
    ("text", "message"),
    [("{not json", "not valid JSON"), ("[1]", "must hold a JSON object, got list")],
)
def test_a_bad_config_says_why(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(WeightsError, match=message):
        read_json(path)


def test_a_config_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WeightsError, match="not valid JSON"):
        read_json(path)


def test_the_hash_of_one_file_is_its_sha256(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, STATE)
    files = locate(tmp_path)
    expected = hashlib.sha256(files.weights[0].read_bytes()).hexdigest()
    assert weights_sha256(files.weights) == expected


def test_the_hash_of_shards_is_that_of_their_digests_in_order(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, tiny_state())
    digests = "".join(hashlib.sha256(shard.read_bytes()).hexdigest() for shard in shards)
    expected = hashlib.sha256(digests.encode()).hexdigest()
    assert weights_sha256(shards) == weights_sha256(shards[::-1]) == expected


def test_reading_headers_and_hashing_need_no_torch(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, STATE, CONFIG)
    program = (
        "import sys; from pathlib import Path; from wfvae_cli.models.checkpoint import *;"
        "from wfvae_cli.models.registry import find_family;"
        f"files = locate(Path({str(tmp_path)!r})); entries = read_entries(files.weights);"
        "find_family(read_json(files.config), entries, 'x'); weights_sha256(files.weights);"
        "print(len(entries), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["2", "False"]
