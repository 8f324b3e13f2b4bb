"""The types that this processor computes in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Convolution = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Input, weight and bias to output."""


def _types_without_instructions() -> frozenset[torch.dtype]:
    """The short types that oneDNN, if there is one, does not convolve on this processor."""
    checks = {
        torch.bfloat16: "_is_mkldnn_bf16_supported",
        torch.float16: "_is_mkldnn_fp16_supported",
    }
    found = {dtype: getattr(torch.ops.mkldnn, name, None) for dtype, name in checks.items()}
    return frozenset(dtype for dtype, check in found.items() if check is None or not check())


WITHOUT_INSTRUCTIONS = _types_without_instructions()


def convolved_in(x: Tensor) -> torch.dtype:
    """The type to convolve `x` in: its own, or float32 where the processor knows no shorter ones.

    PyTorch would go through those in a loop, many times slower than float32. Products and sums in
    float32, and the result rounded once, are what processors with instructions for them give, too.
    """
    is_slow = x.device.type == "cpu" and x.dtype in WITHOUT_INSTRUCTIONS
    return torch.float32 if is_slow else x.dtype


def convolve(run: Convolution, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`run` in the type that `convolved_in` says; the result is of the type of `x`."""
    dtype = convolved_in(x)
    bias = None if bias is None else bias.to(dtype)
    return run(x.to(dtype), weight.to(dtype), bias).to(x.dtype)
