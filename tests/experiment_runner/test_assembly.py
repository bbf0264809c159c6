"""A model as an experiment begins it."""

from __future__ import annotations

from pathlib import Path

import torch

from experiment_runner.experiment import assemble
from tests.support.synthetic_podcast import SyntheticPodcast
from tests.support.trainings import make_run


def test_the_attention_vector_begins_as_asked_and_nothing_else_differs(
    podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    uniform, baseline, again = (
        assemble(make_run(podcast, tmp_path, keys)).model.state_dict()
        for keys in ({}, {"attention_init": "baseline"}, {"attention_init": "baseline"})
    )
    name = "pooling.attention.weight"
    size = uniform[name].numel()
    assert uniform[name].abs().max() <= size**-0.5
    assert baseline[name].shape == uniform[name].shape
    assert 0.7 < float(baseline[name].std()) < 1.3
    assert torch.equal(baseline[name], again[name])
    assert all(torch.equal(values, baseline[key]) for key, values in uniform.items() if key != name)
