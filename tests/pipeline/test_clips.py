"""Encode, decode and roundtrip of real files, through the Python API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import wfvae_cli as wfvae
from tests.media.conftest import write_clip
from tests.media.outputs import info_for, pictures
from tests.models.build import build
from wfvae_cli.errors import DeviceError, LatentError, UsageError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.latents.metadata import LONGEST_HOLD
from wfvae_cli.latents.normalization import AppliedNormalization
from wfvae_cli.media.clip import ClipInfo, Colour, Frame
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import ClipReader
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.pipeline.batch import ClipStreams, run_batch
from wfvae_cli.pipeline.chunks import FrameSource
from wfvae_cli.pipeline.decode import LatentSource, decode_clip
from wfvae_cli.pipeline.encode import encode_clip, unusual_hold
from wfvae_cli.pipeline.options import DecodedPart, EncodeOptions
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.pipeline.roundtrip import roundtrip_clip

TINY_SHA = "1" * 64


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return wfvae.load_model("wfvae-tiny", device="cpu")


@pytest.fixture(scope="module")
def other() -> LoadedModel:
    """A model of the same shape of latents as none: 4 channels."""
    return LoadedModel(build("mini-wfvae-trilinear"), "mini", TINY_SHA, {})


def moving(frames: int, height: int = 40, width: int = 56) -> list[NDArray[np.uint8]]:
    """A gradient that moves, with a bright square that moves the other way."""
    y, x = np.mgrid[:height, :width]
    clip = []
    for t in range(frames):
        picture = np.stack(((x * 3 + 4 * t) % 256, (y * 4) % 256, (x + y + 2 * t) % 256), axis=-1)
        left = (width - 12 - 2 * t) % max(1, width - 8)
        picture[8:16, left : left + 8] = 240
        clip.append(picture.astype(np.uint8))
    return clip


def read(path: Path) -> tuple[NDArray[np.uint8], list[int]]:
    with wfvae.open_clip(path) as reader:
        frames = list(reader)
    return np.stack([frame.pixels for frame in frames]), [frame.pts for frame in frames]


def lossless(path: Path, frames: int = 22, height: int = 40, width: int = 56) -> Path:
    info = ClipInfo(
        width,
        height,
        frame_rate=Fraction(24),
        time_base=Fraction(1, 24),
        colour=Colour("gbr", "pc"),
    )
    with wfvae.open_writer(path, info, wfvae.VideoOptions(codec="ffv1")) as writer:
        for pts, pixels in enumerate(moving(frames, height, width)):
            writer.write(Frame(pixels, pts))
    return path


@pytest.mark.parametrize("chunk", [5, 9, 17, None])
def test_latents_do_not_depend_on_the_chunk(
    tmp_path: Path, model: LoadedModel, chunk: int | None
) -> None:
    clip = lossless(tmp_path / "in.mkv")
    whole, chunked = tmp_path / "whole.safetensors", tmp_path / "chunked.safetensors"
    encode_clip(clip, whole, model, options=EncodeOptions(chunk=33))
    encode_clip(clip, chunked, model, options=EncodeOptions(chunk=chunk))
    with LatentFile(whole) as a, LatentFile(chunked) as b:
        assert a.shape == b.shape == (16, 7, 5, 7)
        assert (a.read() - b.read()).abs().max() <= 1e-5


@pytest.mark.parametrize("frames", [1, 2, 4, 5, 6, 9, 12])
@pytest.mark.parametrize("size", [(8, 8), (9, 23), (40, 56)])
def test_as_many_frames_of_the_same_size_come_back(
    tmp_path: Path, model: LoadedModel, frames: int, size: tuple[int, int]
) -> None:
    clip = lossless(tmp_path / "in.mkv", frames, *size)
    z, out = tmp_path / "z.safetensors", tmp_path / "out.mkv"
    encode_clip(clip, z, model, options=EncodeOptions(chunk=5))
    decode_clip(z, out, model, video=wfvae.VideoOptions(codec="ffv1"), chunk=9)
    original, pts = read(clip)
    decoded, decoded_pts = read(out)
    assert decoded.shape == original.shape == (frames, *size, 3)
    assert decoded_pts == pts


def test_a_roundtrip_equals_encode_then_decode(tmp_path: Path, model: LoadedModel) -> None:
    clip, z = lossless(tmp_path / "in.mkv"), tmp_path / "z.safetensors"
    options = wfvae.VideoOptions(codec="ffv1")
    encode_clip(clip, z, model, options=EncodeOptions(chunk=9))
    decode_clip(z, tmp_path / "two.mkv", model, video=options, chunk=9)
    result = roundtrip_clip(clip, tmp_path / "one.mkv", model, video=options, chunk=5)
    one, _ = read(tmp_path / "one.mkv")
    two, _ = read(tmp_path / "two.mkv")
    assert np.abs(one.astype(int) - two.astype(int)).max() <= 1
    original, _ = read(clip)
    error = ((one.astype(float) - original) ** 2).mean(axis=(1, 2, 3))
    assert result.metrics.psnr == pytest.approx((10 * np.log10(255**2 / error)).mean(), abs=1e-3)
    assert result.metrics.psnr > 15, "the embedded model reconstructs"


def test_a_roundtrip_without_output_only_measures(tmp_path: Path, model: LoadedModel) -> None:
    clip = lossless(tmp_path / "in.mkv", frames=6)
    result = roundtrip_clip(clip, None, model)
    assert result.target is None
    assert result.metrics.frames == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv"]


def test_variable_frame_rate_keeps_its_times(tmp_path: Path, model: LoadedModel) -> None:
    times = [0, 40, 80, 95, 200, 210, 400]
    clip = write_clip(
        tmp_path / "in.mp4", 7, pts=times, time_base=Fraction(1, 1000), options={"bf": "0"}
    )
    z, out = tmp_path / "z.safetensors", tmp_path / "out.mp4"
    encode_clip(clip, z, model)
    with LatentFile(z) as file:
        assert file.pts is not None
        seconds = [int(pts) * file.metadata.time_base for pts in file.pts]
    assert seconds == [Fraction(t, 1000) for t in times]
    decode_clip(z, out, model)
    with wfvae.open_clip(out) as reader:
        assert [frame.pts * reader.info.time_base for frame in reader] == seconds


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(30000, 1001), Fraction(25, 2)])
def test_a_constant_rate_needs_no_times(tmp_path: Path, model: LoadedModel, rate: Fraction) -> None:
    clip = write_clip(tmp_path / "in.mp4", 9, rate=rate)
    z, out = tmp_path / "z.safetensors", tmp_path / "out.mp4"
    encode_clip(clip, z, model)
    with LatentFile(z) as file:
        assert file.pts is None
        assert file.metadata.frame_rate == rate
    decode_clip(z, out, model)
    with wfvae.open_clip(out) as reader:
        assert reader.info.frame_rate == rate
        times = [frame.pts * reader.info.time_base for frame in reader]
    assert times == [i / rate for i in range(9)]


def test_ten_bits_come_back_as_ten(tmp_path: Path, model: LoadedModel) -> None:
    clip = write_clip(tmp_path / "in.mkv", 5, codec="libx265", pix_fmt="yuv420p10le")
    z, out = tmp_path / "z.safetensors", tmp_path / "out.mp4"
    encode_clip(clip, z, model)
    decode_clip(z, out, model)
    with wfvae.open_clip(out) as reader:
        assert reader.info.source_bits == 10
        assert next(reader).pixels.dtype == np.uint16


def test_moments_hold_mean_and_log_variance(tmp_path: Path, model: LoadedModel) -> None:
    clip = lossless(tmp_path / "in.mkv", frames=5)
    encode_clip(clip, tmp_path / "mean.safetensors", model)
    encode_clip(
        clip, tmp_path / "moments.safetensors", model, options=EncodeOptions(posterior="moments")
    )
    with (
        LatentFile(tmp_path / "mean.safetensors") as mean,
        LatentFile(tmp_path / "moments.safetensors") as moments,
    ):
        assert torch.equal(mean.read(), moments.read())
        assert moments.read_logvar().shape == moments.shape
        assert not mean.has_logvar


def test_a_sample_depends_on_its_seed_alone(tmp_path: Path, model: LoadedModel) -> None:
    clip = lossless(tmp_path / "in.mkv", frames=13)

    def sample(seed: int, chunk: int) -> torch.Tensor:
        path = tmp_path / f"{seed}-{chunk}.safetensors"
        options = EncodeOptions(posterior="sample", seed=seed, chunk=chunk)
        encode_clip(clip, path, model, options=options)
        with LatentFile(path) as file:
            assert file.metadata.seed == seed
            return file.read()

    first = sample(1, 5)
    assert (first - sample(1, 13)).abs().max() <= 1e-5
    moments = tmp_path / "moments.safetensors"
    encode_clip(clip, moments, model, options=EncodeOptions(posterior="moments"))
    with LatentFile(moments) as file:
        mean, logvar = file.read(), file.read_logvar()
    noise = torch.stack([(z - mean) / (logvar / 2).exp() for z in (first, sample(2, 5))])
    assert noise.flatten(1).std(dim=1).tolist() == pytest.approx([1, 1], abs=0.05)
    assert torch.corrcoef(noise.flatten(1))[0, 1].abs() < 0.1, "two seeds, two noises"


def decoded(file: LatentFile, model: LoadedModel) -> torch.Tensor:
    plan = ChunkPlan(3, 2)
    streams = [ClipStreams.of(plan)]
    frames = []
    for chunk in LatentSource(file).chunks(plan):
        (output,) = run_batch(model, "decode", [chunk], streams, 1)
        assert output.frames is not None
        frames.append(output.frames)
    return torch.cat(frames, dim=2)


def test_normalisation_is_undone(tmp_path: Path, model: LoadedModel) -> None:
    clip = lossless(tmp_path / "in.mkv", frames=5)
    applied = AppliedNormalization(
        shift=tuple(0.1 * i for i in range(16)), scale=(2.0,) * 16, source="config"
    )
    raw, normalized = tmp_path / "raw.safetensors", tmp_path / "normalized.safetensors"
    encode_clip(clip, raw, model)
    encode_clip(clip, normalized, model, options=EncodeOptions(normalization=applied))
    with LatentFile(raw) as a, LatentFile(normalized) as b:
        shift = torch.tensor(applied.shift).view(-1, 1, 1, 1)
        torch.testing.assert_close(b.read(), (a.read() - shift) * 2)
        torch.testing.assert_close(decoded(b, model), decoded(a, model), atol=1e-4, rtol=0)


def test_moments_are_never_normalised() -> None:
    applied = AppliedNormalization((0.0,), (1.0,), "config")
    with pytest.raises(UsageError, match="moments stay as the model gives them"):
        EncodeOptions(posterior="moments", normalization=applied)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, model: LoadedModel) -> None:
    clip = lossless(tmp_path / "in.mkv")
    for name in ("a", "b"):
        encode_clip(clip, tmp_path / f"{name}.safetensors", model)
        decode_clip(tmp_path / f"{name}.safetensors", tmp_path / f"{name}.mp4", model)
    for suffix in ("safetensors", "mp4"):
        first, second = (tmp_path / f"{name}.{suffix}" for name in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(short_side=24)])
def test_colours_left_to_the_device_change_no_byte(
    tmp_path: Path, model: LoadedModel, sampling: Sampling
) -> None:
    clip = write_clip(tmp_path / "in.mp4", moving(11, 44, 60))  # padded to 48x64 and 13 frames
    options = EncodeOptions(chunk=5)
    encode_clip(clip, tmp_path / "host", model, sampling=sampling, options=options)
    with wfvae.open_clip(clip, sampling) as reader:
        reader.leave_conversion()
        encode_clip(reader, tmp_path / "device", model, options=options)
    assert (tmp_path / "host").read_bytes() == (tmp_path / "device").read_bytes()


def test_two_clips_take_turns_on_one_model(tmp_path: Path, model: LoadedModel) -> None:
    paths = [lossless(tmp_path / "a.mkv", 13), lossless(tmp_path / "b.mkv", 9, 24, 32)]
    plan = ChunkPlan(2, 1)

    def steps(reader: ClipReader) -> Iterator[torch.Tensor]:
        streams = [ClipStreams.of(plan)]
        for chunk in FrameSource(reader, model.vae.strides).chunks(plan):
            (output,) = run_batch(model, "encode", [chunk], streams, 1)
            assert output.posterior is not None
            yield output.posterior.mean

    def means(path: Path) -> list[torch.Tensor]:
        with wfvae.open_clip(path) as reader:
            return list(steps(reader))

    alone = [means(path) for path in paths]
    with wfvae.open_clip(paths[0]) as first, wfvae.open_clip(paths[1]) as second:
        a, b = steps(first), steps(second)
        together: list[list[torch.Tensor]] = [[], []]
        for turn in range(3):
            together[0].append(next(a))
            if turn < 2:
                together[1].append(next(b))
        assert next(a, None) is None
        assert next(b, None) is None
    assert all(
        torch.equal(x, y) for i in (0, 1) for x, y in zip(alone[i], together[i], strict=True)
    )


def test_latents_of_other_weights_are_refused_unless_forced(
    tmp_path: Path, model: LoadedModel
) -> None:
    clip, z = lossless(tmp_path / "in.mkv", frames=5), tmp_path / "z.safetensors"
    encode_clip(clip, z, model)
    changed = replace(model, sha256="2" * 64)
    with pytest.raises(LatentError, match=r"but 'wfvae-tiny' has weights 222222222222.*--force"):
        decode_clip(z, tmp_path / "out.mp4", changed)
    assert not (tmp_path / "out.mp4").exists()
    assert decode_clip(z, tmp_path / "out.mp4", changed, force=True).frames == 5


def test_latents_of_other_channels_are_refused_even_then(
    tmp_path: Path, model: LoadedModel, other: LoadedModel
) -> None:
    clip, z = lossless(tmp_path / "in.mkv", frames=5), tmp_path / "z.safetensors"
    encode_clip(clip, z, model)
    with pytest.raises(LatentError, match=r"16 channels.*but 'mini' is wfvae with 4 channels"):
        decode_clip(z, tmp_path / "out.mp4", other, force=True)


def test_whole_clip_models_run_whole(tmp_path: Path) -> None:
    groupnorm = LoadedModel(build("mini-wfvae-groupnorm"), "groupnorm", TINY_SHA, {})
    clip, z = lossless(tmp_path / "in.mkv", frames=11), tmp_path / "z.safetensors"
    with pytest.raises(UsageError, match="takes whole clips only"):
        encode_clip(clip, z, groupnorm, options=EncodeOptions(chunk=5))
    encode_clip(clip, z, groupnorm)
    assert decode_clip(z, tmp_path / "out.mp4", groupnorm).frames == 11


def test_sampling_reaches_the_latents(tmp_path: Path, model: LoadedModel) -> None:
    clip, z = lossless(tmp_path / "in.mkv"), tmp_path / "z.safetensors"
    sampling = Sampling(frames=5, size=(32, 24))
    done = encode_clip(clip, z, model, sampling=sampling)
    assert (done.frames, done.width, done.height) == (5, 32, 24)
    assert done.latent_shape == (16, 2, 3, 4)


def test_not_a_number_from_the_encoder_fails_the_file(tmp_path: Path, model: LoadedModel) -> None:
    broken = replace(model, vae=build("mini-wfvae-nearest"))
    broken.vae.get_parameter("encoder.conv_out.conv.bias")[0] = float("nan")
    with pytest.raises(LatentError, match="NaN or infinite in latent frame 0"):
        encode_clip(lossless(tmp_path / "in.mkv", 5), tmp_path / "z.safetensors", broken)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_not_a_number_from_the_decoder_is_no_picture(tmp_path: Path) -> None:
    mini = LoadedModel(build("mini-wfvae-nearest"), "mini", TINY_SHA, {})
    clip, z = lossless(tmp_path / "in.mkv", frames=5), tmp_path / "z.safetensors"
    encode_clip(clip, z, mini)
    mini.vae.get_parameter("decoder.conv_out.bias")[0] = float("inf")
    with pytest.raises(DeviceError, match="NaN or infinite in float32"):
        decode_clip(z, tmp_path / "out.mp4", mini)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(("compare", "width"), [("side-by-side", 112), ("diff", 56)])
def test_comparisons(tmp_path: Path, model: LoadedModel, compare: str, width: int) -> None:
    clip, out = lossless(tmp_path / "in.mkv", frames=5), tmp_path / "out.mkv"
    options = wfvae.VideoOptions(codec="ffv1")
    assert compare in ("side-by-side", "diff")
    roundtrip_clip(
        clip,
        out,
        model,
        video=options,
        compare="side-by-side" if compare == "side-by-side" else "diff",
    )
    picture, _ = read(out)
    assert picture.shape == (5, 40, width, 3)
    if compare == "side-by-side":
        # The labels are a dark strip at the top.
        assert (picture[:, 16:, :56] == read(clip)[0][:, 16:]).all()
        assert not (picture[:, :16, :56] == read(clip)[0][:, :16]).all()
    else:
        assert abs(picture.astype(float).mean() - 128) < 20, "differences lie around mid-grey"


def test_comparing_needs_an_output(tmp_path: Path, model: LoadedModel) -> None:
    clip = lossless(tmp_path / "in.mkv", frames=1)
    with pytest.raises(UsageError, match="--compare needs an output"):
        roundtrip_clip(clip, None, model, compare="diff")


@pytest.mark.parametrize("chunk", [5, 33])
@pytest.mark.parametrize(
    ("start", "frames", "wanted"),
    [(0.0, 3, slice(0, 3)), (0.2, 4, slice(5, 9)), (0.5, None, slice(12, 17))],
    # 24 frames a second
)
def test_a_part_of_a_clip_has_the_frames_of_the_whole(
    tmp_path: Path,
    model: LoadedModel,
    chunk: int,
    start: float,
    frames: int | None,
    wanted: slice,
) -> None:
    z, whole, part = (tmp_path / name for name in ("z", "whole.mkv", "part.mkv"))
    encode_clip(lossless(tmp_path / "in.mkv", frames=17), z, model)
    options = wfvae.VideoOptions(codec="ffv1")
    decode_clip(z, whole, model, video=options, chunk=chunk)
    done = decode_clip(z, part, model, part=DecodedPart(start, frames), video=options, chunk=chunk)
    pictures, pts = read(part)
    assert (pictures == read(whole)[0][wanted]).all()
    assert (done.frames, pts[0]) == (len(pictures), 0)
    with pytest.raises(UsageError, match="--start 9: expected less than the length"):
        decode_clip(z, tmp_path / "none.mkv", model, part=DecodedPart(9.0))


def held(path: Path, rate: Fraction | None, end: int) -> Path:
    """Ten frames 40 ms apart, the last of which is shown until `end`, in ms."""
    info = info_for(rate=rate, time_base=Fraction(1, 1000))
    with wfvae.open_writer(path, info) as writer:
        for i, pixels in enumerate(pictures(info, 10)):
            writer.write(Frame(pixels, 40 * i))
        writer.end = end
    return path


def length(path: Path) -> Fraction:
    with wfvae.open_clip(path) as reader:
        assert len(list(reader)) == 10
        assert reader.end is not None
        return reader.end * reader.info.time_base


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_last_frame_stays_as_long(tmp_path: Path, model: LoadedModel, suffix: str) -> None:
    clip = held(tmp_path / f"in{suffix}", Fraction(25), 3010)
    assert length(clip) == Fraction(3010, 1000)
    roundtrip_clip(clip, tmp_path / f"there{suffix}", model)
    assert length(tmp_path / f"there{suffix}") == Fraction(3010, 1000)
    encode_clip(clip, tmp_path / "z.safetensors", model)
    with LatentFile(tmp_path / "z.safetensors") as file:
        assert file.metadata.last_duration == Fraction(2650, 1000)
    decode_clip(tmp_path / "z.safetensors", tmp_path / f"back{suffix}", model)
    # A constant rate has frames as its unit of time.
    assert abs(length(tmp_path / f"back{suffix}") - Fraction(3010, 1000)) <= Fraction(1, 50)


def test_a_usual_last_frame_leaves_no_trace(tmp_path: Path, model: LoadedModel) -> None:
    encode_clip(held(tmp_path / "a.mp4", Fraction(25), 400), tmp_path / "z.safetensors", model)
    with LatentFile(tmp_path / "z.safetensors") as file:
        assert "last_duration" not in file.metadata.to_strings()


def test_which_holds_are_unusual() -> None:
    info = info_for(rate=Fraction(25), time_base=Fraction(1, 1000))
    times = [0, 40, 80]
    assert unusual_hold(times, info, None) is None
    assert unusual_hold(times, info, 120) is None
    assert unusual_hold(times, info, 121) is None, "a rounded millisecond"
    assert unusual_hold(times, info, 122) == Fraction(42, 1000)
    assert unusual_hold(times, info, 80) is None, "no length is no hold"
    assert unusual_hold(times, info, 10**12) == LONGEST_HOLD
    variable = replace(info, frame_rate=None)
    assert unusual_hold([0, 40, 100], variable, 160) is None
    assert unusual_hold([0, 40, 100], variable, 140) == Fraction(40, 1000)
    assert unusual_hold([0], variable, 40) is None
    assert unusual_hold([0], variable, 100) == Fraction(1, 10)
    assert unusual_hold([0], replace(info, is_image=True), 100) is None
