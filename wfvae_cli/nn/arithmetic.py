"""The types that this processor computes in."""

from __future__ import annotations

import torch
from torch import Tensor


def _types_without_instructions() -> frozenset[torch.dtype]:
    """The short types that oneDNN does not convolve on this processor."""
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    has_bfloat16 = has_onednn and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    has_float16 = has_onednn and torch.ops.mkldnn._is_mkldnn_fp16_supported()
    present = {torch.bfloat16: has_bfloat16, torch.float16: has_float16}
    return frozenset(dtype for dtype, is_present in present.items() if not is_present)


WITHOUT_INSTRUCTIONS = _types_without_instructions()


def convolved_in(x: Tensor) -> torch.dtype:
    """The type to convolve `x` in: its own, or float32 where the processor knows no shorter ones.

    PyTorch would go through those in a loop, 25 times slower than float32. Products and sums in
    float32, and the result rounded once, are what processors with instructions for them give, too.
    """
    is_slow = x.device.type == "cpu" and x.dtype in WITHOUT_INSTRUCTIONS
    return torch.float32 if is_slow else x.dtype
