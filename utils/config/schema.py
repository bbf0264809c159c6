"""The keys of `config.toml` and of `experiments_config.toml`: types, defaults, ranges and purposes.

`docs/configuration.md` is generated from this file. Nothing heavier than pydantic is imported here, so that a mistake
in a file is reported before torch or pandas are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictStr

from utils.config.augmentation import AugmentationKeys, augmentation_problems
from utils.config.encoders import AUTO, ENCODER
from utils.config.heads import MODEL_TYPE, Head, heads_of
from utils.config.losses import ATTRIBUTES, BALANCING, CLASSES, VOTES, loss_entry, losses_of
from utils.config.poolings import ATTENTIVE_STATISTICS, POOLING
from utils.config.regularisation import FORMER_REGULARISATION, PUBLISHED, REGULARISATION, RegularisationKeys
from utils.config.samplers import CLASS_BALANCED, RANDOM, SAMPLER
from utils.config.schedules import SCHEDULE
from utils.config.types import (
    LICENSE_PATTERN,
    NAME_PATTERN,
    NO_EFFECT_ON_RESULTS,
    PROJECT_PATTERN,
    REPOSITORY_PATTERN,
    AnyLoss,
    AttributeLoss,
    Count,
    Fraction,
    Names,
    Positive,
    Section,
    Seeds,
    Tags,
    as_tuple,
    expand_folder,
)
from utils.registry import FunctionOf, Registered, is_user_code, user_code_of
from utils.word_forms import fold


class ClassGroups(Section):
    """Named groups of classes for the head, mid and tail figures."""

    head: Names
    """Frequent classes."""
    mid: Names = ()
    """Classes in between."""
    tail: Names = ()
    """Rare classes."""


class TrainingConfig(RegularisationKeys, AugmentationKeys):
    """The keys of a base config; any of them can be used in `config_update`."""

    corpus: str
    """The corpus to train on: a table of `config.toml`."""
    test_corpora: Names = ()
    """Other corpora whose test splits `--test` evaluates too, over the shared classes. They must not contain recordings
    that this experiment trains or selects on; another section of the same published corpus must not contain its
    speakers either."""
    task: Literal["categorical", "dimensional", "multitask"] = "categorical"
    """Emotion classes, emotional attributes (arousal, valence, dominance), or both."""
    classes: Names | None = None
    """Emotion classes in output order; case and Unicode form do not matter. A word such as `none` or `unknown`, usually
    a missing value, is a class where it is listed. Default: the reader's classes that occur in any split, in canonical
    order."""
    class_groups: ClassGroups | None = None
    """Head, mid and tail classes. Default: by share of the training split, head >= 1/C, tail < 1/(8 C)."""
    seeds: Seeds = (42,)
    """Seeds, one run each; the table shows mean and standard deviation over them."""

    upstream_model: Annotated[str, BeforeValidator(expand_folder), Field(min_length=1)] = "wavlm-base-plus"
    """Speech encoder: short name, hub name, local folder, or a built-in shape with random weights."""
    encoder: Annotated[StrictStr, ENCODER] = AUTO
    """Code that runs the upstream. `auto`: by its kind, the `model_type` of its `config.json`."""
    layer_weighting: bool = False
    """Pool a learned weighted sum of all layers instead of the last layer."""
    freeze: Literal["cnn", "upstream", "none"] | Count = "cnn"
    """Frozen part: the convolutions, the whole upstream, nothing, or everything up to the first N layers."""
    pooling: Annotated[StrictStr, POOLING] = ATTENTIVE_STATISTICS
    """From the frames of an utterance to one vector: their mean and standard deviation, weighted by attention."""
    attention_init: Literal["uniform", "baseline"] = "uniform"
    """Initial attention vector of `attentive_statistics`: within 1 / sqrt(hidden size), like PyTorch's linear layers,
    or drawn from N(0, 1), as in the challenge's baseline, some 50 times as large."""
    head_dropout: Fraction = 0.5
    """Dropout of the emotion heads."""

    loss_type: AnyLoss = "WeightedCrossEntropy"
    """Training criterion; for `task = "dimensional"` that of the attributes."""
    label_source: Literal["consensus", "primary_votes", "primary_and_secondary_votes"] = "consensus"
    """Training target of the classes: the consensus label, or the shares of the raters' votes. Shares are used with
    `SoftCrossEntropy` and `KLDivergence`, and rows without a consensus have them too."""
    secondary_weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    """`primary_and_secondary_votes`: weight of a secondary label relative to a primary one."""
    min_raters: Count = 1
    """Recordings with fewer raters get no vote shares."""
    vote_smoothing: Fraction = 0.0
    """Share of the votes that is spread evenly over all classes in training."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """Focusing parameter of `Focal`."""
    attribute_loss_type: AttributeLoss = "CCCLoss"
    """Criterion of the attributes in `task = "multitask"`."""
    attribute_loss_weight: Positive = 1.0
    """Weight of the attributes' criterion in `task = "multitask"`."""
    gender_loss_weight: Positive = 1.0
    """Weight of the gender criterion in `model_type = "UpstreamGender"`; utterances of unknown gender do not count."""

    epoch: Count = 30
    """Maximum number of epochs."""
    batch_size: Count = 16
    """Utterances per forward pass and process: an optimiser step takes batch_size x accumulation_steps x processes. A
    single utterance left over at the end joins the step before. `WeightedCrossEntropy` and `CCCLoss` learn nothing from
    steps of one utterance and refuse them."""
    accumulation_steps: Count = 1
    """Forward passes per optimiser step; 4 passes of 2 utterances take the same step as 1 of 8, except for the random
    draws of dropout and masks."""
    max_batch_seconds: Positive | None = None
    """Maximum seconds of audio per forward pass: a longer batch is split into several, for the same optimiser step.
    Default: no limit."""
    sampler: Annotated[StrictStr, SAMPLER] = RANDOM
    """Utterances of an epoch: `random`, each once; or `class_balanced`, drawn with replacement so that every class is
    equally likely, for losses that do not balance the classes themselves."""
    learning_rate: Positive = 1e-5
    """Highest learning rate of the upstream."""
    head_learning_rate: Positive | None = None
    """Highest learning rate of pooling and heads. Default: `learning_rate`."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's decoupled decay of weight matrices; biases and norms are not decayed."""
    scheduler: Annotated[StrictStr, SCHEDULE] = "constant"
    """Schedule of the learning rate over all steps of all epochs."""
    warmup_ratio: Fraction | None = None
    """Share of all steps in which the learning rate rises. Default: 0.3 for `one_cycle`, 0 for the others."""
    gradient_checkpointing: Annotated[bool, Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = False
    """Recompute each layer in the backward pass instead of keeping its activations: slower, with less memory."""
    max_grad_norm: Positive = 1.0
    """A gradient of larger norm is scaled down to this norm."""
    amp: Literal["auto", "bf16", "fp16", "off"] = "auto"
    """Mixed precision. `auto`: bf16 where the GPU supports it, else fp16 with a scaler; off on the CPU."""

    window: Count = 5
    """Early stopping: the score is the mean over this many latest development scores."""
    min_epochs: Annotated[int, Field(ge=0)] = 0
    """Early stopping: never before this epoch."""
    loss_stop_ratio: Annotated[float, Field(ge=1)] = 1.05
    """Early stopping: immediately when the development loss exceeds its smallest value times this."""
    patience: Annotated[int, Field(ge=0)] | None = None
    """Deprecated. Early stopping: number of epochs without improvement that are tolerated."""

    max_seconds: Annotated[float, Field(ge=0.025)] = 12.0
    """Longer training utterances are cropped to this length at a random position; evaluation never crops."""
    normalize: Literal["upstream", "corpus", "utterance", "none"] = "upstream"
    """Waveform normalisation: as the upstream was trained, by the training split's mean and deviation, by each
    utterance's own, or none."""
    eval_batch_seconds: Annotated[Literal["auto"] | Positive, Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = (
        "auto"
    )
    """Seconds of audio per forward pass in evaluation, with utterances of similar length together. `auto`: 640 on a
    GPU, 128 on the CPU."""
    compile: Annotated[Literal["auto", "off"], Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = "auto"
    """`auto`: on a GPU, WavLM's part of a training step is recorded as CUDA graphs, two for each bucket of the frame
    count, and replayed; batches are filled up by a 32nd at most, with zeros that affect no result. With a frozen
    upstream, one process and one micro-batch per step, all the rest of the step is recorded, optimiser included."""
    deterministic: Annotated[bool, Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = False
    """On a GPU, use only operations that repeat bit for bit, and no CUDA graphs: slower, but the same experiment on the
    same GPU, driver and packages gives the same results, interrupted or not. On the CPU it always does."""
    num_workers: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=0)], Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))
    ] = "auto"
    """Processes that decode audio. `auto`: depends on the machine's cores on a GPU, none on the CPU."""
    cache_gib: Annotated[
        Literal["auto"] | Annotated[float, Field(ge=0)], Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))
    ] = "auto"
    """Disk space for all kept outputs of frozen upstream parts together, in GiB; 0 keeps none. `auto`: half of the
    space that would be free without them, where reading them is faster than computing them."""
    checkpoint_minutes: Annotated[float, Field(ge=0, json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = 15.0
    """Minutes between checkpoints, checked every `log_every` steps. A checkpoint, from which training can be resumed,
    is also saved with every best model and on a signal."""
    keep_checkpoints: Annotated[Count, Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = 1
    """Number of newest checkpoints kept for resuming, in addition to the best model."""
    statistics: Annotated[
        tuple[Annotated[StrictStr, Registered((), FunctionOf(("split",)))], ...],
        BeforeValidator(as_tuple),
        Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS)),
    ] = ()
    """Further statistics of each split, shown wherever the others are; see docs/extending.md."""
    log_every: Annotated[Count, Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = 50
    """Steps between two readings of the loss and of the count of refused steps."""
    tracking: Annotated[Literal["wandb", "none"], Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = "wandb"
    """Where the run folder's metrics are copied: to Weights & Biases (offline without `WANDB_TOKEN`) or nowhere."""
    wandb_project: Annotated[str, Field(pattern=PROJECT_PATTERN, json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = (
        "200AI"
    )
    """Weights & Biases project."""
    push_to_hub: Annotated[
        str | None, Field(pattern=REPOSITORY_PATTERN, json_schema_extra=dict(NO_EFFECT_ON_RESULTS))
    ] = None
    """Private hub repository to which the best model is uploaded with its card, after training and again after
    `--test`, such as `user/{name}`, where `{name}` is the experiment's name. With several seeds, each has a repository
    ending in `-seed-<n>`. Needs `HUGGINGFACE_TOKEN`. Default: upload nothing."""
    license: Annotated[str | None, Field(pattern=LICENSE_PATTERN, json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = None
    """Licence of the published weights for the model card, under its hub name, such as `cc-by-nc-4.0`. Default: none is
    stated."""
    tags: Annotated[Tags, Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = ()
    """Tags in addition to those that tracking always sets: corpus, task, model type, loss and upstream."""

    @property
    def why_no_layerdrop(self) -> str:
        """Why no layer of the upstream is ever skipped; empty where layers may be."""
        if self.layer_weighting:
            return "a skipped layer has no output"
        return "frozen layers are never skipped" if self.freeze not in ("cnn", "none") else ""

    def key_problems(self) -> list[tuple[str, str]]:
        """Return the contradictions between the keys of an experiment."""
        problems = [] if is_user_code(self.loss_type) else loss_problems(self)  # those are imported later
        problems += (
            _sampler_problems(self) + _class_problems(self) + _repetition_problems(self) + augmentation_problems(self)
        )
        if self.layerdrop not in (PUBLISHED, 0) and self.why_no_layerdrop:
            problems.append(("layerdrop", f"found {self.layerdrop}; allowed here: 0, because {self.why_no_layerdrop}"))
        if self.attention_init != "uniform" and self.pooling != ATTENTIVE_STATISTICS:
            problems.append(
                (
                    "attention_init",
                    f'found "{self.attention_init}"; only {ATTENTIVE_STATISTICS} has attention: remove it',
                )
            )
        if self.min_epochs > self.epoch:
            problems.append(("min_epochs", f"found {self.min_epochs}; allowed: at most epoch = {self.epoch}"))
        return problems


def loss_problems(config: TrainingConfig) -> list[tuple[str, str]]:
    """Return the contradictions between the criterion and other keys; the user's own must have been imported."""
    learnt = (ATTRIBUTES,) if config.task == "dimensional" else (CLASSES, VOTES)
    learns = loss_entry(config.loss_type).learns
    if learns in learnt:
        return _label_problems(config, learns)
    allowed = ", ".join(losses_of(*learnt))
    return [("loss_type", f'found "{config.loss_type}"; allowed for task = "{config.task}": {allowed}')]


def _label_problems(config: TrainingConfig, learns: str) -> list[tuple[str, str]]:
    if config.task == "dimensional" and config.label_source != "consensus":
        return [
            ("label_source", f'found "{config.label_source}"; task = "dimensional" learns no classes, remove the key')
        ]
    if learns == VOTES and config.label_source == "consensus":
        return [("label_source", f'found "consensus"; {config.loss_type} learns from votes: set "primary_votes"')]
    if learns == CLASSES and config.label_source != "consensus":
        return [
            (
                "loss_type",
                f'found "{config.loss_type}"; label_source = "{config.label_source}" needs a loss that '
                f"takes shares: {', '.join(losses_of(VOTES))}",
            )
        ]
    return []


def _sampler_problems(config: TrainingConfig) -> list[tuple[str, str]]:
    if config.sampler != CLASS_BALANCED:
        return []
    if config.task == "dimensional":
        return [("sampler", f'found "{CLASS_BALANCED}"; task = "dimensional" has no classes, remove the key')]
    if config.loss_type in BALANCING:
        remedy = f'set loss_type = "CrossEntropy", or sampler = "{RANDOM}"'
        return [("sampler", f'found "{CLASS_BALANCED}"; {config.loss_type} balances the classes already: {remedy}')]
    return []


def _class_problems(config: TrainingConfig) -> list[tuple[str, str]]:
    problems = []
    if config.classes is not None and len(config.classes) < 2:
        problems.append(("classes", f"found {list(config.classes)}; allowed: two classes or more"))
    if config.class_groups is not None and config.classes is not None:
        groups = config.class_groups.head + config.class_groups.mid + config.class_groups.tail
        if sorted(map(fold, groups)) != sorted(map(fold, config.classes)):
            problems.append(("class_groups", "head, mid and tail together must hold every class of `classes` once"))
    return problems


def _repetition_problems(config: TrainingConfig) -> list[tuple[str, str]]:
    problems = []
    for key in ("classes", "seeds", "test_corpora", "tags", "statistics"):
        values = getattr(config, key) or ()
        repeated = sorted({str(value) for value in values if values.count(value) > 1})
        if repeated:
            problems.append((key, f"listed more than once: {', '.join(repeated)}"))
    if config.corpus in config.test_corpora:
        problems.append(("test_corpora", f'"{config.corpus}" is the training corpus, evaluated anyway; remove it'))
    return problems


class ExperimentEntry(Section):
    """One `[[experiments]]` table."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    """Name of the run's folder: letters, digits, `.`, `_`, `+` and `-`."""
    model_type: Annotated[StrictStr, MODEL_TYPE] = "UpstreamFinetune"
    """`UpstreamFinetune`: the upstream with a pooling and emotion heads. `UpstreamGender`: the same with a jointly
    trained gender head. Your own code: the same with its heads."""
    config: str = "base_config"
    """The table of this file to start from."""
    config_update: dict[str, Any] = Field(default_factory=dict)
    """Keys that differ from that table."""


class ExperimentConfig(TrainingConfig):
    """One experiment, resolved: its base config with its own changes applied."""

    name: str
    """As in `[[experiments]]`."""
    model_type: Annotated[StrictStr, MODEL_TYPE] = "UpstreamFinetune"
    """As in `[[experiments]]`."""

    @property
    def is_categorical(self) -> bool:
        """Whether emotion classes are trained."""
        return self.task != "dimensional"

    @property
    def is_dimensional(self) -> bool:
        """Whether emotional attributes are trained."""
        return self.task != "categorical"

    @property
    def learns_votes(self) -> bool:
        """Whether classes are learnt from the raters' votes."""
        return self.is_categorical and self.label_source != "consensus"

    @property
    def secondary_votes_weight(self) -> float:
        """Weight of a secondary label relative to a primary one."""
        return self.secondary_weight if self.label_source == "primary_and_secondary_votes" else 0.0

    @property
    def heads(self) -> tuple[Head, ...]:
        """Auxiliary heads; the user's own must have been imported."""
        return heads_of(self.model_type)

    def head_weight(self, head: Head) -> float:
        """Return the factor of an auxiliary head's loss."""
        return float(getattr(self, head.weight) if isinstance(head.weight, str) else head.weight)

    def repository(self, seed: int) -> str | None:
        """Return the hub repository for the run of a seed, None without uploads; each seed has its own."""
        if self.push_to_hub is None:
            return None
        name = self.push_to_hub.replace("{name}", self.name)
        return name if len(self.seeds) == 1 else f"{name}-seed-{seed}"

    @property
    def user_code(self) -> tuple[str, ...]:
        """The user's own code that determines the result of a run, as `package.module:Name`."""
        return tuple(name for key, name, _ in user_code_of(self) if affects_result(key))

    def run_identity(self) -> dict[str, Any]:
        """Return the keys that determine the result of one run."""
        return identity_of(self.model_dump(mode="json", exclude_none=True))


def identity_of(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of an experiment that determine the result of one run.

    Seeds, machine settings and other corpora are left out, as is the regularisation of a frozen upstream, which has
    no effect.
    """
    idle = {"seeds", "test_corpora", *(REGULARISATION if experiment.get("freeze") == "upstream" else ())}
    return {key: value for key, value in experiment.items() if key not in idle and affects_result(key)}


def with_defaults(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Complete a stored experiment: keys added since then get the value that matches the behaviour of its time."""
    defaults = {name: field.default for name, field in ExperimentConfig.model_fields.items() if not field.is_required()}
    known = {
        name: list(value) if isinstance(value, tuple) else value  # as TOML and JSON store them
        for name, value in defaults.items()
        if value is not None
    }
    return {**known, **FORMER_REGULARISATION._asdict(), **experiment}


def affects_result(key: str) -> bool:
    """Return whether an experiment key can change a run's result."""
    field = ExperimentConfig.model_fields.get(key)
    extra = field.json_schema_extra if field is not None else None
    return not (isinstance(extra, dict) and extra.get("affects_result") is False)
