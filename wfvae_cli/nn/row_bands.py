"""Running a part of a network in row bands, so that the whole is never in memory.

Convs and norms over channels see no further than their receptive field, so a band of rows, run
with that many rows more on either side, gives what the whole picture gives. Every band carries
its own state from chunk to chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from wfvae_cli.nn.stream import Stream


@dataclass(frozen=True)
class Footprint:
    """Measured memory of a model on the device, in numbers for every pixel of the picture."""

    working: float
    """Working memory for each frame of a chunk; the larger of encoding and decoding."""
    encoder_state: float
    """State kept from chunk to chunk while encoding."""
    decoder_state: float
    """State kept from chunk to chunk while decoding."""
    outside: float
    """Part of `working` that bands do not divide."""
    halo: int
    """Rows of pixels that a band needs beyond its own, on either side."""


def in_row_bands(
    run: Callable[[Tensor, Stream], Tensor],
    x: Tensor,
    stream: Stream,
    key: str,
    *,
    halo: int,
    unit: int = 1,
) -> Tensor:
    """Send the next chunk through `run` in as many row bands as the stream says.

    Args:
        run: layers whose result at a row depends on rows nearby alone; they may scale the height.
        x: BCTHW.
        stream: state of the clip's earlier chunks; changed in place.
        key: of these layers in the stream.
        halo: rows of `x` that a band's result depends on beyond the band's own, on either side.
        unit: rows of `x` that make a whole number of rows of the result; divides its height.

    Returns:
        What `run(x, stream)` returns, within rounding.
    """
    height, bands = x.size(3), min(stream.row_bands, x.size(3) // unit)
    if bands <= 1:
        return run(x, stream)
    halo = unit * -(-halo // unit)
    result: Tensor | None = None
    cuts = (unit * (i * (height // unit) // bands) for i in range(bands + 1))
    for number, (begin, end) in enumerate(pairwise(cuts)):
        # At the picture's own edge there is nothing to add: layers pad there as ever.
        top, bottom = max(begin - halo, 0), min(end + halo, height)
        band = x[:, :, :, top:bottom].contiguous(memory_format=torch.channels_last_3d)
        y = run_part(run, band, stream, f"{key}/{number}")
        b, c, t, rows, w = y.shape
        of = bottom - top  # so many rows of x became `rows` of y
        if result is None:
            result = y.new_empty(b, t, height * rows // of, w, c).permute(0, 4, 1, 2, 3)
        own = y[:, :, :, (begin - top) * rows // of : (end - top) * rows // of]
        result[:, :, :, begin * rows // of : end * rows // of] = own
    assert result is not None, "there are at least two bands"
    return result


def run_part(
    run: Callable[[Tensor, Stream], Tensor], x: Tensor, stream: Stream, name: str
) -> Tensor:
    """Run one part of a picture, whose state lies in `stream` under `name` until its next chunk.

    An offloaded stream keeps it in the host's memory meanwhile, so that a device holds the state of
    one part at a time.

    Args:
        run: takes the part's chunk and its own stream.
        x: BCTHW.
        stream: of the whole picture; changed in place.
        name: tells this part from the others.
    """
    prefix = f"{name}/"
    past = {
        layer.removeprefix(prefix): stream.past.pop(layer).to(x.device, non_blocking=True)
        for layer in [*stream.past]
        if layer.startswith(prefix)
    }
    part = replace(stream, past=past)
    y = run(x, part)
    for layer, tail in part.past.items():
        stream.past[prefix + layer] = _offload(tail) if stream.offloaded else tail
    return y


def _offload(tail: Tensor) -> Tensor:
    """Copy to the host; from CUDA into page-locked memory, beside the work that follows.

    The copy back waits for it, since both are queued on the same CUDA stream. Whoever reads it on
    the host must wait for the device first, as `Stream.join` does.
    """
    if tail.device.type != "cuda":
        return tail.cpu()
    host = torch.empty_like(tail, device="cpu", pin_memory=True)
    return host.copy_(tail, non_blocking=True)
