"""The command line: arguments, progress, messages, exit codes. One file per command, each thin.

Nothing here imports torch or av before a command runs, so that `wfvae --help` is instant.
"""

from __future__ import annotations

import os
import sys
import threading


def main() -> None:
    """Run `wfvae` with the arguments of this process."""
    # OpenMP's threads would otherwise spin while they wait for each other, against the threads that
    # read, measure and write beside the model: many times slower where cores are few or busy.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        from wfvae_cli.cli.app import app

        app()
    except KeyboardInterrupt:  # before a command took over, while modules are imported
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except SystemExit as ending:
        if any(thread.name.startswith("wfvae-") for thread in threading.enumerate()):
            _leave(ending.code)
        raise


def _leave(code: str | int | None) -> None:
    """End the process although a thread still sits in a read that nothing will answer.

    An orderly exit would wait for it or trip over it. Outputs are complete or removed by now.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
