"""Steps of `run_all.py` that are no command of the program: weights, kernels and profiles."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from tests.parity.cases import case_config, case_weights
from wfvae_cli.bench.measure import time_in_turn
from wfvae_cli.models.load import load_model
from wfvae_cli.nn.blocks import attend_in_query_blocks
from wfvae_cli.nn.conv import CausalConv3d
from wfvae_cli.nn.resample import convolve_doubled, double_space
from wfvae_cli.nn.stream import Stream


def weights(case: str, folder: str) -> None:
    """Write the checkpoint of a parity case, weights by rule, as a folder for `--model`."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(case_config(case)))
    save_file(case_weights(case), target / "model.safetensors")
    sys.stdout.write(f"{target}\n")


def kernels(device: str, scale: str) -> None:
    """Time what is chosen without having been measured on every GPU, beside its alternatives."""
    place, size, channels = torch.device(device), *((64, 384) if scale == "--full" else (8, 32))
    dtype = torch.bfloat16 if place.type == "cuda" else torch.float32
    generator = torch.Generator().manual_seed(0)

    def make(*shape: int) -> Tensor:
        x = torch.randn(shape, generator=generator).to(place, dtype)
        return x.contiguous(memory_format=torch.channels_last_3d) if len(shape) == 5 else x

    x, doubling = make(1, channels, 5, size, size), make(channels, channels, 3, 3)
    q = make(5, size * size, 2 * channels)
    conv = CausalConv3d(channels, channels).to(place, dtype).requires_grad_(False)
    conv.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    dense = x.contiguous()
    compare(
        place,
        "nearest doubling and a convolution",
        {
            "transposed convolution": lambda: convolve_doubled(x, doubling, None),
            "doubled, then convolved": lambda: F.conv2d(
                double_space(x, "nearest")[0].transpose(0, 1), doubling, padding=1
            ),
        },
    )
    compare(
        place,
        f"attention, {q.size(2)} channels a head",
        {
            "query blocks": lambda: attend_in_query_blocks(q, q, q),
            "scaled_dot_product_attention": lambda: F.scaled_dot_product_attention(
                q[:, None], q[:, None], q[:, None]
            ),
        },
    )
    compare(
        place,
        "causal convolution",
        {
            "channels last": lambda: conv(x, Stream.whole()),
            "channels first": lambda: conv(dense, Stream.whole()),
        },
    )
    for benchmark in (False, True):
        torch.backends.cudnn.benchmark = benchmark
        work = {f"cudnn.benchmark = {benchmark}": lambda: conv(x, Stream.whole())}
        compare(place, "causal convolution", work)


def compare(device: torch.device, title: str, actions: dict[str, Callable[[], Tensor]]) -> None:
    """Print the best time of each action."""
    with torch.inference_mode():
        seconds = time_in_turn(list(actions.values()), 5, device)
    for name, each in zip(actions, seconds, strict=True):
        sys.stdout.write(f"{title}: {name}: {min(each) * 1e3:.3f} ms\n")


def profile(model: str, device: str, size: str, frames: str, half: str, trace: str) -> None:
    """Profile a half of a model: kernels by time, and a trace for a browser."""
    loaded = load_model(model, device=device, dtype="bfloat16" if device != "cpu" else "float32")
    width, height = (int(side) for side in size.split("x"))
    vae, strides = loaded.vae, loaded.vae.strides
    count = 1 + (int(frames) - 1) // strides.time // 4 * strides.time  # of a chunk
    clip = torch.zeros(
        1, 3, count, height, width, device=loaded.device, dtype=loaded.dtype_of("encode")
    )
    with torch.inference_mode():
        latents = vae.encode(clip, Stream.whole()).mean

        def action() -> None:
            if half == "encode":
                vae.encode(clip, Stream.whole())
            else:
                vae.decode(latents, Stream.whole())

        time_in_turn([action], 1, loaded.device)
        with torch.profiler.profile(profile_memory=True) as profiler:
            time_in_turn([action], 1, loaded.device)
    order = "self_cuda_time_total" if loaded.device.type == "cuda" else "self_cpu_time_total"
    sys.stdout.write(profiler.key_averages().table(sort_by=order, row_limit=40))
    profiler.export_chrome_trace(trace)


if __name__ == "__main__":
    part, *arguments = sys.argv[1:]
    if part == "weights":
        weights(*arguments)
    elif part == "kernels":
        kernels(*arguments)
    else:
        profile(*arguments)
