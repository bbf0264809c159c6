"""Cache of the frozen part of an upstream: which outputs are kept on the disk, and the pass that computes them.

Outputs that training never changes need not be computed again in every epoch, seed and experiment that share them.
Cached are the outputs of utterances that are never cropped: development, and training up to `max_seconds` long.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import soundfile
import torch
from torch import Tensor

from dataset_module.ser_dataset import SERDataset
from experiment_runner.loading.batch_loader import decoded, make_loader
from experiment_runner.models.model_config import ModelConfig
from experiment_runner.run import Run
from experiment_runner.runtime.interruption import Interrupted
from experiment_runner.runtime.program_version import package_version
from net.inputs import Waveforms
from net.upstream import Upstream
from utils.data.recordings.file_identity import Identities, identify
from utils.data.wav import SAMPLE_RATE_HZ
from utils.dataset.collation import Batch
from utils.dataset.feature_store import FeatureStore, StoreError, kept_bytes, make_room, open_store, store_folder
from utils.dataset.normalisation import Normalisation
from utils.dataset.sampling import EVALUATION, BatchItems, evaluation_batches
from utils.io.syntax_hash import PROGRAM, hash_sources, sources_of
from utils.io.user_code import hash_user_code
from utils.registry import is_user_code

VERSION = 1
GIB = 1 << 30
FRAMES_BEGIN_AT = ("dataset_module.ser_dataset", "net.upstream", "utils.hub.upstreams")
"""Modules that decode, normalise and encode; if they or their imports change, frames are computed again."""
SHAPES_NO_FRAME = (
    "net.augmentation",
    "net.loss_modules",
    "utils.commands",
    "utils.config.wording",
    "utils.errors",
    "utils.text",
    "utils.dataset.augmentation",
    "utils.data.labels.vote_shares",
    "utils.io.files",
    "utils.hub.git_source",
    "utils.hub.repositories",
    "utils.hub.model_files",
)
"""Modules that those import only for labels, augmentation (never cached) or the location of upstreams."""
LIBRARIES = ("torch", "transformers", "soxr", "numpy")
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class CachedFeatures:
    """Cached frames of a run's utterances.

    Attributes:
        store: Store that holds them.
        places: `first`, `samples` and `frames` of every training and of every development utterance, in table order; -1
            for those that are not cached.
        width: Numbers per frame.
        dtype: Element type of the frames.
    """

    store: FeatureStore
    places: tuple[pd.DataFrame, pd.DataFrame]
    width: int
    dtype: torch.dtype


def cache_features(run: Run, upstream: Upstream, description: ModelConfig) -> CachedFeatures | None:
    """Find the frozen part's frames, compute and report the missing ones; None if they are not cached.

    Raises:
        DataError: If a recording cannot be used.
    """
    try:
        return _Keeper(run, upstream, description).keep()
    except NotKeptError as error:
        reason = str(error)
    except StoreError as error:
        reason = f"it cannot be cached: {error}"
    if run.config.freeze != "none" or run.config.cache_gib != "auto":
        run.console.line(f"frozen part: computed in every epoch, because {reason}")
    return None


class NotKeptError(Exception):
    """The frozen part is not worth the space, or there is none; the message says why."""


class _Keeper:
    """Finds, computes and stores the frames of one run's frozen part."""

    def __init__(self, run: Run, upstream: Upstream, description: ModelConfig) -> None:
        _check_it_is_wanted(run, upstream)
        self.run, self.upstream, self.description = run, upstream, description
        self.console = run.console
        self.dtype = frozen_dtype(run, upstream)
        self.row_bytes = upstream.frozen_width * self.dtype.itemsize
        train = run.data.train
        self.is_whole = (train["seconds"] <= run.config.max_seconds).to_numpy()  # others are cropped in every epoch
        self.wanted = pd.concat([train[self.is_whole], run.data.development]).reset_index(drop=True)

    def keep(self) -> CachedFeatures:
        """Return the cached frames, after computing the missing ones."""
        if self.run.config.cache_gib == "auto":
            _check_it_pays(self.run.device, self._bytes_of(self.wanted))
        key = store_key(self.run, self.upstream, self.description.normalisation)
        recordings = identify(self.wanted["path"])

        def wait() -> None:
            self.console.line("frozen part: another process is computing it; this one waits for it")

        with open_store(key, self.row_bytes, wait) as store:
            self._drop_damaged(store, recordings)
            self._make_room(store, key, recordings)
            is_missing = self._missing(store, recordings)
            if is_missing.any():
                self._fill(store, recordings, is_missing)
        places = store.find(recordings)
        self._report_cached(store, places, int(is_missing.sum()))
        training = int(self.is_whole.sum())
        in_train = pd.DataFrame(-1, index=range(len(self.is_whole)), columns=places.columns)
        in_train[self.is_whole] = places[:training].to_numpy()
        kept = (in_train, places[training:].reset_index(drop=True))
        return CachedFeatures(store, kept, self.upstream.frozen_width, self.dtype)

    def _missing(self, store: FeatureStore, recordings: Identities) -> npt.NDArray[np.bool_]:
        return (store.find(recordings)["first"] < 0).to_numpy()

    def _bytes_of(self, table: pd.DataFrame) -> int:
        """Return the bytes of the utterances' frames, estimated from the durations in the file headers."""
        samples = np.rint(table["seconds"].to_numpy(np.float64) * SAMPLE_RATE_HZ).astype(int)
        return sum(self.upstream.frame_counts(samples.tolist())) * self.row_bytes if len(samples) else 0

    def _drop_damaged(self, store: FeatureStore, recordings: Identities) -> None:
        """Read all needed cached frames, which also brings them into memory, and drop damaged ones."""
        found = int((~self._missing(store, recordings)).sum())
        with self.console.count(found, "cached outputs of the frozen part checked") as advance:
            is_sound = store.check(recordings, advance)
        if not is_sound:
            store.renew()
        if store.was_damaged or not is_sound:
            self.console.warn(f"frozen part: {store.path} is damaged; it is computed again")

    def _make_room(self, store: FeatureStore, key: str, recordings: Identities) -> None:
        """Make room for missing frames by removing the least recently used ones.

        Raises:
            NotKeptError: If there is not enough room.
        """
        limit, why = self._limit()
        size = store.size + self._bytes_of(self.wanted[self._missing(store, recordings)])
        alone = self._bytes_of(self.wanted)
        if size > limit >= alone:
            store.renew()
            self.console.line(f"frozen part: the cache of other corpora is removed to make room ({why})")
            size = alone
        removed = make_room(size, limit, key)
        for name, freed in removed or ():
            self.console.line(
                f"frozen part: {name} ({_size(freed)}), the least recently used, is removed to make room ({why})"
            )
        if removed is None:
            raise NotKeptError(f"its {_size(size)} exceed the available room ({why}: {_size(limit)})")

    def _limit(self) -> tuple[int, str]:
        """Return the limit on the bytes of all cached frames, and where the limit comes from."""
        limit = self.run.config.cache_gib
        if limit != "auto":
            return int(limit * GIB), f"cache_gib = {limit:g}"
        free = shutil.disk_usage(store_folder()).free + kept_bytes()
        return free // 2, "half of the free disk space"

    def _fill(self, store: FeatureStore, recordings: Identities, is_missing: npt.NDArray[np.bool_]) -> None:
        """Compute and store the frames of missing recordings; if the disk fails, nothing is left on it.

        Batches are composed from all needed recordings, so that a pass resumed after an interruption rounds just as an
        uninterrupted one.

        Raises:
            StoreError: If the frames cannot be stored, for example on a full disk.
        """
        was_training = self.upstream.training
        self.upstream.eval()
        precision, device = self.run.precision, self.run.device
        count = self.console.count(int(is_missing.sum()), "utterances through the frozen part")
        try:
            with torch.inference_mode(), precision.autocast(device), count as advance:
                for batch in self._batches(is_missing):
                    self.run.interruption.check()
                    assert isinstance(batch.inputs, Waveforms)
                    frames = self.upstream.frozen_frames(batch.inputs.to(device)).cpu().contiguous()
                    places = batch.rows.numpy()
                    is_new = is_missing[places]
                    counts = np.array(batch.inputs.counts)
                    lengths = np.array(self.upstream.frame_counts(batch.inputs.counts))
                    rows = frames.view(torch.uint8).numpy()
                    rows = rows if is_new.all() else rows[np.repeat(is_new, lengths)]
                    store.append(recordings[places[is_new]], counts[is_new].tolist(), lengths[is_new].tolist(), rows)
                    advance(int(is_new.sum()))
            store.commit()
        except Interrupted:
            store.commit()
            raise
        except StoreError:
            with suppress(StoreError):
                store.renew()
            raise
        finally:
            self.upstream.train(was_training)

    def _batches(self, is_missing: npt.NDArray[np.bool_]) -> Iterator[Batch]:
        """Decode, as a development pass does, the batches that contain missing recordings."""
        run, description = self.run, self.description
        dataset = SERDataset(
            self.wanted, description.labels, description.normalisation, run.config.max_seconds, run.seed
        )
        batches = evaluation_batches(self.wanted["seconds"].to_numpy(np.float64), run.eval_batch_seconds)
        batches = [rows for rows in batches if is_missing[rows].any()]
        loader = make_loader(dataset, BatchItems(batches, EVALUATION), run.workers, run.device)
        return decoded(loader)

    def _report_cached(self, store: FeatureStore, places: pd.DataFrame, computed: int) -> None:
        what = "the convolutions' output" if self.upstream.frozen_stage == "cnn" else "the upstream's output"
        width = f"{self.upstream.frozen_width:,} x {str(self.dtype).removeprefix('torch.')} a frame"
        size = _size(int(places["frames"].sum()) * self.row_bytes)
        self.console.line(
            f"frozen part: {what} is kept for {self.is_whole.sum():,} of {len(self.is_whole):,} training and all "
            f"development utterances, {size} ({width}) in {store.path}: {computed:,} computed now, "
            f"{len(places) - computed:,} found there"
        )


def _check_it_is_wanted(run: Run, upstream: Upstream) -> None:
    """Refuse to cache outputs that are not frozen, not requested or not useful.

    Raises:
        NotKeptError: If one of these holds; it says which.
    """
    if upstream.frozen_stage is None:
        what = f"{run.config.upstream_model} cannot start after its convolutions, as WavLM can"
        raise NotKeptError("nothing is frozen" if run.config.freeze == "none" else what)
    if run.config.augments_waveforms:
        raise NotKeptError("training utterances are augmented anew in every epoch")
    if run.config.cache_gib == 0:
        raise NotKeptError("cache_gib = 0")
    if run.config.cache_gib == "auto" and run.config.epoch < 2:
        raise NotKeptError("one epoch needs nothing twice")


def _check_it_pays(device: torch.device, wanted: int) -> None:
    """Refuse frames that a GPU computes about as fast as a disk delivers them.

    In half precision the convolutions' output takes 51 kB per second of audio; the frames of a `base` upstream take 154
    kB, all of its layers 2 MB. Per second, a 1 GB/s disk delivers these for 20,000, 6,500 and 500 seconds of audio, a
    network disk for a tenth of that. An H100 computes the convolutions of 60,000 seconds of audio per second (256 s in
    4.0 ms) and even trains a `base` upstream on 5,000 (256 s in 48 ms, docs/performance.md). So frames must stay in
    memory between epochs, where they may take half of it. A CPU core computes a `base` upstream on about five seconds
    of audio per second, which any disk exceeds.

    Raises:
        NotKeptError: If they would not stay in memory.
    """
    memory = _memory_bytes()
    if device.type == "cuda" and wanted > memory // 2:
        raise NotKeptError(
            f"its {_size(wanted)} exceed half of the memory ({_size(memory)}) and reading a disk is no faster "
            f"than computing on the GPU; to cache it anyway set cache_gib = {-(-wanted // GIB)} or more"
        )


def _memory_bytes() -> int:
    """Return the memory of the machine, or of the container if that is less."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # the file says "max" if there is no limit
        return min(machine, int(MEMORY_LIMIT.read_text(encoding="ascii")))
    return machine


def frozen_dtype(run: Run, upstream: Upstream) -> torch.dtype:
    """Return the dtype in which training uses the frozen part's frames, so that caching rounds nothing."""
    return torch.float32 if upstream.frozen_stage == "upstream" else run.precision.dtype or torch.float32


def store_key(run: Run, upstream: Upstream, normalisation: Normalisation) -> str:
    """Return a hash of everything except recordings that cached frames depend on, down to their rounding."""
    own = {"encoder": hash_user_code([run.config.encoder])} if is_user_code(run.config.encoder) else {}
    parts = {
        "version": VERSION,
        "programs": _programs(),
        "device": _processor(run.device),
        "precision": str(run.precision.dtype),
        "stage": upstream.frozen_stage,
        "width": upstream.frozen_width,
        "normalisation": [normalisation.kind, normalisation.mean, normalisation.deviation],
        "config": upstream.frozen_config(),
        "weights": _digest(upstream.frozen_parameters()),
        **own,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def frame_sources(program: Path = PROGRAM) -> list[Path]:
    """Return the source files that compute frames: this file, its loader's, and all that they decode with.

    Args:
        program: The folder of the program.
    """
    here = [program / "experiment_runner" / "loading" / name for name in ("feature_cache.py", "batch_loader.py")]
    return sorted({*sources_of(FRAMES_BEGIN_AT, SHAPES_NO_FRAME, program), *here})


@cache
def _programs() -> list[str]:
    versions = [f"{name} {package_version(name)}" for name in LIBRARIES]
    return [hash_sources(frame_sources()), f"libsndfile {soundfile.__libsndfile_version__}", *versions]


def _processor(device: torch.device) -> str:
    """Return the processor model, which decides how sums are rounded."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB / 10 else f"{count / (1 << 20):.2f} MiB"
