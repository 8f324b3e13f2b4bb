"""What surrounds every command: errors to messages and exit codes, signals, notices."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable

import typer

from wfvae_cli.cli.console import Console
from wfvae_cli.cli.signals import Stopped, ending, stop_behind
from wfvae_cli.errors import WfvaeError
from wfvae_cli.heap import keep_freed_memory

owns_process = False
"""Whether this process is the `wfvae` program, rather than one that uses its commands."""


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
        # Whoever reads our output has seen enough: no fault of ours or theirs.
        _let_go_of_stdout()
    except (Exception, KeyboardInterrupt, Stopped) as error:
        stop = stop_behind(error)
        if stop is not None:
            word, code = ending(stop)
            message = f"{word}; unfinished output was removed"
        elif isinstance(error, WfvaeError):
            message, code = str(error), error.exit_code
        else:
            raise
        console.error(message)
        raise typer.Exit(code) from None


def _let_go_of_stdout() -> None:
    """Keep Python from writing what is left in its buffer to a pipe that nobody reads."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _forward_notices(console: Console) -> None:
    """Show what the library has to say, unless `--quiet`."""
    log = logging.getLogger("wfvae")
    log.handlers = [_NoticeHandler(console)]
    log.setLevel(logging.INFO)
    log.propagate = False


class _NoticeHandler(logging.Handler):
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
