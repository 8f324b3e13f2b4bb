"""The halves of a model through `torch.compile`: a graph for each kind of chunk.

The state of the stream differs for a clip's first, second and last chunk, and a remainder has
another length, so each of these kinds is traced and compiled when it first comes. Chunks of one
kind share a graph across clips.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from wfvae_cli.errors import DeviceError, UsageError
from wfvae_cli.models.base import Halves, Posterior, VideoVAE
from wfvae_cli.nn.stream import Stream

MOST_KINDS = 64
"""Kinds of chunk that a half is compiled for: each takes from seconds to minutes."""
_MOST_GRAPHS = 4 * MOST_KINDS
"""The limit that PyTorch is given, for all models of one family together."""

Result = TypeVar("Result", Tensor, Posterior)


def compile_halves(vae: VideoVAE, device: torch.device) -> None:
    """Have a model's chunks compiled from now on, each kind when it first comes.

    Results are those of the model as it is, within rounding (float32: 1e-5). On CUDA let the thread
    that runs the first chunk run all: up to PyTorch 2.13 CUDA graphs belong to one (its issue
    123177).

    Raises:
        DeviceError: this machine lacks the compiler that `torch.compile` needs.
        UsageError: every chunk of this model would be of another kind.
    """
    if vae.state_growth_per_latent:
        raise UsageError(
            "--compile: this model's state grows with every chunk, and each would be compiled for "
            "minutes: leave --compile out"
        )
    _check_compilers(device)
    import torch._dynamo.config  # slow, and needed here alone

    torch._dynamo.config.cache_size_limit = _MOST_GRAPHS
    graphs = device.type == "cuda"
    vae.compiled = Halves(
        CompiledStep(vae._encode, graphs=graphs), CompiledStep(vae._decode, graphs=graphs)
    )


class CompiledStep(Generic[Result]):
    """Takes a chunk and its stream through one half of a model.

    Args:
        run: the half: checked chunk and stream to its result; it changes the stream.
        graphs: whether CUDA graphs replay the kernels, without a launch for each.
    """

    def __init__(self, run: Callable[[Tensor, Stream], Result], *, graphs: bool) -> None:
        mode = "reduce-overhead" if graphs else None
        self._run: Callable[[Tensor, Stream], Result] = torch.compile(
            run, fullgraph=True, dynamic=False, mode=mode
        )
        self._graphs = graphs
        self._kinds: set[tuple[object, ...]] = set()

    def __call__(self, x: Tensor, stream: Stream) -> Result:
        """Send the next chunk through.

        Raises:
            UsageError: it cannot be compiled, or is one kind of chunk too many.
        """
        if stream.row_bands > 1 or stream.offloaded:
            raise UsageError(
                "--compile: frames of this size fit into memory only in row bands, which are not "
                "compiled: choose a smaller --size or --chunk, or leave --compile out"
            )
        self._kinds.add((x.shape, x.dtype, stream.first, stream.last))
        if len(self._kinds) > MOST_KINDS:
            raise UsageError(
                f"--compile: chunks of {len(self._kinds)} sizes, the last {list(x.shape)}, would "
                "each be compiled for minutes: make clips of one size with --size and --frames, "
                "or leave --compile out"
            )
        if self._graphs:
            # The results of an earlier replay may be overwritten from here on: none is in use,
            # since all that leaves this method is a copy.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            result = self._run(x, stream)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UsageError(
                f"this model cannot be compiled here ({reason[0]}): leave --compile out"
            ) from error
        return self._kept(result, stream) if self._graphs else result

    def _kept(self, result: Result, stream: Stream) -> Result:
        """Copy results out of a CUDA graph's own memory, which its next replay writes again.

        After a clip's last chunk the state is not read again: it is dropped, not copied.

        The copies are queued behind the replay on the same CUDA stream, and the next replay
        behind them. They keep their strides, on which the next chunk's graph is chosen.
        """
        past = {} if stream.last else stream.past
        stream.past = {key: tail.clone() for key, tail in past.items()}
        if isinstance(result, Posterior):
            return Posterior(result.mean.clone(), result.logvar.clone())
        return result.clone()


def _check_compilers(device: torch.device) -> None:
    """Look for what the inductor builds kernels with: C++ for the CPU, Triton for CUDA."""
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"--compile knows cpu and cuda, not {device.type}: leave it out")
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise DeviceError(
                "--compile needs Triton on CUDA: pip install triton, or leave --compile out"
            )
        # Triton builds a launcher for every kernel with the C compiler.
        found = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    else:
        name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
        found = shutil.which(name)
    if not found:
        raise DeviceError(
            "--compile needs a C and C++ compiler, and finds none: install g++, name one in CC and "
            "CXX, or leave --compile out"
        )
