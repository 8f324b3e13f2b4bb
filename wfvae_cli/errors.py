"""Errors that users can cause, each with the exit code that says whose fault it is.

Every message states what was expected, what came, and what to do. Anything that is not a
`WfvaeError` is a bug of ours (exit code 1).
"""

from __future__ import annotations

_MEMORY_WORDS = (
    "can't allocate memory",  # PyTorch's CPU allocator
    "could not create a memory object",  # oneDNN
    "could not create a primitive",  # oneDNN, for its scratchpad
    "Cannot allocate memory",  # errno ENOMEM, of mmap and FFmpeg
    "out of memory",  # CUDA and cuDNN
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Parts of out-of-memory messages, for errors whose type does not tell."""


class WfvaeError(Exception):
    """Base of every error that the library raises on purpose."""

    exit_code = 1


class UsageError(WfvaeError, ValueError):
    """Options that contradict each other or have no meaning."""

    exit_code = 2


class InputError(WfvaeError, OSError):
    """An input file that cannot be read as what it should be."""

    exit_code = 3


class VideoError(InputError):
    """A video or image that FFmpeg or Pillow cannot give us frames of."""


class TimeLimitError(VideoError):
    """A file that takes longer than it may."""


class ChangedError(VideoError):
    """A file that changed while it was read."""


class CrashError(VideoError):
    """A file that ends the process that reads it."""


class LatentError(InputError, ValueError):
    """A latent file that is damaged, or made by or for something else."""


class WeightsError(WfvaeError, ValueError):
    """A checkpoint or its configuration that is missing, incomplete or contradictory."""

    exit_code = 4


class OutputError(WfvaeError, OSError):
    """An output that exists already or cannot be written."""

    exit_code = 5


class DeviceError(WfvaeError, RuntimeError):
    """A device that is absent or out of memory."""

    exit_code = 6


class PartialFailureError(WfvaeError):
    """Some files of many failed; the others are done."""

    exit_code = 7


def is_out_of_memory(error: BaseException) -> bool:
    """Return True where memory ran out, on the host or a device, in any library's words."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True  # numpy's error is a MemoryError, torch's has no base in common
    return isinstance(error, (RuntimeError, OSError)) and any(
        words in str(error) for words in _MEMORY_WORDS
    )


class MissingExtraError(WfvaeError, ImportError):
    """An optional dependency is needed and not installed."""

    exit_code = 2

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed: pip install 'wfvae[{extra}]'"
        )
