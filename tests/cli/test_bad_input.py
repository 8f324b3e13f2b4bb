"""Every bad input is an answer: what came, what to do, the right exit code, nothing written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cli.program import assert_refused, wfvae
from tests.media.conftest import write_clip
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.latents.header import encode_header, read_header
from wfvae_cli.models.names import embedded_folder

INPUT, WEIGHTS, OUTPUT, USAGE = 3, 4, 5, 2


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for outputs, which must stay empty."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def moov_first(path: Path) -> Path:
    return write_clip(
        path,
        [np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8) for i in range(20)],
        container_options={"movflags": "faststart"},
    )


def bad_video(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.mp4"
    match kind:
        case "empty":
            path.touch()
        case "text":
            path.write_text("once upon a time\n" * 20)
        case "truncated":
            data = moov_first(folder / "whole.mp4").read_bytes()
            path.write_bytes(data[: len(data) // 2])
        case "no-moov":
            data = write_clip(folder / "whole.mp4", 10).read_bytes()
            path.write_bytes(data[: data.index(b"moov") - 4])
        case "audio-only":
            sound = write_clip(folder / "whole.mp4", 2, sound=True)
            _keep_sound(sound, path)
        case "resolution-change":
            small, large = folder / "a.h264", folder / "b.h264"
            write_clip(small, 5, width=64, height=48)
            write_clip(large, 5, width=96, height=64)
            path = folder / "joined.h264"
            path.write_bytes(small.read_bytes() + large.read_bytes())
    return path


def _keep_sound(source: Path, target: Path) -> None:
    import av

    with av.open(str(source)) as box, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(box.streams.audio[0])
        for packet in box.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", ["no such file", "missing.mp4"]),
        ("empty", ["empty"]),
        ("text", ["text"]),
        ("truncated", ["truncated.mp4", "cut short"]),
        ("no-moov", ["moov"]),
        ("audio-only", ["no video"]),
        ("resolution-change", ["64x48", "96x64"]),
    ],
)
def test_bad_videos(tmp_path: Path, out: Path, kind: str, words: list[str]) -> None:
    source = bad_video(kind, tmp_path)
    for command, target in (("encode", "z.safetensors"), ("roundtrip", "out.mp4")):
        answer = wfvae(command, source, "-o", out / target)
        assert_refused(answer, INPUT, *words)
        assert list(out.iterdir()) == []


def test_nothing_left_after_start(clip: Path, out: Path) -> None:
    answer = wfvae("encode", clip, "-o", out / "z.safetensors", "--start", "99")
    assert_refused(answer, INPUT, "99", "0.4")
    assert list(out.iterdir()) == []


def rewritten(source: Path, target: Path, **metadata: str) -> Path:
    """The same latents under a changed header."""
    with source.open("rb") as file:
        header = read_header(file)
        data = file.read()
    tensors = [(name, entry.dtype, entry.shape) for name, entry in header.tensors.items()]
    target.write_bytes(encode_header(tensors, {**header.metadata, **metadata}) + data)
    return target


def bad_latents(kind: str, good: Path, folder: Path) -> Path:
    path = folder / f"{kind}.safetensors"
    data = good.read_bytes()
    match kind:
        case "empty":
            path.touch()
        case "truncated":
            path.write_bytes(data[:-1000])
        case "lying":
            rewritten(good, path, frames="500")
        case "version":
            rewritten(good, path, schema_version="2")
        case "nan":
            path.write_bytes(data[:-4] + np.float32("nan").tobytes())
        case "channels":
            with LatentFile(good) as file:
                _, t, h, w = file.shape
                strings = dict(file.metadata.to_strings(), channels="4")
            header = encode_header([("latents", "F32", (4, t, h, w))], strings)
            path.write_bytes(header + bytes(4 * 4 * t * h * w))
        case "weights":
            rewritten(good, path, model_sha256="a" * 64)
        case "others":
            save_file({"x": torch.zeros(3)}, path)
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", ["no such file", "expected a latent file", "check its name"]),
        ("empty", ["empty"]),
        ("truncated", ["truncated"]),
        ("lying", ["500"]),
        ("version", ["schema version 2", "reads version 1"]),
        ("nan", ["NaN", "latent frame 3"]),
        ("channels", ["4 channels", "16 channels", "--model"]),
        ("weights", ["aaaaaaaaaaaa", "--force"]),
        ("others", ["'x'"]),
    ],
)
def test_bad_latents(tmp_path: Path, out: Path, latents: Path, kind: str, words: list[str]) -> None:
    source = bad_latents(kind, latents, tmp_path)
    answer = wfvae("decode", source, "-o", out / "out.mp4")
    assert_refused(answer, INPUT, *words)
    assert list(out.iterdir()) == []


def bad_checkpoint(kind: str, folder: Path) -> Path:
    model = folder / "model"
    shutil.copytree(embedded_folder("wfvae-tiny"), model)
    file, config_file = model / "diffusion_pytorch_model.safetensors", model / "config.json"
    tensors, config = load_file(file), json.loads(config_file.read_text())
    match kind:
        case "missing-tensor":
            del tensors["decoder.conv_out.bias"]
        case "extra-tensor":
            tensors["decoder.surprise"] = torch.zeros(1)
        case "wrong-shape":
            tensors["decoder.conv_out.bias"] = torch.zeros(7)
        case "wrong-haar":
            name = next(name for name in tensors if "wavelet_transform" in name)
            tensors[name] = tensors[name] * 2
        case "contradicting-config":
            config["base_channels"] += 8
        case "unknown-family":
            config["_class_name"] = "WFVAEModle"
        case "bad-json":
            config = None
    save_file(tensors, file)
    config_file.write_text("{" if config is None else json.dumps(config))
    if kind == "pickle":
        torch.save(tensors, file)
    return model


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing-tensor", ["missing", "decoder.conv_out.bias"]),
        ("extra-tensor", ["unexpected", "decoder.surprise"]),
        ("wrong-shape", ["decoder.conv_out.bias", "7", "24"]),
        ("wrong-haar", ["wavelet_transform"]),
        ("contradicting-config", ["config.json", "base_channels"]),
        ("unknown-family", ["WFVAEModle", "WFVAEModel"]),
        ("bad-json", ["config.json"]),
        ("pickle", ["wfvae convert"]),
    ],
)
def test_bad_checkpoints(
    tmp_path: Path, out: Path, clip: Path, kind: str, words: list[str]
) -> None:
    model = bad_checkpoint(kind, tmp_path)
    answer = wfvae("encode", clip, "-o", out / "z.safetensors", "--model", model)
    assert_refused(answer, WEIGHTS, *words)
    assert list(out.iterdir()) == []


def test_an_unknown_model_names_the_nearest(clip: Path, out: Path) -> None:
    answer = wfvae("encode", clip, "-o", out / "z.safetensors", "--model", "wfvae-tny")
    assert_refused(answer, WEIGHTS, "wfvae-tny", "wfvae-tiny")


@pytest.mark.parametrize("command", ["encode", "decode", "roundtrip"])
def test_an_output_that_exists_is_kept(out: Path, clip: Path, latents: Path, command: str) -> None:
    target = out / ("z.safetensors" if command == "encode" else "out.mp4")
    target.write_text("precious")
    source = latents if command == "decode" else clip
    assert_refused(wfvae(command, source, "-o", target), OUTPUT, "exists", "--overwrite")
    assert target.read_text() == "precious"
    assert wfvae(command, source, "-o", target, "--overwrite").code == 0
    assert target.stat().st_size > 100


def test_a_missing_output_folder(out: Path, clip: Path) -> None:
    answer = wfvae("encode", clip, "-o", out / "no" / "z.safetensors")
    assert_refused(answer, OUTPUT, "does not exist")
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["decode", "z.safetensors", "-o", "o.mp4"], "expected a latent file"),
        (["info", "z.safetensors"], "expected a latent file, a checkpoint, a video or an image"),
        (["info", "a.mp4"], "expected a latent file, a checkpoint, a video or an image"),
        (["compare", "a.mp4", "b.mp4"], "expected a video or an image"),
        (["compare", "a", "."], "expected a folder like the other one"),
        (["stats", "videos"], "expected a file, a folder, a glob or a manifest"),
        (["stats", "list.csv"], "expected a manifest"),
        (["stats", "--merge", "a.json"], "expected a JSON file"),
    ],
)
def test_missing_inputs_are_told_alike(
    out: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], expected: str
) -> None:
    monkeypatch.chdir(out)
    assert_refused(wfvae(*command), INPUT, "no such file in", expected, "check its name")
    assert list(out.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_without_permission(out: Path, clip: Path) -> None:
    out.chmod(0o500)
    assert_refused(wfvae("encode", clip, "-o", out / "z.safetensors"), OUTPUT, "permission")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--chunk", "6"], ["1 + 4k", "nearest is 5"]),
        (["--size", "12"], ["WIDTHxHEIGHT"]),
        (["--size", "32x32", "--short-side", "16"], ["short"]),
        (["--frames", "0"], ["frames"]),
        (["--start", "-1"], ["start"]),
        (["--posterior", "moments", "--normalize"], ["moments"]),
    ],
)
def test_options_that_make_no_sense(
    out: Path, clip: Path, arguments: list[str], words: list[str]
) -> None:
    answer = wfvae("encode", clip, "-o", out / "z.safetensors", *arguments)
    assert_refused(answer, USAGE, *words)
    assert list(out.iterdir()) == []


def test_an_absent_device(out: Path, clip: Path) -> None:
    answer = wfvae("encode", clip, "-o", out / "z.safetensors", "--device", "cuda:7")
    assert_refused(answer, 6, "CUDA:7 not available", "devices: cpu")
