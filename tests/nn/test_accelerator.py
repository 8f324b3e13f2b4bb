"""Devices other than the CPU, on machines that have none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from wfvae_cli.nn.accelerator import (
    available_devices,
    free_device_memory,
    peak_memory_of,
    reset_peak_memory,
    synchronize,
    total_device_memory,
)

CPU, XPU = torch.device("cpu"), torch.device("xpu")


def test_the_cpu_has_the_systems_memory() -> None:
    assert free_device_memory(CPU) is None
    assert total_device_memory(CPU) is None
    assert peak_memory_of(CPU) is None
    reset_peak_memory(CPU)
    synchronize(CPU)


def test_memory_that_the_allocator_holds_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[None] = []
    backend = SimpleNamespace(
        mem_get_info=lambda device: (100, 1000),
        memory_reserved=lambda device: 70,
        memory_allocated=lambda device: 30,
        max_memory_allocated=lambda device: 60,
        reset_peak_memory_stats=lambda device: None,
        synchronize=lambda: waited.append(None),
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: backend)
    assert free_device_memory(XPU) == 140
    assert total_device_memory(XPU) == 1000
    assert peak_memory_of(XPU) == 60
    synchronize(XPU)
    assert len(waited) == 1


def test_a_backend_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace())
    assert free_device_memory(XPU) is None
    assert total_device_memory(XPU) is None
    assert peak_memory_of(XPU) is None


def test_devices_are_those_that_pytorch_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: XPU)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    for present, expected in ((True, ["cpu", "xpu", "xpu:0", "xpu:1"]), (False, ["cpu"])):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda present=present: present)
        assert [str(device) for device in available_devices()] == expected
