from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from wfvae_cli.bench import measure
from wfvae_cli.bench.measure import (
    Spread,
    best_rate,
    count_operations,
    peak_memory,
    time_in_turn,
)
from wfvae_cli.nn import arithmetic

CPU = torch.device("cpu")


def test_a_spread_and_its_rates() -> None:
    seconds = Spread.of([2.0, 1.0, 4.0])
    assert seconds == Spread(2.0, 1.0, 4.0)
    assert seconds.inverse(8) == Spread(4.0, 2.0, 8.0)


def test_actions_take_turns_after_one_run_that_is_not_counted() -> None:
    calls: list[str] = []
    seconds = time_in_turn([lambda: calls.append("a"), lambda: calls.append("b")], 3, CPU)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert [len(runs) for runs in seconds] == [3, 3]
    assert all(value >= 0 for runs in seconds for value in runs)


def test_peak_memory_sees_what_is_gone_at_the_end() -> None:
    with peak_memory(CPU) as small:
        pass
    with peak_memory(CPU) as large:
        np.ones(64 * 2**20, np.uint8).sum()
    assert small.host > 0
    assert large.host >= small.host + 32 * 2**20
    assert large.device is None


def test_operations_follow_from_the_shapes() -> None:
    conv = torch.nn.Conv2d(3, 5, 3, padding=1)
    x = torch.randn(2, 3, 4, 6)
    assert count_operations(lambda: conv(x)) == 2 * 2 * 4 * 6 * 5 * 3 * 9


def test_the_ceiling_is_the_best_of_what_was_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[int] = []

    def time_them(actions: Sequence[Callable[[], object]], runs: int, device: object) -> object:
        timed.append(len(actions))
        return [[4.0, 2.0], [1.0, 3.0], [9.0]]

    monkeypatch.setattr(measure, "time_in_turn", time_them)
    assert best_rate(CPU, torch.float32) == 2 * 1024**3 / 1.0
    assert timed == [3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_work_is_faster_than_the_ceiling(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a type without instructions, the ceiling is that of the type that stands in."""
    types: list[torch.dtype] = []
    convolve = torch.nn.functional.conv2d

    def listen(x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        types.append(x.dtype)
        return convolve(x[:, :8], args[0][:8, :8], **options)

    monkeypatch.setattr(arithmetic, "WITHOUT_INSTRUCTIONS", frozenset([torch.bfloat16]))
    monkeypatch.setattr(measure, "_CEILING_RUNS", 1)
    monkeypatch.setattr(torch.nn.functional, "conv2d", listen)
    assert best_rate(CPU, dtype) > 1e6
    assert set(types) == {torch.float32}
