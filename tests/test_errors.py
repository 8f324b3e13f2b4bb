from __future__ import annotations

import numpy as np
import pytest
import torch

from wfvae_cli.errors import is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …"),
        RuntimeError("could not create a primitive"),
        RuntimeError("could not create a memory object"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_ways_of_running_out_of_memory(error: BaseException) -> None:
    assert is_out_of_memory(error)


def test_numpys_error_is_one() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty(1 << 60, np.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), ValueError("out of memory"), KeyError()]
)
def test_other_errors_are_none(error: BaseException) -> None:
    assert not is_out_of_memory(error)
