import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.media.conftest import write_clip
from wfvae_cli.errors import DeviceError
from wfvae_cli.media.clip import Bits, Colour, Frame
from wfvae_cli.media.frames import convert, planes_of
from wfvae_cli.media.from_planes import PlanarConversion
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import open_clip
from wfvae_cli.media.sampling import Orientation, plan_geometry
from wfvae_cli.media.yuv import PictureFormat
from wfvae_cli.pipeline import chunks
from wfvae_cli.pipeline.chunks import FrameChunk, PendingPixels, convert_on, read_chunks
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.strides import ClipLengths, Progression, Strides

CPU = torch.device("cpu")


def make_frames(count: int, height: int, width: int) -> list[Frame]:
    rng = np.random.default_rng(count)
    return [
        Frame(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), pts=10 * i)
        for i in range(count)
    ]


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 40),
    height=st.integers(8, 20),
    width=st.integers(8, 20),
    time=st.sampled_from([1, 4, 8]),
    later=st.integers(1, 4),
)
def test_chunks_hold_every_frame_once_and_pad_by_repetition(
    count: int, height: int, width: int, time: int, later: int
) -> None:
    frames = make_frames(count, height, width)
    plan = ChunkPlan(1 + later, later)
    strides = Strides(time, 8, 8)
    chunks = list(read_chunks(frames, strides, plan))

    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert [pts for chunk in chunks for pts in chunk.pts] == [frame.pts for frame in frames]
    latents = 0
    for i, chunk in enumerate(chunks):
        t, h, w, _ = chunk.pixels.shape
        assert (t - (i == 0)) % time == 0
        assert h % 8 == w % 8 == 0
        latents += strides.latent_frames(t) if i == 0 else t // time
        kept = chunk.pixels[: len(chunk.pts)]
        assert (kept[:, height:, :] == kept[:, height - 1 : height, :]).all()
        assert (kept[:, :, width:] == kept[:, :, width - 1 : width]).all()
        assert (chunk.pixels[len(chunk.pts) :] == kept[-1]).all()
    assert latents == strides.latent_frames(count)
    seen = np.concatenate([c.pixels[: len(c.pts), :height, :width] for c in chunks])
    assert (seen == np.stack([frame.pixels for frame in frames])).all()
    assert [end - begin for begin, end in plan.cuts(latents)] == [
        strides.latent_frames(c.pixels.shape[0]) if i == 0 else c.pixels.shape[0] // time
        for i, c in enumerate(chunks)
    ]


@pytest.mark.parametrize(("count", "full"), [(1, 24), (24, 24), (25, 40)])
def test_a_whole_clip_is_padded_to_what_the_model_takes(count: int, full: int) -> None:
    clips = ClipLengths(Progression(24, 16), Progression(6, 4))
    strides = Strides(4, 8, 8, clips, Progression(32, 16), Progression(40, 8))
    frames = make_frames(count, 33, 12)
    whole = ChunkPlan(sys.maxsize, sys.maxsize)
    (chunk,) = read_chunks(frames, strides, whole)
    assert chunk.last
    assert chunk.pixels.shape == (full, 48, 40, 3)
    assert len(chunk.pts) == count
    assert (chunk.pixels[:, 33:] == chunk.pixels[:, 32:33]).all()
    assert (chunk.pixels[:, :, 12:] == chunk.pixels[:, :, 11:12]).all()
    assert (chunk.pixels[count:] == chunk.pixels[count - 1]).all()
    assert (chunk.pixels[:count, :33, :12] == np.stack([frame.pixels for frame in frames])).all()


def conversion_of(width: int, height: int) -> PlanarConversion:
    geometry = plan_geometry(width, height, Fraction(1), Orientation(), Sampling())
    return PlanarConversion("yuv444p", (width, height), Colour(), geometry)


@pytest.fixture(params=[1, 2, 2**23])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture of 13x10 at a time, some, all."""
    monkeypatch.setattr(chunks, "_AT_ONCE_ON_HOST", 130 * request.param)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("converted", [[], [1], [0, 2]])
def test_unconverted_frames_make_the_same_chunk(converted: list[int]) -> None:
    """Whole on the device, or some of them converted before, as where a clip changes its format."""
    conversion, random = conversion_of(13, 10), np.random.default_rng(0)
    left = [Frame(random.integers(0, 256, 3 * 130, np.uint8), pts, conversion) for pts in range(3)]
    pictures = [Frame(frame.in_rgb(), frame.pts) for frame in left]
    mixed = [pictures[i] if i in converted else frame for i, frame in enumerate(left)]
    plan, strides = ChunkPlan(2, 1), Strides(4, 8, 8)
    (wanted,), (chunk,) = (list(read_chunks(each, strides, plan)) for each in (pictures, mixed))
    assert chunk.shape == wanted.shape == (5, 16, 16)
    assert (chunk.conversion is None) == bool(converted)
    assert torch.equal(*(c.to_tensor(CPU, torch.float32) for c in (chunk, wanted)))


def test_running_out_of_memory_on_colours_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> Tensor:
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(chunks, "_in_parts", full)
    planes = np.zeros((5, 3 * 130), np.uint8)
    chunk = FrameChunk(planes, range(5), True, conversion_of(13, 10), padding=(6, 3))
    message = "out of memory in a chunk of 5 frames of 16x16: use a smaller --chunk"
    with pytest.raises(DeviceError, match=message):
        chunk.to_tensor(CPU, torch.float32)
    with pytest.raises(DeviceError, match=message):
        PendingPixels(torch.zeros(1, 3, 5, 16, 16), 16, 16, 8, PictureFormat("yuv420p"))


@pytest.mark.parametrize(("device", "left"), [("cpu", False), ("cuda", True)])
def test_colours_are_left_to_gpus_only(tmp_path: Path, device: str, left: bool) -> None:
    with open_clip(write_clip(tmp_path / "in.mp4", 1)) as reader:
        convert_on(torch.device(device), reader)
        assert (next(reader).conversion is not None) == left


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p10le"])
def test_frames_become_yuv_where_they_are(pix_fmt: str) -> None:
    values, stored = torch.rand(1, 3, 2, 16, 24) * 2 - 1, PictureFormat(pix_fmt)
    bits: Bits = 8 if pix_fmt == "yuv420p" else 16
    wanted = PendingPixels(values, 14, 20, bits).wait()
    planes = PendingPixels(values, 14, 20, bits, stored).wait()
    for picture, data in zip(wanted, planes, strict=True):
        assert np.array_equal(data, planes_of(convert(picture, stored)))


@pytest.mark.parametrize(("bits", "top"), [(8, 255), (16, 65535)])
def test_every_code_value_survives(bits: Bits, top: int) -> None:
    values = np.arange(top + 1).reshape(1, 16, -1, 1).repeat(3, axis=3)
    pixels = values.astype(np.uint8) if bits == 8 else values.astype(np.uint16)
    x = FrameChunk(pixels, [0], last=True).to_tensor(CPU, torch.float32)
    assert x.shape == (1, 3, 1, 16, (top + 1) // 16)
    assert (x.min().item(), x.max().item()) == (-1.0, 1.0)
    assert (PendingPixels(x, 16, (top + 1) // 16, bits).wait() == pixels).all()


def test_the_published_mapping_for_8_bits() -> None:
    pixels = np.array([0, 1, 127, 128, 255], np.uint8).reshape(1, 1, 5, 1).repeat(3, axis=3)
    x = FrameChunk(pixels, [0], last=True).to_tensor(CPU, torch.float32)[0, 0, 0, 0]
    expected = torch.tensor([0.0, 1.0, 127.0, 128.0, 255.0]) / 127.5 - 1
    torch.testing.assert_close(x, expected, atol=1e-7, rtol=0)


def test_values_beyond_the_range_are_clamped_and_others_rounded() -> None:
    y = torch.tensor([-1.7, 1.2, 0.0, 0.4 / 127.5 - 1, 1.6 / 127.5 - 1])
    pixels = PendingPixels(y.view(1, 1, 1, 1, 5).expand(1, 3, 1, 1, 5), 1, 5, 8).wait()
    assert pixels[0, 0, :, 0].tolist() == [0, 255, 128, 0, 2]


def test_tensors_are_channels_last() -> None:
    pixels = np.zeros((5, 16, 24, 3), np.uint8)
    x = FrameChunk(pixels, [0], last=True).to_tensor(CPU, torch.bfloat16)
    assert x.is_contiguous(memory_format=torch.channels_last_3d)
    assert x.dtype == torch.bfloat16
