"""The keys of an upstream's regularisation; the defaults are the values that the upstream was published with."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from utils.config.types import Section

PUBLISHED: Literal["upstream"] = "upstream"
"""Stands for the value in the upstream's own `config.json`, see `utils.hub.published_config`."""
PublishedShare = Literal["upstream"] | Annotated[float, Field(ge=0, lt=1)]
PublishedLength = Literal["upstream"] | Annotated[int, Field(ge=1)]


class Regularisation(NamedTuple):
    """An upstream's dropouts, layerdrop and SpecAugment in numbers; see the keys of the same names."""

    hidden_dropout: float
    attention_dropout: float
    activation_dropout: float
    feat_proj_dropout: float
    layerdrop: float
    mask_time_prob: float
    mask_time_length: int
    mask_feature_prob: float
    mask_feature_length: int

    def __str__(self) -> str:
        text = (
            f"dropout {self.hidden_dropout:g} hidden, {self.attention_dropout:g} attention, "
            f"{self.activation_dropout:g} activation, {self.feat_proj_dropout:g} features, layerdrop {self.layerdrop:g}"
        )
        masks = {
            "frames": (self.mask_time_prob, self.mask_time_length),
            "channels": (self.mask_feature_prob, self.mask_feature_length),
        }
        used = [f"{share:g} x {span} {what}" for what, (share, span) in masks.items() if share]
        return f"{text}, {'masks ' + ' and '.join(used) if used else 'no masks'}"


REGULARISATION = Regularisation._fields
"""Names of the keys below, in the same order."""
FORMER_REGULARISATION = Regularisation(0.1, 0.1, 0.0, 0.1, 0.0, 0.05, 10, 0.0, 10)
"""Defaults of every upstream before the published values were used; still those of the built-in shapes."""


class RegularisationKeys(Section):
    """Keeps the upstream from memorising its training recordings; off in evaluation and in frozen parts."""

    hidden_dropout: PublishedShare = PUBLISHED
    """Dropout of the upstream's residual branches."""
    attention_dropout: PublishedShare = PUBLISHED
    """Dropout of the upstream's attention weights."""
    activation_dropout: PublishedShare = PUBLISHED
    """Dropout inside the upstream's feed-forward layers."""
    feat_proj_dropout: PublishedShare = PUBLISHED
    """Dropout after the projection of the convolutional features."""
    layerdrop: PublishedShare = PUBLISHED
    """Probability that a forward pass skips an upstream layer; the first is never skipped. With `layer_weighting`,
    `freeze = N` or a frozen upstream, the published value counts as 0, and a number is refused."""
    mask_time_prob: PublishedShare = PUBLISHED
    """SpecAugment: share of frames masked in training; 0 turns it off."""
    mask_time_length: PublishedLength = PUBLISHED
    """SpecAugment: length of a masked span in frames (20 ms each)."""
    mask_feature_prob: PublishedShare = PUBLISHED
    """SpecAugment: share of feature channels masked in training; 0 turns it off."""
    mask_feature_length: PublishedLength = PUBLISHED
    """SpecAugment: length of a masked span in channels."""

    @property
    def published_keys(self) -> tuple[str, ...]:
        """The keys that still stand for the upstream's published values."""
        return tuple(name for name in REGULARISATION if getattr(self, name) == PUBLISHED)

    @property
    def regularisation(self) -> Regularisation:
        """The keys as numbers.

        Raises:
            ValueError: If a key still stands for the upstream's published value.
        """
        if self.published_keys:
            raise ValueError(f"{', '.join(self.published_keys)}: not yet read from the upstream's config.json")
        return Regularisation(*(getattr(self, name) for name in REGULARISATION))
