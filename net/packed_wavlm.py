"""WavLM on utterances laid end to end: transformers' own parameters, without padding and without a stored bias.

In float32 an utterance's frames are those of transformers on that utterance alone, up to rounding. In half precision
products take and return half, while the residual stream, norms and the softmax stay float32, as under autocast.

Shapes: N frames in the pack, D hidden size, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from net.packed_convolutions import Placement, extract, place
from net.packed_layers import LayerSettings, LayerWeights, ProductWeights, copy_weights, run_layer
from net.positional_convolution import PositionalPlan, plan_positions, positional_convolution
from net.relative_attention import (
    AttentionPlan,
    gate_of,
    has_kernels,
    plain_relative_attention,
    prepare_call,
    relative_buckets,
)
from net.triton_support import is_exact_gelu

Masking = Callable[[Tensor, Sequence[int]], Tensor]
"""Takes projected frames (N, D) and the frames of each utterance, and returns them with spans masked."""
Norms = tuple[nn.LayerNorm, nn.LayerNorm]
REACH_STEP = 128
"""Tables of the position bias reach a multiple of so many frames, so that few different sizes occur."""


@dataclass(frozen=True, eq=False)
class PackPlan:
    """What the parts of the encoder need to know of a batch's lengths; built once a batch."""

    placement: Placement
    positions: PositionalPlan
    attention: AttentionPlan

    @property
    def lengths(self) -> tuple[int, ...]:
        """Frames of each utterance."""
        return self.placement.lengths[-1]


class PackedWavLM:
    """Runs a transformers WavLMModel on packs.

    Args:
        encoder: The transformers model; what its modules say of dropout and training mode holds.
        is_checkpointed: Whether the backward computes each layer again instead of keeping what it needs of it.
    """

    def __init__(self, encoder: Any, is_checkpointed: bool = False) -> None:  # noqa: ANN401 - not typed
        if getattr(encoder, "adapter", None) is not None:
            raise ValueError("a WavLM with an adapter is not supported")
        self.encoder = encoder
        self.is_checkpointed = is_checkpointed
        self.config = encoder.config
        self.is_stable = bool(self.config.do_stable_layer_norm)
        self.heads = int(self.config.num_attention_heads)
        self._one_hot = torch.empty(0, 1)  # of the buckets of all distances, as far as was asked for

    def plan(self, counts: Sequence[int], device: torch.device) -> PackPlan:
        """Plan a batch of utterances of so many samples."""
        placement = place(counts, self.config.conv_kernel, self.config.conv_stride, device)
        lengths = placement.lengths[-1]
        positions = plan_positions(lengths, self.encoder.encoder.pos_conv_embed.conv, device)
        return PackPlan(placement, positions, AttentionPlan.of(lengths, device))

    def features(self, samples: Tensor, plan: PackPlan, dtype: torch.dtype) -> Tensor:
        """Return what the convolutions make of samples (sum of counts,): (N, conv_dim)."""
        return extract(self.encoder.feature_extractor, samples, plan.placement, dtype)

    def encode(
        self, features: Tensor, plan: PackPlan, dtype: torch.dtype, mask: Masking | None, keeps_layers: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Run projection and transformer.

        Args:
            features: (N, conv_dim).
            plan: Of this batch.
            dtype: Of the products.
            mask: Masks projected frames, in training.
            keeps_layers: Whether every layer's frames are wanted.

        Returns:
            The last frames (N, D) float32; and, where wanted, the input of the first layer and each layer's output,
            the last one before the final norm of models that have one.
        """
        transformer = self.encoder.encoder
        with torch.autocast(features.device.type, enabled=False):
            hidden = self._project(features, dtype)
            if mask is not None:
                hidden = mask(hidden, plan.lengths)
            hidden = hidden + positional_convolution(transformer.pos_conv_embed, hidden, plan.positions, dtype)
            if not self.is_stable:
                hidden = _normed(hidden, transformer.layer_norm)
            hidden = _dropped(hidden, transformer.dropout)
            return self._layers(hidden, plan, dtype, keeps_layers)

    def _project(self, features: Tensor, dtype: torch.dtype) -> Tensor:
        projection = self.encoder.feature_projection
        normed = _normed(features.float(), projection.layer_norm).to(dtype)
        return _dropped(_product(normed, projection.projection), projection.dropout).float()

    def _layers(
        self, hidden: Tensor, plan: PackPlan, dtype: torch.dtype, keeps_layers: bool
    ) -> tuple[Tensor, list[Tensor]]:
        layers = list(self.encoder.encoder.layers)
        table = self._table(max(plan.lengths), hidden.device)
        kept = [hidden] if keeps_layers else []
        taken = _normed(hidden, layers[0].layer_norm).to(dtype) if self.is_stable else hidden.to(dtype)
        used = [number for number in range(len(layers)) if not self._is_dropped(number)]
        following = [*used[1:], None]
        copies = copy_weights(layers, dtype) if self._is_fused(hidden.device, dtype) else None
        for number, layer in enumerate(layers):
            if number in used:
                after = following[used.index(number)]
                norms = self._norms(layer, None if after is None else layers[after])
                if copies is None:
                    run = partial(self._plain_layer, layer=layer, norms=norms, plan=plan)
                else:
                    settings = self._settings(layer, norms, copies[number], dtype, plan, is_last=after is None)
                    run = partial(run_layer, weights=LayerWeights.of(layer, *norms), settings=settings)
                hidden, taken = self._run(run, hidden, taken, table)
            if keeps_layers:
                kept.append(hidden)
        return taken.float() if self.is_stable else hidden, kept

    def _run(
        self, layer: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]], *state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run a layer on stream, input and table; what it draws at random is the same when it runs again."""
        if not (self.is_checkpointed and torch.is_grad_enabled()):
            return layer(*state)
        found: tuple[Tensor, Tensor] = checkpoint(layer, *state, use_reentrant=False)
        return found

    def _is_fused(self, device: torch.device, dtype: torch.dtype) -> bool:
        layer = self.encoder.encoder.layers[0]
        activation = layer.feed_forward.intermediate_act_fn
        return has_kernels(device, dtype, layer.attention.head_dim) and is_exact_gelu(activation)

    def _norms(self, layer: Any, after: Any) -> Norms:  # noqa: ANN401 - transformers' modules
        """Return the norms behind a layer's two parts; in a stable model the second is the first of what comes next."""
        if not self.is_stable:
            return layer.layer_norm, layer.final_layer_norm
        return layer.final_layer_norm, self.encoder.encoder.layer_norm if after is None else after.layer_norm

    def _settings(
        self,
        layer: Any,  # noqa: ANN401
        norms: Norms,
        copies: ProductWeights,
        dtype: torch.dtype,
        plan: PackPlan,
        is_last: bool,
    ) -> LayerSettings:
        """Draw the seeds of a layer's dropouts from the global CPU generator, where it has any."""
        attention, feed = layer.attention, layer.feed_forward
        rate = attention.dropout if attention.training else 0.0
        rates = (_rate(layer.dropout), _rate(feed.intermediate_dropout), _rate(feed.output_dropout))
        seeds = torch.randint(2**62, (4,)).tolist() if any((rate, *rates)) else [0] * 4
        return LayerSettings(
            copies=copies,
            is_stable=self.is_stable,
            call=prepare_call(plan.attention, dtype, attention.head_dim, attention.scaling, rate, seeds[3]),
            eps=(norms[0].eps, norms[1].eps),
            rates=rates,
            seeds=(seeds[0], seeds[1], seeds[2]),
            next_dtype=torch.float32 if is_last and self.is_stable else dtype,
        )

    def _plain_layer(
        self,
        stream: Tensor,
        taken: Tensor,
        table: Tensor,
        layer: Any,  # noqa: ANN401
        norms: Norms,
        plan: PackPlan,
    ) -> tuple[Tensor, Tensor]:
        """Run one layer in PyTorch's own operations; arguments and result as those of `run_layer`."""
        feed, join = layer.feed_forward, _join_and_norm if self.is_stable else _norm_of_join
        attended = self._attend(layer.attention, taken, table, plan)
        stream, taken = join(attended, stream, norms[0], _rate(layer.dropout))
        inner = _dropped(feed.intermediate_act_fn(_product(taken, feed.intermediate_dense)), feed.intermediate_dropout)
        return join(_product(inner, feed.output_dense), stream, norms[1], _rate(feed.output_dropout))

    def _attend(self, attention: Any, hidden: Tensor, table: Tensor, plan: PackPlan) -> Tensor:  # noqa: ANN401
        """Return the output projection of one layer's attention, (N, D) in the dtype of `hidden`."""
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        weight = torch.cat([projection.weight for projection in projections]).to(hidden.dtype)
        bias = torch.cat([projection.bias for projection in projections]).to(hidden.dtype)
        packed = F.linear(hidden, weight, bias).view(hidden.shape[0], 3, self.heads, -1)
        linear = attention.gru_rel_pos_linear
        gate = gate_of(hidden, linear.weight, linear.bias, attention.gru_rel_pos_const, self.heads)
        rate = attention.dropout if attention.training else 0.0
        query, key, value = packed.unbind(1)
        out = plain_relative_attention(query, key, value, gate, table, plan.attention, attention.scaling, rate)
        return _product(out.flatten(1), attention.out_proj)

    def _table(self, longest: int, device: torch.device) -> Tensor:
        """Return the bias of each head by distance, (H, 2 reach - 1).

        A product with zeros and ones: its gradient, too, is a product, where that of a selection adds atomically.
        """
        reach = -(-longest // REACH_STEP) * REACH_STEP
        there = (self._one_hot.shape[1] + 1) // 2
        if self._one_hot.device != device or there < reach:
            count = int(self.config.num_buckets)
            with torch.inference_mode(False):  # what is kept must be of use in training, too
                buckets = relative_buckets(reach, count, self.config.max_bucket_distance)
                self._one_hot = F.one_hot(buckets, count).t().float().contiguous().to(device)
            there = reach
        embedding: Tensor = self.encoder.encoder.layers[0].attention.rel_attn_embed.weight
        return embedding.t() @ self._one_hot[:, there - reach : there + reach - 1]

    def _is_dropped(self, number: int) -> bool:
        """Draw whether layerdrop leaves a layer out; the first, which owns the position bias, stays."""
        return bool(self.encoder.encoder.training and number > 0 and float(torch.rand(())) < self.config.layerdrop)


def _join_and_norm(branch: Tensor, stream: Tensor, norm: nn.LayerNorm, rate: float) -> tuple[Tensor, Tensor]:
    """Add a branch to the stream; return the stream, and its norm for the next product."""
    joined = stream + F.dropout(branch, rate).float()
    return joined, _normed(joined, norm).to(branch.dtype)


def _norm_of_join(branch: Tensor, stream: Tensor, norm: nn.LayerNorm, rate: float) -> tuple[Tensor, Tensor]:
    """Add a branch to the stream and normalise it; return the stream, and a copy for the next product."""
    joined = _normed(stream + F.dropout(branch, rate).float(), norm)
    return joined, joined.to(branch.dtype)


def _rate(dropout: nn.Dropout) -> float:
    return dropout.p if dropout.training else 0.0


def _dropped(hidden: Tensor, dropout: nn.Dropout) -> Tensor:
    return F.dropout(hidden, _rate(dropout))


def _normed(hidden: Tensor, norm: nn.LayerNorm) -> Tensor:
    return F.layer_norm(hidden, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _product(hidden: Tensor, linear: nn.Linear) -> Tensor:
    """Apply a linear layer in the dtype of `hidden`."""
    return F.linear(hidden, linear.weight.to(hidden.dtype), linear.bias.to(hidden.dtype))
