from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import WavLMConfig
from transformers.models.wavlm.modeling_wavlm import WavLMFeatureEncoder

from net.packing.device_tables import placed
from net.packing.placement import Placement, place
from net.wavlm import convolutions
from net.wavlm.convolutions import convolve, extract, extract_fused, extract_plain, window_moments
from tests.support.interpreted import run_interpreted
from tests.support.tensor_errors import peak_error, relative_error

COUNTS = (400, 719, 3200, 401, 16_000, 1999)
OTHER_SHAPE: dict[str, Any] = {"conv_kernel": [7, 5, 4, 2], "conv_stride": [3, 2, 3, 2], "conv_dim": [12, 20, 16, 24]}
SETTINGS: dict[str, dict[str, Any]] = {
    "group norm": {"feat_extract_norm": "group", "conv_bias": False},
    "group norm, bias": {"feat_extract_norm": "group", "conv_bias": True},
    "layer norm": {"feat_extract_norm": "layer", "conv_bias": False},
    "layer norm, bias": {"feat_extract_norm": "layer", "conv_bias": True},
    "group norm, other shape": {"feat_extract_norm": "group", "conv_bias": True, **OTHER_SHAPE},
    "layer norm, other shape": {"feat_extract_norm": "layer", "conv_bias": True, **OTHER_SHAPE},
}


def make_extractor(settings: dict[str, Any]) -> Any:  # noqa: ANN401
    torch.manual_seed(0)
    sizes = {"conv_dim": [24] * 7, **settings}
    config = WavLMConfig(**sizes, num_feat_extract_layers=len(sizes["conv_dim"]))
    extractor = WavLMFeatureEncoder(config).eval()
    extractor.placing = (config.conv_kernel, config.conv_stride)
    with torch.no_grad():
        for parameter in extractor.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return extractor


def make_samples(counts: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Low frequencies and an offset, as speech has more than noise does."""
    generator = torch.Generator().manual_seed(1)
    waveforms = [torch.randn(count, generator=generator) for count in counts]
    smooth = [torch.nn.functional.avg_pool1d(w[None], 9, 1, 4)[0] + 0.05 * w + 0.5 for w in waveforms]
    return torch.cat(smooth).to(device)


def one_by_one(extractor: Any, samples: Tensor, counts: tuple[int, ...]) -> Tensor:  # noqa: ANN401
    return torch.cat([extractor(waveform[None])[0].T for waveform in torch.split(samples, list(counts))])


def place_for(extractor: Any, counts: tuple[int, ...], device: torch.device | str = "cpu") -> Placement:  # noqa: ANN401
    kernels, strides = extractor.placing
    return placed(place(counts, kernels, strides), device)


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_utterance_is_extracted_as_if_alone(settings: str) -> None:
    extractor = make_extractor(SETTINGS[settings])
    samples = make_samples(COUNTS)
    with torch.no_grad():
        expected = one_by_one(extractor, samples, COUNTS)
        found = extract(extractor, samples, place_for(extractor, COUNTS), torch.float32)
    lengths = place_for(extractor, COUNTS).lengths[-1]
    for one, other in zip(torch.split(found, list(lengths)), torch.split(expected, list(lengths)), strict=True):
        assert peak_error(one, other) <= 1e-5


@pytest.mark.parametrize("settings", SETTINGS)
def test_gradients_equal_those_of_transformers(settings: str) -> None:
    extractor = make_extractor(SETTINGS[settings]).double()
    samples = make_samples(COUNTS)
    expected = one_by_one(extractor, samples.double(), COUNTS)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    names, parameters = zip(*extractor.named_parameters(), strict=True)
    by_stock = torch.autograd.grad((expected * direction).sum(), parameters)
    found = extract(extractor.float(), samples, place_for(extractor, COUNTS), torch.float32)
    by_ours = torch.autograd.grad((found * direction).sum(), parameters, allow_unused=True)
    for name, ours, stock in zip(names, by_ours, by_stock, strict=True):
        if ours is None:  # a convolution's bias cancels in the group norm behind it
            assert name == "conv_layers.0.conv.bias"
            assert stock.abs().max() <= 1e-9 * direction.abs().sum()
        else:
            assert peak_error(ours, stock) <= 1e-5, name


@pytest.mark.parametrize("settings", SETTINGS)
def test_valid_frames_do_not_depend_on_what_lies_between_utterances(
    settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = make_extractor(SETTINGS[settings])
    samples = make_samples(COUNTS)
    placement = place_for(extractor, COUNTS)
    with torch.no_grad():
        expected = extract(extractor, samples, placement, torch.float32)
        is_gap = placement.lay_out(torch.ones_like(samples)) == 0
        assert is_gap.any()
        lay_out = Placement.lay_out
        monkeypatch.setattr(Placement, "lay_out", lambda p, s: lay_out(p, s).masked_fill(is_gap, torch.nan))
        assert torch.equal(extract(extractor, samples, placement, torch.float32), expected)


def test_an_utterance_does_not_depend_on_its_neighbours() -> None:
    extractor = make_extractor(SETTINGS["group norm"])
    samples = make_samples(COUNTS)
    scaled = torch.cat([w * 10.0 ** (i != 2) for i, w in enumerate(torch.split(samples, list(COUNTS)))])
    placement = place_for(extractor, COUNTS)
    with torch.no_grad():
        both = [extract(extractor, s, placement, torch.float32) for s in (samples, scaled)]
    one, other = (torch.split(frames, list(placement.lengths[-1]))[2] for frames in both)
    assert torch.equal(one, other)


def test_moments_give_the_variance_of_a_narrow_filter() -> None:
    """A filter that all but cancels its input: float32 moments would lose its variance altogether."""
    counts = (16_000, 400)
    placement = place(counts, (10,), (5,))
    samples = torch.sin(torch.arange(sum(counts)) * 0.02) + 1.0
    second_difference = torch.tensor([0.0, 0, 0, 1, -2, 1, 0, 0, 0, 0], dtype=torch.float64)
    _, covariance = window_moments(placement.lay_out(samples), placement)
    for waveform, found in zip(torch.split(samples, list(counts)), covariance, strict=True):
        windows = waveform.unfold(0, 10, 5)
        direct = (windows.double() @ second_difference).var(correction=0)
        assert float((second_difference @ found @ second_difference - direct).abs() / direct) <= 1e-6
        in_float32 = windows.T.cov(correction=0).double()
        assert float((second_difference @ in_float32 @ second_difference - direct).abs() / direct) >= 1e-2


def test_an_utterance_shorter_than_a_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="399 samples is shorter than one frame"):
        place((16_000, 399), (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))


def test_group_norms_of_several_channels_are_refused() -> None:
    extractor = make_extractor(SETTINGS["group norm"])
    extractor.conv_layers[0].layer_norm = torch.nn.GroupNorm(2, 24)
    with pytest.raises(ValueError, match="one channel a group"):
        extract(extractor, make_samples(COUNTS), place_for(extractor, COUNTS), torch.float32)


def check_kernels(settings: str) -> None:
    """Runs interpreted."""
    from net.kernels import convolutions as kernels

    extractor = make_extractor(SETTINGS[settings])
    counts = (400, 3200, 719)
    samples = make_samples(counts)
    placement = place_for(extractor, counts)
    signal = placement.lay_out(samples)
    kernels.SETTINGS["window_moments"]["splits"] = 3
    for found, expected in zip(
        kernels.window_moments(signal, placement), window_moments(signal, placement), strict=True
    ):
        assert peak_error(found, expected) <= 1e-12
    with torch.no_grad():
        expected = extract_plain(extractor, samples, placement, torch.float32)
    for dtype, limit in ((torch.float32, 2e-6), (torch.float16, 5e-3)):
        found = extract_fused(extractor, samples, placement, dtype)
        assert found.dtype == dtype
        assert peak_error(found, expected) <= limit


@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_half_precision_is_rounded_once(kernel: int) -> None:
    torch.manual_seed(0)
    conv, hidden = nn.Conv1d(64, 64, kernel, 2).bfloat16(), torch.randn(200, 64).bfloat16()
    found = convolve(hidden, conv)
    exact = conv.double()(hidden.double().t()[None])[0].t()
    assert relative_error(found, exact) <= 1.05 * relative_error(exact.bfloat16(), exact)


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS)
def test_kernels_equal_the_plain_form(settings: str) -> None:
    run_interpreted(__name__, "check_kernels", settings)


@pytest.mark.gpu
@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 5e-3)])
def test_kernels_on_a_gpu(norm: str, dtype: torch.dtype, limit: float, cuda: torch.device) -> None:
    extractor = make_extractor({"feat_extract_norm": norm, "conv_bias": norm == "layer", "conv_dim": [512] * 7}).to(
        cuda
    )
    counts = (128_000, 400, 44_000, 99_999, 160_000)
    samples = make_samples(counts, cuda)
    placement = place_for(extractor, counts, cuda)
    with torch.no_grad():
        expected = one_by_one(extractor, samples, counts)
        found = extract(extractor, samples, placement, dtype)
    assert found.dtype == dtype
    assert peak_error(found, expected) <= limit


@pytest.mark.gpu
def test_gradients_on_a_gpu(cuda: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolutions, "extract_fused", None)  # it would give no gradients
    extractor = make_extractor(SETTINGS["group norm"]).to(cuda)
    found = extract(extractor, make_samples(COUNTS, cuda), place_for(extractor, COUNTS, cuda), torch.float32)
    by_gpu = torch.autograd.grad(found.square().sum(), list(extractor.parameters()))
    extractor = make_extractor(SETTINGS["group norm"])
    found = extract(extractor, make_samples(COUNTS), place_for(extractor, COUNTS), torch.float32)
    by_cpu = torch.autograd.grad(found.square().sum(), list(extractor.parameters()))
    for one, other in zip(by_gpu, by_cpu, strict=True):
        assert peak_error(one.cpu(), other) <= 1e-4
