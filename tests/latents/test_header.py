from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from wfvae_cli.errors import LatentError
from wfvae_cli.latents.header import MAX_HEADER_BYTES, Header, encode_header, read_header

GOOD = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def raw(content: Any) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text


def parse(content: Any) -> Header:
    return read_header(io.BytesIO(raw(content)))


@given(
    st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=4),
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.just("ü\n"), max_size=4),
)
@settings(deadline=None, max_examples=50)
def test_what_is_encoded_is_read_back(shapes: list[list[int]], metadata: dict[str, str]) -> None:
    dtypes = ["I64", "F32", "BF16", "F16"]
    tensors = [
        (f"tensor {index}", dtypes[index], tuple(shape)) for index, shape in enumerate(shapes)
    ]
    encoded = encode_header(tensors, metadata)
    assert len(encoded) % 8 == 0
    stream = io.BytesIO(encoded + b"data")
    header = read_header(stream)
    assert stream.read() == b"data"
    assert header.data_start == len(encoded)
    assert header.metadata == metadata
    got = [(name, entry.dtype, entry.shape) for name, entry in header.tensors.items()]
    assert got == sorted(tensors)
    shuffled = dict(reversed(metadata.items()))
    assert encode_header(tensors, shuffled) == encoded


def test_the_safetensors_library_and_we_read_the_same(tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    tensors = {"b": torch.arange(6).view(2, 3), "a": torch.ones(5, dtype=torch.float16)}
    save_file(tensors, path, {"hello": "wörld"})
    with path.open("rb") as file:
        header = read_header(file, path.stat().st_size)
    assert header.metadata == {"hello": "wörld"}
    assert header.data_start + header.data_bytes == path.stat().st_size
    with safe_open(path, "pt") as theirs:
        for name in theirs.keys():  # noqa: SIM118  # not a mapping
            assert tuple(theirs.get_slice(name).get_shape()) == header.tensors[name].shape


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{" * 200_000, "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b'{"a":', "not JSON"),
        (b'{"a":' + b"9" * 10_000 + b"}", "not JSON"),
        ([], "JSON object, got list"),
        ({"__metadata__": []}, "strings to strings"),
        ({"__metadata__": {"a": 1}}, "strings to strings"),
        (b'{"latents":1,"latents":2}', "'latents' twice"),
        (b'{"__metadata__":{"a":"1","a":"2"}}', "'a' twice"),
        ({"a": None}, "entry for 'a'"),
        ({"a": GOOD | {"dtype": 3}}, "entry for 'a'"),
        ({"a": GOOD | {"shape": [2, -3]}}, "entry for 'a'"),
        ({"a": GOOD | {"shape": [2, 3.0]}}, "entry for 'a'"),
        ({"a": GOOD | {"shape": [2, 2**63]}}, "entry for 'a'"),
        ({"a": GOOD | {"shape": [1] * 100}}, "entry for 'a'"),
        ({"a": GOOD | {"shape": "23"}}, "entry for 'a'"),
        ({"a": GOOD | {"data_offsets": [0]}}, "entry for 'a'"),
        ({"a": GOOD | {"data_offsets": [False, 24]}}, "entry for 'a'"),
        ({"a": GOOD | {"data_offsets": [24, 0]}}, "overlap or leave holes"),
        ({"a": GOOD | {"data_offsets": [8, 32]}}, "overlap or leave holes"),
        ({"a": GOOD, "b": GOOD}, "overlap or leave holes"),
        ({"a": GOOD, "b": GOOD | {"data_offsets": [16, 40]}}, "overlap or leave holes"),
        ({"a": GOOD, "b": GOOD | {"data_offsets": [32, 56]}}, "overlap or leave holes"),
        ({"a": GOOD | {"data_offsets": [0, 20]}}, r"20 bytes, but shape \[2, 3\] in F32 takes 24"),
        ({"a": GOOD | {"shape": [2**62] * 60}}, "24 bytes, but shape"),
    ],
)
def test_a_lying_header_is_refused(content: Any, message: str) -> None:
    with pytest.raises(LatentError, match=message):
        parse(content)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty one"),
        (b"\x10\0\0", "one of 3 bytes"),
        (struct.pack("<Q", 100_000_001), "this is another format"),
        (struct.pack("<Q", MAX_HEADER_BYTES + 1), "at most 8388608 are read"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "this is another format"),
        (b"a text file, not safetensors", "this is another format"),
        (struct.pack("<Q", 1000) + b"{}", "1000 bytes, but only 2 follow"),
        (raw({"a": GOOD})[:-5], "follow"),
    ],
)
@pytest.mark.parametrize("size_known", [True, False])
def test_what_is_no_safetensors_file_is_refused(
    data: bytes, message: str, size_known: bool
) -> None:
    with pytest.raises(LatentError, match=message):
        read_header(io.BytesIO(data), len(data) if size_known else None)


def test_tensors_are_described_in_short() -> None:
    names = {f"layer.{index}": (0, 0) for index in range(9)}
    content = {name: {"dtype": "I8", "shape": [0], "data_offsets": o} for name, o in names.items()}
    text = parse(content).describe_tensors(most=2)
    assert text == "'layer.0' [0] 'I8', 'layer.1' [0] 'I8', 7 more"
    assert parse({}).describe_tensors() == "none"
