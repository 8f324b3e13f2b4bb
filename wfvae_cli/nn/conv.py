"""Convolutions over video: causal in time, and on every frame alone.

All of them expect BCTHW in channels-last memory, where turning BCTHW into frames costs nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wfvae_cli.nn import winograd
from wfvae_cli.nn.arithmetic import conv3d_misses_tf32, convolve, convolved_in
from wfvae_cli.nn.edges import Edges, pad_edges
from wfvae_cli.nn.joined import (
    NO_PAST,
    Past,
    PixelNorm,
    RowJoiner,
    convolve_in_bands,
    empty_like,
    is_eager,
    join,
)
from wfvae_cli.nn.norm import silu
from wfvae_cli.nn.stream import Stream, Streaming

Before = Literal["repeat", "zeros"]
"""Temporal padding in front of a clip: copies of its first frame, or zeros."""

BAND_BYTES = 8 * 2**20
"""Input bytes per row band on a CPU: little beside the whole, and enough that the time in which
oneDNN rearranges the weights for every call is negligible."""


class CausalConv3d(Streaming):
    """A convolution that sees the present and the past of a clip, never its future.

    In front of the clip stands what `before` says; around the picture, what `edges` says. Between
    chunks it keeps the input frames that the next output still needs. A caller may put a past
    of its own into the stream before the first call.
    """

    by_tap = True
    """True where it may run tap by tap. That is slower for training: autograd would copy the slices
    of each tap's sums."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int, int] = 3,
        stride: int | tuple[int, int, int] = 1,
        before: Before = "repeat",
        edges: Edges = "zeros",
    ) -> None:
        super().__init__()
        self.before, self.edges = before, edges
        size = (kernel, kernel, kernel) if isinstance(kernel, int) else kernel
        # A strided conv is padded by its caller, in most models on the right and bottom only.
        self.rim = size[1] // 2 if stride == 1 else 0
        # Edges other than zeros are in the input already where the convolution itself begins.
        padding = (0, self.rim, self.rim) if edges == "zeros" else 0
        self.conv = nn.Conv3d(inputs, outputs, size, stride, padding)

    def forward(
        self,
        x: Tensor,
        stream: Stream,
        norm: PixelNorm | None = None,
        *,
        overwrite: bool = False,
    ) -> Tensor:
        """Convolve the next chunk, BCTHW.

        Args:
            x: the input chunk.
            stream: the clip's.
            norm: comes before the convolution, with SiLU after it.
            overwrite: whether the result may take the place of `x` in memory.
        """
        depth, kept = self.conv.kernel_size[0], stream.past.get(self.key)
        single = kept is None and stream.last and x.size(2) == 1
        if depth == 1 or single:
            x = x if norm is None else silu(norm(x))
            x = x if self.edges == "zeros" else pad_edges(x, self.edges)
            weight = self._weight_of_single_frame(x) if single else self.conv.weight[:, :, 0]
            return self._convolve_frames(x, weight, self.conv.bias)
        past = Past.of(kept, depth - 1, repeat=self.before == "repeat")
        if self.runs_by_tap(x) and self.conv.stride == (1, 1, 1) and _goes_in_bands(x):
            y, tail = self._convolve_in_bands(x, past, norm, overwrite, stream.last)
        else:
            y, tail = self._convolve_whole(x, past, norm, stream.last)
        if tail is not None:
            stream.past[self.key] = tail
        return y

    def runs_by_tap(self, x: Tensor) -> bool:
        """Tell if numbers of this type and device are convolved tap by tap.

        On CPUs three 2D convolutions run at the speed of a matrix product, where a 3D one in
        channels-last memory does not; and on GPUs whose 3D ones lack TF32. Shorter types are left
        alone where they are convolved as such: each addition would round.
        """
        exact = convolved_in(x) in (torch.float32, torch.float64)
        pays = (x.device.type == "cpu" and exact) or conv3d_misses_tf32(x)
        return self.by_tap and pays and self.conv.kernel_size[0] == 3

    def _weight_of_single_frame(self, x: Tensor) -> Tensor:
        """The 2D weight that a clip of one frame is convolved with, OIHW.

        All temporal taps see that frame where it is repeated; only the last one does, where
        zeros come before it.
        """
        if self.before == "zeros":
            return self.conv.weight[:, :, -1]
        exact = torch.promote_types(x.dtype, torch.float32)
        first, *others = self.conv.weight.to(exact).unbind(dim=2)
        return sum(others, first).to(x.dtype)

    def _convolve_whole(
        self, x: Tensor, past: Past, norm: PixelNorm | None, last: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Convolve a whole chunk; return the result and the state to keep, None if `last`."""
        depth, stride = self.conv.kernel_size[0], self.conv.stride[0]
        starts = self._starts(x, past)
        joined = join(x, NO_PAST if starts else past, norm, self.edges)
        if self.runs_by_tap(x):
            y = self._add_taps(joined, starts).to(x.dtype)
        else:
            y = convolve(self.conv._conv_forward, joined, self.conv.weight, self.conv.bias)
        if last:
            return y, None
        used = y.size(2) * stride - (depth - 1 if starts else 0)
        tail = joined[:, :, used:]
        tail = tail if self.edges == "zeros" else tail[..., 1:-1, 1:-1]
        return y, tail.clone(memory_format=torch.channels_last_3d)

    def _convolve_in_bands(
        self, x: Tensor, past: Past, norm: PixelNorm | None, overwrite: bool, last: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Convolve as `_convolve_whole`, with temporaries of one row band at a time."""
        by_tile = winograd.suits(self.conv, x, self.rim)
        starts = not by_tile and self._starts(x, past)
        past = NO_PAST if starts else past
        if by_tile:
            rows = winograd.rows_at_a_time(x, x.size(2) + past.frames)
        else:
            rows = max(BAND_BYTES // (x[:, :, :, 0].numel() * x.element_size()), 1)
            if rows >= x.size(3):
                return self._convolve_whole(x, past, norm, last)
        outputs = self.conv.out_channels
        y = x if overwrite and x.size(1) == outputs else empty_like(x, channels=outputs)
        tail = None if last else empty_like(x, frames=self.conv.kernel_size[0] - 1)

        def add_taps(band: Tensor, out: Tensor) -> None:
            out.copy_(self._add_taps(band, starts, rim=0))

        run = winograd.Convolver(self.conv.weight, self.conv.bias, x) if by_tile else add_taps
        unit = winograd.TILE if by_tile else 0
        joiner = RowJoiner(x, past, norm, self.rim, unit, self.edges)
        convolve_in_bands(joiner, rows, run, y, tail)
        return y, tail

    def _starts(self, x: Tensor, past: Past) -> bool:
        """Tell if a clip starts here, so that the taps can account for its padding."""
        depth = self.conv.kernel_size[0]
        return (
            past.kept is None
            and self.runs_by_tap(x)
            and self.conv.stride[0] == 1
            and x.size(2) >= depth - 1
        )

    def _add_taps(self, x: Tensor, starts: bool, rim: int | None = None) -> Tensor:
        """Convolve with each temporal tap in 2D, and add up, in the type `convolved_in` says.

        Args:
            x: past and chunk.
            starts: whether a clip starts with `x` and no past is in it. Then neither copies of
                frame 0 nor zeros are convolved.
            rim: how many rows of zeros to put above and below, if not as many as the layer says.
        """
        x = x.to(convolved_in(x))
        frames, stride = x.size(2), self.conv.stride[0]
        weights = self.conv.weight.unbind(dim=2)
        if not starts:
            reach = frames - len(weights) + 1
            two_earlier, one_earlier, y = (
                self._convolve_frames(
                    x[:, :, tap : tap + reach : stride], weight, self._bias_of(tap), rim
                )
                for tap, weight in enumerate(weights)
            )
            return y.add_(one_earlier).add_(two_earlier)
        y = self._convolve_frames(x, weights[2], self.conv.bias, rim)
        one_earlier = self._convolve_frames(x[:, :, : frames - 1], weights[1], rim=rim)
        two_earlier = self._convolve_frames(x[:, :, : max(frames - 2, 1)], weights[0], rim=rim)
        y[:, :, 1:] += one_earlier
        y[:, :, 2:] += two_earlier[:, :, : frames - 2]
        if self.before == "repeat":
            y[:, :, :1] += one_earlier[:, :, :1] + two_earlier[:, :, :1]
            y[:, :, 1:2] += two_earlier[:, :, :1]
        return y

    def _bias_of(self, tap: int) -> Tensor | None:
        """Return the bias for the last tap and None for the others: it is added once."""
        return self.conv.bias if tap == self.conv.kernel_size[0] - 1 else None

    def _convolve_frames(
        self, x: Tensor, weight: Tensor, bias: Tensor | None = None, rim: int | None = None
    ) -> Tensor:
        """Convolve every frame with the 2D `weight`; `rim` replaces the padding of the height."""
        _, height, width = self.conv.stride
        above, beside = int(self.conv.padding[1]), int(self.conv.padding[2])
        padding = (above if rim is None else rim, beside)
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        run = partial(F.conv2d, stride=(height, width), padding=padding)
        y = convolve(run, frames, weight, bias)
        return rearrange(y, "(b t) c h w -> b c t h w", b=x.size(0))


def _goes_in_bands(x: Tensor) -> bool:
    """Tell if a layer may run in row bands: on other devices the extra launches would cost more."""
    return x.device.type == "cpu" and is_eager()


def laid_out(weight: Tensor, layer: nn.Module) -> Tensor:
    """The memory layout in which `layer` convolves with `weight` fastest: channels-last.

    Only speed depends on it. Where a causal conv runs tap by tap, each tap lies by itself.
    """
    if weight.ndim == 5 and isinstance(layer, CausalConv3d) and layer.runs_by_tap(weight):
        by_tap = rearrange(weight, "o i t h w -> t o h w i").contiguous()
        return rearrange(by_tap, "t o h w i -> o i t h w")
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return weight.contiguous(memory_format=formats.get(weight.ndim, torch.contiguous_format))


class FrameConv2d(nn.Conv2d):
    """A 2D convolution of every frame of BCTHW."""

    def forward(
        self,
        x: Tensor,
        stream: Stream | None = None,
        norm: PixelNorm | None = None,
        *,
        overwrite: bool = False,
    ) -> Tensor:
        """Convolve every frame.

        Args:
            x: BCTHW.
            stream: not used, since frames know nothing of each other.
            norm: comes before the convolution, with SiLU after it.
            overwrite: whether the result may take the place of `x` in memory.
        """
        del stream
        if is_eager() and winograd.suits(self, x, int(self.padding[0])):
            y = x if overwrite and x.size(1) == self.out_channels else None
            y = empty_like(x, channels=self.out_channels) if y is None else y
            run = winograd.Convolver(self.weight.unsqueeze(2), self.bias, x)
            rows = winograd.rows_at_a_time(x, x.size(2))
            convolve_in_bands(RowJoiner(x, NO_PAST, norm, 1, winograd.TILE), rows, run, y)
            return y
        x = x if norm is None else silu(norm(x))
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        y = convolve(self._conv_forward, frames, self.weight, self.bias)
        return rearrange(y, "(b t) c h w -> b c t h w", b=x.size(0))


class Chain(nn.ModuleList):
    """Layers one after the other, each given the stream."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(layers)

    def forward(self, x: Tensor, stream: Stream, part: slice = slice(None)) -> Tensor:
        """Send the next chunk, BCTHW, through all layers, or the `part` of them."""
        for layer in list(self)[part]:
            x = layer(x, stream)
        return x
