"""What only a CUDA device shows; everywhere else these are skipped."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame
from torch import Tensor
from torch._dynamo.utils import counters

from tests.models.tiny import tiny_state, write_checkpoint
from wfvae_cli.bench.picture import write_moving_picture
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.media.clip import Bits, Colour
from wfvae_cli.media.filters import Converter
from wfvae_cli.media.frames import planes_of
from wfvae_cli.media.from_planes import find_conversion
from wfvae_cli.media.options import Sampling
from wfvae_cli.media.reader import open_clip
from wfvae_cli.media.sampling import Orientation, plan_geometry
from wfvae_cli.media.to_planes import to_planes
from wfvae_cli.media.yuv import PictureFormat
from wfvae_cli.models.base import LoadedModel
from wfvae_cli.models.load import load_model
from wfvae_cli.models.options import DType
from wfvae_cli.nn.stream import Stream
from wfvae_cli.pipeline.batch import ClipStreams, run_batch
from wfvae_cli.pipeline.chunks import FrameChunk, PendingPixels
from wfvae_cli.pipeline.decode import decode_clip
from wfvae_cli.pipeline.encode import encode_clip
from wfvae_cli.pipeline.options import EncodeOptions
from wfvae_cli.pipeline.staging import download, upload

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model"), tiny_state())


def load(folder: Path, device: str = "cuda", dtype: DType = "float32") -> LoadedModel:
    return load_model(str(folder), device=device, dtype=dtype)


def frames_of(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, count, 32, 32, generator=generator) * 2 - 1


@torch.inference_mode()
def reconstruct(model: LoadedModel, frames: Tensor) -> list[Tensor]:
    """Latents and frames of a clip in chunks of 5, 4, 4, … frames, on the host in float32."""
    encoding, decoding, means, results = Stream(), Stream(), [], []
    sizes = [5] + [4] * ((frames.size(2) - 5) // 4)
    for i, chunk in enumerate(
        torch.split(frames.to(model.device, model.dtype_of("encode")), sizes, dim=2)
    ):
        encoding.last = decoding.last = i == len(sizes) - 1
        mean = model.vae.encode(chunk, encoding).mean
        means.append(mean)
        results.append(model.vae.decode(mean, decoding))
    return [torch.cat(parts, dim=2).float().cpu() for parts in (means, results)]


def test_float32_is_that_of_the_cpu(folder: Path) -> None:
    frames = frames_of(17)
    expected = reconstruct(load(folder, "cpu"), frames)
    for got, wanted in zip(reconstruct(load(folder), frames), expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [("auto", 0.05), ("bfloat16", 0.1)])
def test_shorter_types_are_near_it(folder: Path, dtype: DType, tolerance: float) -> None:
    """`auto` is TF32 in the encoder and bfloat16 in the decoder."""
    model = load(folder, dtype=dtype)
    assert model.compute_dtype == {"auto": "tf32, bfloat16"}.get(dtype, dtype)
    got = reconstruct(model, frames_of(17))
    for values, wanted in zip(got, reconstruct(load(folder, "cpu"), frames_of(17)), strict=True):
        error = (values - wanted).square().mean().sqrt()
        assert error <= tolerance * wanted.square().mean().sqrt()


def test_files_are_those_of_the_cpu(folder: Path, tmp_path: Path) -> None:
    clip = write_moving_picture(tmp_path / "in.mp4", 33, 40, 24)
    options = EncodeOptions(chunk=5)
    for device in ("cpu", "cuda"):
        model = load(folder, device)
        encode_clip(clip, tmp_path / f"{device}.safetensors", model, options=options)
        decode_clip(tmp_path / "cpu.safetensors", tmp_path / f"{device}.mkv", model, chunk=5)
    with (
        LatentFile(tmp_path / "cpu.safetensors") as a,
        LatentFile(tmp_path / "cuda.safetensors") as b,
    ):
        torch.testing.assert_close(b.read(), a.read(), atol=1e-4, rtol=1e-4)
    with open_clip(tmp_path / "cpu.mkv") as one, open_clip(tmp_path / "cuda.mkv") as other:
        pairs = list(zip(one, other, strict=True))
    assert len(pairs) == 33
    for frame, same in pairs:
        assert np.abs(frame.pixels.astype(int) - same.pixels.astype(int)).mean() < 1


def test_clips_go_side_by_side(folder: Path) -> None:
    """They are what each is alone, and the same to the bit whoever shares the batch."""
    model, random = load(folder), np.random.default_rng(0)
    chunks = [FrameChunk(random.integers(0, 256, (5, 32, 32, 3), np.uint8), range(5), False)]
    chunks += [replace(chunks[0], pixels=255 - chunks[0].pixels)]
    streams = [ClipStreams(Stream(), Stream()) for _ in chunks]
    together = run_batch(model, "encode", chunks, streams, 4)
    for chunk, output, stream in zip(chunks, together, streams, strict=True):
        alone = ClipStreams(Stream(), Stream())
        (single,) = run_batch(model, "encode", [chunk], [alone], 1)
        torch.testing.assert_close(output.posterior, single.posterior, atol=1e-4, rtol=1e-4)
        assert stream.encoder.nbytes == alone.encoder.nbytes
        padded = [ClipStreams(Stream(), Stream())]
        (lonely,) = run_batch(model, "encode", [chunk], padded, 4)
        assert lonely.posterior is not None and output.posterior is not None
        assert torch.equal(lonely.posterior.mean, output.posterior.mean)


def test_staged_copies_are_exact_beside_other_work() -> None:
    """The matrix products keep the model's stream busy, so that a copy too early is seen."""
    busy = torch.randn(4096, 4096, device=CUDA)
    sources = [torch.randint(0, 256, (1 + i % 3, 64, 64, 3), dtype=torch.uint8) for i in range(24)]
    pending = []
    for source in sources:
        busy = (busy @ busy).clamp(-1, 1)
        values = upload(source, CUDA)
        pending.append(download(values + 0))
    for source, each in zip(sources, pending, strict=True):
        got = each.wait()
        assert torch.equal(got, source)
        assert not got.is_pinned()


@pytest.mark.parametrize("bits", [8, 16])
def test_every_code_value_survives_the_device(bits: Bits) -> None:
    values = np.arange(2**bits).reshape(1, 16, -1, 1).repeat(3, axis=3)
    pixels = values.astype(np.uint8) if bits == 8 else values.astype(np.uint16)
    frames = FrameChunk(pixels, [0], last=True).to_tensor(CUDA, torch.float32)
    back = PendingPixels(frames, 16, 2**bits // 16, bits).wait()
    assert back.dtype == pixels.dtype
    assert (back == pixels).all()


@pytest.mark.parametrize("name", ["yuv420p", "nv12", "yuv444p"])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(short_side=96)])
def test_colours_are_those_of_the_cpu(name: str, sampling: Sampling) -> None:
    frame = VideoFrame(320, 180, name)
    for plane in frame.planes:
        plane.update(np.random.default_rng(0).bytes(plane.buffer_size))
    geometry = plan_geometry(320, 180, Fraction(1), Orientation(), sampling)
    convert = Converter(8, Colour(), geometry)
    conversion = find_conversion(frame, convert)
    assert conversion is not None
    got = conversion(torch.from_numpy(planes_of(frame)).to(CUDA))
    assert np.array_equal(got.cpu().numpy(), convert(frame))


@pytest.mark.parametrize("name", ["yuv420p", "yuv444p10le"])
def test_planes_are_those_of_the_cpu(name: str) -> None:
    pixels, stored = torch.randint(0, 256, (48, 64, 3), dtype=torch.uint8), PictureFormat(name)
    assert torch.equal(to_planes(pixels.to(CUDA), stored).cpu(), to_planes(pixels, stored))


@pytest.mark.timeout(900)
@torch.inference_mode()
def test_cuda_graphs_give_what_the_model_gives(folder: Path) -> None:
    """Two clips take turns, so that a replay would show in the other clip's state or results."""
    plain = load(folder)
    fast = load_model(str(folder), device="cuda", dtype="float32", compile=True)
    clips, sizes = [frames_of(25, seed).to(CUDA) for seed in (1, 2)], [5] + [4] * 5
    results: list[list[Tensor]] = [[], []]
    for _ in range(3):  # each kind of chunk warms up, is recorded, and is replayed
        streams, results = [Stream(), Stream()], [[], []]
        for i, chunks in enumerate(
            zip(*(torch.split(clip, sizes, dim=2) for clip in clips), strict=True)
        ):
            for stream, chunk, result in zip(streams, chunks, results, strict=True):
                stream.last = i == 5
                result.append(fast.vae.encode(chunk, stream).mean)
    for clip, result in zip(clips, results, strict=True):
        stream, expected = Stream(), []
        for i, chunk in enumerate(torch.split(clip, sizes, dim=2)):
            stream.last = i == 5
            expected.append(plain.vae.encode(chunk, stream).mean)
        torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)
    before = counters["stats"]["unique_graphs"]
    for decoded in (reconstruct(fast, frames_of(25)) for _ in range(2)):
        torch.testing.assert_close(decoded, reconstruct(plain, frames_of(25)), atol=1e-3, rtol=1e-3)
    traced = counters["stats"]["unique_graphs"]
    reconstruct(fast, frames_of(25))
    assert before < traced == counters["stats"]["unique_graphs"]


def test_memory_does_not_grow_with_the_clip(folder: Path, tmp_path: Path) -> None:
    model = load(folder)
    peaks: list[int] = []
    for count in (33, 33, 129):  # the first warms the allocator and cuDNN up
        clip = write_moving_picture(tmp_path / f"{count}-{len(peaks)}.mp4", count, 64, 64)
        z = tmp_path / f"{len(peaks)}.safetensors"
        torch.cuda.reset_peak_memory_stats()
        encode_clip(clip, z, model, options=EncodeOptions(chunk=9))
        decode_clip(z, tmp_path / f"{len(peaks)}.mp4", model, chunk=9)
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[2] < 1.1 * peaks[1]
