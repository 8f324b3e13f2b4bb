"""The types that this processor, or another device, computes in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Convolution = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Input, weight and bias to output."""


def _types_without_instructions() -> frozenset[torch.dtype]:
    """Find the short types that oneDNN, if there is one, does not convolve on this processor."""
    checks = {
        torch.bfloat16: "_is_mkldnn_bf16_supported",
        torch.float16: "_is_mkldnn_fp16_supported",
    }
    found = {dtype: getattr(torch.ops.mkldnn, name, None) for dtype, name in checks.items()}
    return frozenset(dtype for dtype, check in found.items() if check is None or not check())


WITHOUT_INSTRUCTIONS = _types_without_instructions()

CONV3D_WITHOUT_TF32: set[str] = set()
"""Types of device whose 3D convolutions stay in float32 where TF32 is allowed: see
`probe_conv3d_tf32`."""


def multiplies_bfloat16(device: torch.device) -> bool:
    """Tell if a device has instructions for products of bfloat16.

    Of a CPU these are AVX-512 BF16 or AMX: oneDNN also says yes to any AVX-512, on which it is
    slower than float32. Other devices' backends are asked; one that does not tell has none.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        tell = getattr(torch.get_device_module(device), "is_bf16_supported", lambda: False)
        return bool(tell())
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return torch.bfloat16 not in WITHOUT_INSTRUCTIONS and any(
        getattr(torch.cpu, name, lambda: False)() for name in checks
    )


def probe_conv3d_tf32(device: torch.device, conv3d: Convolution | None = None) -> bool:
    """Tell if 3D convolutions on `device` round to TF32 while it is allowed; remembers the answer.

    PyTorch turns it off where cuDNN 9.10 to 9.15 are wrong in it. There causal convolutions go tap
    by tap, in 2D, where TF32 is right.

    Args:
        device: of the type `cuda`.
        conv3d: the convolution to try; PyTorch's by default.
    """
    conv3d = conv3d or (lambda x, weight, bias: F.conv3d(x, weight, bias, padding=1))
    x = torch.full((1, 64, 4, 32, 32), 1 + 2.0**-12, device=device)  # TF32 has 10 bits
    weight = torch.ones(64, 64, 3, 3, 3, device=device)
    with torch.no_grad():
        y = conv3d(x.contiguous(memory_format=torch.channels_last_3d), weight, None)
    rounds = bool((y[:, :, 2, 8:-8, 8:-8] == 27 * 64).all())
    (CONV3D_WITHOUT_TF32.discard if rounds else CONV3D_WITHOUT_TF32.add)(device.type)
    return rounds


def conv3d_misses_tf32(x: Tensor) -> bool:
    """Tell if a 3D convolution of `x` would stay in float32 though TF32 is allowed."""
    return (
        x.dtype == torch.float32
        and x.device.type in CONV3D_WITHOUT_TF32
        and torch.backends.cudnn.allow_tf32
    )


def convolved_in(x: Tensor) -> torch.dtype:
    """Give the type to convolve `x` in: its own, or float32 where the processor lacks it.

    PyTorch would go through those in a loop, many times slower than float32. Products and sums in
    float32, and the result rounded once, are what processors with instructions for them give, too.
    """
    is_slow = x.device.type == "cpu" and x.dtype in WITHOUT_INSTRUCTIONS
    return torch.float32 if is_slow else x.dtype


def convolve(run: Convolution, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Call `run` in the type that `convolved_in` says; the result is of the type of `x`."""
    dtype = convolved_in(x)
    bias = None if bias is None else bias.to(dtype)
    return run(x.to(dtype), weight.to(dtype), bias).to(x.dtype)
