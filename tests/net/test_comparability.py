"""What docs/comparability.md says of foreign code, tried on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import HubertConfig, Wav2Vec2Config, Wav2Vec2FeatureExtractor, WavLMConfig
from transformers.models.wavlm.modeling_wavlm import _compute_mask_indices

from net.spec_augment import draw_spans
from tests.support.encoders import FAMILIES, make_waveforms
from tests.support.tensor_errors import relative_error
from utils.dataset.normalisation import Normalisation


@pytest.mark.parametrize(("deviation", "share"), [(0.1, 0.9995), (0.01, 0.954), (0.001, 0.316)])
def test_normalisation_is_that_of_transformers_and_unilms_makes_quiet_recordings_quieter(
    deviation: float, share: float
) -> None:
    samples = make_waveforms((2.0,))[0].numpy()
    samples = ((samples - samples.mean()) / samples.std() * deviation).astype(np.float32)
    ours = Normalisation("utterance")(samples)
    theirs = Wav2Vec2FeatureExtractor(do_normalize=True)(samples, sampling_rate=16_000)["input_values"][0]
    unilms = F.layer_norm(torch.from_numpy(samples), samples.shape).numpy()  # microsoft/unilm, wavlm/README.md
    assert np.abs(ours - theirs).max() < 1e-5
    assert unilms.std() / ours.std() == pytest.approx(share, rel=1e-3)
    assert share == pytest.approx(math.sqrt((deviation**2 + 1e-7) / (deviation**2 + 1e-5)), rel=2e-3)


def test_norms_inside_have_pytorchs_epsilon_in_transformers_as_in_unilm() -> None:
    assert {config.layer_norm_eps for config in (WavLMConfig(), HubertConfig(), Wav2Vec2Config())} == {1e-5}
    assert nn.LayerNorm(1).eps == nn.GroupNorm(1, 1).eps == 1e-5
    for name in FAMILIES:
        norms = [m for m in FAMILIES[name]().modules() if isinstance(m, (nn.LayerNorm, nn.GroupNorm))]
        assert {norm.eps for norm in norms} == {1e-5}


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # between torch and transformers
@pytest.mark.parametrize("name", [name for name in FAMILIES if "group" in name])
def test_padding_changes_what_stock_group_norms_make_of_an_utterance(name: str) -> None:
    encoder = FAMILIES[name]().eval()
    short, long = make_waveforms((0.5, 2.0))
    batch = torch.stack([F.pad(short, (0, len(long) - len(short))), long])
    mask = torch.stack([F.pad(torch.ones(len(short)), (0, len(long) - len(short))), torch.ones(len(long))]).long()
    with torch.no_grad():
        alone = encoder(short[None]).last_hidden_state[0]
        padded = encoder(batch, attention_mask=mask).last_hidden_state[0, : len(alone)]
    assert relative_error(padded, alone) > 0.01


def test_transformers_masks_two_spans_at_least_and_this_project_the_share_alone() -> None:
    lengths, masks = [280] * 500, WavLMConfig()
    assert (masks.mask_time_prob, masks.mask_time_length, masks.mask_time_min_masks) == (0.05, 10, 2)
    np.random.seed(0)
    theirs = _compute_mask_indices((500, 280), 0.05, 10, min_masks=2).mean()
    torch.manual_seed(0)
    ours = draw_spans(lengths, 0.05, 10).float().mean()
    assert 0.06 < theirs < 0.075
    assert 0.045 < float(ours) < 0.055
