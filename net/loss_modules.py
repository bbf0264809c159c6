"""Training criteria.

One contract: a loss is built with the class priors of the training split, takes the outputs and targets of a whole
effective batch, and returns named terms, whose sum is minimised. A loss that is a weighted mean over utterances is
`separable`: each micro-batch yields its exact share if the weights of the whole effective batch are passed as `totals`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from net.ser import Outputs

CCC_EPSILON = 1e-8
EMOTION_TARGETS = ("emotion", "emotion_mask", "attributes", "attribute_mask", "votes", "votes_mask")


@dataclass(frozen=True)
class Targets:
    """Labels of a batch of utterances; unknown ones are masked and do not count. Masks are True for known labels.

    Attributes:
        emotion: Class indices, (batch,) int64; any valid index where masked.
        emotion_mask: Mask of the classes, (batch,) bool.
        attributes: Attributes on the training scale [0, 1], (batch, attributes); any number where masked.
        attribute_mask: Mask of the attributes, (batch, attributes) bool.
        votes: Shares of the raters' votes, (batch, classes); (batch, 0) if votes are not learnt, any number where
            masked.
        votes_mask: Mask of the votes, (batch,) bool.
        auxiliary: Class indices by auxiliary head, each (batch,) int64, -1 where unknown.
    """

    emotion: Tensor
    emotion_mask: Tensor
    attributes: Tensor
    attribute_mask: Tensor
    votes: Tensor
    votes_mask: Tensor
    auxiliary: Mapping[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def concatenate(parts: list[Targets]) -> Targets:
        """Join the targets of several batches."""
        tensors = [torch.cat(column) for column in zip(*(part.tensors() for part in parts), strict=True)]
        return parts[0].with_tensors(tensors)

    def select(self, rows: Tensor) -> Targets:
        """Return the targets of the given rows, in the order given."""
        return self.with_tensors([tensor[rows] for tensor in self.tensors()])

    def tensors(self) -> list[Tensor]:
        """Return all tensors, in the order of the attributes above."""
        return [*(getattr(self, name) for name in EMOTION_TARGETS), *self.auxiliary.values()]

    def with_tensors(self, tensors: Sequence[Tensor]) -> Targets:
        """Return the same targets with other tensors, in the order of `tensors`."""
        auxiliary = dict(zip(self.auxiliary, tensors[len(EMOTION_TARGETS) :], strict=True))
        return replace(self, auxiliary=auxiliary, **dict(zip(EMOTION_TARGETS, tensors, strict=False)))


@dataclass(frozen=True)
class ClassPriors:
    """Utterances of each class in the training split, (classes,)."""

    counts: Tensor


Terms = dict[str, Tensor]
"""Scalars by log name."""


class Loss(nn.Module, ABC):
    """Base of all criteria."""

    separable = True
    """Whether the loss can be computed one micro-batch at a time."""
    learns: str = ""
    """Labels that it learns from, see `LossEntry` in `utils/config/losses.py`."""
    auxiliary_terms: frozenset[str] = frozenset()
    """Terms that are trained but influence neither model selection nor early stopping."""

    def totals(self, targets: Targets) -> Terms:
        """Return the sum of the utterances' weights for each term: the divisor of a separable loss.

        Empty for a loss that is not separable.
        """
        return {}

    @abstractmethod
    def forward(self, outputs: Outputs, targets: Targets, totals: Terms | None = None) -> Terms:
        """Return named terms, each a scalar in fp32.

        Args:
            outputs: The model's outputs.
            targets: Their targets.
            totals: `totals` of the whole effective batch, if this is only a part of it.
        """


class CategoricalLoss(Loss):
    """Base of the losses that are a weighted mean of a function of logits and class over the labelled utterances.

    Args:
        priors: Class counts of the training split, each at least 1.
    """

    learns = "classes"
    log_priors: Tensor
    class_weights: Tensor

    def __init__(self, priors: ClassPriors) -> None:
        super().__init__()
        counts = priors.counts.double()
        self.register_buffer("log_priors", counts.log().float(), persistent=False)
        self.register_buffer("class_weights", self.weigh_classes(counts).float(), persistent=False)

    def weigh_classes(self, counts: Tensor) -> Tensor:
        """Return the weight of each class, (classes,)."""
        return torch.ones_like(counts)

    def per_utterance(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return the loss of each utterance before weighting, (batch,)."""
        return F.cross_entropy(logits, classes, reduction="none")

    def totals(self, targets: Targets) -> Terms:
        """Return the summed class weights of the labelled utterances."""
        return {"emotion_loss": self._weights(targets).sum()}

    def forward(self, outputs: Outputs, targets: Targets, totals: Terms | None = None) -> Terms:
        """Return `emotion_loss`."""
        assert outputs.emotion is not None
        losses = self.per_utterance(outputs.emotion.float(), targets.emotion)
        total = (totals or self.totals(targets))["emotion_loss"]
        weighted = torch.where(targets.emotion_mask, losses * self._weights(targets), 0.0).sum()
        return {"emotion_loss": weighted / total.clamp(min=1e-12)}

    def _weights(self, targets: Targets) -> Tensor:
        return self.class_weights[targets.emotion] * targets.emotion_mask


class CrossEntropy(CategoricalLoss):
    """Plain cross-entropy."""


class WeightedCrossEntropy(CategoricalLoss):
    """Cross-entropy, each utterance weighted by N / (C · n_c); the mean divides by the sum of the weights."""

    def weigh_classes(self, counts: Tensor) -> Tensor:
        """Return N / (C · n_c)."""
        return counts.sum() / (len(counts) * counts)


class BalancedSoftmax(CategoricalLoss):
    """Cross-entropy of softmax(logits + log n_c), so that the plain logits are balanced.

    Source: J. Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020, equation 4.
    """

    def per_utterance(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return the cross-entropy under the training prior."""
        return F.cross_entropy(logits + self.log_priors, classes, reduction="none")


class Focal(CategoricalLoss):
    """(1 − p)^γ · −log p of the true class.

    Source: T.-Y. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 4.
    """

    def __init__(self, priors: ClassPriors, gamma: float) -> None:
        super().__init__(priors)
        self.gamma = gamma

    def per_utterance(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return the focal loss."""
        cross_entropy = F.cross_entropy(logits, classes, reduction="none")
        return (-torch.expm1(-cross_entropy)).clamp(min=1e-7) ** self.gamma * cross_entropy


class VotesLoss(Loss):
    """Base of the losses that learn the raters' votes: the mean over the utterances whose votes are known."""

    learns = "votes"

    @abstractmethod
    def per_utterance(self, log_probabilities: Tensor, votes: Tensor) -> Tensor:
        """Return the loss of each utterance, (batch,), from log-probabilities and votes, both (batch, classes)."""

    def totals(self, targets: Targets) -> Terms:
        """Return the number of utterances with votes."""
        return {"emotion_loss": targets.votes_mask.sum().float()}

    def forward(self, outputs: Outputs, targets: Targets, totals: Terms | None = None) -> Terms:
        """Return `emotion_loss`."""
        assert outputs.emotion is not None
        losses = self.per_utterance(outputs.emotion.float().log_softmax(-1), targets.votes)
        known = torch.where(targets.votes_mask, losses, 0.0).sum()
        return {"emotion_loss": known / (totals or self.totals(targets))["emotion_loss"].clamp(min=1)}


class SoftCrossEntropy(VotesLoss):
    """Cross-entropy of the votes' shares v against the model's probabilities: −Σ v log p."""

    def per_utterance(self, log_probabilities: Tensor, votes: Tensor) -> Tensor:
        """Return the cross-entropy."""
        return -(votes * log_probabilities).sum(-1)


class KLDivergence(VotesLoss):
    """Divergence of the model's probabilities from the votes' shares, Σ v (log v − log p), with 0 log 0 = 0.

    Its gradient is that of `SoftCrossEntropy`; its value is 0 where the model's probabilities equal the votes' shares.
    """

    def per_utterance(self, log_probabilities: Tensor, votes: Tensor) -> Tensor:
        """Return the divergence."""
        divergence: Tensor = (torch.special.xlogy(votes, votes) - votes * log_probabilities).sum(-1)
        return divergence


class AttributeLoss(Loss):
    """Base of the attributes' criteria: one term per attribute, each divided by the number of attributes.

    Args:
        names: Attributes in output order.
        weight: Factor of the whole criterion.
    """

    learns = "attributes"

    def __init__(self, names: tuple[str, ...], weight: float = 1.0) -> None:
        super().__init__()
        self.names = names
        self.weight = weight

    def _named(self, values: Tensor, prefix: str) -> Terms:
        scaled = values * (self.weight / len(self.names))
        return {f"{prefix}_{name}": scaled[index] for index, name in enumerate(self.names)}


class CCCLoss(AttributeLoss):
    """1 − CCC per attribute over the whole effective batch, in fp32.

    CCC = 2 cov(x, y) / (var(x) + var(y) + (mean(x) − mean(y))² + 1e-8), with population moments over the utterances
    whose attribute is known. An attribute that is known for no utterance has the constant loss 1.

    Source: L. I-K. Lin, "A Concordance Correlation Coefficient to Evaluate Reproducibility", Biometrics 45(1), 1989.
    """

    separable = False

    def forward(self, outputs: Outputs, targets: Targets, totals: Terms | None = None) -> Terms:
        """Return `ccc_loss_<attribute>`."""
        assert outputs.attributes is not None
        predicted, known = outputs.attributes.float(), targets.attribute_mask
        truth = torch.where(known, targets.attributes.float(), 0.0)
        predicted = torch.where(known, predicted, 0.0)
        count = known.sum(0).clamp(min=1)
        mean_p, mean_t = predicted.sum(0) / count, truth.sum(0) / count
        centred_p, centred_t = (predicted - mean_p) * known, (truth - mean_t) * known
        covariance = (centred_p * centred_t).sum(0) / count
        spread = (centred_p.square().sum(0) + centred_t.square().sum(0)) / count + (mean_p - mean_t).square()
        return self._named(1 - 2 * covariance / (spread + CCC_EPSILON), "ccc_loss")


class MSELoss(AttributeLoss):
    """Mean squared error per attribute on the training scale."""

    def totals(self, targets: Targets) -> Terms:
        """Return the number of utterances with each attribute."""
        counts = targets.attribute_mask.sum(0).float()
        return {f"mse_loss_{name}": counts[index] for index, name in enumerate(self.names)}

    def forward(self, outputs: Outputs, targets: Targets, totals: Terms | None = None) -> Terms:
        """Return `mse_loss_<attribute>`."""
        assert outputs.attributes is not None
        totals = totals or self.totals(targets)
        counts = torch.stack([totals[f"mse_loss_{name}"] for name in self.names]).clamp(min=1)
        errors = (outputs.attributes.float() - targets.attributes.float()).square()
        return self._named(torch.where(targets.attribute_mask, errors, 0.0).sum(0) / counts, "mse_loss")


class AuxiliaryLoss(Loss):
    """Cross-entropy of an auxiliary head, averaged over the utterances whose class is known.

    Args:
        head: Name of the head.
        weight: Factor of the term.
    """

    def __init__(self, head: str, weight: float) -> None:
        super().__init__()
        self.head, self.weight, self.term = head, weight, f"{head}_loss"
        self.auxiliary_terms = frozenset({self.term})

    def totals(self, targets: Targets) -> Terms:
        """Return the number of utterances with a known class."""
        return {self.term: (targets.auxiliary[self.head] >= 0).sum().float()}

    def forward(self, outputs: Outputs, targets: Targets, totals: Terms | None = None) -> Terms:
        """Return `<head>_loss`."""
        classes = targets.auxiliary[self.head]
        losses = F.cross_entropy(outputs.auxiliary[self.head].float(), classes.clamp(min=0), reduction="none")
        is_known = classes >= 0
        known = torch.where(is_known, losses, 0.0).sum()
        count = totals[self.term] if totals else is_known.sum().float()
        return {self.term: self.weight * known / count.clamp(min=1)}


class JointLoss(Loss):
    """Several losses, whose terms are returned together."""

    def __init__(self, parts: Sequence[Loss]) -> None:
        super().__init__()
        self._parts = nn.ModuleList(parts)
        self.separable = all(part.separable for part in parts)
        self.auxiliary_terms = frozenset().union(*(part.auxiliary_terms for part in parts))

    @property
    def parts(self) -> list[Loss]:
        """The losses, in the order of their terms."""
        return [part for part in self._parts if isinstance(part, Loss)]

    def totals(self, targets: Targets) -> Terms:
        """Return every part's totals."""
        return {name: total for part in self.parts for name, total in part.totals(targets).items()}

    def forward(self, outputs: Outputs, targets: Targets, totals: Terms | None = None) -> Terms:
        """Return every part's terms."""
        return {name: term for part in self.parts for name, term in part(outputs, targets, totals).items()}
