"""Files of `torch.save` with strings of ours, and the damage that checksums find."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from wfvae_cli.dataset.exporters.pt_file import is_sound, read_strings, save_object

STRINGS = {"item": "a.mp4"}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "a.pt"
    with path.open("wb") as file:
        save_object({"latents": torch.arange(4000.0)}, file, STRINGS)
    return path


def test_what_was_saved_is_sound(saved: Path) -> None:
    assert is_sound(saved)
    assert read_strings(saved) == STRINGS


def test_a_flipped_bit_of_the_data_is_found(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[len(data) // 2] ^= 1
    saved.write_bytes(data)
    assert not is_sound(saved)


@pytest.mark.parametrize("field", [6, 8], ids=["flags", "compression"])
def test_headers_that_speak_of_what_is_not_there(saved: Path, field: int) -> None:
    data = bytearray(saved.read_bytes())
    for signature, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        at = data.index(signature) + field + shift
        data[at : at + 2] = b"\x01\x00"  # a password; a compression of 1989
    saved.write_bytes(data)
    assert not is_sound(saved)


def test_any_damage_is_an_answer(saved: Path) -> None:
    whole, choose = saved.read_bytes(), random.Random(0)
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(8):
            data[choose.randrange(len(data))] = choose.randrange(256)
        saved.write_bytes(data[: choose.randrange(len(data)) if choose.random() < 0.3 else None])
        assert is_sound(saved) in (True, False)
