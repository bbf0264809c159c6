"""Loaders for batches of a split, decoded from recordings or read from cached outputs of the frozen part."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from dataset_module.ser_dataset import SERDataset
from experiment_runner.data.experiment_data import count_votes
from experiment_runner.loading.batch_loader import BatchLoader, make_loader
from experiment_runner.loading.feature_cache import CachedFeatures, cache_features
from experiment_runner.models.model_config import ModelConfig
from experiment_runner.run import Run
from net.inputs import FrozenFrames, Waveforms
from net.packing.frames import starts_of
from net.upstream import Upstream
from utils.dataset.augmentation import choose_augmenter
from utils.dataset.collation import Batch, LabelTable
from utils.dataset.feature_store import THREADS
from utils.dataset.read_ahead import read_ahead
from utils.dataset.sampling import BatchItems, Rows

AHEAD = 4
"""Number of batches that are read ahead."""
SHARE_OF_FREE_GPU_MEMORY = 4
"""Cached frames are held in GPU memory if they take at most 1/4 of what is free before training."""
MOST_BYTES_AT_ONCE = 256 << 20
"""Bytes read at once when frames are loaded into GPU memory."""


class Source(Protocol):
    """Source of a batch's cached frames, read in two steps."""

    def fetch(self, rows: Rows) -> Tensor:
        """Do the part for some utterances of a split that a separate thread can do ahead of time."""

    def finish(self, fetched: Tensor) -> Tensor:
        """Return their frames, (total_frames, width), when the batch is needed."""


class DiskFrames:
    """Reads a split's cached frames from their file, or from the system's page cache.

    Args:
        kept: Cached frames of the run.
        places: Places of the split's utterances in the store.
        is_pinned: Whether they are read into page-locked memory.
    """

    def __init__(self, kept: CachedFeatures, places: pd.DataFrame, is_pinned: bool) -> None:
        self.places = places
        self.row_bytes, self.width, self.dtype = kept.store.row_bytes, kept.width, kept.dtype
        self._store = kept.store
        self._first, self._frames = places["first"].to_numpy(), places["frames"].to_numpy()
        self._is_pinned = is_pinned
        self._pool = ThreadPoolExecutor(THREADS)

    def fetch(self, rows: Rows) -> Tensor:
        """Read the frames of some utterances, with several threads."""
        lengths = self._frames[rows]
        shape = (int(lengths.sum()), self.width)
        frames = torch.empty(shape, dtype=self.dtype, pin_memory=self._is_pinned)
        whole, stops = frames.view(torch.uint8).numpy(), lengths.cumsum()
        pieces = list(zip(self._first[rows].tolist(), (stops - lengths).tolist(), stops.tolist(), strict=True))

        def read(part: int) -> None:
            for first, start, stop in pieces[part::THREADS]:
                self._store.read(first, whole[start:stop])

        list(self._pool.map(read, range(min(THREADS, len(pieces)))))
        return frames

    def finish(self, fetched: Tensor) -> Tensor:
        """Return the frames that were read."""
        return fetched


class DeviceFrames:
    """Holds a split's cached frames in GPU memory, and gathers batches there.

    Args:
        disk: Source to read the frames from.
        device: The GPU.
    """

    def __init__(self, disk: DiskFrames, device: torch.device) -> None:
        frames = disk.places["frames"].to_numpy()
        kept = np.flatnonzero(frames > 0)
        self._frames = frames
        self._first = np.where(frames > 0, np.maximum(frames, 0).cumsum() - frames, -1)
        part = frames[kept].cumsum() * disk.row_bytes // MOST_BYTES_AT_ONCE
        parts = np.split(kept, np.flatnonzero(np.diff(part)) + 1)
        shape = (int(frames[kept].sum()), disk.width)
        self._table = torch.empty(shape, dtype=disk.dtype, device=device)
        for rows in parts:
            fetched = disk.fetch(rows)
            start = int(self._first[rows[0]]) if len(rows) else 0
            self._table[start : start + len(fetched)].copy_(fetched, non_blocking=True)

    def fetch(self, rows: Rows) -> Tensor:
        """Return the row numbers of some utterances' frames in the table, (total_frames,)."""
        lengths = self._frames[rows]
        starts = self._first[rows] - (lengths.cumsum() - lengths)
        return torch.from_numpy(np.repeat(starts, lengths) + np.arange(lengths.sum()))

    def finish(self, fetched: Tensor) -> Tensor:
        """Gather the frames of these rows."""
        return self._table.index_select(0, fetched.to(self._table.device, non_blocking=True))


@dataclass(frozen=True)
class CachedLoader(BatchLoader):
    """A loader that reads cached outputs of the frozen part, and decodes only the other utterances.

    Attributes:
        dataset: Dataset of the split, which provides the labels.
        source: Source of the cached frames.
        samples: Samples of every cached utterance; -1 for the others, which the loader decodes.
        frames: Frames of every cached utterance; -1 for the others.
        is_pinned: Whether batches are returned in page-locked memory.
    """

    dataset: SERDataset
    source: Source
    samples: npt.NDArray[np.int64]
    frames: npt.NDArray[np.int64]
    is_pinned: bool

    def serve(self, batches: list[Rows], epoch: int) -> Iterator[Batch]:
        """Read the batches in order, a few of them in advance."""
        others = [missing for rows in batches if len(missing := rows[self.samples[rows] < 0])]
        self.items.batches, self.items.epoch = others, epoch
        waveforms = self.decode() if others else iter(())
        calls = repeat(partial(next, self._read(batches, waveforms)), len(batches))
        return self._finished(read_ahead(calls, threads=1, most=AHEAD))

    def _read(self, batches: list[Rows], waveforms: Iterator[Batch]) -> Iterator[Batch]:
        for rows in batches:
            is_known = self.samples[rows] >= 0
            batch = self._join(rows, is_known, None if is_known.all() else next(waveforms))
            yield batch.pin_memory() if self.is_pinned else batch

    def _join(self, rows: Rows, is_known: npt.NDArray[np.bool_], decoded_others: Batch | None) -> Batch:
        """Combine cached frames and the waveforms of the other utterances into a batch."""
        counts, others = self.samples[rows], None
        if decoded_others is not None:
            if not is_known.any():
                return decoded_others
            assert isinstance(decoded_others.inputs, Waveforms)
            others = decoded_others.inputs
            counts[~is_known] = others.counts
        values = self.source.fetch(rows[is_known])
        starts = starts_of(self.frames[rows].tolist()) if others is None else None
        inputs = FrozenFrames(values, tuple(counts.tolist()), tuple(is_known.tolist()), others, starts)
        labels = LabelTable(torch.from_numpy(self.dataset.labels[rows]), self.dataset.layout)
        return Batch(inputs, labels, torch.from_numpy(rows))

    def _finished(self, batches: Iterator[Future[Batch]]) -> Iterator[Batch]:
        for future in batches:
            batch = future.result()
            if isinstance(batch.inputs, FrozenFrames):
                values = self.source.finish(batch.inputs.values)
                batch = replace(batch, inputs=replace(batch.inputs, values=values))
            yield batch


def build_feeds(run: Run, upstream: Upstream, description: ModelConfig) -> tuple[BatchLoader, BatchLoader]:
    """Return the loaders of training and development.

    Raises:
        DataError: If a recording cannot be used.
    """
    datasets = [_dataset(run, description, is_training) for is_training in (True, False)]
    kept = cache_features(run, upstream, description)
    sources = [None, None] if kept is None else _sources(run, kept)
    feeds = []
    for split, (dataset, source) in enumerate(zip(datasets, sources, strict=True)):
        items = BatchItems()
        loader, check = make_loader(dataset, items, run.workers, run.device), run.interruption.check
        feed = BatchLoader(items, loader, check)
        if kept is not None and source is not None:
            samples, frames = (kept.places[split][name].to_numpy() for name in ("samples", "frames"))
            feed = CachedLoader(items, loader, check, dataset, source, samples, frames, run.device.type == "cuda")
        feeds.append(feed)
    return feeds[0], feeds[1]


def _dataset(run: Run, description: ModelConfig, is_training: bool) -> SERDataset:
    table = run.data.train if is_training else run.data.development
    labels = description.labels
    if run.data.learns_votes:
        votes = replace(count_votes(run.config), smoothing=run.config.vote_smoothing if is_training else 0.0)
        labels = replace(labels, votes=votes)
    augmenter = choose_augmenter(run.config, run.seed) if is_training else None
    return SERDataset(table, labels, description.normalisation, run.config.max_seconds, run.seed, augmenter)


def _sources(run: Run, kept: CachedFeatures) -> list[Source]:
    """Return the sources of training and development: GPU memory if there is room, else the disk."""
    is_cuda = run.device.type == "cuda"
    disk = [DiskFrames(kept, places, is_cuda) for places in kept.places]
    size = sum(int(places["frames"].clip(lower=0).sum()) for places in kept.places) * kept.store.row_bytes
    if not is_cuda or size > torch.cuda.mem_get_info(run.device)[0] // SHARE_OF_FREE_GPU_MEMORY:
        return list(disk)
    run.console.line("frozen part: held entirely in the GPU's memory")
    return [DeviceFrames(source, run.device) for source in disk]
