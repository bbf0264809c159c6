"""WavLM on utterances laid end to end: transformers' own parameters, without padding and without a stored bias.

In float32 an utterance's frames equal those of transformers on that utterance alone, up to rounding. In half precision
products take and return half, while the residual stream, norms and the softmax stay float32, as under autocast.

Shapes: N frames in the pack, D hidden size, H heads, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from net.cuda_graphs.forward_backward import ForwardBackwardGraphs, Place
from net.kernels.triton_support import is_exact_gelu
from net.packing.attention import AttentionPlan
from net.packing.batch_layout import PackPlan, TransformerPlan
from net.packing.buckets import Bucket
from net.packing.device_tables import placed, to_device
from net.packing.placement import place
from net.packing.positions import plan_positions
from net.wavlm.convolutions import extract
from net.wavlm.eager_layer import dropped, normed, product, rate_of, run_plain_layer
from net.wavlm.positional_convolution import positional_convolution
from net.wavlm.relative_attention import has_kernels, kernel_settings, prepare_call, relative_buckets

if TYPE_CHECKING:
    from net.wavlm.fused_layer import LayerGradients, ProductWeights
    from net.wavlm.layer_operations import Dropout

Masking = Callable[[Tensor, Sequence[int]], Tensor]
"""Takes projected frames (N, D) and the frames of each utterance, and returns them with spans masked."""
Norms = tuple[nn.LayerNorm, nn.LayerNorm]
RunLayer = Callable[..., tuple[Tensor, Tensor]]
"""Takes a layer's state and table, `norms` and `is_last`, and returns the next layer's state."""
SEEDS = 4
"""Dropouts of a layer: behind the attention, the activation and the feed-forward part, and inside the attention."""
SKIPPED = -1
"""Value of all seeds of a layer that layerdrop skips: a CUDA graph runs the layer nevertheless."""
REACH_STEP = 128
"""The reach of a position bias table is a multiple of this many frames, so that few different sizes occur."""


class PackedWavLM:
    """Runs a transformers WavLMModel on packs.

    Args:
        encoder: The transformers model; its modules determine dropout and training mode.
        layer_weights: Weights, (L + 1,), whose softmax weighs the layers, for a weighted sum of them instead of the
            last one. Layer 0 is the transformer's input; in models with a final norm, the last is taken before it.
        is_checkpointed: Whether the backward recomputes each layer instead of keeping its activations.
    """

    def __init__(
        self,
        encoder: Any,  # noqa: ANN401 - not typed
        layer_weights: nn.Parameter | None = None,
        is_checkpointed: bool = False,
    ) -> None:
        if getattr(encoder, "adapter", None) is not None:
            raise ValueError("a WavLM with an adapter is not supported")
        self.encoder = encoder
        self.layer_weights = layer_weights
        self.is_checkpointed = is_checkpointed
        self.config = encoder.config
        self.is_stable = bool(self.config.do_stable_layer_norm)
        self.heads = int(self.config.num_attention_heads)
        self._one_hot = torch.empty(0, 1)  # buckets of all distances, up to the longest reach so far
        self._graphs: ForwardBackwardGraphs[TransformerPlan] | None = None
        self._gradients: list[LayerGradients | None] = []
        self._widest: Bucket | None = None

    def capture_steps(self) -> None:
        """Record training steps as CUDA graphs from now on, and replay them.

        A forward with gradients must be followed by its backward before the next one. Dropout rates and the encoder's
        training mode must not change any more.
        """
        transformer = self.encoder.encoder
        numbers = {module: number for number, layer in enumerate(transformer.layers) for module in layer.modules()}
        places = [
            Place(module, name, numbers.get(module))
            for module in transformer.modules()
            for name, _ in module.named_parameters(recurse=False)
        ]
        if self.layer_weights is not None:
            places.append(Place(self, "layer_weights"))
        self._graphs = ForwardBackwardGraphs(self._transform, places, self._make_gradients)

    def plan(self, counts: Sequence[int], device: torch.device, dtype: torch.dtype) -> PackPlan:
        """Plan a batch, given the utterances' samples and the dtype of the products."""
        placement = place(counts, self.config.conv_kernel, self.config.conv_stride)
        lengths, bucket = placement.lengths[-1], None
        if self._is_recorded(device, dtype):
            bucket = self._widest = Bucket.around(lengths, self._widest)
            lengths = bucket.fill(lengths)
        positions = plan_positions(lengths, self.encoder.encoder.pos_conv_embed.conv, bucket=bucket)
        head_dim = self.encoder.encoder.layers[0].attention.head_dim
        settings = kernel_settings(dtype, head_dim) if self._is_fused(device, dtype) else None
        transformer = TransformerPlan(positions, AttentionPlan.of(lengths, settings, bucket))
        return placed(PackPlan(placement, transformer, bucket), device)

    def features(self, samples: Tensor, plan: PackPlan, dtype: torch.dtype) -> Tensor:
        """Return the convolutions' output, (N, conv_dim), for samples (sum of counts,)."""
        return extract(self.encoder.feature_extractor, samples, plan.placement, dtype)

    def encode(self, features: Tensor, plan: PackPlan, dtype: torch.dtype, mask: Masking | None) -> Tensor:
        """Run projection and transformer.

        Args:
            features: Output of the convolutions, (N, conv_dim).
            plan: Plan of this batch.
            dtype: Element type of the products, the same as the plan's.
            mask: Function that masks projected frames in training, or None.

        Returns:
            The last frames, or the weighted sum of all layers', (N, D) float32.
        """
        with torch.autocast(features.device.type, enabled=False):
            hidden = self._project(features, dtype)
            if mask is not None:
                hidden = mask(hidden, plan.lengths)
            seeds = self._draw_seeds() if self._is_fused(hidden.device, dtype) else None
            if plan.bucket is not None and self._graphs is not None:
                skipped = self._draw_skipped()
                marked = _sent(self._mark(seeds, skipped), hidden.device)
                return self._graphs(hidden, plan.transformer, plan.bucket, dtype, marked, skipped)
            return self._transform(hidden, plan.transformer, dtype, _sent(seeds, hidden.device))

    def hidden_states(self, features: Tensor, plan: PackPlan, dtype: torch.dtype) -> list[Tensor]:
        """Return the transformer's input and each layer's output in evaluation, L + 1 tensors (N, D) float32."""
        with torch.autocast(features.device.type, enabled=False):
            hidden = self._project(features, dtype)
            return self._run_layers(hidden, plan.transformer, dtype, None, frozenset(), True)[1]

    def _is_recorded(self, device: torch.device, dtype: torch.dtype) -> bool:
        is_training = self.encoder.encoder.training and torch.is_grad_enabled()
        return self._graphs is not None and is_training and device.type == "cuda" and self._is_fused(device, dtype)

    def _is_fused(self, device: torch.device, dtype: torch.dtype) -> bool:
        layer = self.encoder.encoder.layers[0]
        activation = layer.feed_forward.intermediate_act_fn
        return has_kernels(device, dtype, layer.attention.head_dim) and is_exact_gelu(activation)

    def _draw_seeds(self) -> Tensor | None:
        """Draw the seeds of all dropouts, (L + 1, SEEDS) int64, from the global CPU generator; None if all are off.

        The first seed of the last row is for the dropout before the first layer.
        """
        transformer = self.encoder.encoder
        if not (rate_of(transformer.dropout) or any(any(_rates(layer)) for layer in transformer.layers)):
            return None
        return torch.randint(2**62, (len(transformer.layers) + 1, SEEDS))

    def _mark(self, seeds: Tensor | None, skipped: frozenset[int]) -> Tensor | None:
        """Mark skipped layers in the seeds, which recordings read; there are seeds if any layer may be skipped."""
        if self.config.layerdrop == 0:
            return seeds
        if seeds is None:
            seeds = torch.zeros((len(self.encoder.encoder.layers) + 1, SEEDS), dtype=torch.int64)
        seeds[list(skipped)] = SKIPPED
        return seeds

    def _project(self, features: Tensor, dtype: torch.dtype) -> Tensor:
        projection = self.encoder.feature_projection
        inputs = normed(features.float(), projection.layer_norm).to(dtype)
        return dropped(product(inputs, projection.projection), projection.dropout).float()

    def _transform(
        self,
        hidden: Tensor,
        plan: TransformerPlan,
        dtype: torch.dtype,
        seeds: Tensor | None,
        skipped: frozenset[int] | None = None,
    ) -> Tensor:
        """Run the positional convolution and all layers: (N, D) to (N, D), float32; draw `skipped` if it is None."""
        keeps_layers = self.layer_weights is not None
        last, layers = self._run_layers(hidden, plan, dtype, seeds, skipped, keeps_layers)
        return last if self.layer_weights is None else mix_layers(layers, self.layer_weights)

    def _run_layers(
        self,
        hidden: Tensor,
        plan: TransformerPlan,
        dtype: torch.dtype,
        seeds: Tensor | None,
        skipped: frozenset[int] | None,
        keeps_layers: bool,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the last frames and, if requested, the input of the first layer and each layer's output."""
        transformer = self.encoder.encoder
        hidden = hidden + positional_convolution(transformer.pos_conv_embed, hidden, plan.positions, dtype)
        if not self.is_stable:
            hidden = normed(hidden, transformer.layer_norm)
        prepare = self._fused_layers if self._is_fused(hidden.device, dtype) else self._plain_layers
        hidden, runs = prepare(hidden, plan.attention, dtype, seeds)
        layers = list(transformer.layers)
        table = self._table(plan.attention.longest, hidden.device)
        kept = [hidden] if keeps_layers else []
        taken = normed(hidden, layers[0].layer_norm).to(dtype) if self.is_stable else hidden.to(dtype)
        skipped = self._draw_skipped() if skipped is None else skipped
        used = [number for number in range(len(layers)) if number not in skipped]
        for number, after in zip(used, [*used[1:], None], strict=True):
            norms = self._norms(layers[number], None if after is None else layers[after])
            hidden, taken = self._run(partial(runs[number], norms=norms, is_last=after is None), hidden, taken, table)
            if keeps_layers:
                kept.append(hidden)
        return taken.float() if self.is_stable else hidden, kept

    def _plain_layers(
        self, hidden: Tensor, plan: AttentionPlan, dtype: torch.dtype, seeds: Tensor | None
    ) -> tuple[Tensor, list[RunLayer]]:
        """Return the layers' input, and functions that run each layer in PyTorch's operations, with their own draws."""
        transformer = self.encoder.encoder
        run = partial(run_plain_layer, plan=plan, is_stable=self.is_stable)
        runs: list[RunLayer] = [partial(run, layer=layer) for layer in transformer.layers]
        return dropped(hidden, transformer.dropout), runs

    def _fused_layers(
        self, hidden: Tensor, plan: AttentionPlan, dtype: torch.dtype, seeds: Tensor | None
    ) -> tuple[Tensor, list[RunLayer]]:
        """Return the layers' input, and functions that run each layer by kernels with weights copied to the dtype."""
        from net.wavlm.fused_layer import copy_weights
        from net.wavlm.layer_operations import Dropout, drop

        transformer = self.encoder.encoder
        layers = list(transformer.layers)
        drawn = [[None] * SEEDS] * (len(layers) + 1) if seeds is None else [row.unbind() for row in seeds.unbind()]
        hidden = drop(hidden, Dropout(rate_of(transformer.dropout), drawn[-1][0]))
        is_recording = self._graphs is not None and self._graphs.is_recording
        gradients: Sequence[LayerGradients | None] = self._gradients if is_recording else [None] * len(layers)
        skips = is_recording and self.config.layerdrop > 0
        runs: list[RunLayer] = []
        for layer, copies, own, given in zip(layers, copy_weights(layers, dtype), drawn, gradients, strict=False):
            dropouts = [Dropout(rate, seed, skips) for rate, seed in zip(_rates(layer), own, strict=True)]
            run = partial(self._fused_layer, layer=layer, copies=copies, dropouts=dropouts, gradients=given)
            runs.append(partial(run, plan=plan))
        return hidden, runs

    def _make_gradients(self) -> dict[Tensor, Tensor]:
        """Allocate the gradients that recordings write for trained layers; return each parameter's gradient."""
        from net.wavlm.fused_layer import LayerGradients, LayerWeights

        found: dict[Tensor, Tensor] = {}
        self._gradients = []
        for layer, after in pairwise([*self.encoder.encoder.layers, None]):
            weights = LayerWeights.of(layer, *self._norms(layer, after))
            is_trained = any(weight.requires_grad for weight in weights)
            given = LayerGradients.empty(self.heads, weights.inner_bias, weights.first_norm) if is_trained else None
            self._gradients.append(given)
            if given is not None:
                found.update(zip(weights, given.by_weight(), strict=True))
        return found

    def _run(
        self, layer: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]], *state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run a layer on stream, input and table; a second run repeats the random draws."""
        if not (self.is_checkpointed and torch.is_grad_enabled()):
            return layer(*state)
        stream, _, _ = state
        draws_itself = not self._is_fused(stream.device, state[1].dtype)
        found: tuple[Tensor, Tensor] = checkpoint(layer, *state, use_reentrant=False, preserve_rng_state=draws_itself)
        return found

    def _norms(self, layer: Any, after: Any) -> Norms:  # noqa: ANN401 - transformers' modules
        """Return the norms behind a layer's two parts; in a stable model the second one comes from the next layer."""
        if not self.is_stable:
            return layer.layer_norm, layer.final_layer_norm
        return layer.final_layer_norm, self.encoder.encoder.layer_norm if after is None else after.layer_norm

    def _fused_layer(
        self,
        stream: Tensor,
        taken: Tensor,
        table: Tensor,
        layer: Any,  # noqa: ANN401
        norms: Norms,
        plan: AttentionPlan,
        copies: ProductWeights,
        dropouts: Sequence[Dropout],
        gradients: LayerGradients | None,
        is_last: bool,
    ) -> tuple[Tensor, Tensor]:
        """Run one layer by its kernels; takes and returns stream and input as `run_layer` does."""
        from net.wavlm.fused_layer import LayerSettings, LayerWeights, run_layer

        attention, inside = layer.attention, dropouts[3]
        settings = LayerSettings(
            copies=copies,
            is_stable=self.is_stable,
            call=prepare_call(plan, taken.dtype, attention.head_dim, attention.scaling, inside.rate, inside.seed),
            eps=(norms[0].eps, norms[1].eps),
            dropouts=(dropouts[0], dropouts[1], dropouts[2]),
            next_dtype=torch.float32 if is_last and self.is_stable else taken.dtype,
            gradients=gradients,
            skip=inside.seed if inside.skips else None,
        )
        return run_layer(stream, taken, table, LayerWeights.of(layer, *norms), settings)

    def _table(self, longest: int, device: torch.device) -> Tensor:
        """Return the bias of each head by distance, (H, 2 reach - 1).

        Computed as a product with zeros and ones: its gradient is also a product, whereas indexing adds atomically.
        """
        reach = -(-longest // REACH_STEP) * REACH_STEP
        there = (self._one_hot.shape[1] + 1) // 2
        if self._one_hot.device != device or there < reach:
            count = int(self.config.num_buckets)
            with torch.inference_mode(False):  # the cached tensor must be usable in training, too
                buckets = relative_buckets(reach, count, self.config.max_bucket_distance)
                self._one_hot = F.one_hot(buckets, count).t().float().contiguous().to(device)
            there = reach
        embedding: Tensor = self.encoder.encoder.layers[0].attention.rel_attn_embed.weight
        return embedding.t() @ self._one_hot[:, there - reach : there + reach - 1]

    def _draw_skipped(self) -> frozenset[int]:
        """Draw the layers that layerdrop skips; the first, which owns the position bias, is never skipped."""
        rate = float(self.config.layerdrop) if self.encoder.encoder.training else 0.0
        if rate == 0:
            return frozenset()
        return frozenset(n for n in range(1, len(self.encoder.encoder.layers)) if float(torch.rand(())) < rate)


def mix_layers(layers: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Return the sum of layers (N, D), weighted by the softmax of (layers,)."""
    shares = weights.softmax(0)
    mixed = shares[0] * layers[0]
    for share, layer in zip(shares[1:], layers[1:], strict=True):
        mixed = mixed + share * layer
    return mixed


def _sent(seeds: Tensor | None, device: torch.device) -> Tensor | None:
    return None if seeds is None else to_device(seeds, device)


def _rates(layer: Any) -> list[float]:  # noqa: ANN401 - a transformers layer
    """Return the rates of a layer's dropouts, in the order of `SEEDS`."""
    feed, attention = layer.feed_forward, layer.attention
    inside = attention.dropout if attention.training else 0.0
    return [rate_of(layer.dropout), rate_of(feed.intermediate_dropout), rate_of(feed.output_dropout), inside]
