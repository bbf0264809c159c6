"""What one optimiser step costs on this GPU, beside stock transformers: `python -m benchmarks.step`.

Random weights, 32 utterances of 8 s, the convolutions frozen, fused AdamW, hidden dropouts 0.1; SpecAugment, attention
dropout and, without `--layerdrop`, that too are off on both sides. The floor is 3 x the transformer's forward and 1 x
the convolutions' operations at the rate of an 8192 cubed product in the same run.
"""

from __future__ import annotations

import argparse
import gc
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import WavLMConfig, WavLMModel

from benchmarks.passes import parser_of
from benchmarks.synthetic import SHAPES
from net.wavlm.packed_encoder import PackedWavLM
from utils.data.wav import SAMPLE_RATE_HZ
from utils.io.files import write_json

IN_A_ROW = 10
COMMON: dict[str, Any] = {"apply_spec_augment": False, "attention_dropout": 0.0}


def median_ms(call: Callable[[], object], times: int = 20, warm_up: int = 3) -> float:
    """Return the median time of a call on the GPU, in milliseconds.

    Args:
        call: Function to time.
        times: Number of timed calls.
        warm_up: Number of calls before them.
    """
    for _ in range(warm_up):
        call()
    found: list[float] = []
    for _ in range(times):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        call()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end))
    return statistics.median(found)


def operations(config: WavLMConfig, samples: int) -> tuple[float, float]:
    """Return the operations of the convolutions' and of the transformer's forward pass for an utterance."""
    time, before, conv = samples, 1, 0
    for channels, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        time = (time - kernel) // stride + 1
        conv += 2 * time * channels * before * kernel
        before = channels
    width, inner = config.hidden_size, config.intermediate_size
    layer = 2 * time * (4 * width**2 + 2 * width * inner) + 4 * time**2 * width
    positional = 2 * time * width**2 // config.num_conv_pos_embedding_groups * config.num_conv_pos_embeddings
    projection = 2 * time * before * width
    return conv, config.num_hidden_layers * layer + positional + projection


def peak_rates() -> tuple[float, float]:
    """Measure and return operations per second (bf16 product) and bytes per second (copy)."""
    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    product = median_ms(lambda: matrix @ matrix)
    copy = median_ms(lambda: target.copy_(source))
    return 2 * 8192**3 / product * 1e3, 2 * source.nbytes / copy * 1e3


@dataclass(frozen=True)
class Variant:
    """The way in which a step is computed; float32 if `dtype` is None."""

    dtype: torch.dtype | None
    is_packed: bool = False
    is_compiled: bool = False
    is_checkpointed: bool = False
    is_recorded: bool = False


VARIANTS = {
    "stock, fp32": Variant(None),
    "stock, AMP fp16": Variant(torch.float16),
    "stock, AMP bf16, compile": Variant(torch.bfloat16, is_compiled=True),
    "packed, fp32": Variant(None, is_packed=True),
    "packed, bf16": Variant(torch.bfloat16, is_packed=True),
    "packed, bf16, recorded": Variant(torch.bfloat16, is_packed=True, is_recorded=True),
    "packed, bf16, recorded, checkpointing": Variant(
        torch.bfloat16, is_packed=True, is_checkpointed=True, is_recorded=True
    ),
}


class Step:
    """A classifier on the mean of the last frames; a call is one optimiser step."""

    def __init__(self, config: WavLMConfig, utterances: int, samples: int, variant: Variant) -> None:
        torch.manual_seed(0)
        self.model = WavLMModel(config).cuda().train()
        self.model.freeze_feature_encoder()
        self.head = nn.Linear(config.hidden_size, 8).cuda()
        trained = [p for p in [*self.model.parameters(), *self.head.parameters()] if p.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, 1e-5, fused=True)
        self.dtype, self.counts = variant.dtype, (samples,) * utterances
        self.scaler = torch.amp.grad_scaler.GradScaler("cuda", enabled=variant.dtype == torch.float16)
        self.samples = torch.randn(utterances, samples, device="cuda")
        self.targets = torch.randint(0, 8, (utterances,), device="cuda")
        self.packed = PackedWavLM(self.model, is_checkpointed=variant.is_checkpointed) if variant.is_packed else None
        if self.packed is not None and variant.is_recorded:
            self.packed.capture_steps()
        self.stock = torch.compile(self._stock) if variant.is_compiled else self._stock

    def __call__(self) -> Tensor:
        """Train on the batch once and return the loss."""
        pooled = self._pooled() if self.packed else None
        with torch.autocast("cuda", dtype=self.dtype or torch.float16, enabled=self.dtype is not None):
            if pooled is None:
                pooled = self.stock(self.samples).float().mean(1)
            loss = F.cross_entropy(self.head(pooled), self.targets)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        return loss.detach()

    def _stock(self, samples: Tensor) -> Tensor:
        last: Tensor = self.model(samples).last_hidden_state
        return last

    def _pooled(self) -> Tensor:
        assert self.packed is not None
        dtype = self.dtype or torch.float32
        plan = self.packed.plan(self.counts, torch.device("cuda"), dtype)
        features = self.packed.features(self.samples.flatten(), plan, dtype)
        last = self.packed.encode(features, plan, dtype, None)
        return last.view(len(self.counts), -1, last.shape[1]).mean(1)


def measure(shape: str, variant: str, peak: float, options: argparse.Namespace) -> dict[str, Any]:
    """Time one variant, and list its slowest kernels."""
    samples = int(options.seconds * SAMPLE_RATE_HZ)
    torch._dynamo.reset()
    gc.collect()  # a compiled step refers to itself
    torch.cuda.empty_cache()
    config = WavLMConfig(**COMMON, **SHAPES[shape], layerdrop=options.layerdrop)
    torch.cuda.reset_peak_memory_stats()
    row: dict[str, Any] = {"shape": shape, "variant": variant}
    try:
        step = Step(config, options.utterances, samples, VARIANTS[variant])
        row["ms"] = median_ms(step, times=12, warm_up=5)
        row["ms_in_a_row"] = median_ms(lambda: [step() for _ in range(IN_A_ROW)], times=3, warm_up=0) / IN_A_ROW
        row["loss"] = float(step())
    except Exception as error:  # noqa: BLE001 - a variant that does not run leaves the others their turn
        row["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        return row
    conv, transformer = operations(config, samples)
    row["floor_ms"] = options.utterances * (3 * transformer + conv) / peak * 1e3
    row["mfu"] = row["floor_ms"] / row["ms"]
    row["gib"] = torch.cuda.max_memory_allocated() / 2**30
    if options.kernels:
        row["kernels"] = longest_kernels(step, options.kernels)
    return row


def longest_kernels(step: Callable[[], object], count: int) -> list[tuple[str, float, int]]:
    """Return name, milliseconds and calls of the kernels that take longest in one step."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        step()
        torch.cuda.synchronize()
    found: dict[str, list[float]] = {}
    for event in profiler.events():
        if str(event.device_type).endswith("CUDA"):
            entry = found.setdefault(event.name[:110], [0.0, 0])
            entry[0] += event.device_time_total / 1e3
            entry[1] += 1
    rows = sorted(((name, ms, int(calls)) for name, (ms, calls) in found.items()), key=lambda row: -row[1])
    return [("all", sum(row[1] for row in rows), sum(row[2] for row in rows)), *rows[:count]]


def main() -> None:
    """Print a table and write `step.json`."""
    parser = parser_of(__doc__, "step.json")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--utterances", type=int, default=32, metavar="N")
    parser.add_argument("--seconds", type=float, default=8.0, metavar="S")
    parser.add_argument("--layerdrop", type=float, default=0.0, metavar="RATE")
    parser.add_argument("--kernels", type=int, default=0, metavar="N", help="list the N longest kernels of each")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    peak, bandwidth = peak_rates()
    print(
        f"{torch.cuda.get_device_name()}: bf16 {peak / 1e12:.0f} TFLOP/s, copy {bandwidth / 1e12:.2f} TB/s", flush=True
    )
    rows = []
    for shape in options.shapes:
        for variant in options.variants:
            row = measure(shape, variant, peak, options)
            rows.append(row)
            torch.cuda.empty_cache()
            if "error" in row:
                print(f"{shape:10} {variant:37} {row['error'][:200]}", flush=True)
                continue
            print(
                f"{shape:10} {variant:37} {row['ms']:7.1f} ms ({row['ms_in_a_row']:.1f} in a row)  "
                f"MFU {row['mfu']:5.1%}  floor {row['floor_ms']:5.1f} ms  {row['gib']:5.1f} GiB  "
                f"loss {row['loss']:.4f}",
                flush=True,
            )
            for name, ms, calls in row.get("kernels", []):
                print(f"      {ms:8.2f} ms {calls:5}  {name}", flush=True)
    document = {"device": torch.cuda.get_device_name(), "peak": peak, "bandwidth": bandwidth, "rows": rows}
    write_json(options.output, document)


if __name__ == "__main__":
    main()
