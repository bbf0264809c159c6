"""The keys of `config.toml` and of `experiments_config.toml`: types, defaults, ranges, and what each is for.

`docs/configuration.md` is generated from this file. Nothing heavier than pydantic is imported here, so that a mistake
in a file is answered before torch or pandas are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from utils.config.augmentation import AugmentationKeys, augmentation_problems
from utils.config.corpus import column_problems, split_problems
from utils.config.regularisation import FORMER_REGULARISATION, PUBLISHED, REGULARISATION, RegularisationKeys
from utils.config.types import (
    ATTRIBUTE_LOSSES,
    CATEGORICAL_LOSSES,
    HARD_LOSSES,
    LICENSE_PATTERN,
    NAME_PATTERN,
    NO_EFFECT_ON_RESULTS,
    PROJECT_PATTERN,
    REPOSITORY_PATTERN,
    SOFT_LOSSES,
    AnyLoss,
    AttributeLoss,
    Count,
    Fraction,
    ModelType,
    Names,
    PathKey,
    Positive,
    Scale,
    Section,
    Seeds,
    Tags,
    expand_folder,
)
from utils.word_forms import fold


class CorpusConfig(Section):
    """One corpus: a table of `config.toml`, named as experiments name the corpus."""

    FORMAT: Literal["msp-podcast", "emodb", "ravdess", "crema-d", "csv"] = "msp-podcast"
    """How the corpus is laid out on disk."""
    PATH_TO_AUDIO: PathKey
    """Folder of the recordings. A relative path starts at the folder of this file."""
    PATH_TO_LABEL: PathKey | None = None
    """`msp-podcast`: the label folder or the consensus CSV. `crema-d`: the folder of votes and demographics. `csv`: the
    table. The others read their file names."""
    PATH_TO_DATASET: PathKey | None = None
    """Folder of packed shards, which `python prepare_data.py pack` fills; loose recordings are read until it has."""
    columns: dict[str, Any] = Field(default_factory=dict)
    """`csv`: which column of the table is which, `{ emotion = "label", split = "Split", fold = "" }`; an empty text
    ignores the column of that name. Columns that are called `file`, `split`, `speaker`, `gender`, `emotion`, `arousal`,
    `valence` or `dominance`, in upper or lower case, need no entry."""
    split_speakers: dict[str, Any] | None = None
    """For a corpus without splits of its own: speakers by split, `{ development = ["13"], test1 = ["15"] }`, the rest
    train; or shares of the speakers with a seed, `{ development = 0.2, test1 = 0.2, seed = 0 }`, the default."""
    allow_speaker_overlap: bool | Names = False
    """Speakers that may stand both in training and in development or test, also where another section of the same
    published corpus is the test corpus; `true` allows every one."""
    attribute_scale: Scale | None = None
    """Lowest and highest value of arousal, valence and dominance; `configs/config_dim.json` holds the default."""
    synthetic: bool = False
    """Whether the recordings are synthetic, as those of `--demo`; every screen and report then says so."""

    def key_problems(self) -> list[tuple[str, str]]:
        """Return what is wrong between the keys of a corpus."""
        problems = []
        needs_labels = self.FORMAT in ("msp-podcast", "crema-d", "csv")
        if needs_labels and self.PATH_TO_LABEL is None:
            problems.append(("PATH_TO_LABEL", f'missing; FORMAT = "{self.FORMAT}" needs it'))
        if not needs_labels and self.PATH_TO_LABEL is not None:
            problems.append(("PATH_TO_LABEL", f'FORMAT = "{self.FORMAT}" reads labels from file names; remove the key'))
        problems += [("columns", text) for text in column_problems(self.FORMAT, self.columns)]
        if self.attribute_scale and self.attribute_scale[0] >= self.attribute_scale[1]:
            problems.append(("attribute_scale", f"found {list(self.attribute_scale)}; allowed: [lowest, highest]"))
        if self.split_speakers is not None:
            problems += [("split_speakers", text) for text in split_problems(self.split_speakers)]
        return problems


class ClassGroups(Section):
    """Named groups of classes for the head, mid and tail figures."""

    head: Names
    """Frequent classes."""
    mid: Names = ()
    """Classes in between."""
    tail: Names = ()
    """Rare classes."""


class TrainingConfig(RegularisationKeys, AugmentationKeys):
    """The keys of a base config; any of them can stand in `config_update`."""

    corpus: str
    """The corpus to train on: a table of `config.toml`."""
    test_corpora: Names = ()
    """Other corpora whose test splits `--test` evaluates too, over the classes shared. They may hold no recording, and
    of another section of the same published corpus no speaker, that this experiment trains or selects on."""
    task: Literal["categorical", "dimensional", "multitask"] = "categorical"
    """Emotion classes, emotional attributes (arousal, valence, dominance), or both."""
    classes: Names | None = None
    """Emotion classes in output order; case and Unicode form do not count. A word for nothing that is listed (`none`,
    `unknown`) is a class. Default: the reader's classes that any split labels, in canonical order."""
    class_groups: ClassGroups | None = None
    """Head, mid and tail classes. Default: by share of the training split, head >= 1/C, tail < 1/(8 C)."""
    seeds: Seeds = (42,)
    """One run each; the table shows mean and standard deviation over them."""

    upstream_model: Annotated[str, BeforeValidator(expand_folder), Field(min_length=1)] = "wavlm-base-plus"
    """Speech encoder: short name, hub name, local folder, or a built-in shape with random weights."""
    layer_weighting: bool = False
    """Pool a learned weighted sum of all layers in place of the last layer."""
    freeze: Literal["cnn", "upstream", "none"] | Count = "cnn"
    """What stays as it was: the convolutions, the whole upstream, nothing, or all up to the first N layers."""
    attention_init: Literal["uniform", "baseline"] = "uniform"
    """How the attention vector of the pooling begins: within 1 / sqrt(hidden size), as PyTorch's linear layers do, or
    drawn from N(0, 1), as in the challenge's baseline, some 50 times as large."""
    head_dropout: Fraction = 0.5
    """Dropout of the emotion heads."""

    loss_type: AnyLoss = "WeightedCrossEntropy"
    """Training criterion; for `task = "dimensional"` that of the attributes."""
    label_source: Literal["consensus", "primary_votes", "primary_and_secondary_votes"] = "consensus"
    """What the classes are learnt from: the consensus label, or the shares of the raters' votes, which
    `SoftCrossEntropy` and `KLDivergence` take and rows without a consensus have as well."""
    secondary_weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    """`primary_and_secondary_votes`: what a secondary label counts beside a primary one."""
    min_raters: Count = 1
    """Recordings with fewer raters have no shares of votes."""
    vote_smoothing: Fraction = 0.0
    """Share of the votes that is spread evenly over all classes in training."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """Focusing parameter of `Focal`."""
    attribute_loss_type: AttributeLoss = "CCCLoss"
    """Criterion of the attributes in `task = "multitask"`."""
    attribute_loss_weight: Positive = 1.0
    """Weight of the attributes' criterion in `task = "multitask"`."""
    gender_loss_weight: Positive = 1.0
    """Weight of the gender criterion in `model_type = "UpstreamGender"`; utterances of unknown gender have none."""

    epoch: Count = 30
    """Most epochs to train."""
    batch_size: Count = 16
    """Utterances a forward pass, in each of the processes that train together: an optimiser step takes
    batch_size x accumulation_steps x processes; a last one that would be left alone joins the step before.
    `WeightedCrossEntropy` and `CCCLoss` learn nothing from steps of one utterance, which are refused."""
    accumulation_steps: Count = 1
    """Forward passes an optimiser step; 4 of 2 take the step of 1 of 8, but for what dropout and masks draw."""
    max_batch_seconds: Positive | None = None
    """Most seconds of audio a forward pass: a batch that lasts longer is taken in several, for the same optimiser step.
    Default: no bound."""
    learning_rate: Positive = 1e-5
    """Highest learning rate of the upstream."""
    head_learning_rate: Positive | None = None
    """Highest learning rate of pooling and heads. Default: `learning_rate`."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's decoupled decay of weight matrices; biases and norms are not decayed."""
    scheduler: Literal["constant", "cosine", "one_cycle"] = "constant"
    """Course of the learning rate over all steps of all epochs."""
    warmup_ratio: Fraction | None = None
    """Share of all steps in which the learning rate rises. Default: 0.3 for `one_cycle`, 0 for the others."""
    gradient_checkpointing: Annotated[bool, Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = False
    """Compute each layer again in the backward instead of keeping it: slower, with less memory."""
    max_grad_norm: Positive = 1.0
    """The gradient is scaled down to this norm."""
    amp: Literal["auto", "bf16", "fp16", "off"] = "auto"
    """Mixed precision. `auto`: bf16 where the GPU has it, else fp16 with a scaler; off on the CPU."""

    window: Count = 5
    """Early stopping: the score is the mean of so many last development scores."""
    min_epochs: Annotated[int, Field(ge=0)] = 0
    """Early stopping: never before this epoch."""
    loss_stop_ratio: Annotated[float, Field(ge=1)] = 1.05
    """Early stopping: at once when the development loss exceeds its smallest value times this."""
    patience: Annotated[int, Field(ge=0)] | None = None
    """Deprecated. Early stopping: epochs without improvement that are forgiven."""

    max_seconds: Annotated[float, Field(ge=0.025)] = 12.0
    """Longer training utterances are cropped at random to this; evaluation never crops."""
    normalize: Literal["upstream", "corpus", "utterance", "none"] = "upstream"
    """Waveform normalisation: as the upstream was trained, by the training split's mean and deviation, by each
    utterance's own, or none."""
    eval_batch_seconds: Annotated[Literal["auto"] | Positive, Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = (
        "auto"
    )
    """Seconds of audio a forward pass in evaluation, utterances of similar length together. `auto`: 640 on a GPU, 128
    on the CPU."""
    compile: Annotated[Literal["auto", "off"], Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = "auto"
    """`auto`: on a GPU, what a training step of WavLM asks of it is recorded once for each size of batch and replayed
    as a CUDA graph; batches are filled up by a 32nd at most, with zeros that no result sees. With a frozen upstream the
    rest of a step is recorded whole, optimiser included, in one process with one micro-batch a step."""
    deterministic: Annotated[bool, Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = False
    """On a GPU, take only operations that repeat bit for bit, and record none: slower, but the same experiment on the
    same GPU, driver and packages finds the same, interrupted or not. On the CPU it does anyway."""
    num_workers: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=0)], Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))
    ] = "auto"
    """Processes that decode audio. `auto`: by the machine's cores on a GPU, none on the CPU."""
    cache_gib: Annotated[
        Literal["auto"] | Annotated[float, Field(ge=0)], Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))
    ] = "auto"
    """What all kept outputs of frozen upstream parts may take on the disk together, in GiB; 0 keeps none. `auto`: half
    of the space that is free without them, where reading them is faster than computing them."""
    checkpoint_minutes: Annotated[float, Field(ge=0, json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = 15.0
    """All that training goes on from after an interruption is saved with every best model, on a signal, and where a
    look (`log_every`) comes so many minutes after the last saving."""
    keep_checkpoints: Annotated[Count, Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = 1
    """Newest checkpoints that are kept to go on from, beside the best model."""
    log_every: Annotated[Count, Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = 50
    """Steps between two looks at the loss and at the count of refused steps."""
    tracking: Annotated[Literal["wandb", "none"], Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = "wandb"
    """Where the run folder's figures are copied to: Weights & Biases (offline where there is no `WANDB_TOKEN`), or
    nowhere."""
    wandb_project: Annotated[str, Field(pattern=PROJECT_PATTERN, json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = (
        "200AI"
    )
    """Project of Weights & Biases."""
    push_to_hub: Annotated[
        str | None, Field(pattern=REPOSITORY_PATTERN, json_schema_extra=dict(NO_EFFECT_ON_RESULTS))
    ] = None
    """Upload the best model with its card to this private repository of the hub, such as `user/{name}`, where `{name}`
    is the experiment's, after training and again after `--test`; of several seeds each to a repository that ends in
    `-seed-<n>`. Needs `HUGGINGFACE_TOKEN`. Default: upload nothing."""
    license: Annotated[str | None, Field(pattern=LICENSE_PATTERN, json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = None
    """Of the published weights, for the model card, as the hub names it, such as `cc-by-nc-4.0`. Default: none is
    stated."""
    tags: Annotated[Tags, Field(json_schema_extra=dict(NO_EFFECT_ON_RESULTS))] = ()
    """Tags beside those that tracking sets itself: corpus, task, model type, loss and upstream."""

    @property
    def why_no_layerdrop(self) -> str:
        """Why no layer of the upstream is ever skipped; empty where layers may be."""
        if self.layer_weighting:
            return "a skipped layer has no output"
        return "frozen layers are never skipped" if self.freeze not in ("cnn", "none") else ""

    def key_problems(self) -> list[tuple[str, str]]:
        """Return what is wrong between the keys of an experiment."""
        problems = _loss_problems(self) + _class_problems(self) + _repetition_problems(self)
        problems += augmentation_problems(self)
        if self.layerdrop not in (PUBLISHED, 0) and self.why_no_layerdrop:
            problems.append(("layerdrop", f"found {self.layerdrop}; allowed here: 0, because {self.why_no_layerdrop}"))
        if self.min_epochs > self.epoch:
            problems.append(("min_epochs", f"found {self.min_epochs}; allowed: at most epoch = {self.epoch}"))
        return problems


def _loss_problems(config: TrainingConfig) -> list[tuple[str, str]]:
    allowed = ATTRIBUTE_LOSSES if config.task == "dimensional" else CATEGORICAL_LOSSES
    if config.loss_type in allowed:
        return _label_problems(config)
    return [("loss_type", f'found "{config.loss_type}"; allowed for task = "{config.task}": {", ".join(allowed)}')]


def _label_problems(config: TrainingConfig) -> list[tuple[str, str]]:
    if config.task == "dimensional" and config.label_source != "consensus":
        return [
            ("label_source", f'found "{config.label_source}"; task = "dimensional" learns no classes, remove the key')
        ]
    if config.loss_type in SOFT_LOSSES and config.label_source == "consensus":
        return [("label_source", f'found "consensus"; {config.loss_type} learns from votes: set "primary_votes"')]
    if config.loss_type in HARD_LOSSES and config.label_source != "consensus":
        return [
            (
                "loss_type",
                f'found "{config.loss_type}"; label_source = "{config.label_source}" needs a loss that '
                f"takes shares: {', '.join(SOFT_LOSSES)}",
            )
        ]
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
    for key in ("classes", "seeds", "test_corpora", "tags"):
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
    """Names the run's folder: letters, digits, `.`, `_`, `+` and `-`."""
    model_type: ModelType = "UpstreamFinetune"
    """`UpstreamFinetune`: the upstream with attentive statistics pooling and emotion heads. `UpstreamGender`: with a
    gender head beside them, trained jointly."""
    config: str = "base_config"
    """The table of this file to start from."""
    config_update: dict[str, Any] = Field(default_factory=dict)
    """Keys that differ from it."""


class ExperimentConfig(TrainingConfig):
    """One experiment, resolved: its base config with its own changes applied."""

    name: str
    """As in `[[experiments]]`."""
    model_type: ModelType = "UpstreamFinetune"
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
        """What a secondary label counts beside a primary one."""
        return self.secondary_weight if self.label_source == "primary_and_secondary_votes" else 0.0

    @property
    def has_gender_head(self) -> bool:
        """Whether gender is trained as an auxiliary task."""
        return self.model_type == "UpstreamGender"

    def repository(self, seed: int) -> str | None:
        """Return where on the hub the run of a seed is uploaded to, if it is; each has a repository of its own."""
        if self.push_to_hub is None:
            return None
        name = self.push_to_hub.replace("{name}", self.name)
        return name if len(self.seeds) == 1 else f"{name}-seed-{seed}"

    def run_identity(self) -> dict[str, Any]:
        """Return the keys that decide what one run finds."""
        return identity_of(self.model_dump(mode="json", exclude_none=True))


def identity_of(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of an experiment that decide what one run finds.

    Neither seeds nor machine nor other corpora; nor the regularisation of a frozen upstream, which has none.
    """
    idle = {"seeds", "test_corpora", *(REGULARISATION if experiment.get("freeze") == "upstream" else ())}
    return {key: value for key, value in experiment.items() if key not in idle and affects_result(key)}


def with_defaults(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Complete a stored experiment with what stood for keys that are younger than it."""
    defaults = {name: field.default for name, field in ExperimentConfig.model_fields.items() if not field.is_required()}
    known = {name: value for name, value in defaults.items() if value is not None}
    return {**known, **FORMER_REGULARISATION._asdict(), **experiment}


def affects_result(key: str) -> bool:
    """Return whether an experiment key can change what a run finds."""
    field = ExperimentConfig.model_fields.get(key)
    extra = field.json_schema_extra if field is not None else None
    return not (isinstance(extra, dict) and extra.get("affects_result") is False)
