"""Encoders by their families, and those of a user's own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from net.encoder import Encoder
from net.encoders import ENCODERS, encoder_for
from net.inputs import Waveforms
from net.packed_wavlm import PackedWavLMEncoder
from net.padded_encoder import PaddedEncoder
from net.spec_augment import SpecAugment
from net.upstream import Upstream
from tests.support.encoders import make_waveforms, tiny
from tests.support.tensor_errors import relative_error
from utils.config.encoders import ENCODER

OFF = SpecAugment(0.0, 1, 0.0, 1)
BATCH = make_waveforms((0.5, 0.3, 0.7))
TOGETHER = Waveforms(torch.cat(BATCH), tuple(map(len, BATCH)))


class Alone(Encoder):
    """The least that an encoder consists of: transformers' model on each utterance alone."""

    def frame_counts(self, samples: Sequence[int]) -> tuple[int, ...]:
        return tuple(int(self.model._get_feat_extract_output_lengths(count)) for count in samples)

    def layers(self, waveforms: Waveforms) -> list[Tensor]:
        outputs = [self.model(samples[None], output_hidden_states=True) for samples in waveforms.split()]
        if self.settings.layer_weights is None:
            return [torch.cat([output.last_hidden_state[0] for output in outputs])]
        return [
            torch.cat([frames[0] for frames in layer])
            for layer in zip(*(o.hidden_states for o in outputs), strict=True)
        ]


def make_upstream(freeze: str, layer_weighting: bool, family: type[Encoder] | None) -> Upstream:
    return Upstream(tiny("wavlm-tiny-group-random"), OFF, layer_weighting, freeze, family=family).eval()


def test_every_family_has_an_encoder() -> None:
    assert encoder_for("wavlm") is PackedWavLMEncoder
    assert {encoder_for(name) for name in ENCODERS if name != "wavlm"} == {PaddedEncoder}


@pytest.mark.parametrize("layer_weighting", [False, True])
@pytest.mark.parametrize("freeze", ["none", "upstream"])
def test_an_encoder_of_two_methods_is_an_upstream(freeze: str, layer_weighting: bool) -> None:
    own = make_upstream(freeze, layer_weighting, Alone)
    packed = make_upstream(freeze, layer_weighting, None)
    with torch.no_grad():
        found, expected = own(TOGETHER), packed(TOGETHER)
        assert found.lengths == expected.lengths
        assert relative_error(found.values, expected.values) <= 2e-6
        if freeze == "upstream":
            assert torch.equal(own(own.complete(TOGETHER)).values, found.values)
    assert own.frozen_stage == {"none": None, "upstream": "upstream"}[freeze]
    assert not own.capture_steps(torch.device("cuda"))
    assert own.state_dict().keys() == packed.state_dict().keys()


def test_checkpointing_is_that_of_transformers() -> None:
    upstream = Upstream(tiny("wavlm-tiny-random"), OFF, False, "none", gradient_checkpointing=True, family=Alone)
    assert upstream.encoder.is_gradient_checkpointing


@pytest.mark.parametrize("freeze", ["cnn", 1])
def test_parts_that_an_encoder_does_not_know_are_not_frozen_silently(freeze: str | int) -> None:
    with pytest.raises(ValueError, match=f'freeze = {freeze}, but Alone freezes "upstream" or "none"; name one'):
        Upstream(tiny("wavlm-tiny-random"), OFF, False, freeze, family=Alone)


def test_an_encoder_of_the_users_has_both_methods() -> None:
    class Lacking(Encoder):
        def frame_counts(self, samples: Sequence[int]) -> tuple[int, ...]:
            return tuple(samples)

    class Other(Alone):
        def __init__(self, model: object) -> None:
            super().__init__(model, None)  # type: ignore[arg-type]

    assert ENCODER.contract.problem(Alone) is None
    assert ENCODER.contract.problem(Lacking) == "lacks layers"
    assert str(ENCODER.contract.problem(Other)).startswith("cannot be called with (model, settings)")
    assert ENCODER.contract.problem(SpecAugment) == "is not a class derived from net.encoder.Encoder"
