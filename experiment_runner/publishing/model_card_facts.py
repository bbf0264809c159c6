"""Facts about a run's model, data and training for its model card, without details of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiment_runner.storage.stored_run import OWN_SPLIT, StoredRun
from utils.config.heads import HEAD_WEIGHTS, HEADS, head_title, stored_heads
from utils.config.regularisation import Regularisation
from utils.config.schema import ExperimentConfig
from utils.hub.upstreams import UPSTREAMS
from utils.metrics import Metrics


def outputs(run: StoredRun) -> list[tuple[str, list[str], str]]:
    """Return the model's heads with their outputs in order, and the meaning of the values."""
    description = run.description
    low, high = description["attribute_scale"]
    heads = [
        ("emotion", description["classes"], "probabilities, which sum to 1"),
        ("attribute", description["attributes"], f"{low:g} to {high:g}, the corpus's scale"),
    ]
    heads += [(name, list(names), "probabilities, which sum to 1") for name, names in stored_heads(description).items()]
    return [head for head in heads if head[1]]


def describe_upstream(run: StoredRun) -> dict[str, Any]:
    """Return the hub `id` and `revision` (if known), the `name` (unless it is a folder's), and the sizes."""
    name, config = run.config.upstream_model, run.description["upstream"]
    return {
        "id": run.provenance.get("upstream_id"),
        "revision": run.provenance.get("upstream_revision"),
        "name": name if name in {*UPSTREAMS["built_in"], *UPSTREAMS["short_names"]} else None,
        "sizes": f"{config['model_type']}, {config['num_hidden_layers']} layers of {config['hidden_size']} channels",
    }


def data_rows(run: StoredRun, metrics: Mapping[str, Metrics]) -> list[tuple[str, list[int | None]]]:
    """Return, by split of the training corpus, numbers of utterances, utterances with a class, speakers, left-out rows.

    A number is None if the run does not store it.
    """
    splits = run.resolved.get("splits", {})
    labelled = {"train": sum(run.description["class_counts"])} if run.description["classes"] else {}
    labelled |= {split: found["labelled"] for split, found in metrics.items() if "labelled" in found}
    evaluated = {split: found["utterances"] for split, found in metrics.items() if OWN_SPLIT.fullmatch(split)}
    rows: list[tuple[str, list[int | None]]] = []
    for split in dict.fromkeys(["train", *evaluated, *splits]):
        known = splits.get(split, {})
        utterances = evaluated.get(split, known.get("utterances"))
        rows.append((split, [utterances, labelled.get(split), known.get("speakers"), known.get("left_out")]))
    return rows


def training_rows(run: StoredRun) -> list[tuple[str, str]]:
    """Return the settings that shaped the training, in words."""
    config, numbers, result = run.config, run.config.regularisation, run.course.result or {}
    pooled = "a learnt mix of all layers" if config.layer_weighting else "the last layer"
    rows = {
        "task": f"{config.task}, {config.model_type}",
        "trained of the upstream": _frozen(config),
        "pooling": f"{config.pooling.replace('_', ' ')} over {pooled}"
        + ", begun at N(0, 1)" * (config.attention_init == "baseline"),
        "loss": _loss(run),
        "learnt from": config.label_source.replace("_", " ") if config.is_categorical else "",
        "optimiser": f"AdamW, weight decay {config.weight_decay:g}, gradients of norm {config.max_grad_norm:g} at most",
        "learning rate": _learning_rate(config),
        "batch": _batch(run),
        "epochs": f"{result.get('epochs', '?')} of at most {config.epoch}; {run.course.ending}",
        "best epoch": f"{result.get('best_epoch', '?')}, by the mean of the last {config.window} development scores",
        "precision": str(run.resolved.get("precision", "unknown")).partition(":")[0],
        "dropout": f"{numbers.hidden_dropout:g} hidden, {numbers.attention_dropout:g} attention, "
        f"{numbers.activation_dropout:g} activation, {numbers.feat_proj_dropout:g} features, "
        f"{numbers.layerdrop:g} layers, {config.head_dropout:g} heads",
        "SpecAugment": _spec_augment(numbers),
        "waveform augmentation": _augmentation(config),
        "seed": str(run.resolved.get("seed", "unknown")),
    }
    return [(name, text) for name, text in rows.items() if text]


def _frozen(config: ExperimentConfig) -> str:
    kept = {"cnn": "all but its convolutions", "upstream": "nothing, it is frozen", "none": "all of it"}
    return kept.get(str(config.freeze), f"all above its first {config.freeze} layers")


def _loss(run: StoredRun) -> str:
    config = run.config
    parts = [config.loss_type + (f" (gamma {config.focal_gamma:g})" if config.loss_type == "Focal" else "")]
    if config.task == "multitask":
        parts.append(f"{config.attribute_loss_weight:g} × {config.attribute_loss_type} of the attributes")
    for name in stored_heads(run.description):
        weight = config.head_weight(HEADS[name]) if name in HEADS else run.resolved[HEAD_WEIGHTS][name]
        parts.append(f"{weight:g} × cross-entropy of {head_title(name)}")
    return " + ".join(parts)


def _learning_rate(config: ExperimentConfig) -> str:
    head = config.head_learning_rate or config.learning_rate
    warmup = "" if config.warmup_ratio is None else f", rising for {config.warmup_ratio:.0%} of the steps"
    rate = f"{config.learning_rate:g} for the upstream, " if config.freeze != "upstream" else ""
    return f"{rate}{head:g} for pooling and heads; {config.scheduler}{warmup}"


def _batch(run: StoredRun) -> str:
    config = run.config
    factors = (config.batch_size, config.accumulation_steps, int(run.resolved.get("processes", 1)))
    utterances = factors[0] * factors[1] * factors[2]
    return f"{utterances} utterances a step, cropped at random to {config.max_seconds:g} s where they are longer"


def _spec_augment(numbers: Regularisation) -> str:
    frames = f"{numbers.mask_time_prob:.0%} of the frames in spans of {numbers.mask_time_length}"
    channels = f"{numbers.mask_feature_prob:.0%} of the channels in spans of {numbers.mask_feature_length}"
    used = [text for text, share in ((frames, numbers.mask_time_prob), (channels, numbers.mask_feature_prob)) if share]
    return ", ".join(used) or "none"


def _augmentation(config: ExperimentConfig) -> str:
    """Describe waveform augmentation without the folders that it read from."""
    named = {key: "recordings" for key in config.augmentation_folders}
    return config.model_copy(update=named).describe_augmentation() or "none"
