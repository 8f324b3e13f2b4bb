"""Versions of the software that made a report."""

from __future__ import annotations

import platform
from importlib import metadata

from wfvae_cli import __version__

_PACKAGES = ("torch", "av", "numpy", "torchmetrics")


def versions() -> dict[str, str]:
    """Versions of this program, Python and the packages that figures depend on."""
    found = {"wfvae": __version__, "Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed
    return found
