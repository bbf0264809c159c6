"""Times packed attention with the gated relative bias on one GPU, for several tile sizes, warps and stages.

Each setting is checked against the plain path first. The bound is PyTorch's flash attention of the same frames without
any bias, in dense batches where all utterances have one length, else padded to the longest.

    python -m benchmarks.attention_variants [--dtype bf16|fp16|fp32] [--dropout 0.1]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import TIMES, first_line, median_ms
from net.host_tables import placed
from net.relative_attention import (
    FLOAT_SETTINGS,
    HALF_SETTINGS,
    AttentionPlan,
    KernelSettings,
    plain_relative_attention,
    relative_attention,
)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
HEAD_DIM = 64
REACH = 1024
SLEEP_CYCLES = 5_000_000


def ragged_lengths(count: int) -> tuple[int, ...]:
    """Frames of utterances of 2.75 to 11 s, mean about 5.6 s, as in MSP-PODCAST."""
    seconds = 2.75 + torch.empty(4 * count).exponential_(1 / 3, generator=torch.Generator().manual_seed(0))
    return tuple(int(49.9 * s) for s in seconds.tolist() if s < 11)[:count]


def batches() -> dict[str, tuple[int, tuple[int, ...]]]:
    """Heads and lengths by name."""
    return {
        "base-plus 32 x 399": (12, (399,) * 32),
        "large 32 x 399": (16, (399,) * 32),
        "large ragged 48": (16, ragged_lengths(48)),
    }


def variants(base: KernelSettings) -> dict[str, KernelSettings]:
    """Settings to compare; a change of one kernel leaves the others as they are."""
    forwards = [(64, 64, 4, 2), (64, 64, 4, 3), (64, 32, 4, 3), (128, 64, 4, 2), (128, 64, 8, 2), (128, 64, 8, 3)]
    forwards += [(64, 128, 4, 2), (128, 128, 8, 2)]
    found = {"default": base}
    for rows, columns, warps, stages in forwards:
        found[f"forward {rows}x{columns} w{warps} s{stages}"] = replace(
            base, forward_rows=rows, forward_columns=columns, forward_warps=warps, forward_stages=stages
        )
    for size in (32, 64):
        for warps in (2, 4, 8) if size == 32 else (4, 8):
            for stages in (1, 2, 3):
                query = replace(base, backward_block=size, query_warps=warps, query_stages=stages)
                if size != base.backward_block:
                    query = replace(query, key_warps=warps, key_stages=stages)
                found[f"query {size} w{warps} s{stages}"] = query
                key = replace(base, backward_block=size, key_warps=warps, key_stages=stages)
                if size == base.backward_block:
                    found[f"key {size} w{warps} s{stages}"] = key
    return found


def queued_ms(run: Callable[[], object]) -> float:
    """Time a run while the GPU sleeps first, so that all of it is queued before its time begins."""
    return median_ms(run, before=lambda: torch.cuda._sleep(SLEEP_CYCLES))  # type: ignore[no-untyped-call]


class Problem:
    """One batch's tensors and how to run them."""

    def __init__(self, heads: int, lengths: Sequence[int], dtype: torch.dtype, dropout: float) -> None:
        torch.manual_seed(0)
        self.lengths, self.dropout = tuple(lengths), dropout
        self.packed = torch.randn(sum(lengths), 3, heads, HEAD_DIM, device="cuda", dtype=dtype)
        self.gate = 1 + torch.rand(sum(lengths), heads, device="cuda")
        self.table = torch.randn(heads, 2 * REACH - 1, device="cuda")
        self.leaves = [*(t.detach().requires_grad_() for t in self.packed.unbind(1))]
        self.leaves += [self.gate.requires_grad_(), self.table.requires_grad_()]
        self.out_gradient = torch.randn_like(self.packed[:, 0])

    def forward(self, plan: AttentionPlan, attend: Callable[..., Tensor] = relative_attention) -> Tensor:
        """Attend once."""
        return attend(*self.leaves, plan, HEAD_DIM**-0.5, self.dropout)

    def both(
        self, plan: AttentionPlan, attend: Callable[..., Tensor] = relative_attention, frozen_table: bool = False
    ) -> list[Tensor]:
        """Attend and return the output and all gradients."""
        out = self.forward(plan, attend)
        wanted = self.leaves[:-1] if frozen_table else self.leaves
        return [out, *torch.autograd.grad(out, wanted, self.out_gradient)]

    def worst_error(self, plan: AttentionPlan, expected: Sequence[Tensor]) -> float:
        """Largest deviation of the output or a gradient, over its largest value."""
        pairs = zip(self.both(plan), expected, strict=True)
        return max(float((a.float() - b.float()).abs().max() / b.float().abs().max()) for a, b in pairs)

    def flash_bound(self) -> tuple[float, float]:
        """Forward, and forward with backward, of dense attention without a bias, in ms."""
        shape = (len(self.lengths), self.packed.shape[2], max(self.lengths), HEAD_DIM)
        q, k, v = (torch.randn(shape, device="cuda", dtype=self.packed.dtype, requires_grad=True) for _ in range(3))
        out_gradient = torch.randn_like(q)

        def forward() -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout)

        return queued_ms(forward), queued_ms(lambda: torch.autograd.grad(forward(), (q, k, v), out_gradient))


def report(name: str, problem: Problem, settings: KernelSettings, expected: Sequence[Tensor]) -> None:
    """Print one line of the table; a setting that does not compile or run costs no more than its line."""
    plan = placed(AttentionPlan.of(problem.lengths, settings), "cuda")
    try:
        error = problem.worst_error(plan, expected)
        forward = queued_ms(lambda: problem.forward(plan))
        both = queued_ms(lambda: problem.both(plan))
    except Exception as failure:  # noqa: BLE001 -- whatever the compiler raises belongs into the table
        print(f"  {name:28} {first_line(failure)}")
        return
    print(f"  {name:28} {forward:9.3f} {both:9.3f} {error:9.1e}", flush=True)


def report_batch(problem: Problem, base: KernelSettings) -> None:
    """Print one batch's table."""
    plan = placed(AttentionPlan.of(problem.lengths), "cuda")
    expected = problem.both(plan, plain_relative_attention)

    def line(name: str, forward: float, both: float) -> None:
        print(f"  {name:28} {forward:9.3f} {both:9.3f}", flush=True)

    def frozen() -> object:
        return problem.both(plan, frozen_table=True)

    def plain(run: Callable[..., object]) -> float:
        return queued_ms(lambda: run(plan, plain_relative_attention))

    print(f"  {'':28} {'forward':>9} {'both':>9} {'error':>9}")
    line("no bias, dense, PyTorch", *problem.flash_bound())
    line("plain path", plain(problem.forward), plain(problem.both))
    for name, settings in variants(base).items():
        report(name, problem, settings, expected)
    line("default, frozen table", queued_ms(lambda: problem.forward(plan)), queued_ms(frozen))


def main() -> None:
    """Print one table a batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--dropout", type=float, default=0.0)
    arguments = parser.parse_args()
    dtype = DTYPES[arguments.dtype]
    base = (FLOAT_SETTINGS if dtype == torch.float32 else HALF_SETTINGS)[HEAD_DIM]
    print(f"{torch.cuda.get_device_name()}, {arguments.dtype}, dropout {arguments.dropout}, median of {TIMES}, ms")
    for title, (heads, lengths) in batches().items():
        print(f"{title}: {sum(lengths)} frames, longest {max(lengths)}")
        report_batch(Problem(heads, lengths, dtype, arguments.dropout), base)


if __name__ == "__main__":
    main()
