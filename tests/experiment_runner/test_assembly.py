"""A model as an experiment begins it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiment_runner.experiment import assemble
from tests.support.synthetic_podcast import SyntheticPodcast
from tests.support.trainings import make_run
from tests.support.user_code import Write
from utils.config.encoders import ENCODER
from utils.hub.upstreams import UpstreamError
from utils.io.user_code import import_user_code, look_beside

MINE = """
from net.encoder import Encoder

class Mine(Encoder):
    def frame_counts(self, samples): ...
    def layers(self, waveforms): ...
"""


def test_an_encoder_of_the_users_that_cannot_run_the_upstream_is_one_sentence(
    podcast: SyntheticPodcast, tmp_path: Path, write_module: Write
) -> None:
    write_module("encoder_of_mine", MINE)
    look_beside(tmp_path / "config.toml")
    import_user_code("encoder_of_mine:Mine", ENCODER.contract)
    run = make_run(podcast, tmp_path, {"encoder": "encoder_of_mine:Mine", "freeze": "cnn"})
    with pytest.raises(
        UpstreamError, match=r"cannot be run by encoder_of_mine:Mine \(ValueError: freeze = cnn, but Mine"
    ):
        assemble(run)


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
