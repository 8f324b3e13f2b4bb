import io
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.media.outputs import info_for, names, pictures, probe, write
from wfvae_cli.errors import OutputError, UsageError
from wfvae_cli.media.clip import Colour, Frame
from wfvae_cli.media.options import VideoOptions
from wfvae_cli.media.reader import open_clip
from wfvae_cli.media.to_planes import to_planes_on_host
from wfvae_cli.media.writer import VideoWriter, open_writer

FFV1 = VideoOptions(codec="ffv1")

# Frames of 1 to 9000 units of 1/90000 s: no rate has these times.
VARIABLE = [0, 773, 3800, 3801, 12000, 13333, 20000, 20100, 25000, 26000, 33000, 41999]


def test_default_is_h264_in_mp4(tmp_path: Path) -> None:
    info = info_for()
    sent = pictures(info, 12)
    write(tmp_path / "a.mp4", info, sent)
    video = probe(tmp_path / "a.mp4")
    assert (video.codec, video.pix_fmt) == ("h264", "yuv420p")
    assert names(tmp_path) == ["a.mp4"]
    error = np.stack(video.frames).astype(float) - np.stack(sent)
    assert len(video.frames) == 12
    assert np.abs(error).mean() < 1.5
    assert abs(error.mean()) < 0.5  # no shift of colour or range


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("size", [(64, 48), (33, 31)])
def test_ffv1_is_lossless(tmp_path: Path, size: tuple[int, int], deep: bool) -> None:
    info = info_for(*size, deep=deep)
    sent = pictures(info, 4, noise=True)
    write(tmp_path / "a.mkv", info, sent, FFV1)
    video = probe(tmp_path / "a.mkv", deep=deep)
    assert video.codec == "ffv1"
    np.testing.assert_array_equal(np.stack(video.frames), np.stack(sent))


@pytest.mark.parametrize("size", [(64, 48), (33, 31)])
def test_converted_frames_give_the_same_file(tmp_path: Path, size: tuple[int, int]) -> None:
    info = info_for(*size)
    sent = pictures(info, 4)
    write(tmp_path / "a.mp4", info, sent)
    with open_writer(tmp_path / "b.mp4", info) as writer:
        assert writer.planes is not None
        for pts, picture in enumerate(sent):
            writer.write_planes(to_planes_on_host(picture, writer.planes), pts)
        with pytest.raises(UsageError, match="in order of time, got pts 3 after 3"):
            writer.write_planes(np.zeros(0, np.uint8), 3)
    assert writer.frames == 4
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize("name", ["a.png", "a%05d.png", "a.mkv"])
def test_rgb_outputs_take_rgb(tmp_path: Path, name: str) -> None:
    options = FFV1 if name == "a.mkv" else None
    with open_writer(tmp_path / name, info_for(), options) as writer:
        assert writer.planes is None
        with pytest.raises(UsageError, match="expected RGB frames"):
            writer.write_planes(np.zeros(64 * 48 * 3, np.uint8), 0)
        writer.write(Frame(pictures(info_for(), 1)[0], 0))


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_10_bits_stay(tmp_path: Path, codec: str) -> None:
    info = info_for(deep=True, source_bits=10)
    sent = pictures(info, 6)
    write(tmp_path / "a.mp4", info, sent, VideoOptions(codec=codec, crf=4))
    video = probe(tmp_path / "a.mp4", deep=True)
    assert video.pix_fmt == "yuv420p10le"
    error = np.stack(video.frames).astype(float) - np.stack(sent)
    assert np.abs(error).mean() / 65535 < 1 / 256
    # A slope has more than 8 bits' worth of levels.
    assert len(np.unique(np.stack(video.frames) // 64)) > 400


@pytest.mark.parametrize("size", [(63, 48), (64, 47), (9, 11), (8, 8)])
def test_every_pixel_of_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    info = info_for(*size)
    sent = pictures(info, 3)
    write(tmp_path / "a.mp4", info, sent)
    video = probe(tmp_path / "a.mp4")
    got = np.stack(video.frames).astype(float)
    assert got.shape == np.stack(sent).shape
    assert video.pix_fmt == ("yuv420p" if size == (8, 8) else "yuv444p")
    assert np.abs(got - np.stack(sent)).mean() < 3


@pytest.mark.parametrize(
    ("colour", "tags", "pix_fmt"),
    [
        (Colour("bt709", "tv", "bt709", "bt709"), (1, 1, 1, 1), "yuv420p"),
        (Colour("smpte170m", "pc", "bt470bg", "smpte170m"), (6, 2, 5, 6), "yuvj420p"),
        (Colour("bt2020nc", "tv", "bt2020", "smpte2084"), (9, 1, 9, 16), "yuv420p"),
        (Colour("gbr", "pc", "bt709", "iec61966-2-1"), (1, 1, 1, 13), "yuv420p"),
        (Colour(), (1, 1, 2, 2), "yuv420p"),
    ],
)
def test_colour_tags_and_pixels_agree(
    tmp_path: Path, colour: Colour, tags: tuple[int, ...], pix_fmt: str
) -> None:
    info = info_for(colour=colour)
    colours = np.array([[230, 30, 40], [20, 200, 60], [30, 40, 220], [250, 250, 250]], np.uint8)
    sent = colours.repeat(16, axis=0)[None].repeat(48, axis=0)  # four bars
    write(tmp_path / "a.mp4", info, [sent] * 3, VideoOptions(crf=1))
    video = probe(tmp_path / "a.mp4")  # undoes what the tags say
    assert video.tags == tags
    assert video.pix_fmt == pix_fmt
    middles = np.arange(8, 64, 16)
    np.testing.assert_allclose(video.frames[0][24, middles], colours, atol=4)


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(30000, 1001), Fraction(25, 2)])
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_times_at_a_constant_rate(tmp_path: Path, rate: Fraction, suffix: str) -> None:
    info = info_for(rate=rate, time_base=1 / rate)
    path = tmp_path / f"a{suffix}"
    write(path, info, pictures(info, 30))
    video = probe(path)
    assert video.times == [i / rate for i in range(30)]
    assert video.rate == rate
    assert video.duration == pytest.approx(30 / float(rate), abs=0.001)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".nut", ".ts"])
@pytest.mark.parametrize("rate", [None, Fraction(25)])
def test_times_at_a_variable_rate(tmp_path: Path, suffix: str, rate: Fraction | None) -> None:
    info = info_for(rate=rate, time_base=Fraction(1, 90000))
    path = tmp_path / f"a{suffix}"
    wanted = [Fraction(pts, 90000) for pts in VARIABLE]
    if suffix in (".mkv", ".webm"):  # milliseconds, and no two frames in one
        variable = [pts for pts in VARIABLE if pts not in (3801, 20100)]
        wanted = [Fraction(pts, 90000) for pts in variable]
    write(path, info, pictures(info, len(wanted)), pts=[int(time * 90000) for time in wanted])
    got = probe(path).times
    if suffix in (".mkv", ".webm"):
        assert max(abs(a - b) for a, b in zip(got, wanted, strict=True)) <= Fraction(1, 2000)
    else:
        assert got == wanted


@pytest.mark.parametrize(("rate", "last"), [(Fraction(25), 3600), (None, 8999)])
def test_the_last_frame_lasts(tmp_path: Path, rate: Fraction | None, last: int) -> None:
    info = info_for(rate=rate, time_base=Fraction(1, 90000))
    write(tmp_path / "a.mp4", info, pictures(info, len(VARIABLE)), pts=VARIABLE)
    # As the file says it (ISO/IEC 14496-12, 8.2.2): FFmpeg counts it from reordered packets.
    content = (tmp_path / "a.mp4").read_bytes()
    scale, duration = struct.unpack_from(">II", content, content.index(b"mvhd") + 16)
    assert duration / scale == pytest.approx((VARIABLE[-1] + last) / 90000, abs=0.001)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(
    ("rate", "options"),
    [
        (Fraction(25), VideoOptions()),
        (None, VideoOptions()),
        (Fraction(25), VideoOptions(codec="mpeg4")),
    ],
)
def test_the_last_frame_is_held(
    tmp_path: Path, suffix: str, rate: Fraction | None, options: VideoOptions
) -> None:
    info = info_for(rate=rate, time_base=Fraction(1, 1000))
    path = tmp_path / f"a{suffix}"
    with open_writer(path, info, options) as writer:
        for i, pixels in enumerate(pictures(info, 10)):
            writer.write(Frame(pixels, 40 * i))
        writer.end = 3000
    with open_clip(path) as reader:
        assert len(list(reader)) == 10
        assert reader.end is not None
        assert reader.end * reader.info.time_base == 3
        with open_writer(tmp_path / f"b{suffix}", info, options) as writer:
            writer.write(Frame(pictures(info, 1)[0], 0))
    with open_clip(tmp_path / f"b{suffix}") as reader:
        assert len(list(reader)) == 1
        assert reader.end is not None
        assert reader.end * reader.info.time_base == pytest.approx(0.04, abs=0.001)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rate": Fraction(2**40, 2**40 - 1)}, "frame rate"),
        ({"time_base": Fraction(1, 2**40)}, "time base"),
        ({"sample_aspect": Fraction(2**40, 3)}, "pixel aspect"),
        ({"sample_aspect": Fraction(1, 2**40)}, "pixel aspect"),
        ({"width": 70000, "height": 2}, "70000x2"),
    ],
)
def test_numbers_that_no_video_can_store(
    tmp_path: Path, suffix: str, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(OutputError, match=named):
        open_writer(tmp_path / f"a{suffix}", info_for(**changes))
    assert names(tmp_path) == []


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", None), (".avi", None), (".mkv", "av1")])
def test_a_picture_too_large_for_its_encoder(
    tmp_path: Path, suffix: str, codec: str | None
) -> None:
    info = info_for(20000, 16)
    with pytest.raises(OutputError, match="20000x16"):
        write(tmp_path / f"a{suffix}", info, pictures(info, 1), VideoOptions(codec=codec))
    assert names(tmp_path) == []


def test_times_that_no_video_can_store(tmp_path: Path) -> None:
    info = info_for(rate=None)
    for late in (2**63, 2**70):
        with pytest.raises(OutputError, match="later than"):
            write(tmp_path / "a.mkv", info, pictures(info, 2), pts=[0, late])
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["hls", "dash", "segment", "tee", "image2"])
def test_containers_of_several_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not one file"):
        open_writer(tmp_path / "a.mkv", info_for(), VideoOptions(container=name))


def test_constant_rate_containers(tmp_path: Path) -> None:
    milliseconds = [0, 33, 67, 100, 133, 167]  # 30 frames a second, as Matroska rounds them
    info = info_for(rate=Fraction(30), time_base=Fraction(1, 1000))
    write(tmp_path / "a.avi", info, pictures(info, 6), pts=milliseconds)
    assert probe(tmp_path / "a.avi").times == [Fraction(i, 30) for i in range(6)]
    with pytest.raises(UsageError, match="constant frame rate"):
        write(tmp_path / "b.avi", info, pictures(info, 3), pts=[0, 33, 50])
    assert names(tmp_path) == ["a.avi"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".nut"])
def test_pixel_aspect(tmp_path: Path, suffix: str) -> None:
    info = info_for(sample_aspect=Fraction(16, 11))
    path = tmp_path / f"a{suffix}"
    write(path, info, pictures(info, 3))
    assert probe(path).aspect == Fraction(16, 11)


@pytest.mark.parametrize("codec", ["vp9", "av1", "prores", "mpeg4", "mjpeg", "libx264rgb"])
def test_other_codecs(tmp_path: Path, codec: str) -> None:
    info = info_for()
    sent = pictures(info, 5)
    write(tmp_path / "a.mkv", info, sent, VideoOptions(codec=codec))
    video = probe(tmp_path / "a.mkv")
    assert len(video.frames) == 5
    assert np.abs(np.stack(video.frames).astype(float) - np.stack(sent)).mean() < 4


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    info = info_for(rate=None, time_base=Fraction(1))
    write(tmp_path / "a.mp4", info, pictures(info, 1))
    assert len(probe(tmp_path / "a.mp4").frames) == 1


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
@pytest.mark.parametrize("size", [(64, 48), (352, 288)])
def test_same_input_same_bytes(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    info = info_for(*size)
    sent = pictures(info, 8)
    contents = set()
    for _ in range(3):
        write(tmp_path / name, info, sent, overwrite=True)
        contents.add((tmp_path / name).read_bytes())
    assert len(contents) == 1


def test_the_bytes_do_not_tell_the_number_of_cores(tmp_path: Path) -> None:
    info = info_for(128, 96)
    write(tmp_path / "a.mp4", info, pictures(info, 8))
    assert b"threads=8 " in (tmp_path / "a.mp4").read_bytes()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    info = info_for()
    with pytest.raises(error), open_writer(tmp_path / "a.mp4", info) as writer:
        writer.write(Frame(pictures(info, 1)[0], 0))
        raise error
    assert names(tmp_path) == []


def test_an_error_keeps_the_old_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"old")
    info = info_for()
    with (
        pytest.raises(KeyboardInterrupt),
        open_writer(tmp_path / "a.mp4", info, overwrite=True) as writer,
    ):
        writer.write(Frame(pictures(info, 1)[0], 0))
        raise KeyboardInterrupt
    assert (tmp_path / "a.mp4").read_bytes() == b"old"


def test_no_frames_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no frames"):
        write(tmp_path / "a.mp4", info_for(), [])
    assert names(tmp_path) == []


def test_outputs_are_checked_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    with pytest.raises(OutputError, match="exists already"):
        open_writer(tmp_path / "a.mp4", info_for())
    with pytest.raises(OutputError, match="does not exist"):
        open_writer(tmp_path / "no" / "a.mp4", info_for())
    with pytest.raises(UsageError, match="unknown video codec"):
        open_writer(tmp_path / "b.mp4", info_for(), VideoOptions(codec="nonsense"))
    open_writer(tmp_path / "c.mp4", info_for())
    assert names(tmp_path) == ["a.mp4"]


def test_frames_that_were_not_announced(tmp_path: Path) -> None:
    info = info_for()
    good = pictures(info, 1)[0]
    with pytest.raises(UsageError, match=r"shape \(48, 64, 3\) and dtype uint8, got \(48, 32, 3\)"):
        write(tmp_path / "a.mp4", info, [good[:, :32]])
    with pytest.raises(UsageError, match=r"got .*uint16"):
        write(tmp_path / "a.mp4", info, [good.astype(np.uint16)])
    with pytest.raises(UsageError, match="got pts 3 after 3"):
        write(tmp_path / "a.mp4", info, [good, good], pts=[3, 3])
    assert names(tmp_path) == []


def test_an_encoder_that_refuses_says_why(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"dnxhd in mov refuses .* at 64x48: \w+"):
        write(tmp_path / "a.mov", info_for(), [], VideoOptions(codec="dnxhd"))
    assert names(tmp_path) == []


def test_devices(tmp_path: Path) -> None:
    info = info_for()
    write(os.devnull, info, pictures(info, 3), VideoOptions(container="matroska"))
    assert Path(os.devnull).is_char_device()


class _Stdout(io.RawIOBase):
    """Standard output of a pipe: no way back."""

    def __init__(self, limit: int | None = None) -> None:
        self.data = bytearray()
        self.limit = limit

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raw = bytes(data)  # type: ignore[call-overload]  # whatever buffer FFmpeg hands over
        if self.limit is not None and len(self.data) + len(raw) > self.limit:
            raise BrokenPipeError(32, "Broken pipe")
        self.data += raw
        return len(raw)


@pytest.fixture
def stdout(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], _Stdout]:
    def replace(limit: int | None) -> _Stdout:
        raw = _Stdout(limit)
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BufferedWriter(raw)))
        return raw

    return replace


@pytest.mark.parametrize("container", [None, "mp4", "mov", "webm", "mpegts", "nut"])
def test_stdout(stdout: Callable[[int | None], _Stdout], container: str | None) -> None:
    raw = stdout(None)
    info = info_for()
    write("-", info, pictures(info, 30), VideoOptions(container=container))
    with av.open(io.BytesIO(bytes(raw.data)), "r") as opened:
        name = opened.format.name
        video = probe(opened)
    assert (container or "matroska") in name
    wanted = [Fraction(i, 24) for i in range(30)]
    assert max(abs(a - b) for a, b in zip(video.times, wanted, strict=True)) <= Fraction(1, 2000)


def test_stdout_closed_early(stdout: Callable[[int | None], _Stdout]) -> None:
    stdout(200_000)
    info = info_for(128, 96)
    with pytest.raises(BrokenPipeError):
        write("-", info, pictures(info, 60, noise=True), FFV1)


def test_stdout_closed_at_the_end(stdout: Callable[[int | None], _Stdout]) -> None:
    stdout(100)  # all fits into buffers until the end
    info = info_for()
    with pytest.raises(BrokenPipeError):
        write("-", info, pictures(info, 2))


_FULL = """
import os, resource, signal, sys
import torch  # once, before the forks
from tests.media.outputs import info_for, pictures, write
from wfvae_cli.errors import OutputError
from wfvae_cli.media.options import VideoOptions
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
info = info_for(128, 96)
for target, limit in zip(sys.argv[1::2], map(int, sys.argv[2::2])):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    options = () if target.endswith("png") else (VideoOptions(crf=1),)
    try:
        write(target, info, pictures(info, 20, noise=True), *options)
    except OutputError as error:
        print(error)
    sys.exit()
"""


def test_full_disk(tmp_path: Path) -> None:
    limits = {"a.mp4": 50_000, "a.mkv": 50_000, "b.mp4": 100, "a.png": 10, "%d.png": 20_000}
    cases = [text for name in limits for text in (str(tmp_path / name), str(limits[name]))]
    done = subprocess.run(
        [sys.executable, "-c", _FULL, *cases],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    told = done.stdout.splitlines()
    assert len(told) == len(limits) and all("size limit" in line for line in told), told
    assert done.stderr == ""
    assert names(tmp_path) == []


def test_written_from_another_thread(tmp_path: Path) -> None:
    info = info_for()
    with open_writer(tmp_path / "a.mp4", info) as writer:

        def work() -> None:
            for i, pixels in enumerate(pictures(info, 5)):
                writer.write(Frame(pixels, i))

        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
    assert len(probe(tmp_path / "a.mp4").frames) == 5


def test_a_class_for_each_target(tmp_path: Path) -> None:
    info = info_for()
    kinds = {
        "a.mp4": "VideoWriter",
        "a.png": "ImageWriter",
        "a%05d.png": "PatternWriter",
        "a%05d.mp4": "VideoWriter",
    }
    for name, kind in kinds.items():
        assert type(open_writer(tmp_path / name, info)).__name__ == kind
    forced = open_writer(tmp_path / "a.png", info, VideoOptions(container="mp4"))
    assert isinstance(forced, VideoWriter)
