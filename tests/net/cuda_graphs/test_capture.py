"""Recordings beside graphs that nobody holds any more."""

from __future__ import annotations

import gc

import pytest
import torch

from net.cuda_graphs.capture import captured


@pytest.mark.gpu
def test_graphs_among_the_garbage_do_not_break_a_recording_off(cuda: torch.device) -> None:
    value, pool = torch.ones(8, device=cuda), torch.cuda.graph_pool_handle()
    held: list[object] = []
    for _ in range(4):
        earlier = torch.cuda.CUDAGraph()
        with captured(earlier, pool):
            value * 2
        cycle: list[object] = [earlier]
        cycle.append(cycle)
        held.append(cycle)
    del earlier, cycle
    graph, thresholds = torch.cuda.CUDAGraph(), gc.get_threshold()
    try:
        with captured(graph, pool):
            gc.set_threshold(1, 1, 1)
            held.clear()
            made = [[value * factor] for factor in range(100)]
    finally:
        gc.set_threshold(*thresholds)
    assert gc.isenabled()
    graph.replay()
    assert torch.equal(made[3][0], 3 * value)
