"""Time the packed feature extractor and positional convolution against transformers' own, on one GPU.

    python -m benchmarks.front_variants

Medians of 20 runs in bfloat16; a setting that does not compile prints why, and the table goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import WavLMConfig
from transformers.models.wavlm.modeling_wavlm import WavLMFeatureEncoder, WavLMPositionalConvEmbedding

from benchmarks.timing import changed, first_line, median_ms, replaced
from net import packed_convolutions, positional_convolution
from net import packed_convolutions_kernels as extractor_kernels
from net import positional_convolution_kernels as positional_kernels
from net.host_tables import placed

CONFIGS: dict[str, dict[str, Any]] = {
    "base-plus": {},
    "large": {"feat_extract_norm": "layer", "hidden_size": 1024},
}
BATCHES: dict[str, tuple[int, ...]] = {
    "32 x 8 s": (128_000,) * 32,
    "32 ragged": tuple(44_000 + (i * 7919 % 32) ** 2 * 137 for i in range(32)),
}
TILES: list[dict[str, int]] = [
    {},
    {"num_stages": 4},
    {"num_stages": 5},
    {"num_stages": 7},
    {"depth": 32, "num_stages": 5},
    {"num_warps": 4, "maxnreg": 255},
    {"columns": 64},
    {"columns": 64, "num_warps": 4},
    {"rows": 64, "num_warps": 4},
    {"rows": 64, "num_warps": 4, "num_stages": 5},
    {"columns": 256, "maxnreg": 255},
]
BLOCKS = (1, 2, 4, 8, 16)
FIRST_TILES: list[dict[str, int]] = [
    {},
    {"num_warps": 8},
    {"rows": 32},
    {"channels": 256, "num_warps": 8},
    {"rows": 16, "channels": 256},
]
FIRST_NORM_TILES: list[dict[str, int]] = [{}, {"num_warps": 4}, {"rows": 8}, {"rows": 8, "num_warps": 4}, {"rows": 32}]
NORM_TILES: list[dict[str, int]] = [{}, {"rows": 4}, {"rows": 16}, {"rows": 16, "num_warps": 8}]


def main() -> None:
    """Print one table a shape and batch."""
    torch.manual_seed(0)
    device = torch.device("cuda")
    print(torch.cuda.get_device_name(), torch.__version__)
    for name, settings in CONFIGS.items():
        config = WavLMConfig(**settings)
        for batch, counts in BATCHES.items():
            print(f"\n{name}, {batch}")
            time_extractor(config, counts, device)
            time_positions(config, counts, device)


@torch.no_grad()
def time_extractor(config: WavLMConfig, counts: tuple[int, ...], device: torch.device) -> None:
    """Compare feature extractors: whole, with variants of the products, and kernel by kernel."""
    extractor = WavLMFeatureEncoder(config).to(device).eval().requires_grad_(False)
    samples = torch.randn(sum(counts), device=device)
    placement = placed(packed_convolutions.place(counts, config.conv_kernel, config.conv_stride), device)
    padded = nn.utils.rnn.pad_sequence(list(torch.split(samples, list(counts))), batch_first=True)

    def ours() -> Tensor:
        return packed_convolutions.extract(extractor, samples, placement, torch.bfloat16)

    alone = torch.cat([extractor(waveform[None])[0].T for waveform in torch.split(samples, list(counts))[:3]])
    print(f"extractor's error in bfloat16: {relative_error(ours()[: len(alone)], alone):.1e}")
    report("extractor, stock autocast", lambda: under_autocast(extractor, padded))
    report("extractor, packed", ours)
    with replaced(packed_convolutions, "convolve_channels_last", packed_convolutions.convolve):
        report("extractor, packed, as products", ours)
    for utterances in (2, 4, 8):
        parts = split_batch(samples, counts, utterances, config, device)
        report(f"extractor, packed, {utterances} utterances at a time", partial(in_parts, extractor, parts))
    is_layer_norm = config.feat_extract_norm == "layer"
    time_extractor_kernels(extractor, samples, placement, is_layer_norm)


def time_extractor_kernels(
    extractor: Any,  # noqa: ANN401
    samples: Tensor,
    placement: packed_convolutions.Placement,
    is_layer_norm: bool,
) -> None:
    """Time the kernels around the products."""
    signal = placement.lay_out(samples)
    first, second, *_ = extractor.conv_layers
    norm = first.layer_norm if is_layer_norm else None
    if is_layer_norm:
        folded = first.conv.weight[:, 0].unsqueeze(0), first.layer_norm.bias.unsqueeze(0)
    else:
        report("  moments", lambda: extractor_kernels.window_moments(signal, placement))
        moments = extractor_kernels.window_moments(signal, placement)
        folded = packed_convolutions.folded_group_norm(first, *moments)
        report("  folding", lambda: packed_convolutions.folded_group_norm(first, *moments))

    def first_layer() -> Tensor:
        return extractor_kernels.first_layer(signal, *folded, norm, placement, torch.bfloat16)

    kernel = "first_layer_norm" if is_layer_norm else "first_layer"
    for tile in FIRST_NORM_TILES if is_layer_norm else FIRST_TILES:
        with changed(extractor_kernels.SETTINGS[kernel], tile):
            report(f"  first layer {tile}", first_layer)
    hidden = first_layer()
    report("  second layer's products", lambda: packed_convolutions.convolve(hidden, second.conv))
    for tile in [] if norm is None else NORM_TILES:
        with changed(extractor_kernels.SETTINGS["layer_norm"], tile):
            report(
                f"  layer norm and GELU {tile}", partial(extractor_kernels.layer_norm_gelu_, hidden, first.layer_norm)
            )
    if norm is None:
        report("  GELU in place", lambda: torch.ops.aten.gelu_(hidden))


def time_positions(config: WavLMConfig, counts: tuple[int, ...], device: torch.device) -> None:
    """Compare positional convolutions: forward, forward and backward, and kernel by kernel."""
    embedding = WavLMPositionalConvEmbedding(config).to(device)
    lengths = packed_convolutions.place(counts, config.conv_kernel, config.conv_stride).lengths[-1]
    frames = torch.randn((sum(lengths), config.hidden_size), device=device, dtype=torch.bfloat16, requires_grad=True)
    utterances = list(torch.split(frames.detach(), list(lengths)))
    padded = nn.utils.rnn.pad_sequence(utterances, batch_first=True).requires_grad_()

    def stock() -> Tensor:
        return under_autocast(embedding, padded)

    report("positions, stock forward", torch.no_grad()(stock))
    report("positions, stock forward and backward", partial(forward_and_backward, stock))
    for block in BLOCKS:
        plan = placed(positional_convolution.plan_positions(lengths, embedding.conv, block), device)

        def ours(plan: positional_convolution.PositionalPlan = plan) -> Tensor:
            return positional_convolution.positional_convolution(embedding, frames, plan, torch.bfloat16)

        with torch.no_grad():
            alone = embedding.float()(utterances[0][None].float())[0]
        error = try_out(partial(first_error, ours, alone))
        report(f"positions, {block} frames a block (error {error}), forward", torch.no_grad()(ours))
        report(f"positions, {block} frames a block, forward and backward", partial(forward_and_backward, ours))
    time_positional_kernels(embedding, frames.detach(), lengths)


@torch.no_grad()
def time_positional_kernels(embedding: Any, frames: Tensor, lengths: tuple[int, ...]) -> None:  # noqa: ANN401
    """Time each kernel over tile settings, at the default block."""
    conv = embedding.conv
    plan = placed(positional_convolution.plan_positions(lengths, conv), frames.device)
    padded = positional_kernels.pad_frames(frames, None, plan, conv.groups)
    taps = positional_convolution.grouped_taps(conv.weight, conv.groups)
    operations = 2 * frames.numel() * conv.weight.shape[1] * plan.taps
    report("  pad", lambda: positional_kernels.pad_frames(frames, None, plan, conv.groups))
    for tile in TILES:
        with changed(positional_kernels.SETTINGS["convolve"], tile):
            report(
                f"  convolve {tile}",
                lambda: positional_kernels.convolve(padded, taps, conv.bias, plan, plan.taps // 2, True),
                operations,
            )
    for tile in TILES:
        with changed(positional_kernels.SETTINGS["weight_gradient"], tile):
            report(
                f"  weight gradient {tile}",
                lambda: positional_kernels.weight_gradient(padded, padded, plan),
                operations,
            )


def forward_and_backward(call: Callable[[], Tensor]) -> None:
    """Add the gradients of the output's sum."""
    torch.autograd.backward(call().sum())


def first_error(call: Callable[[], Tensor], expected: Tensor) -> str:
    """Return the error of the first utterance."""
    return f"{relative_error(call()[: len(expected)], expected):.1e}"


def under_autocast(module: nn.Module, inputs: Tensor) -> Tensor:
    """Run stock code as peers do, in bfloat16."""
    with torch.autocast("cuda", torch.bfloat16):
        output: Tensor = module(inputs)
        return output


def split_batch(
    samples: Tensor, counts: tuple[int, ...], utterances: int, config: WavLMConfig, device: torch.device
) -> list[tuple[Tensor, packed_convolutions.Placement]]:
    """Split a batch into parts whose activations are small enough to stay in the cache."""
    parts = []
    for first in range(0, len(counts), utterances):
        part = counts[first : first + utterances]
        start = sum(counts[:first])
        placement = placed(packed_convolutions.place(part, config.conv_kernel, config.conv_stride), device)
        parts.append((samples[start : start + sum(part)], placement))
    return parts


def in_parts(extractor: Any, parts: list[tuple[Tensor, packed_convolutions.Placement]]) -> Tensor:  # noqa: ANN401
    """Extract part by part."""
    return torch.cat([packed_convolutions.extract(extractor, *part, torch.bfloat16) for part in parts])


def report(name: str, call: Callable[[], object], operations: int = 0) -> None:
    """Print one row: milliseconds, peak memory, and the rate where the operations are given."""

    def row() -> str:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        milliseconds = median_ms(call)
        peak = (torch.cuda.max_memory_allocated() - before) / 2**30
        rate = f"  {operations / milliseconds / 1e9:6.0f} TFLOP/s" if operations else ""
        return f"{milliseconds:9.3f} ms  {peak:6.2f} GiB{rate}"

    print(f"{name:90s} {try_out(row)}", flush=True)


def try_out(call: Callable[[], str]) -> str:
    """Return what a call says, or the first line of why it failed."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - a setting that does not compile is a row of the table
        return first_line(error)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the largest error over the largest value."""
    expected = expected.detach().float()
    return float((found.detach().float() - expected).abs().max() / expected.abs().max())


if __name__ == "__main__":
    main()
