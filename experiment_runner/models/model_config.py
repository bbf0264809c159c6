"""Everything needed to rebuild a model and its preprocessing: the `config.json` of a checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dataset_module.ser_dataset import Labels
from net.encoder import Encoder
from net.ser_model_wrapper import HeadShape, SERModelWrapper
from net.spec_augment import SpecAugment
from net.upstream import Upstream
from utils.config.encoders import AUTO, ENCODER
from utils.config.heads import stored_heads
from utils.config.poolings import ATTENTIVE_STATISTICS, POOLING, POOLINGS
from utils.config.regularisation import Regularisation
from utils.data.wav import SAMPLE_RATE_HZ
from utils.dataset.normalisation import Normalisation
from utils.hub.upstreams import build_encoder
from utils.io.user_code import import_trusted
from utils.registry import choose, is_user_code, load

FORMAT_VERSION = 1
NO_MASKING = SpecAugment(0.0, 1, 0.0, 1)
UPSTREAM_SETTINGS = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "layerdrop")


@dataclass(frozen=True)
class ModelConfig:
    """A trained model without its weights.

    Attributes:
        model_type: `model_type` of the experiment list.
        classes: Emotion classes in output order; empty if none were trained.
        attributes: Attributes in output order; empty if none were trained.
        attribute_scale: Lowest and highest value of the training corpus, represented by outputs 0 and 1.
        class_counts: Training utterances of each class.
        normalisation: Normalisation of every waveform.
        layer_weighting: Whether frames are a weighted sum of all layers.
        head_dropout: Dropout of the heads.
        upstream: The encoder's transformers config.
        sample_rate_hz: Sample rate of the waveforms, in Hz.
        auxiliary: Classes of each auxiliary head in output order, by its name.
        pooling: Registered name of the pooling, or the user's own code.
        encoder: The user's own code that runs the upstream, or `auto`.
        user_code: Hash of the user's own code that the model consists of, by its name.
    """

    model_type: str
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    attribute_scale: tuple[float, float]
    class_counts: tuple[int, ...]
    normalisation: Normalisation
    layer_weighting: bool
    head_dropout: float
    upstream: dict[str, Any]
    sample_rate_hz: int = SAMPLE_RATE_HZ
    auxiliary: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pooling: str = ATTENTIVE_STATISTICS
    encoder: str = AUTO
    user_code: Mapping[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> Labels:
        """Names of the model's outputs."""
        return Labels(self.classes, self.attributes, self.attribute_scale, self.auxiliary)

    @property
    def heads(self) -> HeadShape:
        """Sizes of the model's heads."""
        auxiliary = {name: len(classes) for name, classes in self.auxiliary.items()}
        return HeadShape(len(self.classes), len(self.attributes), self.head_dropout, auxiliary)

    def to_json(self) -> dict[str, Any]:
        """Return the document that `from_json` reads."""
        document = asdict(self)
        further = document.pop("auxiliary")
        document |= {"genders": further.pop("gender", ()), "heads": further}
        for name in ("pooling", "encoder", "user_code", "heads"):  # checkpoints from before them have none either
            if document[name] in (ATTENTIVE_STATISTICS, AUTO, {}):
                del document[name]
        return {"format_version": FORMAT_VERSION, **document}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ModelConfig:
        """Rebuild a description.

        Raises:
            ValueError: If the document has another format version.
        """
        values = {name: value for name, value in document.items() if name not in ("genders", "heads")}
        version = values.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ValueError(f"format_version is {version}, this program reads {FORMAT_VERSION}; use another release")
        if values["sample_rate_hz"] != SAMPLE_RATE_HZ:
            raise ValueError(f"sample_rate_hz is {values['sample_rate_hz']}, this program reads {SAMPLE_RATE_HZ}")
        for key in ("classes", "attributes", "attribute_scale", "class_counts"):
            values[key] = tuple(values[key])
        values["auxiliary"] = stored_heads(document)
        values["normalisation"] = Normalisation(**values["normalisation"])
        return cls(**values)

    def rebuild(self, trusted: Collection[str] = ()) -> SERModelWrapper:
        """Return the model with random weights, ready to load a checkpoint's weights.

        Args:
            trusted: Modules of the user's own code that may be imported.

        Raises:
            UserCodeError: If the model needs code that is not trusted, cannot be imported, or has changed.
        """
        for name, contract in ((self.pooling, POOLING.contract), (self.encoder, ENCODER.contract)):
            if is_user_code(name):
                import_trusted(name, self.user_code.get(name), contract, trusted)
        model, family = build_encoder(self.upstream), family_of(self.encoder)
        upstream = Upstream(model, NO_MASKING, self.layer_weighting, freeze="none", family=family)
        return SERModelWrapper(upstream, self.heads, choose(POOLINGS, self.pooling))


def family_of(encoder: str) -> type[Encoder] | None:
    """Return the user's own code that an experiment's `encoder` names, which must have been imported; else None."""
    family: type[Encoder] | None = load(encoder) if is_user_code(encoder) else None
    return family


def without_place(upstream: dict[str, Any]) -> dict[str, Any]:
    """Return a transformers config without the folder that it was loaded from, which is private."""
    return {name: value for name, value in upstream.items() if name != "_name_or_path"}


def upstream_settings(numbers: Regularisation) -> dict[str, float]:
    """Return the dropouts and layerdrop of a transformers config."""
    return {name: getattr(numbers, name) for name in UPSTREAM_SETTINGS}


def spec_augment(numbers: Regularisation) -> SpecAugment:
    """Return an experiment's SpecAugment."""
    return SpecAugment(
        numbers.mask_time_prob, numbers.mask_time_length, numbers.mask_feature_prob, numbers.mask_feature_length
    )
