from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.metrics.test_clip import clips, measure
from wfvae_cli.errors import InputError, VideoError
from wfvae_cli.media.clip import ClipInfo
from wfvae_cli.media.options import Sampling
from wfvae_cli.metrics.clip import ClipMetrics
from wfvae_cli.metrics.compare import Measures, compare_clips, compare_directories
from wfvae_cli.metrics.frechet import FrechetDistance
from wfvae_cli.metrics.pixels import Pixels
from wfvae_cli.metrics.result import ClipResult, FailedFile, FileResult, FrameScores
from wfvae_cli.metrics.stills import WorstFrames


def write_video(path: Path, frames: Pixels) -> Path:
    """Write THWC RGB losslessly: FFV1 in RGB, 8 or 16 bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deep = frames.dtype == np.uint16
    with av.open(path, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=Fraction(25))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "gbrp16le" if deep else "bgr0"
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb48le" if deep else "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_image(path: Path, pixels: Pixels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_two_videos_give_the_scores_of_their_frames(tmp_path: Path) -> None:
    x, y = clips(5)
    seen: list[None] = []
    result = compare_clips(
        write_video(tmp_path / "a.mkv", x),
        write_video(tmp_path / "b.mkv", y),
        on_frame=lambda: seen.append(None),
    )
    assert result == measure(x, y)
    assert result.frames == len(seen) == 5


def test_two_images_are_clips_of_one_frame(tmp_path: Path) -> None:
    x, y = clips(1, height=45, width=31)
    a, b = write_image(tmp_path / "a.png", x[0]), write_image(tmp_path / "b.png", y[0])
    assert compare_clips(a, b) == measure(x, y)


def test_sampling_applies_to_both(tmp_path: Path) -> None:
    x, y = clips(6)
    a, b = write_video(tmp_path / "a.mkv", x), write_video(tmp_path / "b.mkv", y[:4])
    assert compare_clips(a, b, sampling=Sampling(frames=3)) == measure(x[:3], y[:3])


def test_an_8_bit_clip_is_compared_with_a_16_bit_one_over_16_bits(tmp_path: Path) -> None:
    x, y = clips(2)
    deep = y.astype(np.uint16) * np.uint16(257) + np.uint16(100)
    a, b = write_video(tmp_path / "a.mkv", x), write_video(tmp_path / "b.mkv", deep)
    result = compare_clips(a, b)
    assert result == measure(x, deep)
    assert result.bits == 16


def test_sizes_that_differ_are_an_error_that_names_both(tmp_path: Path) -> None:
    a = write_video(tmp_path / "a.mkv", clips(1)[0])
    b = write_video(tmp_path / "b.mkv", clips(1, height=30)[0])
    with pytest.raises(InputError, match=r"a\.mkv is 32x24 and .*b\.mkv 32x30"):
        compare_clips(a, b)


@pytest.mark.parametrize(("frames", "others"), [(3, 7), (7, 3), (4, 5)])
def test_lengths_that_differ_are_an_error_that_names_both(
    tmp_path: Path, frames: int, others: int
) -> None:
    x, y = clips(7)
    a, b = write_video(tmp_path / "a.mkv", x[:frames]), write_video(tmp_path / "b.mkv", y[:others])
    with pytest.raises(InputError) as caught:
        compare_clips(a, b)
    message = str(caught.value)
    assert f"{a} has {frames} frames and {b} {others};" in message
    assert f"take the first {min(frames, others)} of both" in message


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    a = write_image(tmp_path / "a.png", clips(1)[0][0])
    with pytest.raises(VideoError, match="absent"):
        compare_clips(a, tmp_path / "absent.png")


def test_no_more_than_one_frame_of_each_side_is_asked_for_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = (
        write_video(tmp_path / name, x)
        for name, x in zip(("a.mkv", "b.mkv"), clips(9), strict=True)
    )
    from wfvae_cli.media.reader import ClipReader

    read, measured = [0], [0]
    take, update = ClipReader.__next__, ClipMetrics.update

    def counted_take(self: ClipReader) -> object:
        read[0] += 1
        return take(self)

    def counted_update(self: ClipMetrics, x: Pixels, y: Pixels) -> object:
        measured[0] += 1
        assert read[0] == 2 * measured[0]
        return update(self, x, y)

    monkeypatch.setattr(ClipReader, "__next__", counted_take)
    monkeypatch.setattr(ClipMetrics, "update", counted_update)
    assert compare_clips(a, b).frames == measured[0] == 9


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """Two directories: a video, an image, a clip that is short, a damaged one, one alone."""
    a, b = tmp_path / "a", tmp_path / "b"
    x, y = clips(4)
    write_video(a / "one/video.mkv", x)
    write_video(b / "one/video.avi", y)
    write_image(a / "image.png", x[0])
    write_image(b / "image.png", x[1])
    write_video(a / "short.mkv", x)
    write_video(b / "short.mkv", 255 - x[:3])
    write_video(a / "broken.mkv", x)
    (b / "broken.mkv").write_text("no video")
    write_image(a / "alone.png", x[0])
    return a, b


def test_directories_skip_and_report_what_cannot_be_compared(trees: tuple[Path, Path]) -> None:
    seen: list[FileResult | FailedFile] = []
    comparison = compare_directories(*trees, on_file=seen.append)
    x, y = clips(4)
    assert {file.name: file.result for file in comparison.files} == {
        "image.png": measure(x[:1], x[1:2]),
        "one/video.mkv": measure(x, y),
    }
    errors = {file.name: file.error for file in comparison.failed}
    assert sorted(errors) == ["alone.png", "broken.mkv", "short.mkv"]
    assert "no counterpart" in errors["alone.png"]
    assert "4 frames" in errors["short.mkv"] and "broken.mkv" in errors["broken.mkv"]
    assert sorted(file.name for file in seen) == sorted([*errors, "image.png", "one/video.mkv"])
    assert all(file in seen for file in (*comparison.files, *comparison.failed))
    assert [file.name for file in comparison.worst(1)] == ["image.png"]


def test_what_was_skipped_is_in_no_still_and_no_distance(
    trees: tuple[Path, Path], tmp_path: Path
) -> None:
    pytest.importorskip("torchmetrics.image.fid", exc_type=ImportError)
    fid = FrechetDistance("fid", lambda batch: batch.float().mean(dim=(2, 3)))
    folder = tmp_path / "stills"
    compare_directories(
        *trees,
        measures=Measures(distances=(fid,)),
        observe=lambda pair, info: [WorstFrames(2, name=pair.name, directory=folder)],
    )
    assert fid.samples == 5
    stills = sorted(path.name for path in folder.iterdir())
    assert len(stills) == 3
    assert "image.png" in stills[0]
    assert all("one_video.mkv" in name for name in stills[1:])


def test_observers_hear_how_their_clip_ended(trees: tuple[Path, Path]) -> None:
    heard: dict[str, list[object]] = {}

    class Observer:
        def __init__(self, name: str, info: ClipInfo) -> None:
            self.name = name
            heard[name] = [(info.width, info.height, info.is_image)]

        def observe(self, scores: FrameScores, original: Pixels, reconstruction: Pixels) -> None:
            heard[self.name].append(scores.index)

        def close(self, result: ClipResult | None) -> None:
            heard[self.name].append(result)

    done = compare_directories(*trees, observe=lambda pair, info: [Observer(pair.name, info)])
    results = {file.name: file.result for file in done.files}
    assert heard == {
        "image.png": [(32, 24, True), 0, results["image.png"]],
        "one/video.mkv": [(32, 24, False), 0, 1, 2, 3, results["one/video.mkv"]],
        "short.mkv": [(32, 24, False), 0, 1, 2, None],
    }


def test_a_protocol_refuses_shorter_clips(trees: tuple[Path, Path]) -> None:
    done = compare_directories(*trees, sampling=Sampling(frames=4), measures=Measures(frames=4))
    assert [file.name for file in done.files] == ["one/video.mkv"]
    errors = {file.name: file.error for file in done.failed}
    assert "expected 4 frames" in errors["image.png"] and "got 1" in errors["image.png"]


def test_learned_scores_reach_the_result(tmp_path: Path) -> None:
    x, y = clips(2)
    a, b = write_video(tmp_path / "a.mkv", x), write_video(tmp_path / "b.mkv", y)
    measures = Measures(ms_ssim=False, lpips=lambda original, reconstruction: 0.25)
    assert compare_clips(a, b, measures=measures).lpips == 0.25


def test_directories_of_bad_files_only_are_an_error(tmp_path: Path) -> None:
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "x.mkv").write_text("no video")
    with pytest.raises(
        InputError, match=r"none of the 1 files could be compared; the first, x\.mkv"
    ):
        compare_directories(tmp_path / "a", tmp_path / "b")
