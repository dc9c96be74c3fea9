"""The plain loop is a fair comparison: the network's own result, where 10 px of context are enough."""

from __future__ import annotations

import torch

from benchmarks.plain_loop import plain_loop
from tests.faults import tiny_generator


def test_tiles_join_without_a_seam_where_the_context_suffices() -> None:
    network = tiny_generator(scale=2).eval()
    assert network.halo_px is not None
    assert network.halo_px <= 10
    low = torch.rand(1, 3, 20, 300, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(plain_loop(network, low, 2), network(low), atol=1e-5, rtol=0)
