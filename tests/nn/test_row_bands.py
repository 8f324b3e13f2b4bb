import pytest
import torch
from torch import Tensor

from wfvae_cli.nn.resample import SpaceDownsample, SpaceUpsample
from wfvae_cli.nn.row_bands import in_row_bands, run_part
from wfvae_cli.nn.stream import Stream


@pytest.mark.parametrize("bands", [1, 2, 3, 5, 100])
@pytest.mark.parametrize(
    ("layer", "halo", "unit"), [(SpaceUpsample, 1, 1), (SpaceDownsample, 1, 2)]
)
def test_layers_that_scale(
    layer: type[SpaceUpsample | SpaceDownsample], halo: int, unit: int, bands: int
) -> None:
    torch.manual_seed(0)
    run, x = layer(4).eval(), torch.randn(2, 4, 3, 12, 6)
    with torch.inference_mode():
        whole = run(x, Stream.whole())
        parts = in_row_bands(run, x, Stream(row_bands=bands), "layer", halo=halo, unit=unit)
    torch.testing.assert_close(parts, whole)


def test_a_band_is_no_larger_than_itself_and_its_halos() -> None:
    heights = []

    def run(x: Tensor, stream: Stream) -> Tensor:
        heights.append(x.size(3))
        return x

    x = torch.randn(1, 2, 1, 16, 4)
    assert torch.equal(in_row_bands(run, x, Stream(row_bands=4), "layer", halo=2), x)
    assert heights == [6, 8, 8, 6]


def test_every_part_has_a_state_of_its_own() -> None:
    def remember(x: Tensor, stream: Stream) -> Tensor:
        before = stream.past.get("seen", torch.zeros_like(x))
        stream.past["seen"] = before + x
        return before

    stream, one = Stream(offloaded=True), torch.ones(1, 1, 1, 1, 1)
    assert [run_part(remember, n * one, stream, "a").item() for n in (1, 2, 3)] == [0, 1, 3]
    assert run_part(remember, one, stream, "b").item() == 0
    assert sorted(stream.past) == ["a/seen", "b/seen"]
    fork = stream.fork()
    run_part(remember, one, fork, "a")
    assert (fork.past["a/seen"].item(), stream.past["a/seen"].item()) == (7, 6)


def test_offloaded_state_goes_to_the_host_and_comes_back() -> None:
    class Elsewhere(Tensor):
        """A tensor that says where it was sent."""

        sent: list[str]

        def to(self, *args: object, **kwargs: object) -> Tensor:
            self.sent.append(f"to {args[0]}")
            return self

        def cpu(self, *args: object, **kwargs: object) -> Tensor:
            self.sent.append("cpu")
            return self

    tail = torch.zeros(1, 1, 1, 1, 1).as_subclass(Elsewhere)
    tail.sent = []
    for offloaded in (False, True):
        run_part(
            lambda x, stream: x, torch.zeros(1), Stream({"a/k": tail}, offloaded=offloaded), "a"
        )
    assert tail.sent == ["to cpu", "to cpu", "cpu"]
