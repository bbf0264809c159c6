"""One transformer layer of WavLM on packed frames as a single differentiable function with a backward of its own.

Only fused kernels run between the matrix products, the backward computes its products in the order and the dtype that
suit the GPU (gradients of weights come out in float32), and tensors for the backward are kept only once.

Shapes: N frames, D hidden size, F inner size, H heads. A layer's state is the residual stream (N, D) float32 and the
input of its next product (N, D) in the products' dtype.

The layers of the two kinds of WavLM differ in the use of a norm. `base` normalises the sum of stream and branch, which
becomes the new stream; `large` (`is_stable`) keeps the sum as the stream and normalises the input of the next product.
Import only where Triton runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from net.kernels import relative_attention as attention
from net.wavlm import layer_operations, position_gate
from net.wavlm.layer_operations import Dropout
from net.wavlm.relative_attention import Call


class LayerWeights(NamedTuple):
    """The parameters of one layer, float32, in the order of the function's arguments.

    `first_norm` follows the attention and `second_norm` the feed-forward part; in a stable model `second_norm` is the
    first norm of the next layer, or the final norm.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    query_bias: Tensor
    key_bias: Tensor
    value_bias: Tensor
    gate: Tensor
    gate_bias: Tensor
    gate_const: Tensor
    out: Tensor
    out_bias: Tensor
    first_norm: Tensor
    first_norm_bias: Tensor
    inner: Tensor
    inner_bias: Tensor
    outer: Tensor
    outer_bias: Tensor
    second_norm: Tensor
    second_norm_bias: Tensor

    @classmethod
    def of(cls, layer: Any, first_norm: Any, second_norm: Any) -> LayerWeights:  # noqa: ANN401 - transformers' modules
        """Collect the parameters of a transformers layer and of the norms behind its parts."""
        attention, feed = layer.attention, layer.feed_forward
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        modules = [*projections, attention.gru_rel_pos_linear, attention.out_proj, first_norm]
        modules += [feed.intermediate_dense, feed.output_dense, second_norm]
        weights, biases = [module.weight for module in modules], [module.bias for module in modules]
        pairs = [value for pair in zip(weights[4:], biases[4:], strict=True) for value in pair]
        gate = (weights[3], biases[3], attention.gru_rel_pos_const)
        return cls._make([*weights[:3], *biases[:3], *gate, *pairs])


class LayerGradients(NamedTuple):
    """The gradients of a layer's parameters, float32; those computed by one operation share a tensor.

    Attributes:
        projection: Gradient of the query, key and value weights, (3 D, D).
        projection_bias: Gradient of the query, key and value biases, (3 D,).
        gate: Gradient of the gate's weight, (2, 4, head_dim); the kernels sum the weight's rows in groups of four,
            which have the same gradient.
        gate_bias: Gradient of the gate's bias, (2, 4).
        gate_const: Gradient of the gate's constants, (H,).
        out: Gradient of the attention's output weight, (D, D).
        first: Gradients of the first norm's weight and bias and of the bias of `out`, (3, D).
        inner: Gradient of the first feed-forward weight, (F, D).
        inner_bias: Gradient of the first feed-forward bias, (F,).
        outer: Gradient of the second feed-forward weight, (D, F).
        second: Gradients of the second norm's weight and bias and of the bias of `outer`, (3, D).
    """

    projection: Tensor
    projection_bias: Tensor
    gate: Tensor
    gate_bias: Tensor
    gate_const: Tensor
    out: Tensor
    first: Tensor
    inner: Tensor
    inner_bias: Tensor
    outer: Tensor
    second: Tensor

    @classmethod
    def empty(cls, heads: int, inner_bias: Tensor, norm: Tensor) -> LayerGradients:
        """Allocate the gradients of a layer, given its heads, its inner bias and its norm."""
        inner, width = len(inner_bias), len(norm)
        attention = (3 * width, width), (3 * width,), (2, 4, width // heads), (2, 4), (heads,), (width, width)
        feed = (3, width), (inner, width), (inner,), (width, inner), (3, width)
        return cls._make(norm.new_empty(shape) for shape in (*attention, *feed))

    def by_weight(self) -> LayerWeights:
        """Return a view of each parameter's gradient."""
        first, second = self.first.unbind(), self.second.unbind()
        gate = self.gate.flatten(0, 1), self.gate_bias.flatten(), self.gate_const.view(1, -1, 1, 1)
        thirds = [*self.projection.chunk(3), *self.projection_bias.chunk(3)]
        feed = self.inner, self.inner_bias, self.outer
        return LayerWeights._make(
            [*thirds, *gate, self.out, first[2], *first[:2], *feed, second[2], *second[:2]],
        )


@dataclass(frozen=True, eq=False)
class LayerSettings:
    """The settings of a layer.

    Attributes:
        copies: Copies of the layer's weights.
        is_stable: Whether the residual stream itself is not normalised.
        call: Settings of the attention kernels.
        eps: Epsilons of both norms.
        dropouts: Dropouts behind the attention, behind the activation and behind the feed-forward part.
        next_dtype: Element type of the next layer's input.
        gradients: Preallocated gradients of the parameters, or None.
        skip: Skip flag, () int64: if negative, the layer leaves its state unchanged, and its parameters' gradients
            are meaningless except those of the next layer's norm. None if the layer is never skipped.
    """

    copies: ProductWeights
    is_stable: bool
    call: Call
    eps: tuple[float, float]
    dropouts: tuple[Dropout, Dropout, Dropout]
    next_dtype: torch.dtype
    gradients: LayerGradients | None = None
    skip: Tensor | None = None

    @property
    def restore(self) -> Tensor | None:
        """`skip` if a skipped layer's state must be restored: a normalised stream changes even if nothing is added."""
        return None if self.is_stable else self.skip


def run_layer(
    stream: Tensor, taken: Tensor, table: Tensor, weights: LayerWeights, settings: LayerSettings
) -> tuple[Tensor, Tensor]:
    """Run a layer.

    Args:
        stream: Residual stream, (N, D) float32.
        taken: Input of the next product, (N, D) in the dtype of the products.
        table: Position bias, (H, 2 reach - 1) float32, as `relative_attention` takes it, wide enough for whole tiles.
        weights: Parameters of the layer.
        settings: Settings of the layer and the batch.

    Returns:
        The next layer's stream and input.
    """
    return _Layer.apply(stream, taken, table, settings, *weights)  # type: ignore[no-any-return, no-untyped-call]


class ProductWeights(NamedTuple):
    """Copies of a layer's parameters for its kernels: in the products' dtype, with the gate's rows summed."""

    projection: Tensor
    projection_bias: Tensor
    out: Tensor
    inner: Tensor
    outer: Tensor
    gate: Tensor
    gate_bias: Tensor


def copy_weights(layers: Sequence[Any], dtype: torch.dtype) -> list[ProductWeights]:
    """Copy the parameters of transformers layers for the kernels, in a few launches for a whole model.

    Every forward makes new copies: a changed weight cannot be recognised (the fused AdamW leaves its version alone).
    """
    sources = [_copied(layer) for layer in layers]
    with torch.no_grad():
        copies = [_empty_copies(layer, dtype) for layer in sources]
        targets = [target for copy in copies for target in _parts_of(copy)]
        torch._foreach_copy_(targets, [parameter for layer in sources for parameter in layer[:9]])
        gates = torch.stack([layer.gate for layer in sources]).view(len(sources), 2, 4, -1).sum(2)
        biases = torch.stack([layer.gate_bias for layer in sources]).view(len(sources), 2, 4).sum(2)
        pairs = zip(copies, gates.unbind(), biases.unbind(), strict=True)
        return [copy._replace(gate=gate, gate_bias=bias) for copy, gate, bias in pairs]


class _Copied(NamedTuple):
    """The parameters of a layer that are copied; the first nine in the order of `_parts_of`."""

    query: Tensor
    key: Tensor
    value: Tensor
    query_bias: Tensor
    key_bias: Tensor
    value_bias: Tensor
    out: Tensor
    inner: Tensor
    outer: Tensor
    gate: Tensor
    gate_bias: Tensor


def _copied(layer: Any) -> _Copied:  # noqa: ANN401
    attention, feed = layer.attention, layer.feed_forward
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    products = (attention.out_proj, feed.intermediate_dense, feed.output_dense)
    gate = attention.gru_rel_pos_linear
    values = [*(p.weight for p in projections), *(p.bias for p in projections), *(p.weight for p in products)]
    return _Copied._make([*values, gate.weight, gate.bias])


def _parts_of(copies: ProductWeights) -> list[Tensor]:
    thirds = [*copies.projection.chunk(3), *copies.projection_bias.chunk(3)]
    return [*thirds, copies.out, copies.inner, copies.outer]


def _empty_copies(layer: _Copied, dtype: torch.dtype) -> ProductWeights:
    width = layer.query.shape[0]
    empty = partial(torch.empty, dtype=dtype, device=layer.query.device)
    return ProductWeights(
        projection=empty((3 * width, width)),
        projection_bias=empty(3 * width),
        out=empty(layer.out.shape),
        inner=empty(layer.inner.shape),
        outer=empty(layer.outer.shape),
        gate=layer.gate,
        gate_bias=layer.gate_bias,
    )


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        stream: Tensor,
        taken: Tensor,
        table: Tensor,
        settings: LayerSettings,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        weights, dtype = LayerWeights._make(parameters), taken.dtype
        copies, const = settings.copies, weights.gate_const.flatten()
        packed = F.linear(taken, copies.projection, copies.projection_bias).view(len(taken), 3, len(const), -1)
        gate = position_gate.gate_forward(taken, copies.gate, copies.gate_bias, const)
        query, key, value = packed.unbind(1)
        out, lse = attention.forward(query, key, value, gate, table, settings.call)
        branch = out.flatten(1) @ copies.out.t()
        norm = weights.first_norm, weights.first_norm_bias
        first = _join(branch, weights.out_bias, stream, *norm, settings, 0, dtype)
        inner = first.taken @ copies.inner.t()
        activated = layer_operations.gelu_forward(inner, weights.inner_bias, settings.dropouts[1])
        branch = activated @ copies.outer.t()
        norm = weights.second_norm, weights.second_norm_bias
        second = _join(branch, weights.outer_bias, first.stream, *norm, settings, 1, settings.next_dtype)
        kept = (taken, packed, gate, table, out, lse, inner, activated, first.taken)
        needed = weights.inner_bias, weights.first_norm, weights.second_norm, const
        ctx.save_for_backward(*kept, *first.statistics, *second.statistics, *needed)
        ctx.settings = settings
        if settings.restore is not None:
            layer_operations.restore(settings.restore, (stream, taken), (second.stream, second.taken))
        return second.stream, second.taken

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, stream_gradient: Tensor, taken_gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        settings: LayerSettings = ctx.settings
        saved = list(ctx.saved_tensors)
        taken, packed, gate, table, out, lse, inner, activated, first_taken = saved[:9]
        first, second = saved[9:12], saved[12:15]
        inner_bias, first_norm, second_norm, const = saved[15:]
        copies = settings.copies
        found = settings.gradients or LayerGradients.empty(len(const), inner_bias, second_norm)
        stream_gradient, taken_gradient = stream_gradient.contiguous(), taken_gradient.contiguous()
        arrived = stream_gradient, taken_gradient

        ends = stream_gradient, taken_gradient, settings, 1, taken.dtype, found.second
        stream_gradient, branch = _join_backward(second, second_norm, *ends)
        if not any(ctx.needs_input_grad[:3]) and not any(ctx.needs_input_grad[4:-2]):
            return *[None] * (len(ctx.needs_input_grad) - 2), *found.second[:2]
        product_of_gradient(branch, activated, found.outer)
        gradient = branch @ copies.outer
        dropout = settings.dropouts[1]
        gradient, _ = layer_operations.gelu_backward(gradient, inner, inner_bias, dropout, found.inner_bias)
        product_of_gradient(gradient, first_taken, found.inner)
        gradient = gradient @ copies.inner

        ends = stream_gradient, gradient, settings, 0, taken.dtype, found.first
        stream_gradient, branch = _join_backward(first, first_norm, *ends)
        product_of_gradient(branch, out.flatten(1), found.out)
        out_gradient = (branch @ copies.out).view_as(out)
        taken_gradient, table_gradient = _attention_backward(
            (*packed.unbind(1), gate, table, out, lse), out_gradient, taken, const, found, ctx
        )
        if settings.restore is not None:
            layer_operations.restore(settings.restore, arrived, (stream_gradient, taken_gradient))
            if table_gradient is not None:
                table_gradient = table_gradient.masked_fill(settings.restore < 0, 0.0)
        return stream_gradient, taken_gradient, table_gradient, None, *found.by_weight()


def _attention_backward(
    saved: tuple[Tensor, ...],
    out_gradient: Tensor,
    taken: Tensor,
    const: Tensor,
    found: LayerGradients,
    ctx: Any,  # noqa: ANN401
) -> tuple[Tensor, Tensor | None]:
    """Fill in the gradients of projections and gate; return the gradients of the layer's input and of the table."""
    with_table: bool = ctx.needs_input_grad[2]
    packed, gate_gradient, table_gradient = attention.backward(saved, out_gradient, ctx.settings.call, with_table)
    packed = packed.flatten(1)
    product_of_gradient(packed, taken, found.projection)
    torch.sum(packed, 0, dtype=torch.float32, out=found.projection_bias)
    copies: ProductWeights = ctx.settings.copies
    folded = copies.gate, copies.gate_bias, const
    taken_gradient, gate, gate_bias, gate_const = position_gate.gate_backward(
        gate_gradient, taken, *folded, packed @ copies.projection
    )
    found.gate.copy_(gate.unsqueeze(1))
    found.gate_bias.copy_(gate_bias.unsqueeze(1))
    found.gate_const.copy_(gate_const)
    return taken_gradient, table_gradient


class _Joined(NamedTuple):
    """A layer's state, and the tensors for the norm's backward: the sum, its mean and its inverse deviation."""

    stream: Tensor
    taken: Tensor
    statistics: tuple[Tensor, Tensor, Tensor]


def _join(
    branch: Tensor,
    branch_bias: Tensor,
    stream: Tensor,
    norm: Tensor,
    norm_bias: Tensor,
    settings: LayerSettings,
    place: int,
    dtype: torch.dtype,
) -> _Joined:
    """Add a branch, after its dropout, to the stream and normalise; place 0 follows the attention, 1 feed-forward."""
    numbers = settings.eps[place], settings.dropouts[2 * place]
    joined, taken, full, mean, rstd = layer_operations.join_forward(
        branch, branch_bias, stream, norm, norm_bias, *numbers, dtype, wants_full=not settings.is_stable
    )
    if full is taken:
        full = taken.clone()  # products in float32: an autograd function must not return one tensor twice
    return _Joined(joined if full is None else full, taken, (joined, mean, rstd))


def _join_backward(
    statistics: Sequence[Tensor],
    norm: Tensor,
    stream_gradient: Tensor,
    taken_gradient: Tensor,
    settings: LayerSettings,
    place: int,
    dtype: torch.dtype,
    sums: Tensor,
) -> tuple[Tensor, Tensor]:
    """Fill in the gradients of the norm and of the branch's bias; return the gradients of stream and branch."""
    direct = stream_gradient if settings.is_stable else None
    normed = (taken_gradient,) if settings.is_stable else (taken_gradient, stream_gradient)
    joined, mean, rstd = statistics
    dropout = settings.dropouts[2 * place]
    found = layer_operations.join_backward(joined, mean, rstd, norm, normed, direct, dropout, dtype, sums)
    return found.residual, found.branch


def product_of_gradient(gradient: Tensor, taken: Tensor, found: Tensor) -> None:
    """Compute a weight's gradient `found`, (out, in) float32, from the product's input and its output's gradient."""
    if gradient.dtype == torch.float32:
        torch.mm(gradient.t(), taken, out=found)
    else:
        torch.mm(gradient.t(), taken, out_dtype=torch.float32, out=found)
