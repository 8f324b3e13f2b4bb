import numpy as np
import torch

from wfvae_cli.bench.measure import (
    Spread,
    count_operations,
    peak_memory,
    product_rate,
    time_in_turn,
)

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


def test_a_matrix_product_has_a_rate() -> None:
    assert product_rate(CPU, torch.float32) > 1e6
