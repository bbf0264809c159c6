"""Triton kernels of attention-weighted statistics; `net/attentive_statistics.py` launches them.

Rows of an utterance lie between `starts[utterance]` and `starts[utterance + 1]`. Loops end there and nothing else
depends on the lengths, so that a recorded launch serves any batch with the same number of utterances.

Shapes: N frames, B utterances, D columns; R rows and C columns of a tile, both powers of two.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,import-untyped,untyped-decorator"
# ruff: noqa: ANN001, ANN201, ANN202, N803 -- Triton reads a kernel's annotations as types; upper case marks its
# constants

import triton
import triton.language as tl


@triton.jit
def load_tile(values, rows, columns, last, D: tl.constexpr):
    """Load (R, C) float32; zeros outside the utterance and the columns."""
    there = (rows < last)[:, None] & (columns < D)[None, :]
    return tl.load(values + rows.to(tl.int64)[:, None] * D + columns[None, :], mask=there, other=0.0)


@triton.jit
def load_scores(scores, rows, last):
    """Load (R,) float32; minus infinity outside the utterance."""
    return tl.load(scores + rows, mask=rows < last, other=float("-inf"))


@triton.jit
def statistics_forward_kernel(
    values, scores, starts, statistics, softmax, D: tl.constexpr, SMALLEST: tl.constexpr,
    R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Compute C columns of one utterance; `softmax` (B, 2) stores its highest score and the sum of exponentials.

    SMALLEST is the lower bound of the deviation.
    """
    utterance, columns = tl.program_id(0), tl.program_id(1) * C + tl.arange(0, C)
    first, last = tl.load(starts + utterance), tl.load(starts + utterance + 1)
    highest = tl.full((R,), float("-inf"), tl.float32)
    for row in range(first, last, R):
        highest = tl.maximum(highest, load_scores(scores, row + tl.arange(0, R), last))
    highest = tl.max(highest, 0)
    exponentials = tl.zeros((R,), tl.float32)
    sums = tl.zeros((R, C), tl.float32)
    for row in range(first, last, R):
        rows = row + tl.arange(0, R)
        weights = tl.exp(load_scores(scores, rows, last) - highest)
        exponentials += weights
        sums += weights[:, None] * load_tile(values, rows, columns, last, D)
    total = tl.sum(exponentials, 0)
    mean = tl.sum(sums, 0) / total
    sums = tl.zeros((R, C), tl.float32)
    for row in range(first, last, R):
        rows = row + tl.arange(0, R)
        weights = tl.exp(load_scores(scores, rows, last) - highest)
        centred = load_tile(values, rows, columns, last, D) - mean[None, :]
        sums += weights[:, None] * centred * centred
    deviation = tl.maximum(tl.sqrt(tl.sum(sums, 0) / total), SMALLEST, propagate_nan=tl.PropagateNan.ALL)
    tl.store(statistics + utterance * 2 * D + columns, mean, mask=columns < D)
    tl.store(statistics + utterance * 2 * D + D + columns, deviation, mask=columns < D)
    if tl.program_id(1) == 0:
        tl.store(softmax + 2 * utterance, highest)
        tl.store(softmax + 2 * utterance + 1, total)


@triton.jit
def statistics_backward_kernel(
    gradient, values, scores, starts, statistics, softmax, values_gradient, scores_gradient,
    D: tl.constexpr, SMALLEST: tl.constexpr, WANTS_VALUES: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Compute all columns of one utterance's rows, R at a time, taking turns with its other programs."""
    utterance, stride = tl.program_id(0), tl.num_programs(1) * R
    first, last = tl.load(starts + utterance), tl.load(starts + utterance + 1)
    highest, total = tl.load(softmax + 2 * utterance), tl.load(softmax + 2 * utterance + 1)
    gradient += utterance * 2 * D
    statistics += utterance * 2 * D
    for row in range(first + tl.program_id(1) * R, last, stride):
        rows = row + tl.arange(0, R)
        weights = tl.exp(load_scores(scores, rows, last) - highest) / total
        by_score = tl.zeros((R,), tl.float32)
        for column in range(0, D, C):
            columns = column + tl.arange(0, C)
            inside = columns < D
            mean = tl.load(statistics + columns, mask=inside, other=0.0)
            deviation = tl.load(statistics + D + columns, mask=inside, other=1.0)
            by_mean = tl.load(gradient + columns, mask=inside, other=0.0)
            by_variance = tl.load(gradient + D + columns, mask=inside, other=0.0) / (2 * deviation)
            by_variance = tl.where(deviation > SMALLEST, by_variance, 0.0)
            centred = load_tile(values, rows, columns, last, D) - mean[None, :]
            spread = centred * centred - (deviation * deviation)[None, :]
            by_score += tl.sum(by_mean[None, :] * centred + by_variance[None, :] * spread, 1)
            if WANTS_VALUES:
                found = weights[:, None] * (by_mean[None, :] + 2 * by_variance[None, :] * centred)
                places = rows.to(tl.int64)[:, None] * D + columns[None, :]
                tl.store(values_gradient + places, found, mask=(rows < last)[:, None] & inside[None, :])
        tl.store(scores_gradient + rows, weights * by_score, mask=rows < last)
