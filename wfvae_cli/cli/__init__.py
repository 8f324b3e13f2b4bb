"""The command line: arguments, progress, messages, exit codes. One file per command, each thin.

Nothing here imports torch or av before a command runs, so that `wfvae --help` is instant.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import sys
import threading

from wfvae_cli.cli.signals import Stopped, ending, leave_at_signals, raise_signals
from wfvae_cli.cli.streams import release_stdout, repair_streams
from wfvae_cli.errors import OutputError


def main() -> None:
    """Run `wfvae` with the arguments of this process."""
    repair_streams()
    raise_signals()
    try:
        from wfvae_cli.cli import run
        from wfvae_cli.cli.app import app

        run.owns_process = True
        app(prog_name="wfvae")
    except Stopped as stop:  # before a command took over
        word, code = ending(stop)
        sys.stderr.write(f"{word}\n")
        sys.exit(code)
    except OutputError as error:  # of `--help` and `--version`, which no command prints
        release_stdout()
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except SystemExit as end:
        leave = functools.partial(_leave, end.code)
        if any(thread.name.startswith("wfvae-") for thread in threading.enumerate()):
            leave()
        leave_at_signals(leave)
        # Python would search all modules for garbage as it ends, a fifth of a short run's time.
        gc.freeze()
        raise


def _leave(code: str | int | None) -> None:
    """End the process at once: outputs are complete or removed by now.

    An orderly exit would wait for, or trip over, a thread that still sits in a read that nothing
    will answer.
    """
    with contextlib.suppress(OSError):  # the command has flushed it, and reported what failed
        sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
