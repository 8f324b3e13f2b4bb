"""Evaluations that papers state fully enough to repeat: frames, size, crop, backbone, window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wfvae_cli.errors import UsageError
from wfvae_cli.media.options import Sampling
from wfvae_cli.metrics.lpips import Backbone

ProtocolName = Literal["wf-vae"]


@dataclass(frozen=True)
class Protocol:
    """Settings with which the figures of a paper were taken."""

    name: ProtocolName
    sampling: Sampling
    """Sampling of originals and reconstructions; every clip must have its `frames`."""
    lpips_net: Backbone
    fvd_window: int
    """Frames in a sample of FVD."""
    source: str

    def describe(self) -> str:
        """One sentence for reports."""
        size = self.sampling.size
        assert size is not None
        return (
            f"Protocol {self.name}: the first {self.sampling.frames} frames at their own rate, "
            f"shorter side scaled to {min(size)}, centre crop of {size[0]}x{size[1]}; mean over "
            f"frames of PSNR and LPIPS ({self.lpips_net} backbone); FVD over windows of "
            f"{self.fvd_window} frames. Source: {self.source}."
        )


PROTOCOLS: Mapping[str, Protocol] = {
    "wf-vae": Protocol(
        "wf-vae",
        Sampling(frames=33, size=(256, 256), fit="crop"),
        lpips_net="alex",
        fvd_window=33,
        source="WF-VAE, arXiv 2411.17459, and examples/eval.sh of its repository",
    ),
}
"""Protocols by name; docs/protocols.md says what each leaves open."""


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UsageError: there is none.
    """
    try:
        return PROTOCOLS[name]
    except KeyError:
        known = ", ".join(PROTOCOLS)
        raise UsageError(f"expected a protocol ({known}), got {name!r}") from None
