from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from tests.latents.samples import describe, full_metadata, latents, write
from wfvae_cli.errors import LatentError, OutputError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.latents.header import LatentDtype
from wfvae_cli.latents.writer import LatentWriter

DTYPES: tuple[LatentDtype, ...] = ("float32", "float16", "bfloat16")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_safetensors_library_reads_it(tmp_path: Path, dtype: LatentDtype) -> None:
    path = tmp_path / "z.safetensors"
    metadata = describe(posterior="moments")
    values, logvar = latents(5), latents(5, seed=1)
    write(path, values, metadata, dtype=dtype, logvar=logvar, pts=list(range(0, 34, 2)))
    loaded = load_file(path)
    assert set(loaded) == {"latents", "logvar", "pts"}
    assert torch.equal(loaded["latents"], values.to(getattr(torch, dtype)))
    assert torch.equal(loaded["logvar"], logvar.to(getattr(torch, dtype)))
    assert torch.equal(loaded["pts"], torch.arange(0, 34, 2))
    with safe_open(path, "pt") as file:
        assert file.metadata()["schema"] == "wfvae-latents"
        assert file.metadata()["frame_rate"] == "30000/1001"
        assert torch.equal(file.get_slice("latents")[:, 1:3], loaded["latents"][:, 1:3])


@given(st.sets(st.integers(1, 8)), st.booleans())
@settings(deadline=None, max_examples=30)
def test_bytes_do_not_depend_on_chunks(cuts: set[int], variable: bool) -> None:
    pts = [7 * frame for frame in range(33)] if variable else None
    once, pieces = io.BytesIO(), io.BytesIO()
    write(once, latents(9), full_metadata(), pts=pts)
    write(pieces, latents(9), full_metadata(), cuts=cuts, pts=pts)
    assert once.getvalue() == pieces.getvalue()


@pytest.mark.parametrize(("frames", "padding"), [(9, 0), (8, 1), (6, 3)])
def test_the_length_and_its_padding_are_recorded(tmp_path: Path, frames: int, padding: int) -> None:
    path = tmp_path / "z.safetensors"
    write(path, latents(3), frames=frames)
    with LatentFile(path) as file:
        assert (file.metadata.frames, file.metadata.pad_frames) == (frames, padding)
        assert file.shape == (4, 3, 3, 4)


@pytest.mark.parametrize("frames", [0, 5, 10])
def test_a_length_that_does_not_fit_the_latents_is_a_bug(tmp_path: Path, frames: int) -> None:
    path = tmp_path / "z.safetensors"
    with pytest.raises(ValueError, match="do not make the 3 latent frames"):
        write(path, latents(3), frames=frames)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_without_finish_or_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "z.safetensors"
    with LatentWriter(path, describe()) as writer:
        writer.append(latents(2))
        assert writer.latent_frames == 2
        assert list(tmp_path.iterdir()) == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), LatentWriter(path, describe()) as writer:
        writer.append(latents(2))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_refused_at_once_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "z.safetensors"
    write(path, latents(1))
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        LatentWriter(path, describe())
    assert path.read_bytes() == before
    with LatentWriter(path, describe(), overwrite=True) as writer:
        writer.append(latents(2))
        assert path.read_bytes() == before
        writer.finish(5)
    with LatentFile(path) as file:
        assert file.latent_frames == 2


def test_a_missing_directory_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="missing"):
        LatentWriter(tmp_path / "missing" / "z.safetensors", describe())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_name_their_latent_frame(
    tmp_path: Path, value: float, dtype: LatentDtype
) -> None:
    bad = latents(6)
    bad[2, 4, 1, 1] = value
    with pytest.raises(LatentError, match="NaN or infinite in latent frame 4"):
        write(tmp_path / "z.safetensors", bad, cuts=[3], dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_the_log_variance_is_checked_too(tmp_path: Path) -> None:
    bad = latents(2)
    bad[0, 1, 0, 0] = float("nan")
    metadata = describe(posterior="moments")
    with pytest.raises(LatentError, match="log-variance that is NaN or infinite in latent frame 1"):
        write(tmp_path / "z.safetensors", latents(2), metadata, logvar=bad)


def test_values_beyond_float16_are_refused_rather_than_infinite(tmp_path: Path) -> None:
    large = latents(3)
    large[1, 2, 0, 0] = -70000.0
    message = "70000 in latent frame 2 is beyond the range of float16: store bfloat16"
    with pytest.raises(LatentError, match=message):
        write(tmp_path / "z.safetensors", large, dtype="float16")
    write(tmp_path / "z.safetensors", large, dtype="bfloat16")


@pytest.mark.parametrize("shape", [(4, 2, 3), (3, 2, 3, 4), (4, 2, 4, 4), (1, 4, 2, 3, 4)])
def test_latents_of_another_shape_are_a_bug(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with (
        LatentWriter(tmp_path / "z", describe()) as writer,
        pytest.raises(ValueError, match=r"expected latents of shape \[4, t, 3, 4\], got"),
    ):
        writer.append(torch.zeros(shape))


def test_moments_come_in_pairs(tmp_path: Path) -> None:
    with (
        LatentWriter(tmp_path / "a", describe()) as writer,
        pytest.raises(ValueError, match="'mean'"),
    ):
        writer.append(latents(1), latents(1))
    with (
        LatentWriter(tmp_path / "b", describe(posterior="moments")) as writer,
        pytest.raises(ValueError, match="'moments'"),
    ):
        writer.append(latents(1))


def test_timestamps_must_increase_and_match_the_frames(tmp_path: Path) -> None:
    path = tmp_path / "z.safetensors"
    with pytest.raises(LatentError, match="frame 3 is shown at 2, not after the one before it at"):
        write(path, latents(2), pts=[0, 1, 2, 2, 5])
    with pytest.raises(ValueError, match="each of 5 frames"):
        write(path, latents(2), pts=[0, 1])
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_carries_it_from_writer_to_reader() -> None:
    values = latents(40)
    receiving, sending = os.pipe()

    def send() -> None:
        with os.fdopen(sending, "wb") as stream:
            write(stream, values, cuts=[1, 30])

    thread = threading.Thread(target=send)
    thread.start()
    with os.fdopen(receiving, "rb") as stream, LatentFile(stream) as file:
        assert torch.equal(file.read(), values)
        assert file.metadata.frames == 157
    thread.join()


def test_a_reader_that_goes_away_is_a_broken_pipe() -> None:
    receiving, sending = os.pipe()
    os.close(receiving)
    stream = os.fdopen(sending, "wb", buffering=0)
    with stream, pytest.raises(BrokenPipeError):
        write(stream, latents(2))


class FullDisk(io.BytesIO):
    name = "<stdout>"

    def write(self, data: object) -> int:
        raise OSError(28, "No space left on device")


def test_a_stream_that_fails_is_an_output_error() -> None:
    stream: BinaryIO = FullDisk()
    with pytest.raises(OutputError, match="<stdout>"):
        write(stream, latents(2))
