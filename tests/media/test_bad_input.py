"""Every input that cannot be read is a `VideoError` that says what came and what to do."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import safetensors.numpy
from av.video.codeccontext import VideoCodecContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from wfvae_cli.errors import VideoError
from wfvae_cli.media.inputs import LocalFile
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import open_clip, probe
from wfvae_cli.media.single import is_cut

from .conftest import MakeClip, pipe, write_clip

FASTSTART = {"movflags": "faststart"}


def refusal(path: Path | str, sampling: Sampling | None = None) -> str:
    """The message with which a source is refused, at opening or while reading."""
    with pytest.raises(VideoError) as caught, open_clip(path, sampling) as reader:
        list(reader)
    message = str(caught.value)
    assert caught.value.exit_code == 3
    if path != "-":
        assert Path(path).name in message
    return message


def test_missing_file(tmp_path: Path, make_clip: MakeClip) -> None:
    make_clip("holiday.mp4", 1)
    assert "did you mean" in refusal(tmp_path / "holliday.mp4")
    assert "holiday.mp4" in refusal(tmp_path / "holliday.mp4")
    assert "no such file" in refusal(tmp_path / "zzz")
    assert "folder" in refusal(tmp_path / "nowhere" / "a.mp4")


def test_folder(tmp_path: Path) -> None:
    assert "folder" in refusal(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    assert "empty" in refusal(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a.txt", "a.ans", "a"])
def test_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("Once upon a time, häßlich wie die Nacht.\n" * 200)
    assert "text file" in refusal(path)


def test_latents(tmp_path: Path) -> None:
    path = tmp_path / "z.safetensors"
    safetensors.numpy.save_file({"latents": np.zeros((1, 16, 2, 4, 4), np.float32)}, path)
    assert "wfvae decode" in refusal(path)


def test_noise(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(np.random.default_rng(1).bytes(5000))
    assert "FFmpeg" in refusal(path)


def test_unreadable_file(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4", 1)
    path.chmod(0)
    try:
        path.open("rb").close()
    except OSError:
        assert "cannot be opened" in refusal(path)
    else:
        pytest.skip("permissions do not bind this user")
    finally:
        path.chmod(0o600)


def test_audio_only(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as box:
        stream = box.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.rate = 8000
        box.mux(stream.encode(sound))
        box.mux(stream.encode(None))
    assert "no video stream in it, only audio" in refusal(path)


@pytest.mark.parametrize("keep", [0.4, 0.7, 0.95, 0.999])
def test_truncated_mp4_with_its_index(make_clip: MakeClip, keep: float) -> None:
    path = make_clip("a.mp4", 40, container_options=FASTSTART)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat") < len(data) * 0.4
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(VideoError, match="cut short"):  # before anything is decoded
        open_clip(path)


def test_mp4_without_index(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4", 20)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])
    message = refusal(path)
    assert "moov" in message
    assert "get the whole file" in message


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.avi"])
def test_other_truncated_containers(make_clip: MakeClip, name: str) -> None:
    codec = {"a.webm": "libvpx", "a.avi": "mpeg4"}.get(name, "libx264")
    path = make_clip(name, 30, codec=codec)
    path.write_bytes(path.read_bytes()[:-200])
    assert "cut short" in refusal(path)


def coded(codec: str, pix_fmt: str) -> bytes:
    """A picture of noise, as one of FFmpeg's encoders writes it into a file of its own."""
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = 33, 20, pix_fmt
    context.time_base = Fraction(1, 25)
    noise = np.random.default_rng(0).integers(1, 255, (20, 33, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format=pix_fmt)
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.exr", "exr", "gbrpf32le"),
        ("a.pcx", "pcx", "rgb24"),
        ("a.sgi", "sgi", "rgb24"),
        ("a.ras", "sunrast", "bgr24"),
        ("a.mjpeg", "mjpeg", "yuvj420p"),
    ],
)
def test_cut_pictures_that_only_ffmpeg_decodes(
    tmp_path: Path, name: str, codec: str, pix_fmt: str
) -> None:
    data, path = coded(codec, pix_fmt), tmp_path / name
    path.write_bytes(data)
    with open_clip(path) as reader:
        assert len(list(reader)) == 1
    for missing in (20, len(data) // 3, len(data) // 2):
        path.write_bytes(data[:-missing])
        assert "cut short" in refusal(path)


def test_an_exr_of_absurd_offsets() -> None:
    table = struct.pack("<QQ", 25, 2**64 - 1) + bytes(60)
    with av.open(io.BytesIO(coded("exr", "gbrpf32le")), "r", format="exr_pipe") as box:
        stream = box.streams.video[0]
        frame = next(iter(box.decode(video=0)))
        assert is_cut(stream, b"\x76\x2f\x31\x01" + bytes(5) + table, frame)


def test_memory_of_pictures_that_only_ffmpeg_decodes(tmp_path: Path) -> None:
    path = tmp_path / "a.pcx"
    path.write_bytes(coded("pcx", "rgb24"))
    with pytest.raises(VideoError, match=r"33x20 pixels takes up to .* more than the limit"):
        open_clip(path, image_memory=10_000)
    with open_clip(path, image_memory=100_000) as reader:
        assert len(list(reader)) == 1


def test_a_trimmed_file_is_whole(make_clip: MakeClip, tmp_path: Path) -> None:
    # Copying from amid the clip leaves an edit list and samples that are not shown.
    source, trimmed = make_clip("a.mp4", 40, options={"g": "10", "crf": "1"}), tmp_path / "b.mp4"
    with av.open(str(source)) as box, av.open(str(trimmed), "w") as out:
        stream = out.add_stream_from_template(box.streams.video[0])
        box.seek(20 * 512, stream=box.streams.video[0])
        for packet in box.demux(video=0):
            if packet.size and packet.pts is not None and packet.dts is not None:
                packet.pts -= 23 * 512
                packet.dts -= 23 * 512
                packet.stream = stream
                out.mux(packet)
    with open_clip(trimmed) as reader:
        assert len(list(reader)) >= 17


def test_overwritten_packets(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4", 40, width=128, height=96, container_options=FASTSTART)
    data = bytearray(path.read_bytes())
    middle = (data.index(b"mdat") + len(data)) // 2
    data[middle : middle + 800] = bytes(800)
    path.write_bytes(data)
    assert "damaged" in refusal(path)


def test_resolution_change(tmp_path: Path) -> None:
    small = write_clip(tmp_path / "a.h264", 5)
    large = write_clip(tmp_path / "b.h264", 5, width=96)
    joined = tmp_path / "joined.h264"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    message = refusal(joined)
    assert "from 64x48 to 96x48 at frame 5" in message


def test_nothing_after_start(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4", 25)
    message = refusal(path, Sampling(start=7.5))
    assert "nothing is left after 7.5 s" in message
    assert "1.000 s long" in message
    with pytest.raises(VideoError, match="one image"):
        image = path.with_suffix(".png")
        Image.new("RGB", (8, 8)).save(image)
        open_clip(image, Sampling(start=1))


def test_absurd_size(tmp_path: Path) -> None:
    """In a process of its own: FFmpeg is asked for its words only while no other thread runs."""
    path = tmp_path / "a.y4m"
    path.write_bytes(b"YUV4MPEG2 W30000 H30000 F25:1 C420\nFRAME\n" + bytes(1000))
    code = f"from wfvae_cli.media.reader import open_clip; open_clip({str(path)!r})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "VideoError" in answer.stderr.splitlines()[-1]
    assert "30000x30000" in answer.stderr.splitlines()[-1]


def test_frames_before_the_first_key_frame_are_told(make_clip: MakeClip, tmp_path: Path) -> None:
    source = make_clip("a.ts", 30, codec="mpeg2video", options={"g": "10"})
    cut = tmp_path / "cut.ts"
    with av.open(str(source)) as box, av.open(str(cut), "w") as out:
        stream = out.add_stream_from_template(box.streams.video[0])
        for i, packet in enumerate(box.demux(video=0)):
            if i >= 5 and packet.size:
                packet.stream = stream
                out.mux(packet)
    with open_clip(cut) as reader:
        assert len(list(reader)) == 20
        assert any("first 5 frames" in notice for notice in reader.info.notices)


def test_mp4_with_its_index_at_the_end_on_a_pipe(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than FFmpeg buffers, in which it could go back.
    noise = np.random.default_rng(0).integers(0, 255, (10, 96, 128, 3), np.uint8)
    pipe(monkeypatch, make_clip("a.mp4", list(noise)).read_bytes())
    message = refusal("-")
    assert "standard input" in message
    assert "matroska" in message


@pytest.mark.parametrize("options", [FASTSTART, {"movflags": "frag_every_frame+empty_moov"}])
@pytest.mark.parametrize("keep", [0.6, 0.97])
def test_truncated_mp4_on_a_pipe(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], keep: float
) -> None:
    data = make_clip("a.mp4", 40, container_options=options).read_bytes()
    pipe(monkeypatch, data[: int(len(data) * keep)])
    assert "cut short" in refusal("-")


@pytest.mark.parametrize("name", ["a.mkv", "a.avi"])
def test_truncated_others_on_a_pipe(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    data = make_clip(name, 40, codec="mpeg4").read_bytes()
    pipe(monkeypatch, data[: len(data) * 3 // 4])
    assert "cut short" in refusal("-")


def test_latents_on_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    data = safetensors.numpy.save({"latents": np.zeros((1, 16, 2, 4, 4), np.float32)})
    pipe(monkeypatch, data)
    assert "wfvae decode" in refusal("-")


@pytest.mark.parametrize("data", [b"", b"hello, world\n" * 50])
def test_nothing_or_text_on_a_pipe(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    pipe(monkeypatch, data)
    assert "standard input" in refusal("-")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_interrupt_while_ffmpeg_reads_a_pipe(
    make_clip: MakeClip,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    stop: type[BaseException],
) -> None:
    data = io.BytesIO(make_clip("a.mkv", 5).read_bytes()[:2000])

    class Interrupted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            part = data.read(size)
            if not part:
                raise stop
            return part

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Interrupted()))
    with pytest.raises(stop):
        list(open_clip("-"))
    assert capfd.readouterr().err == ""


def test_nothing_of_ffmpeg_reaches_stderr(
    make_clip: MakeClip, capfd: pytest.CaptureFixture[str]
) -> None:
    path = make_clip("a.mp4", 40, width=128, height=96, container_options=FASTSTART)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 500] = bytes(500)
    path.write_bytes(data)
    refusal(path)
    path.write_bytes(data[: data.index(b"moov")])
    refusal(path)
    assert capfd.readouterr().err == ""


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(where=st.floats(0, 1), junk=st.binary(min_size=1, max_size=40), cut=st.booleans())
def test_damage_is_a_video_error_or_harmless(
    tmp_path: Path, where: float, junk: bytes, cut: bool
) -> None:
    path = tmp_path / "fuzzed.mkv"
    if not (tmp_path / "good.mkv").exists():
        write_clip(tmp_path / "good.mkv", 8)
    data = bytearray((tmp_path / "good.mkv").read_bytes())
    at = int(where * (len(data) - 1))
    data[at : at + len(junk)] = junk
    path.write_bytes(data[:at] if cut else data)
    try:
        with open_clip(path, threads=1) as reader:
            for frame in reader:
                assert frame.pixels.ndim == 3
    except VideoError as error:
        assert "fuzzed.mkv" in str(error)


def test_layouts(make_clip: MakeClip) -> None:
    for name in ("a.mp4", "a.mkv", "a.mov", "a.avi"):
        path = make_clip(name, 3, codec="mpeg4")
        file, size = LocalFile(path), path.stat().st_size
        announced = file.announced()
        assert announced is not None
        assert size - 1 <= announced <= size
        assert file.structure().has_index == (name in ("a.mp4", "a.mov"))
        assert probe(path).width == 64


def test_a_matroska_whose_end_was_zeroed(make_clip: MakeClip) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8)
    path = make_clip("clip.mkv", list(noise), codec="ffv1", pix_fmt="yuv444p")
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4 :] = bytes(len(data) - len(data) * 3 // 4)
    path.write_bytes(data)
    with (
        pytest.raises(VideoError, match=r"its video ends after .* the container announces"),
        open_clip(path) as reader,
    ):
        list(reader)
