"""Convolutions over video: causal in time, and on every frame alone.

All of them expect BCTHW in channels-last memory, where turning BCTHW into frames costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from wfvae_cli.nn.arithmetic import convolve, convolved_in
from wfvae_cli.nn.norm import silu
from wfvae_cli.nn.stream import Stream, Streaming

Before = Literal["repeat", "zeros"]
"""What a causal conv sees in front of a clip: copies of its first frame, or zeros."""

PixelNorm = Callable[[Tensor], Tensor]
"""A norm that looks at every pixel alone; BCTHW to BCTHW."""

BAND_BYTES = 8 * 2**20
"""Of a layer's input, on a CPU, go through at a time: little beside the whole, and enough that
oneDNN's rearranging of the weights for every call takes no time to speak of."""


class CausalConv3d(Streaming):
    """A convolution that sees the present and the past of a clip, never its future.

    In front of the clip stands what `before` says; in space it is padded with zeros. Between
    chunks it keeps the input frames that the next output still needs. A caller may put a past
    of its own into the stream before the first call.
    """

    by_tap = True
    """Whether it may run tap by tap. For training that is slower: autograd would copy the slices
    of each tap's sums."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int, int] = 3,
        stride: int | tuple[int, int, int] = 1,
        before: Before = "repeat",
    ) -> None:
        super().__init__()
        self.before = before
        size = (kernel, kernel, kernel) if isinstance(kernel, int) else kernel
        # A strided conv is padded on the right and bottom only, by its caller.
        padding = (0, size[1] // 2, size[2] // 2) if stride == 1 else 0
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
            x: what came in.
            stream: the clip's.
            norm: comes before the convolution, with SiLU after it; where the convolution goes band
                by band, so do they.
            overwrite: whether the result may take the place of `x` in memory.
        """
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        past = stream.past.get(self.key)
        still = past is None and stream.last and x.size(2) == 1
        if self.runs_by_tap(x) and not still:
            return self._convolve_by_tap(x, stream, norm, overwrite)
        x = x if norm is None else silu(norm(x))
        if kernel == 1:
            return self._convolve_frames(x, self.conv.weight[:, :, 0], self.conv.bias)
        if still:
            return self._convolve_still(x)
        x = torch.cat((self._past_of(x) if past is None else past, x), dim=2)
        y = convolve(self.conv._conv_forward, x, self.conv.weight, self.conv.bias)
        if not stream.last:
            stream.past[self.key] = x[:, :, y.size(2) * stride :].clone()
        return y

    def _past_of(self, x: Tensor) -> Tensor:
        """Make what stands in front of a clip that starts with `x`."""
        frame = x[:, :, :1] if self.before == "repeat" else torch.zeros_like(x[:, :, :1])
        return frame.expand(-1, -1, self.conv.kernel_size[0] - 1, -1, -1)

    def _convolve_still(self, x: Tensor) -> Tensor:
        """Convolve a clip of one frame, in 2D.

        All temporal taps see that frame where it is repeated; only the last one does, where
        zeros come before it.
        """
        weight = self.conv.weight[:, :, -1]
        if self.before == "repeat":
            exact = torch.promote_types(x.dtype, torch.float32)
            first, *others = self.conv.weight.to(exact).unbind(dim=2)
            weight = sum(others, first).to(x.dtype)
        return self._convolve_frames(x, weight, self.conv.bias)

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

    def runs_by_tap(self, x: Tensor) -> bool:
        """Whether numbers of this type and device are convolved tap by tap.

        On CPUs three 2D convolutions run at the speed of a matrix product, where a 3D one in
        channels-last memory does not. Shorter types are left alone where they are convolved as
        such: each addition would round.
        """
        exact = convolved_in(x) in (torch.float32, torch.float64)
        return (
            self.by_tap
            and x.device.type == "cpu"
            and exact
            and self.conv.kernel_size[0] == 3
            and self.conv.stride[0] == 1
        )

    def _convolve_by_tap(
        self, x: Tensor, stream: Stream, norm: PixelNorm | None, overwrite: bool
    ) -> Tensor:
        """Convolve with each temporal tap in 2D, and add up.

        What a frame adds to the two frames after it is computed with that frame. Between chunks
        the stream keeps those sums instead of frames, so that nothing is copied or computed
        twice; where frame 0 is repeated, what it adds to itself is there already.
        """
        carried = stream.past.get(self.key)
        row = x[:, :, :, 0].numel() * x.element_size()
        rows = max(BAND_BYTES // row, 1)
        if rows < x.size(3) and not torch.is_grad_enabled():  # for gradients all would be kept
            y, sums = self._add_taps_in_bands(x, carried, stream.last, norm, rows, overwrite)
        else:
            x = x if norm is None else silu(norm(x))
            y, sums = self._add_taps(x, carried, stream.last)
            y = y.to(x.dtype)
        if sums is not None:
            stream.past[self.key] = sums
        return y

    def _add_taps_in_bands(
        self,
        x: Tensor,
        carried: Tensor | None,
        last: bool,
        norm: PixelNorm | None,
        rows: int,
        overwrite: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """`_add_taps` in row bands of `rows`: what lies between `x` and the result is never whole.

        Bands take over from each other the rows that both see. So every row is read once, before
        its place is needed for the result.
        """
        _, channels, frames, height, _ = x.shape
        rim, outputs = int(self.conv.padding[1]), self.conv.out_channels
        y = x if overwrite and channels == outputs else _empty_like(x, outputs, frames, height)
        sums = None if last else _empty_like(x, outputs, 2, height, convolved_in(x))
        seen = _empty_like(x, channels, frames, rim).zero_()  # above the picture there are zeros
        for begin in range(0, height, rows):
            end = min(begin + rows, height)
            band = _empty_like(x, channels, frames, end - begin + 2 * rim)
            had, bottom = seen.size(3), min(end + rim, height)
            new = x[:, :, :, begin - rim + had : bottom]
            filled = had + new.size(3)
            band[:, :, :, :had] = seen
            if norm is None:
                band[:, :, :, had:filled] = new
            else:
                torch.ops.aten.silu.out(norm(new), out=band[:, :, :, had:filled])
            band[:, :, :, filled:] = 0
            seen = band[:, :, :, end - begin :].clone()
            place = (..., slice(begin, end), slice(None))
            past = None if carried is None else carried[place]
            y[place], part = self._add_taps(band, past, last, rim=0)
            if sums is not None and part is not None:
                sums[place] = part
        return y, sums

    def _add_taps(
        self, x: Tensor, carried: Tensor | None, last: bool, rim: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The result, and unless this is the `last` chunk what it adds to the next two frames.

        Both are of the type `convolved_in` says: what is carried on is not rounded on the way.
        `carried` is what earlier frames add to this chunk's first two; None in front of the clip.
        `rim` is how many rows of zeros to put above and below, if not as many as the layer says.
        """
        x = x.to(convolved_in(x))
        frames, starts = x.size(2), carried is None
        # What only the frames of a next chunk would see is not computed in the last one.
        reach = (max(frames - 1, starts), max(frames - 2, starts)) if last else (frames,) * 2
        two_later, next_one, itself = self.conv.weight.unbind(dim=2)
        y = self._convolve_frames(x, itself, self.conv.bias, rim)
        once = self._convolve_frames(x[:, :, : reach[0]], next_one, rim=rim)
        twice = self._convolve_frames(x[:, :, : reach[1]], two_later, rim=rim)
        if carried is None and self.before == "repeat":
            carried = torch.cat((once[:, :, :1] + twice[:, :, :1], twice[:, :, :1]), dim=2)
        elif carried is None:
            carried = torch.zeros_like(y[:, :, :1]).expand(-1, -1, 2, -1, -1)
        y[:, :, :2] += carried[:, :, :frames]
        y[:, :, 1:] += once[:, :, : frames - 1]
        y[:, :, 2:] += twice[:, :, : max(frames - 2, 0)]
        if last:
            return y, None
        before = twice[:, :, -2:-1] if frames > 1 else carried[:, :, 1:]
        return y, torch.cat((once[:, :, -1:] + before, twice[:, :, -1:]), dim=2)


def _empty_like(
    x: Tensor, channels: int, frames: int, height: int, dtype: torch.dtype | None = None
) -> Tensor:
    """BCTHW in channels-last memory, of the batch, width and device of `x`, and of its type."""
    shape = x.size(0), frames, height, x.size(4), channels
    return x.new_empty(shape, dtype=dtype).permute(0, 4, 1, 2, 3)


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

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """Convolve every frame; frames know nothing of each other, so `stream` is not used."""
        del stream
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
