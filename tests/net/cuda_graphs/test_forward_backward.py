"""Recorded steps against the same steps launched kernel by kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from net.cuda_graphs.forward_backward import ForwardBackwardGraphs, Place, _Recording
from net.packing.buckets import Bucket
from net.wavlm.packed_encoder import PackedWavLM
from tests.support.encoders import NAMES, encode, make_encoder, make_waveforms


@pytest.mark.parametrize("lengths", [(1,), (5, 1), (400,) * 32, tuple(range(130, 560, 13)), (3000, 2, 2)])
def test_a_bucket_is_a_little_larger_than_its_batch(lengths: tuple[int, ...]) -> None:
    bucket = Bucket.around(lengths)
    filled = bucket.fill(lengths)
    assert filled[: len(lengths)] == lengths
    assert sum(filled) == bucket.frames
    assert bucket.frames - sum(lengths) < max(32, sum(lengths) / 32)
    assert len(filled) <= bucket.utterances
    assert max(filled) <= bucket.longest
    for size in (8, 32, 64):
        assert sum(-(-length // size) for length in filled) <= bucket.blocks(size)


def test_bounds_of_buckets_only_grow() -> None:
    wide = Bucket.around((700,) * 20)
    narrow = Bucket.around((100,) * 3, wide)
    assert (narrow.utterances, narrow.longest) == (wide.utterances, wide.longest)
    assert narrow.frames < wide.frames


def gradients(encoder: Any, values: Tensor, seed: int) -> None:  # noqa: ANN401
    weighting = torch.randn(values.shape, generator=torch.Generator().manual_seed(seed)).to(values.device)
    torch.autograd.backward((values * weighting).sum())


DROPOUTS = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")


def train(
    name: str,
    steps: Sequence[Sequence[tuple[float, ...]]],
    is_recorded: bool,
    is_checkpointed: bool = False,
    layerdrop: float = 0.0,
    dropout: float = 0.1,
) -> tuple[list[Tensor], PackedWavLM]:
    """Take optimiser steps over micro-batches; frames of every one, then all parameters."""
    rates = dict.fromkeys(DROPOUTS, dropout)
    encoder = make_encoder(name, **rates, layerdrop=layerdrop, num_hidden_layers=6 if layerdrop else 2).train().cuda()
    encoder.feature_extractor.requires_grad_(False)
    weights = torch.nn.Parameter(torch.linspace(-1, 1, len(encoder.encoder.layers) + 1, device="cuda"))
    packed = PackedWavLM(encoder, None if layerdrop else weights, is_checkpointed)
    packed.capture_steps()
    if not is_recorded:
        assert packed._graphs is not None
        packed._graphs._seen = _Nothing()  # every batch is filled, and none is known
    optimiser = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], 1e-3, fused=True)
    found = []
    for number, step in enumerate(steps):
        for part, seconds in enumerate(step):
            torch.manual_seed(100 * number + part)
            waveforms = [waveform.cuda() for waveform in make_waveforms(seconds)]
            values = encode(encoder, waveforms, torch.bfloat16, packed)
            gradients(encoder, values, number)
            found.append(values.detach())
        torch.nn.utils.clip_grad_norm_([p for p in encoder.parameters() if p.grad is not None], 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return found + [p.detach() for p in encoder.parameters()], packed


class _Nothing(set[Any]):
    def __contains__(self, item: object) -> bool:
        return False


LONG, SHORT, SIMILAR = (5.0, 2.0, 3.1), (1.0, 0.4), (4.0, 3.0, 3.12)
STEPS: list[list[tuple[float, ...]]] = [
    [LONG],
    [SHORT],
    [LONG],
    [SHORT, LONG],
    [SIMILAR],
    [LONG, SIMILAR, SHORT],
    [SHORT],
    [LONG],
]


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_recorded_steps_equal_launched_ones_bit_for_bit(name: str, cuda: torch.device) -> None:
    recorded, packed = train(name, STEPS, True)
    assert packed._graphs is not None
    assert len(packed._graphs._recordings) >= 2
    launched, _ = train(name, STEPS, False)
    for number, (one, other) in enumerate(zip(recorded, launched, strict=True)):
        assert torch.equal(one, other), number


@pytest.mark.gpu
def test_recorded_steps_with_checkpointing_are_the_same(cuda: torch.device) -> None:
    recorded, _ = train("stable", STEPS, True, is_checkpointed=True)
    launched, _ = train("stable", STEPS, False)
    assert all(torch.equal(one, other) for one, other in zip(recorded, launched, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize(("dropout", "is_checkpointed"), [(0.1, False), (0.0, False), (0.1, True)])
@pytest.mark.parametrize("name", NAMES)
def test_recorded_steps_skip_layers_as_launched_ones_do(
    name: str, dropout: float, is_checkpointed: bool, cuda: torch.device
) -> None:
    recorded, packed = train(name, STEPS, True, is_checkpointed, layerdrop=0.5, dropout=dropout)
    assert packed._graphs is not None
    assert len(packed._graphs._recordings) >= 2
    launched, _ = train(name, STEPS, False, layerdrop=0.5, dropout=dropout)
    for number, (one, other) in enumerate(zip(recorded, launched, strict=True)):
        assert torch.equal(one, other), number
    assert not torch.equal(recorded[0], train(name, STEPS[:1], True, dropout=dropout)[0][0])


class _Backward:
    """Stands for the graph of a backward."""

    def __init__(self, places: Sequence[Tensor], value: float) -> None:
        self.places, self.value = places, value

    def replay(self) -> None:
        """Write the gradients."""
        for place in self.places:
            place.fill_(self.value)


def test_parameters_of_skipped_parts_get_no_gradient_and_keep_the_one_they_have() -> None:
    owner = torch.nn.ParameterDict({name: torch.nn.Parameter(torch.zeros(2)) for name in ("all", "one", "two", "far")})
    places = [Place(owner, name, part) for name, part in (("all", None), ("one", 1), ("two", 2), ("far", 2))]
    graphs: ForwardBackwardGraphs[Any] = ForwardBackwardGraphs(lambda hidden, *_: hidden, places)
    graphs._gradients = [torch.zeros(2) for _ in places]

    def differentiate(value: float, *skipped: int) -> list[list[float] | None]:
        backward: Any = _Backward(graphs._gradients, value)
        graphs.differentiate(_Recording(backward, backward, (), [], [True, True, True, False]), frozenset(skipped))
        return [None if p.grad is None else p.grad.tolist() for p in graphs.parameters]

    assert differentiate(1.0, 1) == [[1, 1], None, [1, 1], None]
    assert differentiate(2.0, 2) == [[3, 3], [2, 2], [1, 1], None]  # the one shared place was written again
    assert differentiate(4.0, 1, 2) == [[7, 7], [2, 2], [1, 1], None]
    assert differentiate(8.0) == [[15, 15], [10, 10], [9, 9], None]


@pytest.mark.gpu
def test_a_backward_that_comes_too_late_is_refused(cuda: torch.device) -> None:
    encoder = make_encoder("base", layerdrop=0.0).train().cuda()
    packed = PackedWavLM(encoder)
    packed.capture_steps()
    waveforms = [waveform.cuda() for waveform in make_waveforms(LONG)]
    encode(encoder, waveforms, torch.bfloat16, packed)
    first, _ = (encode(encoder, waveforms, torch.bfloat16, packed) for _ in range(2))
    with pytest.raises(RuntimeError, match="followed by another one"):
        torch.autograd.backward(first.sum())


@pytest.mark.gpu
def test_frozen_layers_and_new_freezing_are_recorded_as_they_are(cuda: torch.device) -> None:
    encoder = make_encoder("base", layerdrop=0.0).train().cuda()
    encoder.feature_extractor.requires_grad_(False)
    packed = PackedWavLM(encoder)
    packed.capture_steps()
    waveforms = [waveform.cuda() for waveform in make_waveforms(LONG)]
    for frozen in (False, True, True, True, False, False):
        encoder.encoder.layers[0].requires_grad_(not frozen)
        encoder.zero_grad()
        torch.autograd.backward(encode(encoder, waveforms, torch.bfloat16, packed).square().sum())
        first = encoder.encoder.layers[0].attention.q_proj.weight.grad
        assert (first is None) == frozen
        assert encoder.encoder.layers[1].attention.q_proj.weight.grad.abs().sum() > 0
    assert packed._graphs is not None
    assert len(packed._graphs._recordings) == 1
