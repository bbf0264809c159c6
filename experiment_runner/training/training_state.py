"""The state from which training resumes, as tensors and JSON.

No random generator lives from step to step, so no generator's state is kept: the model's random draws depend on (seed,
step), those for an utterance on (seed, epoch, utterance), and the order on (seed, epoch). The schedule is a function of
the step, and early stopping a function of the epochs' metrics.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from experiment_runner.storage.checkpoints import CheckpointError

OPTIMISER = "optimiser."
"""Prefix of the optimiser's tensor names; the parameter's name, a dot and the optimiser's key follow."""


def optimiser_tensors(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's tensors, named by parameter and key."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{OPTIMISER}{names[id(parameter)]}.{key}": value
        for parameter, values in optimiser.state.items()
        for key, value in values.items()
    }


def restore_optimiser(model: nn.Module, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors of an earlier optimiser over the same parameters.

    Raises:
        CheckpointError: If the tensors belong to other parameters.
    """
    trained = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    parameters = {name: parameter for name, parameter in model.named_parameters() if id(parameter) in trained}
    for name, tensor in tensors.items():
        if name.startswith(OPTIMISER):
            owner, _, key = name.removeprefix(OPTIMISER).rpartition(".")
            if owner not in parameters:
                raise CheckpointError(f"the checkpoint has optimiser values of {owner}, which is not trained here")
            parameter = parameters[owner]
            optimiser.state[parameter][key] = tensor.to(parameter.device)
