"""Wrap every command: errors become messages and exit codes, log records become notes."""

from __future__ import annotations

import errno
import gc
import logging
import os
import sys
from collections.abc import Callable

import typer

from wfvae_cli.cli.console import Console
from wfvae_cli.cli.signals import Stopped, ending, stop_behind
from wfvae_cli.cli.streams import drop_unwritable_output, release_stdout
from wfvae_cli.errors import DeviceError, WfvaeError, is_out_of_memory
from wfvae_cli.heap import keep_freed_memory

owns_process = False
"""True where this process is the `wfvae` program, rather than one that uses its commands."""

_OF_THE_SYSTEM = {
    errno.ENAMETOOLONG,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
}
"""Errors of the system that are reported as such, not as bugs: any access to a path may fail."""
_OUT_OF_MEMORY = (
    "out of memory: use a smaller --chunk or --size, --dtype bfloat16, or --tile where the command "
    "has it; or free memory"
)


def run_reported(call: Callable[[], None], console: Console) -> None:
    """Make a call end with a message and an exit code rather than a traceback.

    Errors that are not ours are bugs: they keep their traceback and exit with 1.
    """
    _forward_notices(console)
    if console.quiet:  # read when huggingface_hub is imported, which is not yet
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    keep_freed_memory()
    try:
        call()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output closed the pipe, as `head` does: no error.
        release_stdout()
    except (Exception, KeyboardInterrupt, Stopped) as error:
        stop = stop_behind(error)
        if stop is not None:
            word, code = ending(stop)
            message = f"{word}; unfinished output was removed"
        elif isinstance(error, WfvaeError):
            message, code = str(error), error.exit_code
        elif is_out_of_memory(error):
            message, code = _OUT_OF_MEMORY, DeviceError.exit_code
        elif isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
            message, code = f"{error.filename or 'a file'}: {error.strerror}", 3
        else:
            raise
        drop_unwritable_output()
        console.error(message)
        raise typer.Exit(code) from None


def import_torch() -> None:
    """Import PyTorch, without searching for garbage in what it makes: all of that stays.

    Call it after a command's checks, which are told sooner without it.
    """
    gc.disable()
    try:
        import torch  # noqa: F401

        gc.freeze()
    finally:
        gc.enable()


def _forward_notices(console: Console) -> None:
    """Show log records of the library, unless `--quiet`."""
    log = logging.getLogger("wfvae")
    log.handlers = [_NoticeHandler(console)]
    log.setLevel(logging.INFO)
    log.propagate = False


class _NoticeHandler(logging.Handler):
    """Prints log records as notes."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._described: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.name != "wfvae.run":
            self._console.note(message)
        elif message not in self._described:  # a benchmark runs the same many times
            self._described.add(message)
            self._console.say(message)
