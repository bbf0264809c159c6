"""Assembles an experiment from its configuration and data, and trains it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiment_runner.data.preparation import show_left_out
from experiment_runner.loading.cached_loader import build_feeds
from experiment_runner.models.model_config import ModelConfig, family_of, spec_augment, upstream_settings, without_place
from experiment_runner.results.collapse import remarks
from experiment_runner.results.prediction_table import read_predictions
from experiment_runner.run import Run
from experiment_runner.runtime.out_of_memory import names_in
from experiment_runner.runtime.program_version import program_version, user_code_of_run
from experiment_runner.storage.checkpoints import TrainingState, read_checkpoint, read_state
from experiment_runner.storage.run_folder import LOG
from experiment_runner.storage.stored_experiment import CORPUS_FACTS
from experiment_runner.train import Trainer, TrainerParts
from experiment_runner.training.criterion import build_loss
from experiment_runner.training.early_stopping import HybridEarlyStopping
from experiment_runner.training.optimisation import build_optimiser, build_scheduler, make_recordable
from experiment_runner.training.run_writer import DEVELOPMENT_PREDICTIONS, RunWriter, recorded_before, show_predictions
from experiment_runner.training.training_steps import StepParts, TrainingSteps
from net.kernels.triton_support import runs_triton
from net.loss_modules import ClassPriors
from net.pooling import AttentiveStatisticsPooling
from net.ser_model_wrapper import SERModelWrapper
from net.upstream import Upstream
from utils.config.heads import HEAD_WEIGHTS, HEADS, head_title
from utils.config.poolings import POOLINGS
from utils.config.schema import ExperimentConfig
from utils.data.recordings.faint_mixes import warn_of_faint_mixes
from utils.data.wav import SAMPLE_RATE_HZ
from utils.dataset.normalisation import Normalisation, measure_corpus
from utils.dataset.samplers import choose_order
from utils.dataset.sampling import RandomBatches, evaluation_batches
from utils.hub.published_config import published_numbers
from utils.hub.upstreams import LoadedUpstream, UpstreamError, load_upstream
from utils.io.user_code import MAY_BE_RECORDED, hash_user_code, not_recordable
from utils.registry import choose, is_user_code
from utils.seeding import stable_key
from utils.word_forms import counted


@dataclass(frozen=True)
class Assembly:
    """A model ready to train, its description, and the origin of its upstream."""

    model: SERModelWrapper
    description: ModelConfig
    upstream: LoadedUpstream


def run_train(run: Run, checkpoint: Path | None = None) -> dict[str, Any]:
    """Train one experiment with one seed.

    Args:
        run: The run; its recordings are checked, see `preparation.check_training_recordings`.
        checkpoint: Checkpoint of the run to resume from.

    Returns:
        Content of `result.json`: why and when training stopped, the best epoch and its development metrics.

    Raises:
        DataError: If a recording is unusable.
        UpstreamError: If the upstream cannot be loaded completely.
        FloatingPointError: If losses or gradients stay non-finite.
        FullMemoryError: If a batch does not fit into GPU memory.
        CheckpointError: If a checkpoint cannot be read or written.
        Interrupted: If a signal asked the program to stop; everything has been saved by then.
    """
    with run.processes.raise_together():
        if run.config.normalize == "corpus":
            run.console.line(f"{run.name}: measuring mean and deviation of {len(run.data.train):,} recordings")
        assembly = assemble(run)
        state = None if checkpoint is None else read_state(checkpoint)
        weights = None if checkpoint is None else read_checkpoint(checkpoint)[1]
        known = {} if state is None else recorded_before(state)
    run.processes.check_alike(partial(_describe_start, run, assembly, state))
    run.processes.on_main(partial(_start, run, assembly, checkpoint, known.get("records", ())))
    with run.console.log_to(run.folder.path / LOG), run.interruption.held():
        _introduce(run, assembly)
        recorder = RunWriter(run, assembly.description, **known)
        with closing(build_trainer(run, assembly, recorder)) as trainer:
            if state is not None and weights is not None:
                trainer.restore(weights, state, recorder.records)
                run.console.line(f"{run.name}: resumes {trainer.place}")
            stop = trainer.fit(run.config.epoch)
        return run.processes.on_main(partial(_finish, run, recorder, stop))


def _start(run: Run, assembly: Assembly, checkpoint: Path | None, records: Sequence[dict[str, Any]]) -> None:
    """Create a run's folder, or set it back to a checkpoint."""
    if checkpoint is not None:
        run.folder.resume_from(checkpoint, records)
        best = run.folder.checkpoints.folder / "best"
        if best.is_dir():
            show_predictions(best, run.folder.path)
        run.tracking.follow(config=run.config, folder=run.folder.path)
        return
    run.folder.start(
        {
            "classes": list(run.data.classes),
            "attributes": list(run.data.attributes),
            "synthetic_corpora": list(run.data.synthetic_corpora),
            "upstream": assembly.upstream.description,
            "device": str(run.device),
            **run.environment,
            "data_sha256": run.data.fingerprint(),
            **({"corpus_release": run.data.release} if run.data.release else {}),
            **user_code_of_run(run.config),
            **({CORPUS_FACTS: asdict(run.data.facts)} if run.data.facts else {}),
            **_unregistered_weights(run.config),
            "published": published_numbers(run.config),
            "program": program_version(),
            "splits": run.data.describe_splits(),
        },
        run.data.left_out_recordings,
    )
    run.tracking.follow(config=run.config, folder=run.folder.path)


def _unregistered_weights(config: ExperimentConfig) -> dict[str, dict[str, float]]:
    weights = {head.name: config.head_weight(head) for head in config.heads if head.name not in HEADS}
    return {HEAD_WEIGHTS: weights} if weights else {}


def _finish(run: Run, recorder: RunWriter, stop: str) -> dict[str, Any]:
    result = recorder.result(stop)
    run.folder.finish(result)
    run.console.line(f"{run.name}: finished; best epoch {result['best_epoch']}; {run.folder.path}")
    label = f"{run.name}: development, epoch {result['best_epoch']}"
    predictions = read_predictions(run.folder.path / "predictions" / DEVELOPMENT_PREDICTIONS)
    run.console.warn(*(f"{label}: {remark}" for remark in remarks(predictions)))
    return result


def _describe_start(run: Run, assembly: Assembly, state: TrainingState | None) -> dict[str, object]:
    """Return what must be the same in all processes from the start: nothing sent later would align it."""
    weights = hashlib.sha256()
    for name, tensor in assembly.model.state_dict().items():
        weights.update(name.encode())
        weights.update(tensor.cpu().flatten().view(torch.uint8).numpy())
    return {
        "experiment": run.config.run_identity(),
        "your own code": user_code_of_run(run.config),
        "data": run.data.fingerprint(),
        "initial weights": weights.hexdigest(),
        "kind of device": run.device.type,
        "precision": run.precision.reason,
        "version of torch": torch.__version__,
        "checkpoint": None if state is None else state.document["step"],
    }


def assemble(run: Run) -> Assembly:
    """Build the model of an experiment; its random weights depend on the seed alone."""
    config, data, numbers = run.config, run.data, run.config.regularisation
    torch.manual_seed(stable_key("weights", run.seed))
    loaded = load_upstream(config.upstream_model, upstream_settings(numbers))
    try:
        upstream = Upstream(
            loaded.encoder,
            spec_augment(numbers),
            config.layer_weighting,
            config.freeze,
            config.gradient_checkpointing,
            family_of(config.encoder),
        )
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        is_own = is_user_code(config.encoder)
        what = f"{config.upstream_model} cannot be {f'run by {config.encoder}' if is_own else 'used'}"
        remedy = "correct the code or the keys" if is_own else "fetch it again, or name another"
        raise UpstreamError(f"{config.name}: {what} ({type(error).__name__}: {error}); {remedy}") from error
    description = ModelConfig(
        model_type=config.model_type,
        classes=data.classes,
        attributes=data.attributes,
        attribute_scale=data.attribute_scale,
        class_counts=tuple(int(count) for count in data.class_counts),
        auxiliary=data.auxiliary,
        normalisation=_choose_normalisation(run, loaded),
        layer_weighting=config.layer_weighting,
        head_dropout=config.head_dropout,
        upstream=without_place(loaded.encoder.config.to_dict()),
        pooling=config.pooling,
        encoder=config.encoder,
        user_code=hash_user_code(filter(is_user_code, [config.pooling, config.encoder])),
    )
    model = SERModelWrapper(upstream, description.heads, choose(POOLINGS, config.pooling))
    if config.attention_init == "baseline":
        assert isinstance(model.pooling, AttentiveStatisticsPooling)
        model.pooling.begin_as_baseline()
    return Assembly(model.to(run.device), description, loaded)


def build_trainer(run: Run, assembly: Assembly, recorder: RunWriter) -> Trainer:
    """Put the parts of a training together."""
    config, data, model = run.config, run.data, assembly.model
    loss = build_loss(config, ClassPriors(torch.from_numpy(data.class_counts)), data.attributes)
    batches = training_batches(run)
    train_feed, development_feed = build_feeds(run, model.upstream, assembly.description)
    records_upstream = run.captures_steps and model.upstream.capture_steps(run.device)
    most_frames = _most_frames(run, model.upstream)
    if records_upstream or most_frames is not None:
        run.console.line("steps are recorded as CUDA graphs; the first ones wait for kernels to be compiled")
    optimiser = build_optimiser(model, config)
    scheduler = build_scheduler(optimiser, config, batches.steps_per_epoch * config.epoch)
    if most_frames is not None:
        make_recordable(optimiser)
    steps = StepParts(
        model=model,
        loss=loss.to(run.device),
        optimiser=optimiser,
        scheduler=scheduler,
        precision=run.precision,
        device=run.device,
        seed=run.seed,
        max_grad_norm=config.max_grad_norm,
        most_frames=most_frames,
        processes=run.processes,
    )
    parts = TrainerParts(
        steps=TrainingSteps(steps),
        train_batches=batches,
        train_feed=train_feed,
        name_training=names_in(data.train),
        normalisation=assembly.description.normalisation,
        development_feed=development_feed,
        development_batches=evaluation_batches(
            data.development["seconds"].to_numpy(np.float64), run.eval_batch_seconds
        ),
        name_development=names_in(data.development),
        compute_metrics=recorder.compute_metrics,
        stopping=HybridEarlyStopping(config.window, config.min_epochs, config.loss_stop_ratio, config.patience or 0),
        record=lambda record: run.processes.on_main(partial(recorder.record, record)),
        save=lambda moment: run.processes.on_main(partial(recorder.save, moment)),
        interruption=run.interruption,
        console=run.console,
        processes=run.processes,
    )
    return Trainer(parts, run.device, config.log_every, save_seconds=60 * config.checkpoint_minutes)


def _most_frames(run: Run, upstream: Upstream) -> int | None:
    """Return the frames of the longest batch if steps, which begin after a frozen upstream, are recorded; else None.

    Steps are recorded on a GPU that has the kernels, in one process, with one micro-batch per step.
    """
    config = run.config
    has_kernels = run.device.type == "cuda" and runs_triton(run.device)
    is_single = run.processes.ranks * config.accumulation_steps == 1
    if not (run.captures_steps and has_kernels and is_single and upstream.is_frozen):
        return None
    unrecordable = not_recordable([config.loss_type, config.attribute_loss_type, config.pooling])
    if unrecordable:
        run.console.line(
            f"steps are not recorded as CUDA graphs: {', '.join(unrecordable)} does not set {MAY_BE_RECORDED} = True"
        )
        return None
    batches = training_batches(run)
    longest = np.sort(batches.seconds)[-batches.most_rows :] * SAMPLE_RATE_HZ
    return sum(upstream.frame_counts(longest.astype(np.int64).tolist()))


def training_batches(run: Run) -> RandomBatches:
    """Return the sampler that composes a run's training batches."""
    config, processes = run.config, run.processes
    seconds = run.data.train["seconds"].to_numpy(np.float64).clip(max=config.max_seconds)
    longest = math.inf if config.max_batch_seconds is None else config.max_batch_seconds
    sizes = config.batch_size, config.accumulation_steps
    order = choose_order(config, run.data.train, run.data.classes)
    return RandomBatches(seconds, *sizes, run.seed, longest, processes.rank, processes.ranks, order)


def _choose_normalisation(run: Run, upstream: LoadedUpstream) -> Normalisation:
    config = run.config
    if config.normalize == "corpus":
        return measure_corpus(run.data.train["path"])
    if config.normalize != "upstream":
        return Normalisation(config.normalize)
    if upstream.do_normalize is None:
        raise UpstreamError(
            f"{config.name}: {config.upstream_model} has no preprocessor_config.json that says how it was trained; add "
            'it, or set normalize = "utterance" (as wavlm-large) or "none" (as wavlm-base-plus)'
        )
    return Normalisation("utterance" if upstream.do_normalize else "none")


def _introduce(run: Run, assembly: Assembly) -> None:
    """Print every derived number, so that the log explains the run."""
    config, train, development = run.config, run.data.train, run.data.development
    trained = sum(p.numel() for p in assembly.model.parameters() if p.requires_grad)
    in_all = sum(p.numel() for p in assembly.model.parameters())
    kind = "SYNTHETIC " if config.corpus in run.data.synthetic_corpora else ""
    run.console.line(f"{run.name}: {config.task} on {kind}{config.corpus}", style="bold")
    show = run.console.warn if assembly.upstream.has_random_weights else run.console.line
    show(f"upstream: {assembly.upstream.description}")
    run.console.line(
        f"{trained:,} of {in_all:,} parameters are trained (freeze = {config.freeze}); normalisation: "
        f"{assembly.description.normalisation.kind}; precision: {run.precision.reason}"
    )
    if config.freeze != "upstream":
        run.console.line(f"regularisation: {config.regularisation}")
    show_left_out(config, run.data, run.console)
    run.console.warn(*warn_of_faint_mixes([run.data.train, run.data.development]))
    for head in config.heads:
        title, unknown = head_title(head.name), int(train[head.name].isna().sum())
        run.console.line(
            f"{title} head: weight {config.head_weight(head):g}; {unknown:,} training utterances of unknown {title}"
        )
    run.console.line(
        f"{len(train):,} training utterances ({train['seconds'].sum() / 3600:.2f} h) in "
        f"{counted(training_batches(run).steps_per_epoch, 'step')} an epoch, {counted(config.epoch, 'epoch')} at most; "
        f"{len(development):,} development utterances ({development['seconds'].sum() / 3600:.2f} h); "
        f"{counted(run.workers, 'decoding process', 'decoding processes')}"
    )
    if run.processes.ranks > 1:
        run.console.line(
            f"{run.processes.ranks} processes train together: an optimiser step takes {config.batch_size} x "
            f"{config.accumulation_steps} x {run.processes.ranks} = "
            f"{config.batch_size * config.accumulation_steps * run.processes.ranks} utterances"
        )
