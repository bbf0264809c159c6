"""Losses over an effective batch whose micro-batches are spread over several processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from experiment_runner.distributed.process_group import ProcessGroup
from net.loss_modules import Loss, Targets, Terms
from net.ser import Outputs


def total_weights(loss: Loss, targets: Sequence[Targets], processes: ProcessGroup) -> Terms | None:
    """Return the divisors of a separable loss over an effective batch; None if it is a single micro-batch.

    Args:
        loss: The criterion.
        targets: Targets of this process's micro-batches.
        processes: Processes that share the effective batch.
    """
    if len(targets) * processes.ranks == 1:
        return None
    totals = loss.totals(Targets.concatenate(list(targets)))
    processes.sum(list(totals.values()))
    return totals


def differentiate(
    loss: Loss, outputs: Outputs, targets: Targets, processes: ProcessGroup, scaler: GradScaler
) -> tuple[Terms, list[Tensor]]:
    """Compute any loss over all processes' utterances, and its gradient with respect to this process's outputs.

    Every process computes the same loss and backpropagates the gradient of its own rows; summed over the processes, the
    parameters' gradients are then those of the loss itself.

    Returns:
        The loss's terms, and the scaled gradients of `outputs.tensors()`.
    """
    everyone, known, own = gather(outputs, targets, processes)
    leaves = [tensor.detach().requires_grad_() for tensor in everyone.tensors()]
    terms: Terms = loss(everyone.with_tensors(leaves), known)
    gradients = torch.autograd.grad(scaler.scale(torch.stack(list(terms.values())).sum()), leaves)
    return {name: term.detach() for name, term in terms.items()}, [gradient[own] for gradient in gradients]


def gather(outputs: Outputs, targets: Targets, processes: ProcessGroup) -> tuple[Outputs, Targets, slice]:
    """Join the outputs (without embeddings) and targets of all processes; the slice selects this process's rows."""
    outputs = outputs.without_embedding()
    heads = outputs.tensors()
    tensors, own = processes.gather([outputs.embedding, *heads, *targets.tensors()])
    joined = replace(outputs, embedding=tensors[0]).with_tensors(tensors[1 : 1 + len(heads)])
    return joined, targets.with_tensors(tensors[1 + len(heads) :]), own
