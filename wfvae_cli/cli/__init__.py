"""The command line: arguments, progress, messages, exit codes. One file per command, each thin.

Nothing here imports torch or av before a command runs, so that `wfvae --help` is instant.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run `wfvae` with the arguments of this process."""
    try:
        from wfvae_cli.cli.app import app

        app()
    except KeyboardInterrupt:  # before a command took over, while modules are imported
        sys.stderr.write("interrupted\n")
        sys.stderr.flush()
        os._exit(130)
