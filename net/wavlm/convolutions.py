"""The waveform feature extractor of wav2vec 2.0 and its relatives on utterances laid end to end.

Every utterance starts at a multiple of the extractor's total stride in one long signal, so that frame k of layer l of
an utterance at sample s lies at row s / stride_l + k of one grid per layer. A convolution over the whole signal then
computes every utterance's frames as if it were alone; the few rows between utterances mix two of them and are dropped
at the end. Activations are (time, channels): in this layout a strided convolution is a sum of matrix products on views.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from net.kernels.triton_support import is_exact_gelu, runs_triton
from net.packing.placement import Placement


def extract(feature_extractor: Any, samples: Tensor, placement: Placement, dtype: torch.dtype) -> Tensor:  # noqa: ANN401
    """Compute the frames of every utterance as the extractor would for that utterance alone.

    Fused kernels run on CUDA if no gradient is needed, the differentiable form otherwise.

    Args:
        feature_extractor: The transformers module (`conv_layers` of `conv`, `activation` and perhaps `layer_norm`).
        samples: Utterances end to end, (sum of counts,) float32.
        placement: Placement of these utterances, on the samples' device.
        dtype: Element type of the products and of the result; the first convolution is always float32.

    Returns:
        Frames of the utterances end to end, (total_frames, conv_dim).

    Raises:
        ValueError: If a layer is of an unsupported kind.
    """
    wants_gradient = torch.is_grad_enabled() and any(weight.requires_grad for weight in feature_extractor.parameters())
    is_fused = samples.is_cuda and runs_triton(samples.device) and not wants_gradient
    is_fused = is_fused and all(is_exact_gelu(layer.activation) for layer in feature_extractor.conv_layers)
    return (extract_fused if is_fused else extract_plain)(feature_extractor, samples, placement, dtype)


def extract_plain(feature_extractor: Any, samples: Tensor, placement: Placement, dtype: torch.dtype) -> Tensor:  # noqa: ANN401
    """Do what `extract` does in PyTorch's own operations, differentiable with respect to every parameter."""
    first, *others = feature_extractor.conv_layers
    with torch.autocast(samples.device.type, enabled=False):
        hidden = _first_layer(first, placement.lay_out(samples.float()), placement).to(dtype)
        for layer in others:
            hidden = layer.activation(_normalise(layer, convolve(hidden, layer.conv)))
        return hidden.index_select(0, placement.rows)


@torch.no_grad()
def extract_fused(feature_extractor: Any, samples: Tensor, placement: Placement, dtype: torch.dtype) -> Tensor:  # noqa: ANN401
    """Do what `extract` does with Triton kernels around the products, without gradients."""
    from net.kernels import convolutions as kernels

    first, *others = feature_extractor.conv_layers
    with torch.autocast(samples.device.type, enabled=False):
        signal = placement.lay_out(samples.float())
        if isinstance(_norm(first), nn.GroupNorm):
            moments = kernels.window_moments(signal, placement)
            hidden = kernels.first_layer(signal, *folded_group_norm(first, *moments), None, placement, dtype)
        else:
            hidden = kernels.first_layer(signal, *_unfolded(first), _norm(first), placement, dtype)
        for layer in others:
            norm = _norm(layer)
            hidden = convolve_channels_last(hidden, layer.conv)
            hidden = torch.ops.aten.gelu_(hidden) if norm is None else kernels.layer_norm_gelu_(hidden, norm)
        return hidden.index_select(0, placement.rows)


def convolve(hidden: Tensor, conv: nn.Conv1d) -> Tensor:
    """Convolve (time, channels) to (frames, out_channels) in the dtype of `hidden`.

    The kernel's taps fall into groups of `stride` taps. The windows of one group do not overlap, so that together they
    are a view of `hidden` as a matrix, and the convolution is one product per group; in half precision, one product of
    all groups side by side, since a sum of products would be rounded after each.
    """
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    if conv.groups != 1 or conv.dilation[0] != 1 or conv.padding != (0,):
        raise ValueError(f"a feature extractor's convolution has no groups, dilation or padding, unlike {conv}")
    channels = hidden.shape[1]
    rows = (hidden.shape[0] - kernel) // stride + 1
    weight = conv.weight.to(hidden.dtype).permute(0, 2, 1).flatten(1)
    bias = None if conv.bias is None else conv.bias.to(hidden.dtype)
    groups = []
    for first in range(0, kernel, stride):
        width = min(stride, kernel - first) * channels
        place = hidden.storage_offset() + first * channels
        groups.append(hidden.as_strided((rows, width), (stride * channels, 1), place))
    if hidden.dtype.itemsize < 4 and len(groups) > 1:
        return F.linear(torch.cat(groups, dim=1), weight, bias)
    first_part, *parts = torch.split(weight, [group.shape[1] for group in groups], dim=1)
    result = F.linear(groups[0], first_part, bias)
    for group, part in zip(groups[1:], parts, strict=True):
        result = result.addmm_(group, part.t())
    return result


def convolve_channels_last(hidden: Tensor, conv: nn.Conv1d) -> Tensor:
    """Do what `convolve` does by the library's 2-D convolution of an image one pixel high, whose memory is the same.

    On an H100 this is a tenth faster than the products; the library chooses the order of the sums.
    """
    weight = conv.weight.to(hidden.dtype).unsqueeze(2).contiguous(memory_format=torch.channels_last)
    bias = None if conv.bias is None else conv.bias.to(hidden.dtype)
    return F.conv2d(hidden.t()[None, :, None], weight, bias, (1, conv.stride[0]))[0, :, 0].t().contiguous()


def window_moments(signal: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
    """Return the mean (batch, kernel) and covariance (batch, kernel, kernel) of each utterance's first-layer windows.

    Computed in float64: neighbouring samples of speech are so alike that a filter's output has a far smaller variance
    than its input, and the covariance must still resolve it.
    """
    means, covariances = [], []
    for offset, count, frames in zip(placement.offsets, placement.counts, placement.lengths[0], strict=True):
        windows = signal[offset : offset + count].double().unfold(0, placement.kernels[0], placement.strides[0])
        mean = windows.mean(0)
        means.append(mean)
        covariances.append(windows.T @ windows / frames - torch.outer(mean, mean))
    return torch.stack(means), torch.stack(covariances)


def folded_group_norm(layer: Any, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Fold a group norm with one channel per group into the convolution before it, for every utterance.

    A channel w of the convolution has the mean w·m and the variance w'Cw over an utterance whose windows have the mean
    m and the covariance C. The convolution's bias cancels.

    Args:
        layer: A convolution with one input channel, and its group norm.
        mean: Means of the windows, (batch, kernel) float64.
        covariance: Covariances of the windows, (batch, kernel, kernel) float64.

    Returns:
        Weights (batch, channels, kernel) and biases (batch, channels), float32.
    """
    norm = layer.layer_norm
    if norm.num_groups != norm.num_channels:
        raise ValueError(f"a packed group norm needs one channel a group, not {norm.num_channels} in {norm.num_groups}")
    weight = layer.conv.weight[:, 0].double()
    variance = ((weight @ covariance) * weight).sum(-1).clamp_min(0.0)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    bias = norm.bias - scale * (mean @ weight.T)
    return (scale.unsqueeze(-1) * weight).float(), bias.float()


def _first_layer(layer: Any, signal: Tensor, placement: Placement) -> Tensor:  # noqa: ANN401
    """Return the first layer's output for the signal, (first_rows, channels) float32."""
    windows = signal.unfold(0, placement.kernels[0], placement.strides[0])
    if not isinstance(_norm(layer), nn.GroupNorm):
        weight, bias = _unfolded(layer)
        activated: Tensor = layer.activation(_normalise(layer, F.linear(windows, weight[0], bias[0])))
        return activated
    weights, biases = folded_group_norm(layer, *window_moments(signal, placement))
    borders = [offset // placement.strides[0] for offset in placement.offsets] + [placement.first_rows]
    parts = torch.split(windows, [end - start for start, end in zip(borders, borders[1:], strict=False)])
    outputs = [F.linear(part, weight, bias) for part, weight, bias in zip(parts, weights, biases, strict=True)]
    hidden: Tensor = layer.activation(torch.cat(outputs))
    return hidden


def _unfolded(layer: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Return weights (1, channels, kernel) and biases (1, channels) of a first convolution, float32."""
    weight = layer.conv.weight[:, 0].float()
    bias = weight.new_zeros(len(weight)) if layer.conv.bias is None else layer.conv.bias.float()
    return weight.unsqueeze(0), bias.unsqueeze(0)


def _norm(layer: Any) -> nn.GroupNorm | nn.LayerNorm | None:  # noqa: ANN401
    norm = getattr(layer, "layer_norm", None)
    if norm is None or isinstance(norm, nn.GroupNorm | nn.LayerNorm):
        return norm
    raise ValueError(f"a feature extractor's layer has a group norm, a layer norm or none, not {norm}")


def _normalise(layer: Any, hidden: Tensor) -> Tensor:  # noqa: ANN401
    norm = _norm(layer)
    if norm is None:
        return hidden
    if isinstance(norm, nn.GroupNorm):
        raise ValueError("only the first layer of a feature extractor may have a group norm")
    return F.layer_norm(hidden.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(hidden.dtype)
