"""The input of a causal convolution: a stream's kept frames and the next chunk, in one buffer.

Norm and SiLU write into it directly, without temporaries, and its memory is channels-last for all
shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wfvae_cli.nn.edges import Edges, fill_edges, pad_edges
from wfvae_cli.nn.norm import silu

PixelNorm = Callable[[Tensor], Tensor]
"""A norm that looks at every pixel alone; BCTHW to BCTHW."""


@dataclass(frozen=True)
class Past:
    """The frames in front of a chunk."""

    frames: int
    kept: Tensor | None = None
    """BCTHW, of earlier chunks; None in front of a clip."""
    repeat: bool = True
    """True for copies of frame 0 in front of a clip, False for zeros."""

    @classmethod
    def of(cls, kept: Tensor | None, frames: int, *, repeat: bool) -> Past:
        """Make the past of what a stream kept, or of `frames` of padding where it kept nothing."""
        return cls(frames if kept is None else kept.size(2), kept, repeat)


NO_PAST = Past(0)


def empty_like(
    x: Tensor,
    *,
    channels: int | None = None,
    frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
) -> Tensor:
    """BCTHW in channels-last memory, of the type and device of `x`, and of its other sizes."""
    sizes = zip((frames, height, width, channels), (2, 3, 4, 1), strict=True)
    shape = [x.size(0), *(x.size(dim) if size is None else size for size, dim in sizes)]
    return x.new_empty(shape).permute(0, 4, 1, 2, 3)


def is_eager() -> bool:
    """Tell if results may be written into buffers: neither autograd nor a compiler is tracing."""
    return not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def join(x: Tensor, past: Past, norm: PixelNorm | None, edges: Edges = "zeros") -> Tensor:
    """Put the past in front of a whole chunk, after norm and SiLU where there is a `norm`.

    Edges other than zeros, which convolutions know by themselves, are put around it.
    """
    has_edges = edges != "zeros"
    if is_eager() and (past.frames or has_edges):
        return RowJoiner(x, past, norm, rim=int(has_edges), edges=edges).take(0, x.size(3))
    x = x if norm is None else silu(norm(x))
    if past.frames:
        x = _after_past(x, past)
    return pad_edges(x, edges) if has_edges else x


def _after_past(x: Tensor, past: Past) -> Tensor:
    front = past.kept
    if front is None:
        first = x[:, :, :1] if past.repeat else torch.zeros_like(x[:, :, :1])
        front = first.expand(-1, -1, past.frames, -1, -1)
    channels_last = [part.permute(0, 2, 3, 4, 1) for part in (front, x)]
    return torch.cat(channels_last, dim=1).permute(0, 4, 1, 2, 3)


class RowJoiner:
    """Joins past and chunk in row bands from top to bottom, so that they are never whole.

    Bands take over from each other the rows that both see. So every row of the chunk is read
    once, before its place is needed for the result.

    Args:
        x: the chunk, BCTHW.
        past: the frames in front of it.
        norm: goes before SiLU; None leaves the chunk as it is.
        rim: rows that a band has above and below its own; outside of the picture they are zeros.
        unit: where not 0, bands have zeros of `rim` columns beside them, too, and more zeros below
            and on the right until height and width are multiples of `unit`, plus both rims.
        edges: what the first row and column outside of the picture are, if not zeros. Then the
            rim is 1, and bands have their columns beside them.
    """

    def __init__(
        self,
        x: Tensor,
        past: Past,
        norm: PixelNorm | None,
        rim: int = 0,
        unit: int = 0,
        edges: Edges = "zeros",
    ) -> None:
        self._x, self._past, self._norm, self._rim, self._edges = x, past, norm, rim, edges
        self._left = rim if unit or edges != "zeros" else 0
        self._unit = unit or 1
        self._seen = empty_like(x, height=rim).zero_()

    def take(self, begin: int, end: int) -> Tensor:
        """Join the rows from `begin` to `end` and their rims; BCTHW in channels-last memory.

        Call for bands in order, from row 0 to the last.
        """
        x, rim = self._x, self._rim
        height, width = x.shape[3:]
        lead, rows = self._past.frames, end - begin + 2 * rim
        left, below, right = self._left, 0, 0
        if left:
            below, right = -(end - begin) % self._unit, rim - width % -self._unit
        buffer = empty_like(
            x, frames=lead + x.size(2), height=rows + below, width=left + width + right
        )
        bottom = min(end + rim, height)
        filled = rim + bottom - begin
        buffer[:, :, :, filled:] = 0
        buffer[..., :left] = 0
        buffer[..., left + width :] = 0
        inner = buffer[..., left : left + width]
        chunk, seen = inner[:, :, lead:], self._seen.size(3)
        chunk[:, :, :, :seen] = self._seen
        new, place = x[:, :, :, begin - rim + seen : bottom], chunk[:, :, :, seen:filled]
        if self._norm is None:
            place.copy_(new)
        else:
            torch.ops.aten.silu.out(self._norm(new), out=place)
        self._seen = chunk[:, :, :, end - begin : rows].clone()
        if lead:
            self._fill_past(inner[:, :, :, :filled], begin, bottom)
        if self._edges != "zeros":
            ends = filled if end == height else None
            fill_edges(buffer, self._edges, top=begin == 0, bottom=ends, right=left + width)
        return buffer

    def own(self, band: Tensor, rows: int) -> Tensor:
        """The part of a band that is not rim: its first `rows` rows, and all columns."""
        columns = slice(self._left, self._left + self._x.size(4))
        return band[:, :, :, self._rim : self._rim + rows, columns]

    def _fill_past(self, inner: Tensor, begin: int, bottom: int) -> None:
        """Write the frames in front of the chunk, which is there already."""
        lead, kept = self._past.frames, self._past.kept
        front = inner[:, :, :lead]
        if kept is not None:
            top = max(begin - self._rim, 0)
            above = top - begin + self._rim
            front[:, :, :, :above] = 0
            front[:, :, :, above:] = kept[:, :, :, top:bottom]
        elif self._past.repeat:
            front.copy_(inner[:, :, lead : lead + 1].expand_as(front))
        else:
            front.zero_()


def convolve_in_bands(
    joiner: RowJoiner,
    rows: int,
    run: Callable[[Tensor, Tensor], None],
    out: Tensor,
    tail: Tensor | None = None,
) -> None:
    """Convolve row band by row band.

    Args:
        joiner: of past and chunk.
        rows: of a band.
        run: convolves a band, rims included, and writes the rows of the result into its second
            argument.
        out: BCTHW, the result; may be the chunk itself.
        tail: BCTHW, where what a stream keeps is put: the last frames of the input.
    """
    height = out.size(3)
    for begin in range(0, height, rows):
        end = min(begin + rows, height)
        band = joiner.take(begin, end)
        if tail is not None:
            last = band[:, :, band.size(2) - tail.size(2) :]
            tail[:, :, :, begin:end] = joiner.own(last, end - begin)
        run(band, out[:, :, :, begin:end])
