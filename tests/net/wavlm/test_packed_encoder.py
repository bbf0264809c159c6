"""WavLM on packs: the fused layers against transformers on every utterance alone, outputs and all gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import WavLMConfig, WavLMModel

from benchmarks.synthetic import SHAPES
from net.wavlm.packed_encoder import SEEDS, PackedWavLM, mix_layers
from tests.support.encoders import NAMES, encode, make_encoder, make_waveforms
from tests.support.interpreted import run_interpreted
from tests.support.tensor_errors import relative_error

OFF = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)


def gradients_of(encoder: Any, values: Tensor) -> dict[str, Tensor]:  # noqa: ANN401
    """Return the gradients of a fixed weighting of the frames; a shift of all keys changes no softmax."""
    generator = torch.Generator().manual_seed(1)
    weighting = torch.randn(values.shape, generator=generator).to(values.device)
    trained = {n: p for n, p in encoder.named_parameters() if p.requires_grad and "k_proj.bias" not in n}
    found = torch.autograd.grad((values * weighting).sum(), list(trained.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(trained, found, strict=True) if gradient is not None}


def check_against_transformers(
    encoder: Any,  # noqa: ANN401
    waveforms: list[Tensor],
    dtype: torch.dtype,
    limits: tuple[float, float],
) -> None:
    last = encode(encoder, waveforms, dtype)
    outputs = [encoder(waveform[None], output_hidden_states=True) for waveform in waveforms]
    expected = torch.cat([output.last_hidden_state[0] for output in outputs])
    assert last.dtype == torch.float32
    assert relative_error(last, expected.detach()) <= limits[0]
    states = zip(*(output.hidden_states for output in outputs), strict=True)
    layers = [torch.cat([part[0] for part in parts]) for parts in states]
    weights = torch.nn.Parameter(torch.linspace(-1, 1, len(layers), device=last.device))
    mixed = encode(encoder, waveforms, dtype, PackedWavLM(encoder, weights))
    assert relative_error(mixed, mix_layers(layers, weights).detach()) <= limits[0]
    mine, theirs = gradients_of(encoder, last), gradients_of(encoder, expected)
    assert set(mine) == set(theirs)
    for name, gradient in mine.items():
        assert relative_error(gradient, theirs[name]) <= limits[1], name


def check_fused(name: str) -> None:
    """Runs interpreted."""
    encoder = make_encoder(name).eval()
    packed = PackedWavLM(encoder)
    assert packed._is_fused(torch.device("cpu"), torch.float32)
    check_against_transformers(encoder, make_waveforms((0.1, 0.5, 0.3)), torch.float32, (3e-6, 1e-4))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_fused_layers_equal_transformers(name: str) -> None:
    run_interpreted(__name__, "check_fused", name)


def check_dropout(name: str) -> None:
    """Runs interpreted: with dropout everywhere, kernels draw the masks that are written down in the oracles."""
    from net.wavlm import layer_operations
    from tests.support import layer_oracles

    rates = dict.fromkeys(OFF, 0.2)
    encoder = make_encoder(name, **rates).train()
    encoder.config.layerdrop = 0.3
    waveforms = make_waveforms((0.2, 0.3))

    def run(seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        torch.manual_seed(seed)
        last = encode(encoder, waveforms, torch.float32)
        return last.detach(), gradients_of(encoder, last)

    (first, first_gradients), (again, _), (other, _) = run(3), run(3), run(4)
    assert torch.equal(first, again)
    assert relative_error(first, other) > 0.05
    for name in ("gelu_forward", "gelu_backward", "join_forward", "join_backward", "drop"):
        setattr(layer_operations, name, getattr(layer_oracles, name))
    plain, plain_gradients = run(3)
    assert relative_error(first, plain) <= 3e-6
    for parameter, gradient in first_gradients.items():
        assert relative_error(gradient, plain_gradients[parameter]) <= 1e-4, parameter


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_the_same_with_and_without_kernels(name: str) -> None:
    run_interpreted(__name__, "check_dropout", name)


def check_weights_that_change(name: str) -> None:
    """Runs interpreted: whoever changes weights, the next forward has them."""
    encoder, waveforms = make_encoder(name).eval(), make_waveforms((0.2,))
    packed = PackedWavLM(encoder)
    optimiser = torch.optim.AdamW(encoder.parameters(), 1e-2, fused=True)

    def run(runner: PackedWavLM) -> Tensor:
        return encode(encoder, waveforms, torch.float32, runner)

    with torch.inference_mode():
        before = run(packed)
    run(packed).square().mean().backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    assert relative_error(run(packed), before) > 1e-2
    assert torch.equal(run(packed), run(PackedWavLM(encoder)))
    for parameter in encoder.parameters():
        parameter.data.mul_(1.1)
    assert torch.equal(run(packed), run(PackedWavLM(encoder)))


@pytest.mark.slow
def test_weights_that_change_are_seen() -> None:
    run_interpreted(__name__, "check_weights_that_change", "base")


@pytest.mark.parametrize("is_fused", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("place", ["hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"])
def test_each_dropout_is_applied_in_its_place(place: str, is_fused: bool) -> None:
    if is_fused:
        run_interpreted(__name__, "check_one_dropout", place)
    else:
        check_one_dropout(place)


def check_one_dropout(place: str) -> None:
    encoder = make_encoder("stable", **{**OFF, place: 0.3}, layerdrop=0.0)
    waveforms = make_waveforms((0.2,))

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        with torch.no_grad():
            return encode(encoder, waveforms, torch.float32)

    encoder.eval()
    plain = run(1)
    assert torch.equal(plain, run(2))
    encoder.train()
    assert torch.equal(run(1), run(1))
    assert relative_error(run(1), run(2)) > 0.01
    assert relative_error(run(1), plain) > 0.01


def test_each_dropout_has_a_seed_of_its_own() -> None:
    encoder = make_encoder("stable", hidden_dropout=0.1, attention_dropout=0.2, activation_dropout=0.3).train()
    seeds = PackedWavLM(encoder)._draw_seeds()
    assert seeds is not None
    assert seeds.shape == (len(encoder.encoder.layers) + 1, SEEDS)
    assert len(set(seeds.flatten().tolist())) == seeds.numel()
    assert PackedWavLM(encoder.eval())._draw_seeds() is None


def check_layerdrop(name: str, rate: str) -> None:
    """Runs interpreted: a recording that computes skipped layers as well gives what leaving them out gives."""
    rates = dict.fromkeys(OFF, float(rate))
    encoder = make_encoder(name, **rates, layerdrop=0.5, num_hidden_layers=3).train()
    waveforms = make_waveforms((0.06, 0.1))
    packed = PackedWavLM(encoder)
    packed.capture_steps()
    assert packed._graphs is not None
    packed._make_gradients()
    plan = packed.plan([len(waveform) for waveform in waveforms], torch.device("cpu"), torch.float32)
    torch.manual_seed(1)
    features = packed.features(torch.cat(waveforms), plan, torch.float32).detach()
    hidden, seeds = packed._project(features, torch.float32).detach(), packed._draw_seeds()
    for skipped in (frozenset((1,)), frozenset((1, 2))):
        found = []
        for packed._graphs.is_recording in (True, False):
            leaf = hidden.clone().requires_grad_()
            marked = packed._mark(None if seeds is None else seeds.clone(), skipped)
            told = frozenset() if packed._graphs.is_recording else skipped
            last = packed._transform(leaf, plan.transformer, torch.float32, marked, told)
            trained = {"": leaf, **{n: p for n, p in encoder.encoder.named_parameters() if "k_proj.bias" not in n}}
            weighting = torch.randn(last.shape, generator=torch.Generator().manual_seed(1))
            derived = torch.autograd.grad((last * weighting).sum(), list(trained.values()), allow_unused=True)
            copies = [None if gradient is None else gradient.clone() for gradient in derived]
            found.append((last.detach(), dict(zip(trained, copies, strict=True))))
        (last, gradients), (expected, without) = found
        assert torch.equal(last, expected)
        for parameter, gradient in without.items():
            parts = parameter.split(".")
            assert (gradient is None) == (parts[0] == "layers" and int(parts[1]) in skipped), parameter
            given = gradients[parameter]
            assert gradient is None or (given is not None and torch.equal(given, gradient)), parameter


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rate"), [("base", "0.2"), ("stable", "0")])
def test_a_skipped_layer_of_a_recording_changes_nothing(name: str, rate: str) -> None:
    run_interpreted(__name__, "check_layerdrop", name, rate)


def test_layerdrop_skips_any_layer_but_the_first_in_training_alone() -> None:
    encoder = make_encoder("base", layerdrop=0.5, num_hidden_layers=4)
    packed = PackedWavLM(encoder.train())
    torch.manual_seed(0)
    drawn = [packed._draw_skipped() for _ in range(200)]
    counts = [sum(number in skipped for skipped in drawn) for number in range(4)]
    assert counts[0] == 0
    assert all(70 < count < 130 for count in counts[1:])
    torch.manual_seed(0)
    assert [packed._draw_skipped() for _ in range(200)] == drawn
    encoder.eval()
    assert packed._draw_skipped() == frozenset()


def check_filled_bucket(name: str) -> None:
    """A batch that is filled up to its bucket gives what it gives without the filling."""
    encoder = make_encoder(name, **OFF, layerdrop=0.0).train()
    waveforms = make_waveforms((0.1, 0.5, 0.31))
    weights = torch.nn.Parameter(torch.linspace(-1, 1, len(encoder.encoder.layers) + 1))
    packed = PackedWavLM(encoder, weights)
    expected = encode(encoder, waveforms, torch.float32, packed)
    packed.capture_steps()
    packed._is_recorded = lambda device, dtype: True  # type: ignore[method-assign] # else for GPUs alone
    plan = packed.plan([len(waveform) for waveform in waveforms], torch.device("cpu"), torch.float32)
    assert plan.bucket is not None
    assert sum(plan.transformer.attention.lengths) > sum(plan.lengths)
    found = encode(encoder, waveforms, torch.float32, packed)
    assert relative_error(found, expected.detach()) <= 1e-6
    mine, theirs = gradients_of(encoder, found), gradients_of(encoder, expected)
    for parameter, gradient in mine.items():
        assert relative_error(gradient, theirs[parameter]) <= 1e-5, parameter


@pytest.mark.parametrize("name", NAMES)
def test_filling_a_bucket_changes_nothing(name: str) -> None:
    check_filled_bucket(name)


@pytest.mark.slow
def test_filling_a_bucket_changes_nothing_in_kernels() -> None:
    run_interpreted(__name__, "check_filled_bucket", "base")


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("dtype", "limits"), [(torch.float32, (1e-5, 2e-4)), (torch.bfloat16, (3e-2, 2e-1)), (torch.float16, (5e-3, 3e-2))]
)
def test_fused_layers_on_a_gpu(
    name: str,
    dtype: torch.dtype,
    limits: tuple[float, float],
    cuda: torch.device,
) -> None:
    encoder = make_encoder(name).eval().to(cuda)
    waveforms = [waveform.to(cuda) for waveform in make_waveforms((0.1, 8.0, 2.5, 12.0))]
    check_against_transformers(encoder, waveforms, dtype, limits)


@pytest.mark.gpu
def test_checkpointing_on_a_gpu_saves_memory_and_changes_nothing(cuda: torch.device) -> None:
    waveforms = [waveform.to(cuda) for waveform in make_waveforms((8.0,) * 8)]

    def run(is_checkpointed: bool) -> tuple[dict[str, Tensor], int]:
        encoder = (
            make_encoder("stable", hidden_dropout=0.1, attention_dropout=0.1, num_hidden_layers=8).train().to(cuda)
        )
        encoder.feature_extractor.requires_grad_(False)
        packed = PackedWavLM(encoder, is_checkpointed=is_checkpointed)
        plan = packed.plan([len(waveform) for waveform in waveforms], cuda, torch.bfloat16)
        features = packed.features(torch.cat(waveforms), plan, torch.bfloat16)
        torch.manual_seed(5)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        last = packed.encode(features, plan, torch.bfloat16, None)
        gradients = gradients_of(encoder, last)
        return gradients, torch.cuda.max_memory_allocated() - before

    (kept, most), (again, least) = run(False), run(True)
    assert all(torch.equal(gradient, again[name]) for name, gradient in kept.items())
    assert least < most / 2


@pytest.mark.gpu
def test_a_step_on_a_gpu_repeats_bit_for_bit(cuda: torch.device) -> None:
    encoder = make_encoder("stable", hidden_dropout=0.1, attention_dropout=0.1, activation_dropout=0.1).train().to(cuda)
    waveforms = [waveform.to(cuda) for waveform in make_waveforms((1.0, 8.0, 2.5))]

    def run() -> dict[str, Tensor]:
        torch.manual_seed(5)
        return gradients_of(encoder, encode(encoder, waveforms, torch.bfloat16))

    first, second = run(), run()
    for name, gradient in first.items():
        if "feature_extractor" not in name:  # cuDNN's own backward
            assert torch.equal(gradient, second[name]), name


def make_full_encoder(shape: str, seed: int, device: torch.device) -> Any:  # noqa: ANN401
    torch.manual_seed(seed)
    encoder = WavLMModel(WavLMConfig(**SHAPES[shape], **OFF, layerdrop=0.0, apply_spec_augment=False))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter) * (parameter.ndim < 2))
    return encoder.train().to(device)


@pytest.mark.gpu
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shape", ["base-plus", "large"])
def test_half_precision_is_as_exact_as_that_of_transformers(shape: str, seed: int, cuda: torch.device) -> None:
    """Frames, all gradients together and each parameter's, against transformers in float32.

    For single parameters the limit leaves room for the luck of roundings, which differ between libraries' products.
    """
    encoder = make_full_encoder(shape, seed, cuda)
    waveforms = [waveform.to(cuda) for waveform in make_waveforms((0.5, 2.0, 3.1, 7.3))]

    def run_stock() -> Tensor:
        return torch.cat([encoder(waveform[None]).last_hidden_state[0] for waveform in waveforms])

    def finish(values: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return values.detach().float(), gradients_of(encoder, values.float())

    exact, exact_gradients = finish(run_stock())
    with torch.autocast("cuda", torch.bfloat16):
        half = run_stock()
    stock, stock_gradients = finish(half)
    ours, our_gradients = finish(encode(encoder, waveforms, torch.bfloat16))
    frames = relative_error(ours, exact), relative_error(stock, exact)
    mine, theirs = (
        {name: float((found[name] - gradient).norm()) for name, gradient in exact_gradients.items()}
        for found in (our_gradients, stock_gradients)
    )
    together = math.hypot(*mine.values()), math.hypot(*theirs.values())
    smallest = 1e-3 * math.hypot(*(float(gradient.norm()) for gradient in exact_gradients.values()))
    shares = {name: mine[name] / max(theirs[name], smallest) for name in mine}
    worst = max(shares, key=lambda name: shares[name])
    found = f"ours and stock: frames {frames}, gradients {together}; worst share {shares[worst]:.2f} of {worst}"
    print(shape, seed, found)
    assert frames[0] <= frames[1], found
    assert together[0] <= together[1], found
    assert shares[worst] <= 1.1, found
