"""Helpers for accelerators of any vendor, through `torch.accelerator`."""

from __future__ import annotations

import torch


def available_devices() -> list[torch.device]:
    """List the CPU and the accelerator that PyTorch finds, with and without numbers."""
    found = [torch.device("cpu")]
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is not None and torch.accelerator.is_available():
        found.append(torch.device(accelerator.type))
        count = torch.accelerator.device_count()
        found += [torch.device(accelerator.type, index) for index in range(count)]
    return found


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished its queued work; on the CPU there is none."""
    if device.type not in ("cpu", "meta"):
        torch.get_device_module(device).synchronize()


def free_device_memory(device: torch.device) -> int | None:
    """Bytes that tensors can still take on a device.

    That is what its driver has free, and what PyTorch's allocator holds without a tensor in it:
    the driver alone would see less free for a process's second clip than for its first.

    Returns:
        None where the device's memory is the system's, or its backend does not tell.
    """
    if device.type == "cpu":
        return None
    backend = torch.get_device_module(device)
    if not hasattr(backend, "mem_get_info"):
        return None
    free, _ = backend.mem_get_info(device)
    return int(free + backend.memory_reserved(device) - backend.memory_allocated(device))


def total_device_memory(device: torch.device) -> int | None:
    """Bytes that a device has, used or not; None as for `free_device_memory`."""
    if device.type == "cpu":
        return None
    backend = torch.get_device_module(device)
    if not hasattr(backend, "mem_get_info"):
        return None
    return int(backend.mem_get_info(device)[1])


def reset_peak_memory(device: torch.device) -> None:
    """Have `peak_memory_of` count from now on."""
    backend = torch.get_device_module(device)
    if hasattr(backend, "reset_peak_memory_stats"):
        backend.reset_peak_memory_stats(device)


def peak_memory_of(device: torch.device) -> int | None:
    """Peak bytes of tensors since `reset_peak_memory`; None where the backend does not count."""
    backend = torch.get_device_module(device)
    if not hasattr(backend, "max_memory_allocated"):
        return None
    return int(backend.max_memory_allocated(device))
