"""An experiment's keys for waveform augmentation; all effects are off by default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StrictStr

from utils.config.types import PathKey, Scale, Section, as_tuple
from utils.registry import FunctionOf, Registered

Probability = Annotated[float, Field(ge=0, le=1)]
Speeds = Annotated[tuple[Annotated[float, Field(ge=0.5, le=2)], ...], BeforeValidator(as_tuple), Field(min_length=1)]
NOISE_SNR_DB = (5.0, 20.0)
"""Default of `augment_noise_snr_db`."""


EFFECTS = {"gain": "utils.dataset.effects:gain"}
"""Effects of `augment_effects` by name: a new one is a function in `utils/dataset/effects.py` and a row here."""
EFFECT = Registered(tuple(EFFECTS), FunctionOf(("samples", "generator")))


class AugmentationKeys(Section):
    """Augmentation of training utterances, drawn anew each time; see docs/augmentation.md."""

    augment_speed: Speeds | None = None
    """Speed perturbation: speed factors with at most two decimals, one of which is drawn for each utterance."""
    augment_reverb: PathKey | None = None
    """Folder of impulse responses. A relative path starts where the command runs."""
    augment_reverb_prob: Probability | None = None
    """Share of training utterances that are convolved with an impulse response; 0 turns it off."""
    augment_noise: Annotated[Literal["white", "pink"] | PathKey, Field(union_mode="left_to_right")] | None = None
    """Generated noise, or a folder of recordings. A relative path starts where the command runs."""
    augment_noise_prob: Probability | None = None
    """Share of training utterances to which noise is added; 0 turns it off."""
    augment_noise_snr_db: Scale | None = None
    """Lowest and highest signal-to-noise ratio in dB; the ratio is drawn uniformly between them. Default: 5 to 20."""

    augment_effects: Annotated[tuple[Annotated[StrictStr, EFFECT], ...], BeforeValidator(as_tuple)] = ()
    """Effects that every training utterance goes through, in this order, before those above. `gain`: a random one of -6
    to +6 dB, which matters where waveforms are not normalised by utterance."""

    @property
    def augments_waveforms(self) -> bool:
        """Whether training utterances differ from epoch to epoch by more than their crop."""
        return bool(self.augment_speed or self.augment_reverb_prob or self.augment_noise_prob or self.augment_effects)

    @property
    def augmentation_folders(self) -> dict[str, Path]:
        """The folders from which augmentation takes recordings, by key."""
        used = {"augment_reverb": self.augment_reverb_prob, "augment_noise": self.augment_noise_prob}
        folders = {key: getattr(self, key) for key, probability in used.items() if probability}
        return {key: folder for key, folder in folders.items() if isinstance(folder, Path)}

    def describe_augmentation(self) -> str:
        """Describe the augmentation of training utterances; empty where there is none."""
        parts = [", ".join(self.augment_effects)] if self.augment_effects else []
        if self.augment_speed:
            parts.append(f"speed {', '.join(f'{factor:g}' for factor in self.augment_speed)}")
        if self.augment_reverb_prob:
            parts.append(f"reverberation of {self.augment_reverb_prob:.0%} by {self.augment_reverb}")
        if self.augment_noise_prob:
            low, high = self.augment_noise_snr_db or NOISE_SNR_DB
            parts.append(f"noise in {self.augment_noise_prob:.0%} at {low:g} to {high:g} dB: {self.augment_noise}")
        return "; ".join(parts)


def augmentation_problems(keys: AugmentationKeys) -> list[tuple[str, str]]:
    """Return the contradictions between the keys, as `(key, sentence)` pairs."""
    problems = []
    fine = [factor for factor in keys.augment_speed or () if abs(100 * factor - round(100 * factor)) > 1e-9]
    if fine:
        problems.append(("augment_speed", f"found {', '.join(map(str, fine))}; allowed: two decimals, such as 0.95"))
    sources = {"augment_reverb": "a folder", "augment_noise": '"white", "pink" or a folder'}
    for source, allowed in sources.items():
        probability = getattr(keys, f"{source}_prob")
        if probability and getattr(keys, source) is None:
            problems.append((f"{source}_prob", f"found {probability:g} without {source}; set that to {allowed}"))
        if probability is None and getattr(keys, source) is not None:
            problems.append((source, f"needs {source}_prob, the share of utterances, such as 0.5; 0 turns it off"))
    ratio = keys.augment_noise_snr_db
    if ratio is not None and ratio[0] > ratio[1]:
        problems.append(("augment_noise_snr_db", f"found {list(ratio)}; allowed: [lowest, highest]"))
    return problems
