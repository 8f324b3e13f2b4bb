import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame

from tests.media.outputs import info_for, names, pictures, probe, write
from wfvae_cli.errors import OutputError, UsageError, VideoError
from wfvae_cli.media.audio import AudioTrack
from wfvae_cli.media.writer import open_writer

RATE = 48000


def source(path: Path, codec: str | None = "aac", frames: int = 60) -> Path:
    """A video of 24 frames/s with a rising tone, so that no two packets of sound are equal."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("mpeg4", rate=24)
        video.width = video.height = 64
        sound = output.add_stream(codec, rate=RATE) if codec else None
        if sound is not None:
            assert isinstance(sound, av.AudioStream)
            sound.layout = "mono"
            resampler = av.AudioResampler(sound.codec_context.format.name, "mono", RATE)
        step = RATE // 24
        for i in range(frames):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 4 * i % 256, np.uint8))
            picture.pts = i
            output.mux(video.encode(picture))
            if sound is None:
                continue
            t = (np.arange(step) + i * step) / RATE
            tone = (0.4 * np.sin(2 * np.pi * (300 + 200 * t) * t)).astype(np.float32)[None]
            heard = AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = RATE, i * step, Fraction(1, RATE)
            for part in resampler.resample(heard):
                output.mux(sound.encode(part))
        output.mux(video.encode())
        if sound is not None:
            output.mux(sound.encode())
    return path


def packets(path: Path) -> list[tuple[Fraction, bytes]]:
    """Time and content of every packet of sound."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return [
            (Fraction(packet.pts or 0) * packet.time_base, bytes(packet))
            for packet in container.demux(stream)
            if packet.size
        ]


@pytest.mark.parametrize(
    ("codec", "made", "target", "rounding"),
    [
        ("aac", "s.mp4", "o.mp4", 0),
        ("aac", "s.mp4", "o.mov", 0),
        ("aac", "s.mp4", "o.mkv", Fraction(1, 2000)),
        ("libopus", "s.mkv", "o.mkv", 0),
        ("libopus", "s.mkv", "o.webm", 0),
        ("libopus", "s.mkv", "o.mp4", 0),
        ("mp3", "s.avi", "o.mp4", 0),
        ("mp3", "s.avi", "o.mkv", Fraction(1, 2000)),
        ("pcm_s16le", "s.mov", "o.mov", 0),
        ("flac", "s.mkv", "o.mp4", 0),
    ],
)
@pytest.mark.parametrize(("start", "frames"), [(Fraction(0), 60), (Fraction(1), 20)])
def test_packets_keep_content_and_time(
    tmp_path: Path,
    codec: str,
    made: str,
    target: str,
    rounding: Fraction | int,
    start: Fraction,
    frames: int,
) -> None:
    clip = source(tmp_path / made, codec)
    info = info_for(start=start)
    write(tmp_path / target, info, pictures(info, frames), audio_from=clip)
    # PCM is cut into packets anew by the demuxer, so compare where it can be compared.
    before = {content: time for time, content in packets(clip)}
    after = packets(tmp_path / target)
    same = [(time, before[content] - start) for time, content in after if content in before]
    assert len(same) >= 0.8 * len(after)
    assert max(abs(a - b) for a, b in same) <= rounding
    # The clip's pictures stay where they were, and the sound covers them but ends with them.
    times = probe(tmp_path / target).times
    assert (times[0], len(times)) == (Fraction(0), frames)
    end = Fraction(frames, 24)
    assert after[-1][0] < end
    assert after[0][0] <= Fraction(1, 10)
    assert len(after) >= 0.9 * sum(start <= time < start + end for time in before.values())


def test_no_sound_is_told_and_no_error(tmp_path: Path) -> None:
    clip = source(tmp_path / "s.mp4", None)
    info = info_for()
    (notice,) = write(tmp_path / "o.mp4", info, pictures(info, 3), audio_from=clip)
    assert "has no sound track" in notice
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert not container.streams.audio


def test_sound_that_the_container_cannot_hold(tmp_path: Path) -> None:
    clip = source(tmp_path / "s.mp4")
    info = info_for()
    with pytest.raises(OutputError, match=r"webm cannot hold sound as aac.*--audio none.*\.mkv"):
        write(tmp_path / "o.webm", info, pictures(info, 3), audio_from=clip)
    assert names(tmp_path) == ["s.mp4"]


def test_sound_that_cannot_be_read(tmp_path: Path) -> None:
    info = info_for()
    with pytest.raises(VideoError, match=r"no\.mp4: no such file .* sound track to copy; check"):
        write(tmp_path / "o.mp4", info, pictures(info, 3), audio_from=tmp_path / "no.mp4")
    assert names(tmp_path) == []
    (tmp_path / "text.mp4").write_text("no sound")
    with pytest.raises(VideoError, match="cannot read a sound track"):
        write(tmp_path / "o.mp4", info, pictures(info, 3), audio_from=tmp_path / "text.mp4")
    assert names(tmp_path) == ["text.mp4"]


def test_sound_of_standard_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="standard input"):
        open_writer(tmp_path / "o.mp4", info_for(), audio_from="-")


def test_sound_shorter_than_the_clip(tmp_path: Path) -> None:
    clip = source(tmp_path / "s.mp4", frames=12)
    info = info_for()
    write(tmp_path / "o.mp4", info, pictures(info, 48), audio_from=clip)
    assert len(packets(tmp_path / "o.mp4")) == len(packets(clip))
    assert len(probe(tmp_path / "o.mp4").times) == 48


def test_a_late_start_seeks(tmp_path: Path) -> None:
    clip = source(tmp_path / "s.mp4", frames=24 * 12)
    info = info_for(start=Fraction(10))
    write(tmp_path / "o.mp4", info, pictures(info, 24), audio_from=clip)
    before = {content: time for time, content in packets(clip)}
    after = packets(tmp_path / "o.mp4")
    assert all(before[content] - 10 == time for time, content in after)
    assert after[0][0] <= 0 < after[-1][0] < 1


def test_packets_are_given_once_and_in_order(tmp_path: Path) -> None:
    clip = source(tmp_path / "s.mp4")
    with av.open(str(tmp_path / "o.mp4"), "w") as output, AudioTrack(clip, Fraction(0)) as track:
        assert track.present
        track.attach(output, "o.mp4")
        times = [
            Fraction(packet.pts or 0) * packet.time_base
            for end in (0, 1, 1, 2)
            for packet in track.before(Fraction(end))
        ]
        output.start_encoding()
    assert times == sorted(set(times))
    assert Fraction(19, 10) < times[-1] < 2


def test_sound_of_joined_recordings_goes_on(tmp_path: Path) -> None:
    part = source(tmp_path / "part.ts", "mp2", 12)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 3)
    info = info_for(start=Fraction(0))
    write(tmp_path / "o.mp4", info, pictures(info, 36), audio_from=joined)
    times = [time for time, _ in packets(tmp_path / "o.mp4")]
    steps = [after - before for before, after in itertools.pairwise(times)]
    length = Fraction(1152, 48000)
    assert max(abs(step - length) for step in steps) < length / 2
    assert times[-1] > Fraction(3 * 12, 24) - 4 * length
