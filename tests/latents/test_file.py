from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.latents.samples import (
    Json,
    change_header,
    change_metadata,
    describe,
    full_metadata,
    latents,
    write,
)
from wfvae_cli.errors import LatentError
from wfvae_cli.latents.file import LatentFile, is_latent_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Ten latent frames with log-variance and timestamps."""
    path = tmp_path / "z.safetensors"
    metadata = full_metadata(posterior="moments", seed=None, normalization=None)
    logvar = latents(10, seed=1)
    write(path, latents(10), metadata, logvar=logvar, pts=[2 * t for t in range(35)], frames=35)
    return path


def test_it_gives_what_was_written(path: Path) -> None:
    with LatentFile(path) as file:
        assert file.shape == (4, 10, 3, 4)
        assert (file.latent_frames, file.dtype, file.has_logvar) == (10, "float32", True)
        expected = full_metadata(
            posterior="moments", seed=None, normalization=None, frames=35, pad_frames=2
        )
        assert file.metadata == expected
        assert torch.equal(file.read(), latents(10))
        assert torch.equal(file.read_logvar(), latents(10, seed=1))
        pts = file.pts
    assert pts is not None
    assert pts.dtype == np.int64
    assert pts.tolist() == [2 * t for t in range(35)]


def test_every_slice_equals_the_whole(path: Path) -> None:
    whole, logvar = latents(10), latents(10, seed=1)
    with LatentFile(path) as file:
        for start in range(10):
            for stop in range(start + 1, 11):
                assert torch.equal(file.read(start, stop), whole[:, start:stop])
                assert torch.equal(file.read_logvar(start, stop), logvar[:, start:stop])


@pytest.mark.parametrize("size", [1, 3, 10, 99])
def test_chunks_cover_the_clip(path: Path, size: int) -> None:
    with LatentFile(path) as file:
        parts = list(file.chunks(size))
    assert [part.size(1) for part in parts[:-1]] == [size] * (len(parts) - 1)
    assert torch.equal(torch.cat(parts, dim=1), latents(10))


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, 11), (3, 3), (5, 4)])
def test_slices_outside_the_clip_are_refused(path: Path, start: int, stop: int) -> None:
    with LatentFile(path) as file, pytest.raises(ValueError, match="within 0 to 10"):
        file.read(start, stop)


def test_a_slice_reads_only_its_own_bytes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = LatentFile._read_into

    def count(self: LatentFile, target: memoryview, offset: int) -> None:
        read.append(len(target))
        original(self, target, offset)

    monkeypatch.setattr(LatentFile, "_read_into", count)
    with LatentFile(path) as file:
        file.read(4, 6)
    assert read == [2 * 3 * 4 * 4] * 4


def test_opening_loads_neither_torch_nor_numpy(path: Path) -> None:
    code = (
        "import sys; from wfvae_cli.latents.file import LatentFile\n"
        "with LatentFile(sys.argv[1]) as file: print(file.metadata.frames, file.dtype)\n"
        "print({'torch', 'numpy', 'av'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["35 float32", "set()"]


def test_log_variance_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path / "z", latents(2))
    with LatentFile(tmp_path / "z") as file:
        assert not file.has_logvar
        with pytest.raises(LatentError, match="--posterior moments"):
            file.read_logvar()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_name_their_latent_frame(path: Path, value: float) -> None:
    with LatentFile(path) as file:
        offset = file._data_start + 35 * 8 + 4 * ((2 * 10 + 7) * 12 + 5)
    data = bytearray(path.read_bytes())
    data[offset : offset + 4] = np.float32(value).tobytes()
    path.write_bytes(data)
    with LatentFile(path) as file:
        assert torch.equal(file.read(0, 7), latents(10)[:, :7])
        with pytest.raises(LatentError, match=r"z\.safetensors.*latent frame 7 of 10"):
            file.read(5, 9)
        with pytest.raises(LatentError, match="latent frame 7 of 10"):
            list(file.chunks(4))
        assert (~file.read(5, 9, check_finite=False).isfinite()).sum() == 1


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    with pytest.raises(LatentError, match=r"nowhere: no such file in .*: expected a latent file"):
        LatentFile(tmp_path / "nowhere")
    with pytest.raises(LatentError, match="a folder: expected a latent file"):
        LatentFile(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 100, -1, -4000])
def test_a_truncated_file(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(LatentError, match=r"z\.safetensors: .*(truncated|empty|5 bytes)"):
        LatentFile(path)
    assert_stream_fails(path)


def test_something_appended(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(LatentError, match="appended"):
        LatentFile(path)
    assert_stream_fails(path)


def test_a_file_that_shrinks_while_it_is_read(path: Path) -> None:
    with LatentFile(path) as file:
        os.truncate(path, path.stat().st_size - 10)
        with pytest.raises(LatentError, match="became shorter"):
            file.read_logvar()


def assert_stream_fails(path: Path) -> None:
    with path.open("rb") as stream, pytest.raises(LatentError, match=r"z\.safetensors: "):
        LatentFile(stream)


@pytest.mark.parametrize("place", ["pts", "latents", "logvar"])
def test_the_checksum_covers_all_data(path: Path, place: str) -> None:
    with LatentFile(path) as file:
        assert file.verify()
        assert file.data_sha256 == hashlib.sha256(path.read_bytes()[file._data_start :]).hexdigest()
        position = file._data_start + file._header.tensors[place].end - 1
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with LatentFile(path) as file, pytest.raises(LatentError, match=r"z\.safetensors: .*checksum"):
        file.verify()
    with path.open("rb") as stream, LatentFile(stream) as file, pytest.raises(LatentError):
        file.verify()


def test_a_file_without_a_checksum_is_read(path: Path) -> None:
    change_metadata(path, data_sha256=None)
    with LatentFile(path) as file:
        assert file.data_sha256 is None
        assert not file.verify()


def test_a_spooled_clip_has_the_checksum_of_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wfvae_cli.latents.spool.PlaneSpool.__init__.__defaults__", (1000,))
    write(tmp_path / "z", latents(10), cuts=[3, 7])
    with LatentFile(tmp_path / "z") as file:
        assert file.verify()


def test_timestamps_that_would_fill_the_memory(path: Path) -> None:
    """The file is sparse: it takes no room, and claims 8 GB of timestamps."""
    frames = (1 << 30) + 1

    def claim(header: Json) -> None:
        header["__metadata__"] |= {
            "frames": str(frames), "pad_frames": "0", "width": "8", "height": "8",
            "pad_right": "0", "pad_bottom": "0", "posterior": "mean", "channels": "1",
        }  # fmt: skip
        count = (1 << 28) + 1
        pts, end = frames * 8, frames * 8 + count * 4
        header["pts"] = {"dtype": "I64", "shape": [frames], "data_offsets": [0, pts]}
        shape = [1, count, 1, 1]
        header["latents"] = {"dtype": "F32", "shape": shape, "data_offsets": [pts, end]}
        del header["logvar"]

    change_header(path, claim)
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    os.truncate(path, start + frames * 8 + ((1 << 28) + 1) * 4)
    with pytest.raises(LatentError, match=r"1073741825 frames, and at most 16777216 are read"):
        LatentFile(path)


def test_a_long_header_is_not_parsed(tmp_path: Path) -> None:
    """99 MB of JSON would take gigabytes as Python objects."""
    path = tmp_path / "z.safetensors"
    length = 99_000_000
    path.write_bytes(length.to_bytes(8, "little") + b'{"a":[')
    os.truncate(path, 8 + length)
    with pytest.raises(LatentError, match=r"99000000 bytes, and at most 8388608 are read"):
        LatentFile(path)
    assert not is_latent_file(path)


def test_other_safetensors_are_named_by_their_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"encoder.weight": torch.zeros(2, 3)}, path, {"format": "pt"})
    with pytest.raises(LatentError, match=r"'encoder\.weight' \[2, 3\] 'F32'"):
        LatentFile(path)
    assert not is_latent_file(path)


def test_latent_files_are_recognised_by_their_header(path: Path) -> None:
    assert is_latent_file(path)
    change_metadata(path, schema_version="9")
    assert is_latent_file(path)
    path.write_bytes(b"not safetensors at all")
    assert not is_latent_file(path)
    assert not is_latent_file(path.parent)
    assert not is_latent_file(path.parent / "missing")


def test_another_schema_version_is_refused_by_name(path: Path) -> None:
    change_metadata(path, schema_version="2")
    with pytest.raises(LatentError, match=r"z\.safetensors: .* version 2, but .* version 1"):
        LatentFile(path)


def rename(header: Json) -> None:
    header["latent"] = header.pop("latents")


def reshape(header: Json) -> None:
    header["latents"]["shape"] = [10, 4, 3, 4]


def flatten(header: Json) -> None:
    header["latents"]["shape"] = [4 * 10 * 3 * 4]


def widen(header: Json) -> None:
    header["latents"] |= {"dtype": "F64", "shape": [4, 10, 3, 2]}


def drop_logvar(header: Json) -> None:
    header["other"] = header.pop("logvar")


def halve_logvar(header: Json) -> None:
    header["logvar"] |= {"dtype": "F16", "shape": [4, 10, 6, 4]}


def hide_moments(header: Json) -> None:
    header["__metadata__"]["posterior"] = "mean"


def fewer_frames(header: Json) -> None:
    header["__metadata__"] |= {"frames": "33", "pad_frames": "0"}


def shift_frames(header: Json) -> None:
    header["__metadata__"] |= {"frames": "36", "pad_frames": "1"}


def larger(header: Json) -> None:
    header["__metadata__"]["width"] = "38"


def no_metadata(header: Json) -> None:
    del header["__metadata__"]


def move(header: Json) -> None:
    header["latents"]["data_offsets"][0] += 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename, "lacks the tensor 'latents'"),
        (reshape, r"should be \[4, 10, 3, 4\] in F32 or F16 or BF16, but it is \[10, 4, 3, 4\]"),
        (flatten, r"but it is \[480\]"),
        (widen, "in 'F64'"),
        (drop_logvar, "lacks the tensor 'logvar'"),
        (halve_logvar, r"'logvar' should be .* in F32, but it is .* in 'F16'"),
        (hide_moments, "posterior 'mean' and not 'moments'"),
        (fewer_frames, r"'latents' should be \[4, 9, 3, 4\]"),
        (shift_frames, r"'pts' should be \[36\]"),
        (larger, r"'latents' should be \[4, 10, 3, 5\]"),
        (no_metadata, "without their metadata"),
        (move, "overlap or leave holes"),
    ],
)
def test_a_header_that_contradicts_itself(
    path: Path, change: Callable[[Json], None], message: str
) -> None:
    change_header(path, change)
    with pytest.raises(LatentError, match=message):
        LatentFile(path)
    assert_stream_fails(path)


def test_timestamps_that_do_not_increase(path: Path) -> None:
    data = bytearray(path.read_bytes())
    with LatentFile(path) as file:
        start = file._data_start
    data[start : start + 8] = (2).to_bytes(8, "little")
    path.write_bytes(data)
    with LatentFile(path) as file, pytest.raises(LatentError, match="do not increase"):
        _ = file.pts


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe(path: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    thread = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    thread.start()
    with LatentFile(pipe) as file:
        assert torch.equal(file.read(), latents(10))
    thread.join()


def read_all(data: bytes, folder: Path) -> None:
    """Read everything by path and as a stream: LatentError is the only failure allowed."""
    path = folder / "fuzzed.safetensors"
    path.write_bytes(data)
    for source in (path, io.BytesIO(data)):
        try:
            with LatentFile(source) as file:
                assert file.read(check_finite=False).shape == file.shape
                _ = file.pts, file.dtype, file.metadata
                if file.has_logvar:
                    file.read_logvar()
        except LatentError as error:
            assert str(error).encode()
    is_latent_file(path)


def small_file() -> bytes:
    stream = io.BytesIO()
    write(stream, latents(2), full_metadata(), pts=[0, 1, 2, 3, 9])
    return stream.getvalue()


SMALL = small_file()
edit = st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255))


@given(st.lists(edit, max_size=4), st.none() | st.integers(0, len(SMALL)), st.binary(max_size=9))
@settings(deadline=None, max_examples=300)
def test_no_bytes_crash_the_reader(
    tmp_path_factory: pytest.TempPathFactory,
    edits: list[tuple[int, int]],
    end: int | None,
    tail: bytes,
) -> None:
    data = bytearray(SMALL)
    for position, value in edits:
        data[position] = value
    read_all(bytes(data[:end]) + tail, tmp_path_factory.getbasetemp())


SMALL_HEADER: Json = json.loads(SMALL[8 : 8 + int.from_bytes(SMALL[:8], "little")])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
places = [(name,) for name in SMALL_HEADER] + [
    (name, key) for name, entry in SMALL_HEADER.items() for key in entry
]


@given(st.sampled_from(places), anything | st.integers(-1, 99).map(str))
@settings(deadline=None, max_examples=300)
def test_no_header_values_crash_the_reader(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[str, ...], value: object
) -> None:
    header = json.loads(json.dumps(SMALL_HEADER))
    inner = header if len(place) == 1 else header[place[0]]
    inner[place[-1]] = value
    text = json.dumps(header).encode()
    data = SMALL[8 + int.from_bytes(SMALL[:8], "little") :]
    whole = len(text).to_bytes(8, "little") + text + data
    read_all(whole, tmp_path_factory.getbasetemp())


def test_an_image_has_one_frame_and_no_timestamps(tmp_path: Path) -> None:
    write(tmp_path / "z", latents(1), describe(is_image=True))
    with LatentFile(tmp_path / "z") as file:
        assert file.metadata.is_image
        assert file.metadata.frames == 1
        assert file.pts is None
