"""Compiled halves: the same results, a graph for each kind of chunk, copies of what graphs own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from tests.models.tiny import tiny_state, write_checkpoint
from wfvae_cli.errors import DeviceError, UsageError
from wfvae_cli.models import compiled
from wfvae_cli.models.base import VideoVAE
from wfvae_cli.models.compiled import CompiledStep
from wfvae_cli.models.load import load_model
from wfvae_cli.nn.conv import CausalConv3d
from wfvae_cli.nn.stream import Stream


def stream_through(
    run: Callable[[Tensor, Stream], Tensor], x: Tensor, sizes: list[int]
) -> tuple[list[Tensor], list[int]]:
    """Chunks through `run`, and how many graphs were traced for each."""
    stream, results, graphs = Stream(), [], []
    for i, chunk in enumerate(torch.split(x, sizes, dim=2)):
        stream.last = i == len(sizes) - 1
        before = counters["stats"]["unique_graphs"]
        chunk = chunk.contiguous(memory_format=torch.channels_last_3d)
        results.append(run(chunk, stream))
        graphs.append(counters["stats"]["unique_graphs"] - before)
        stream.first = False
    return results, graphs


@torch.inference_mode()
def test_the_steady_chunk_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """First, second, steady and last: no other graphs, and none again for the next clip."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    torch.manual_seed(0)
    conv = CausalConv3d(4, 4).requires_grad_(False)
    step = CompiledStep(conv.forward, graphs=False)
    x, sizes = torch.randn(1, 4, 12, 4, 4), [3, 2, 2, 2, 2, 1]
    results, graphs = stream_through(step, x, sizes)
    assert graphs[0] == graphs[-1] == 1
    assert graphs[3:5] == [0, 0]
    again, none = stream_through(step, x.flip(2), sizes)
    assert none == [0] * 6
    for source, outputs in ((x, results), (x.flip(2), again)):
        expected, _ = stream_through(conv, source, sizes)
        torch.testing.assert_close(outputs, expected, atol=1e-6, rtol=0)


def test_what_a_graph_owns_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step whose graph writes every result into the same memory, as a replay does."""
    marks: list[None] = []
    monkeypatch.setattr(torch, "compile", lambda run, **options: run)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append(None))
    output, tail = torch.zeros(1), torch.zeros(1)

    def replay(x: Tensor, stream: Stream) -> Tensor:
        before = stream.past.get("layer", torch.zeros(1)).clone()
        tail.copy_(x)
        stream.past["layer"] = tail
        return output.copy_(before + x)

    step, stream = CompiledStep(replay, graphs=True), Stream()
    first = step(torch.ones(1), stream)
    fork = stream.fork()
    second = step(torch.full((1,), 10.0), stream)
    assert (first.item(), second.item(), step(torch.zeros(1), stream).item()) == (1, 11, 10)
    assert fork.past["layer"].item() == 1
    assert len(marks) == 3
    stream.last = True
    assert step(torch.ones(1), stream).item() == 1
    assert stream.past == {}, "nobody reads it, so it is not copied"


def test_too_many_kinds_of_chunk_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda run, **options: run)
    monkeypatch.setattr(compiled, "MOST_KINDS", 2)

    def run(x: Tensor, stream: Stream) -> Tensor:
        return x

    step = CompiledStep(run, graphs=False)
    for size in (1, 2, 2, 1):
        step(torch.zeros(size), Stream())
    with pytest.raises(
        UsageError, match=r"chunks of 3 sizes, the last \[3\], would each be compiled"
    ):
        step(torch.zeros(3), Stream())


def test_strips_are_refused() -> None:
    step = CompiledStep(lambda x, _: x, graphs=False)
    with pytest.raises(UsageError, match="only in row bands"):
        step(torch.zeros(1, 3, 1, 8, 8), Stream(row_bands=2))


def test_what_cannot_be_traced_says_so() -> None:
    def run(x: Tensor, stream: Stream) -> Tensor:
        torch._dynamo.graph_break()
        return x

    with pytest.raises(UsageError, match=r"cannot be compiled here \(.+\): leave --compile out"):
        CompiledStep(run, graphs=False)(torch.zeros(1), Stream())


def test_a_machine_without_a_compiler_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = str(write_checkpoint(tmp_path, tiny_state()))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DeviceError, match="needs a C and C\\+\\+ compiler, and finds none"):
        load_model(folder, device="cpu", compile=True)


def test_only_a_model_that_was_asked_for_it_is_compiled(tmp_path: Path) -> None:
    folder = str(write_checkpoint(tmp_path, tiny_state()))
    assert load_model(folder, device="cpu").vae.compiled is None
    assert load_model(folder, device="cpu", compile=True).vae.compiled is not None


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("half", ["encode", "decode"])
@torch.inference_mode()
def test_compiled_chunks_equal_those_of_the_model_as_it_is(tmp_path: Path, half: str) -> None:
    """By the real compiler: minutes on a slow CPU."""
    folder = str(write_checkpoint(tmp_path, tiny_state()))
    plain, fast = (load_model(folder, device="cpu", compile=each).vae for each in (False, True))
    generator = torch.Generator().manual_seed(0)
    if half == "encode":
        x, sizes = torch.rand(1, 3, 13, 16, 16, generator=generator) * 2 - 1, [5, 4, 4]
    else:
        x, sizes = torch.randn(1, 4, 4, 2, 2, generator=generator), [2, 1, 1]

    def results(vae: VideoVAE) -> list[Tensor]:
        run = vae.decode if half == "decode" else lambda x, stream: vae.encode(x, stream).mean
        return stream_through(run, x, sizes)[0]

    torch.testing.assert_close(results(fast), results(plain), atol=1e-5, rtol=1e-5)
    before = counters["stats"]["unique_graphs"]
    results(fast)
    assert counters["stats"]["unique_graphs"] == before
