import pytest
import torch
from torch.nn import functional as F

from wfvae_cli.nn.edges import Edges, pad_edges


@pytest.mark.parametrize("edges", ["reflect", "replicate"])
def test_edges_are_pytorchs(edges: Edges) -> None:
    x = torch.randn(2, 3, 2, 4, 5)
    assert torch.equal(pad_edges(x, edges), F.pad(x, (1, 1, 1, 1, 0, 0), mode=edges))
    assert torch.equal(pad_edges(x, "zeros"), F.pad(x, (1, 1, 1, 1)))
