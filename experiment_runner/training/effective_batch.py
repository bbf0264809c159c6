"""Losses over an effective batch whose micro-batches lie in several processes."""

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
    """Return what a separable loss of an effective batch is divided by; None where one micro-batch is all of it.

    Args:
        loss: The criterion.
        targets: Of this process's micro-batches.
        processes: That share the effective batch.
    """
    if len(targets) * processes.ranks == 1:
        return None
    totals = loss.totals(Targets.concatenate(list(targets)))
    processes.sum(list(totals.values()))
    return totals


def differentiate(
    loss: Loss, outputs: Outputs, targets: Targets, processes: ProcessGroup, scaler: GradScaler
) -> tuple[Terms, list[Tensor]]:
    """Compute any loss of all processes' utterances, and its gradient with respect to this process's outputs.

    Every process computes the same loss and carries the gradient of its own rows back into the model; the sum of the
    parameters' gradients over the processes is then that of the loss itself.

    Returns:
        The loss's terms, and the scaled gradients of `outputs.tensors()`.
    """
    everyone, known, own = gather(outputs, targets, processes)
    leaves = [tensor.detach().requires_grad_() for tensor in everyone.tensors()]
    terms: Terms = loss(everyone.with_tensors(leaves), known)
    gradients = torch.autograd.grad(scaler.scale(torch.stack(list(terms.values())).sum()), leaves)
    return {name: term.detach() for name, term in terms.items()}, [gradient[own] for gradient in gradients]


def gather(outputs: Outputs, targets: Targets, processes: ProcessGroup) -> tuple[Outputs, Targets, slice]:
    """Join outputs, without embeddings, and targets of all processes; the slice is where this one's own are."""
    outputs = outputs.without_embedding()
    heads = outputs.tensors()
    tensors, own = processes.gather([outputs.embedding, *heads, *targets.tensors()])
    joined = replace(outputs, embedding=tensors[0]).with_tensors(tensors[1 : 1 + len(heads)])
    return joined, Targets(*tensors[1 + len(heads) :]), own
