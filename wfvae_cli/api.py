"""The library's own functions on tensors: what `import wfvae_cli` offers beside the file functions.

Frames are TCHW, RGB: uint8, or floating point in [-1, 1]. Latents are [Z, T', H', W'], float32,
not normalised: the posterior's mean, as `wfvae encode` stores it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from wfvae_cli.errors import UsageError
from wfvae_cli.latents.file import LatentFile
from wfvae_cli.media.options import Sampling
from wfvae_cli.metrics.clip import ClipMetrics
from wfvae_cli.metrics.compare import Measures, compare_clips
from wfvae_cli.metrics.result import ClipResult
from wfvae_cli.models.base import LoadedModel, Task
from wfvae_cli.models.load import load_model
from wfvae_cli.models.options import DEFAULT_MODEL, DType
from wfvae_cli.pipeline.halves import decode_latents, encode_frames
from wfvae_cli.pipeline.options import Batch, EncodeOptions
from wfvae_cli.pipeline.plan import ChunkPlan
from wfvae_cli.stats.accumulate import ClipStats, LatentStats
from wfvae_cli.stats.summary import Summary, summarise

if TYPE_CHECKING:
    from wfvae_cli.dataset.run import Summary as DatasetSummary

_LATENTS_AT_ONCE = 16
"""Latent frames that are read of a file together."""


def encode(
    frames: Tensor, model: str | LoadedModel = DEFAULT_MODEL, *, chunk: int | None = None
) -> Tensor:
    """Encode a clip, or an image as a clip of one frame.

    A clip that is no multiple of the strides is padded as a file is: its last frame and its right
    and bottom edges are repeated. `decode` takes the padding off again.

    Args:
        frames: TCHW, uint8 or in [-1, 1]; on any device.
        model: from `load_model`, or the name of one to load for this call.
        chunk: frames of the first chunk, `1 + k*stride`; None suits the resolution. The result is
            the same for every chunk, to rounding.

    Returns:
        [Z, T', H', W'], float32, on the CPU.

    Raises:
        UsageError: the shape or type is another one.
        WeightsError, DeviceError: the model cannot be loaded, or is out of memory.

    Example:
        >>> import torch, wfvae_cli
        >>> wfvae_cli.encode(torch.zeros(5, 3, 32, 48, dtype=torch.uint8)).shape
        torch.Size([16, 2, 4, 6])
    """
    loaded = _loaded(model, "encode")
    x = _as_input(frames)
    s = loaded.vae.strides
    t, _, h, w = x.shape
    plan = ChunkPlan.of(loaded, chunk, w, h, task="encode")
    width, height = s.padded_size(w, h)
    x = functional.pad(
        x.transpose(0, 1)[None],
        (0, width - w, 0, height - h, 0, s.padded_frames(t) - t),
        mode="replicate",
    )
    stream, parts = plan.stream(), []
    sizes = [s.frames_of(plan.first)]
    while sum(sizes) < x.size(2):
        sizes.append(plan.later * s.time)
    for number, part in enumerate(torch.split(x, _cut(sizes, x.size(2)), 2), start=1):
        stream.last = number == len(sizes)
        placed = part.to(loaded.device, loaded.dtype_of("encode"))
        parts.append(encode_frames(loaded, placed, stream).mean[0].float().cpu())
    return torch.cat(parts, dim=1)


def decode(
    latents: Tensor,
    model: str | LoadedModel = DEFAULT_MODEL,
    *,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Decode latents into frames.

    Args:
        latents: [Z, T', H', W'], not normalised; on any device.
        model: what made them: from `load_model`, or the name of one to load for this call.
        frames: how many the clip had; None keeps the padding in time.
        size: width and height that it had; None keeps the padding.
        chunk: as of `encode`.

    Returns:
        uint8 TCHW, RGB, on the CPU.

    Raises:
        UsageError: the shape is another one.
        WeightsError, DeviceError: the model cannot be loaded, or is out of memory.

    Example:
        >>> z = wfvae_cli.encode(torch.zeros(4, 3, 30, 40, dtype=torch.uint8))
        >>> wfvae_cli.decode(z, frames=4, size=(40, 30)).shape
        torch.Size([4, 3, 30, 40])
    """
    loaded = _loaded(model, "decode")
    s = loaded.vae.strides
    if latents.ndim != 4:
        raise UsageError(f"expected latents [Z, T', H', W'], got {tuple(latents.shape)}")
    height, width = latents.size(2) * s.height, latents.size(3) * s.width
    plan = ChunkPlan.of(loaded, chunk, width, height, task="decode")
    sizes = [plan.first]
    while sum(sizes) < latents.size(1):
        sizes.append(plan.later)
    stream, parts = plan.stream(), []
    cut = torch.split(latents[None], _cut(sizes, latents.size(1)), 2)
    for number, part in enumerate(cut, start=1):
        stream.last = number == len(sizes)
        y = decode_latents(loaded, part.to(loaded.device, loaded.dtype_of("decode")), stream)[0]
        parts.append(y.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).cpu())
    video = torch.cat(parts, dim=1).transpose(0, 1)
    w, h = size or (width, height)
    return video[: video.size(0) if frames is None else frames, :, :h, :w].contiguous()


def roundtrip(
    frames: Tensor, model: str | LoadedModel = DEFAULT_MODEL, *, chunk: int | None = None
) -> tuple[Tensor, ClipResult]:
    """Encode and decode a clip, and measure what was lost.

    Args:
        frames: TCHW, uint8 or in [-1, 1].
        model: from `load_model`, or the name of one to load for this call.
        chunk: as of `encode`.

    Returns:
        The reconstruction, uint8 TCHW of the same shape, and its scores against `frames`.

    Raises:
        UsageError: the shape or type is another one.
        WeightsError, DeviceError: the model cannot be loaded, or is out of memory.
    """
    loaded = _loaded(model, "both")
    t, _, h, w = _as_input(frames).shape
    latents = encode(frames, loaded, chunk=chunk)
    decoded = decode(latents, loaded, frames=t, size=(w, h), chunk=chunk)
    return decoded, compare(frames, decoded)


def compare(
    original: Tensor | str | Path, reconstruction: Tensor | str | Path, *, ms_ssim: bool = True
) -> ClipResult:
    """Measure how a clip differs from its original: PSNR, SSIM, MS-SSIM, flicker.

    Args:
        original: TCHW, uint8 or in [-1, 1]; or a file.
        reconstruction: the same.
        ms_ssim: whether to take MS-SSIM.

    Returns:
        The scores of the clip, and of every frame.

    Raises:
        UsageError: one is a tensor and the other a file, or the shapes differ.
        InputError: a file cannot be read, or the clips differ in size or length.

    Example:
        >>> grey = torch.full((2, 3, 16, 16), 128, dtype=torch.uint8)
        >>> round(wfvae_cli.compare(grey, grey + 1).psnr, 2)
        48.13
    """
    if not isinstance(original, Tensor) and not isinstance(reconstruction, Tensor):
        return compare_clips(original, reconstruction, measures=Measures(ms_ssim=ms_ssim))
    if not isinstance(original, Tensor) or not isinstance(reconstruction, Tensor):
        raise UsageError("expected two tensors or two files, got one of each")
    if original.shape != reconstruction.shape:
        raise UsageError(
            f"expected clips of one shape, got {tuple(original.shape)} and "
            f"{tuple(reconstruction.shape)}"
        )
    metrics = ClipMetrics(ms_ssim=ms_ssim)
    for x, y in zip(_as_pictures(original), _as_pictures(reconstruction), strict=True):
        metrics.update(x.numpy(), y.numpy())
    return metrics.result()


def latent_stats(clips: Iterable[Tensor | str | Path]) -> Summary:
    """Take the statistics of latents: mean, std, quantiles, correlation, scale factors.

    What `wfvae stats` prints; of a dataset that is not encoded yet, use the command.

    Args:
        clips: latents [Z, T', H', W'], not normalised; or latent files, whose normalisation is
            undone. One is in memory at a time.

    Raises:
        InputError: a file cannot be read, there is no clip, or a channel is constant.
        LatentError: the shapes do not fit together.
    """
    stats = LatentStats()
    for number, clip in enumerate(clips):
        if isinstance(clip, Tensor):
            stats.add_clip(f"clip {number}", [(clip, None)])
            continue
        one = ClipStats(str(clip))
        with LatentFile(clip) as file:
            for start in range(0, file.latent_frames, _LATENTS_AT_ONCE):
                stop = min(start + _LATENTS_AT_ONCE, file.latent_frames)
                read = file.read(start, stop, check_finite=False)
                logvar = None
                if file.has_logvar:
                    logvar = file.read_logvar(start, stop, check_finite=False)
                applied = file.metadata.normalization
                mean = read.double() if applied is None else applied.undo(read.double())
                one.update(mean, logvar)
        stats.add(one)
    return summarise(stats)


def encode_dataset(
    sources: Sequence[str | Path],
    output: str | Path,
    model: str = DEFAULT_MODEL,
    *,
    sampling: Sampling | None = None,
    options: EncodeOptions | None = None,
    batch: Batch = 1,
    device: str = "auto",
    dtype: DType = "auto",
    overwrite: bool = False,
) -> DatasetSummary:
    """Encode every video and image of a dataset into latent files: `wfvae encode DIR -o OUT`.

    A file that cannot be read is recorded in `manifest.jsonl`, and the others go on. The same call
    resumes a run that ended early.

    Args:
        sources: folders, globs, manifests (.txt, .csv, .jsonl), files, or URLs of these.
        output: the folder of the latents, or the URL of one.
        model: name of the model.
        sampling: which frames to take, and at what size.
        options: what to keep of the posterior, and how.
        batch: the most clips of one shape that go through the model together.
        device: as of `load_model`.
        dtype: as of `load_model`.
        overwrite: whether outputs that were made with different options are made anew.

    Returns:
        What was done; `failed` counts the files that failed.

    Raises:
        InputError: there are no files.
        OutputError: the folder cannot be written, or holds outputs made with different options.
        WeightsError, DeviceError: there is no model to work with.
    """
    from wfvae_cli.dataset.config import EncodeConfig
    from wfvae_cli.dataset.encode_job import EncodeJob
    from wfvae_cli.dataset.items import find_inputs
    from wfvae_cli.dataset.run import run_dataset
    from wfvae_cli.dataset.store import OutputStore

    items = find_inputs([str(source) for source in sources], kinds=("video", "image"))
    config = EncodeConfig(options or EncodeOptions(), sampling or Sampling(), batch)
    store = OutputStore.of(str(output))
    job = EncodeJob(store, config, model=model, device=device, dtype=dtype)
    return run_dataset(items, job, conflict="overwrite" if overwrite else "refuse")


def _loaded(model: str | LoadedModel, task: Task) -> LoadedModel:
    return load_model(model, task=task) if isinstance(model, str) else model


def _as_input(frames: Tensor) -> Tensor:
    """TCHW in [-1, 1], float32."""
    if frames.ndim != 4 or frames.size(1) != 3 or 0 in frames.shape:
        raise UsageError(f"expected frames TCHW with 3 channels, got {tuple(frames.shape)}")
    if frames.dtype == torch.uint8:
        return frames.float().div(127.5).sub(1)
    if not frames.is_floating_point():
        raise UsageError(f"expected frames of uint8, or in [-1, 1], got {frames.dtype}")
    return frames.float()


def _as_pictures(frames: Tensor) -> Tensor:
    """THWC uint8 in memory."""
    if frames.dtype != torch.uint8:
        frames = _as_input(frames).clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return frames.permute(0, 2, 3, 1).contiguous().cpu()


def _cut(sizes: list[int], total: int) -> list[int]:
    """Shorten the last of chunks that together reach `total`."""
    return [*sizes[:-1], total - sum(sizes[:-1])]
