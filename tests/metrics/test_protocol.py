from __future__ import annotations

import pytest

from wfvae_cli.errors import UsageError
from wfvae_cli.metrics.protocol import PROTOCOLS, find_protocol


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_says_what_it_fixes_and_whose_it_is(name: str) -> None:
    protocol = find_protocol(name)
    sentence = protocol.describe()
    assert protocol.sampling.size is not None
    width, height = protocol.sampling.size
    for part in (name, f"{protocol.sampling.frames} frames", f"{width}x{height}", "arXiv"):
        assert part in sentence


def test_the_one_of_wf_vae() -> None:
    # examples/eval.sh: NUM_FRAMES=33, RESOLUTION=256, crop_size=256; cal_lpips.py: net='alex'.
    protocol = find_protocol("wf-vae")
    assert (protocol.sampling.frames, protocol.sampling.size) == (33, (256, 256))
    assert (protocol.sampling.fit, protocol.sampling.fps) == ("crop", None)
    assert (protocol.lpips_net, protocol.fvd_window) == ("alex", 33)


def test_an_unknown_protocol_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="wf-vae"):
        find_protocol("none")
