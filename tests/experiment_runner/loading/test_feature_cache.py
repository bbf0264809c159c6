from __future__ import annotations

import gc
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import HubertConfig, HubertModel

from experiment_runner.loading import cached_loader, feature_cache
from experiment_runner.loading.cached_loader import CachedLoader, DeviceFrames, DiskFrames
from net.inputs import FrozenFrames
from tests.conftest import ROOT
from tests.support.encoders import SMALL, save_encoder
from tests.support.synthetic_podcast import SyntheticPodcast, write_podcast
from tests.support.trainings import CPU, make_trainer, weights_of
from tests.support.user_code import Write
from utils.config.encoders import ENCODER
from utils.io import syntax_hash
from utils.io.user_code import import_user_code, look_beside

FAST = {"batch_size": 8, "task": "multitask", "freeze": "upstream", "max_seconds": 30.0}
TRAINING, DEVELOPMENT = 28, 28
"""Utterances of the synthetic corpus that a multitask experiment uses."""


@dataclass(frozen=True)
class Found:
    """What a training has found, and what it said of the frozen part."""

    losses: list[float]
    development: float
    weights: torch.Tensor
    said: str


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "200ai" / "frozen"


@pytest.fixture
def upstream(tmp_path: Path) -> str:
    """A folder with weights that do not depend on the seed of a run."""
    return save_encoder("wavlm-tiny-random", tmp_path / "upstream", 0)


def train(
    podcast: SyntheticPodcast,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    keys: Mapping[str, object],
    seed: int = 1,
) -> Found:
    capsys.readouterr()
    trainer = make_trainer(podcast, folder, {**FAST, **keys}, seed=seed)
    said = capsys.readouterr().out.strip()
    losses = [trainer.train_epoch(epoch)["loss"] for epoch in (1, 2)]
    return Found(losses, trainer.evaluate().loss, weights_of(trainer), said)


def assert_alike(one: Found, other: Found) -> None:
    """Sums may be taken in another order where utterances have other neighbours in the batch."""
    assert one.losses == pytest.approx(other.losses, rel=1e-6)
    assert one.development == pytest.approx(other.development, rel=1e-6)
    assert torch.allclose(one.weights, other.weights, atol=1e-5)


def assert_same(one: Found, other: Found) -> None:
    assert one.losses == other.losses
    assert one.development == other.development
    assert torch.equal(one.weights, other.weights)


@pytest.mark.parametrize("layer_weighting", [False, True])
@pytest.mark.parametrize("freeze", ["cnn", "upstream", 1])
@pytest.mark.parametrize("name", ["wavlm-tiny-random", "wavlm-tiny-group-random"])
def test_training_on_what_is_kept_is_training_on_recordings(
    name: str,
    freeze: str | int,
    layer_weighting: bool,
    podcast: SyntheticPodcast,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keys = {"upstream_model": name, "freeze": freeze, "layer_weighting": layer_weighting, "max_seconds": 0.6}
    keys |= {"accumulation_steps": 2, "batch_size": 4}
    plain = train(podcast, tmp_path, capsys, {**keys, "cache_gib": 0})
    assert plain.said == "frozen part: computed in every epoch, because cache_gib = 0"
    computed, read = (train(podcast, tmp_path, capsys, keys) for _ in range(2))
    kept = re.search(rf"is kept for (\d+) of {TRAINING} training and all development utterances", computed.said)
    assert kept is not None
    whole = int(kept[1])
    assert 0 < whole < TRAINING, "some utterances are cropped anew in every epoch"
    assert f"{whole + DEVELOPMENT} computed now, 0 found there" in computed.said
    assert f"0 computed now, {whole + DEVELOPMENT} found there" in read.said
    assert_alike(computed, plain)
    assert_same(read, computed)


def test_cropped_utterances_are_decoded_by_workers_beside_what_is_kept(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"max_seconds": 0.5, "batch_size": 2}
    alone, workers = (train(podcast, tmp_path, capsys, {**keys, "num_workers": number}) for number in (0, 2))
    assert_same(workers, alone)
    assert_alike(alone, train(podcast, tmp_path, capsys, {**keys, "cache_gib": 0}))


@pytest.mark.parametrize("freeze", ["cnn", "upstream"])
def test_in_half_precision_nothing_is_rounded_for_being_kept(
    freeze: str, podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"freeze": freeze, "amp": "bf16"}
    plain, kept = (train(podcast, tmp_path, capsys, {**keys, "cache_gib": gib}) for gib in (0, "auto"))
    assert ("bfloat16" if freeze == "cnn" else "float32") in kept.said
    assert_same(kept, plain)


@pytest.mark.parametrize("layer_weighting", [False, True])
def test_padded_upstreams_are_kept_where_all_of_them_is_frozen(
    layer_weighting: bool, podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    HubertModel(HubertConfig(**SMALL)).save_pretrained(tmp_path / "hubert")
    keys = {"upstream_model": str(tmp_path / "hubert"), "normalize": "utterance", "layer_weighting": layer_weighting}
    plain, kept = (train(podcast, tmp_path, capsys, {**keys, "cache_gib": gib}) for gib in (0, "auto"))
    assert f"{192 if layer_weighting else 64} x float32 a frame" in kept.said
    assert_alike(kept, plain)
    for config in tmp_path.rglob("checkpoints/best/config.json"):
        assert str(tmp_path) not in config.read_text(), "where an upstream lay is nobody else's affair"
    cnn = train(podcast, tmp_path, capsys, {**keys, "freeze": "cnn"})
    assert re.search("because .*hubert cannot start after its convolutions", cnn.said)


def test_seeds_and_experiments_that_share_the_frozen_part_decode_nothing_again(
    upstream: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    podcast = write_podcast(tmp_path / "podcast")
    keys = {"upstream_model": upstream}
    train(podcast, tmp_path, capsys, {**keys, "task": "categorical"})
    first = train(podcast, tmp_path, capsys, keys)
    assert "8 computed now, 48 found there" in first.said, "the utterances without a class are new"
    for path in podcast.audio.iterdir():
        state = path.stat()
        with path.open("r+b") as file:
            file.seek(44)
            file.write(bytes(state.st_size - 44))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert_same(train(podcast, tmp_path, capsys, keys), first)
    other = train(podcast, tmp_path, capsys, {**keys, "hidden_dropout": 0.3, "learning_rate": 1e-4}, seed=2)
    assert "0 computed now, 56 found there" in other.said
    assert other.losses != first.losses


def test_what_changes_the_frames_is_computed_again(
    upstream: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    podcast = write_podcast(tmp_path / "podcast")
    keys = {"upstream_model": upstream}
    all_anew = "56 computed now, 0 found there"
    assert all_anew in train(podcast, tmp_path, capsys, keys).said
    os.utime(podcast.audio / podcast.rows["FileName"][0])
    assert "1 computed now, 55 found there" in train(podcast, tmp_path, capsys, keys).said
    for change in ({"normalize": "none"}, {"normalize": "corpus"}, {"amp": "bf16"}, {"freeze": "cnn"}):
        assert all_anew in train(podcast, tmp_path, capsys, {**keys, **change}).said
    assert all_anew in train(podcast, tmp_path, capsys, {**keys, "layer_weighting": True}).said
    save_encoder("wavlm-tiny-random", Path(upstream), 1)
    assert all_anew in train(podcast, tmp_path, capsys, keys).said


def test_other_code_of_the_users_encoder_computes_frames_again(
    upstream: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], write_module: Write
) -> None:
    podcast = write_podcast(tmp_path / "podcast")
    keys = {"upstream_model": upstream, "encoder": "encoder_of_mine:Mine"}
    text = "from net.packed_wavlm import PackedWavLMEncoder\nclass Mine(PackedWavLMEncoder):\n    version = {}\n"
    look_beside(tmp_path / "config.toml")

    def train_with(version: int) -> str:
        write_module("encoder_of_mine", text.format(version))
        sys.modules.pop("encoder_of_mine", None)
        for cached in (syntax_hash.syntax_hash, syntax_hash._read):
            cached.cache_clear()
        import_user_code("encoder_of_mine:Mine", ENCODER.contract)
        return train(podcast, tmp_path, capsys, keys).said

    train(podcast, tmp_path, capsys, {"upstream_model": upstream})
    assert "56 computed now, 0 found there" in train_with(1)
    assert "0 computed now, 56 found there" in train_with(1)
    assert "56 computed now, 0 found there" in train_with(12)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.experiment_runner.loading.test_feature_cache import FAST
from tests.support import trainings
from tests.support.synthetic_podcast import SyntheticPodcast
from utils.dataset import feature_store
import pandas as pd

os.environ["XDG_CACHE_HOME"], upstream, labels, audio, folder, writes = sys.argv[1:]
write, left = os.pwrite, [int(writes)]

def write_or_die(descriptor, content, position):
    left[0] -= 1
    if left[0] == 0:
        write(descriptor, content[: len(content) // 2], position)
        os.kill(os.getpid(), signal.SIGKILL)
    return write(descriptor, content, position)

os.pwrite = write_or_die
feature_store.SECONDS_BETWEEN_COMMITS = 0.0
podcast = SyntheticPodcast(Path(labels), Path(audio), pd.DataFrame())
keys = {**FAST, "upstream_model": upstream, "eval_batch_seconds": 8}
trainings.make_trainer(podcast, Path(folder), keys)
"""


@pytest.mark.slow
@pytest.mark.parametrize("writes", [1, 4])
def test_a_filling_that_is_killed_goes_on_where_it_was(
    writes: int,
    upstream: str,
    podcast: SyntheticPodcast,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [tmp_path / "cache", upstream, podcast.labels, podcast.audio, tmp_path, writes]
    command = [sys.executable, "-c", KILLED, *map(str, arguments)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    keys = {"upstream_model": upstream, "eval_batch_seconds": 8}
    again = train(podcast, tmp_path, capsys, keys)
    counts = re.search(r"(\d+) computed now, (\d+) found there", again.said)
    assert counts is not None
    computed, found = map(int, counts.groups())
    assert computed + found == 56
    assert (0 < found < 56) == (writes > 1), "what was kept before the kill is not computed again"
    assert "is damaged" not in again.said
    assert_alike(again, train(podcast, tmp_path, capsys, {**keys, "cache_gib": 0}))


@pytest.mark.parametrize("damage", ["shortened", "changed"])
def test_damaged_frames_are_noticed_and_computed_again(
    damage: str, podcast: SyntheticPodcast, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = train(podcast, tmp_path, capsys, {})
    (path,) = cache.glob("*.frames")
    with path.open("r+b") as file:
        if damage == "shortened":
            file.truncate(path.stat().st_size // 2)
        else:
            file.seek(path.stat().st_size // 3)
            file.write(b"\xff" * 64)
    again = train(podcast, tmp_path, capsys, {})
    assert f"WARNING: frozen part: {path} is damaged; it is computed again" in again.said
    assert "56 computed now, 0 found there" in again.said
    assert_same(again, sound)
    assert "is damaged" not in train(podcast, tmp_path, capsys, {}).said


def test_a_full_disk_is_one_sentence_and_training_goes_on(
    podcast: SyntheticPodcast, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        full = train(podcast, tmp_path, capsys, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (path,) = cache.glob("*.frames")
    because = f"because it cannot be cached: {path}: File too large"
    assert full.said == f"frozen part: computed in every epoch, {because}"
    assert path.stat().st_size == 0
    assert_same(full, train(podcast, tmp_path, capsys, {"cache_gib": 0}))


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"cache_gib": 0.0001}, r"its 0\.\d\d MiB exceed the available room \(cache_gib = 0\.0001: 0\.10 MiB\)"),
        ({"epoch": 1}, "one epoch needs nothing twice"),
        ({"freeze": "none", "cache_gib": 1}, "nothing is frozen"),
    ],
)
def test_why_nothing_is_kept_is_said(
    keys: dict[str, object],
    reason: str,
    podcast: SyntheticPodcast,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = train(podcast, tmp_path, capsys, keys).said
    assert re.fullmatch(f"frozen part: computed in every epoch, because {reason}", said)
    assert not train(podcast, tmp_path, capsys, {"freeze": "none"}).said


def test_a_gpu_computes_what_would_not_stay_in_memory() -> None:
    memory = feature_cache._memory_bytes()
    assert 1 << 28 < memory <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    feature_cache._check_it_pays(torch.device("cuda"), memory // 2)
    feature_cache._check_it_pays(CPU, memory)
    with pytest.raises(feature_cache.NotKeptError, match=r"exceed half of the memory .* set cache_gib = \d+ or more"):
        feature_cache._check_it_pays(torch.device("cuda"), memory // 2 + 1)


def test_the_least_recently_used_makes_room(
    upstream: str, podcast: SyntheticPodcast, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(podcast, tmp_path, capsys, {"upstream_model": upstream})
    (old,) = cache.glob("*.frames")
    limit = 1.5 * old.stat().st_size / 2**30
    gc.collect()
    keys = {"upstream_model": upstream, "normalize": "none", "cache_gib": limit}
    said = train(podcast, tmp_path, capsys, keys).said
    assert re.search(
        rf"{old.name} \(0\.\d\d MiB\), the least recently used, is removed to make room \(cache_gib = ", said
    )
    assert not old.exists()
    assert len(list(cache.glob("*.frames"))) == 1


def test_frames_held_on_a_device_are_those_of_the_disk(
    podcast: SyntheticPodcast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_loader, "MOST_BYTES_AT_ONCE", 20_000)
    feed = make_trainer(podcast, tmp_path, {**FAST, "max_seconds": 0.6}).parts.train_feed
    assert isinstance(feed, CachedLoader)
    assert isinstance(feed.source, DiskFrames)
    held = DeviceFrames(feed.source, CPU)
    kept = np.flatnonzero(feed.samples >= 0)
    for rows in (kept, kept[::-2], kept[:0]):
        assert torch.equal(held.finish(held.fetch(rows)), feed.source.fetch(rows))


@pytest.mark.gpu
@pytest.mark.parametrize("freeze", ["cnn", "upstream"])
def test_a_gpu_trains_on_what_is_kept(
    freeze: str,
    upstream: str,
    podcast: SyntheticPodcast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cuda: torch.device,
) -> None:
    keys = {**FAST, "upstream_model": upstream, "freeze": freeze, "max_seconds": 0.6}
    losses = []
    for gib, share in ((0, 4), ("auto", 4), ("auto", 2**60)):
        monkeypatch.setattr(cached_loader, "SHARE_OF_FREE_GPU_MEMORY", share)
        trainer = make_trainer(podcast, tmp_path, {**keys, "cache_gib": gib}, cuda)
        assert ("held entirely in the GPU's memory" in capsys.readouterr().out) == (gib == "auto" and share == 4)
        losses.append([trainer.train_epoch(1)["loss"], trainer.train_epoch(2)["loss"], trainer.evaluate().loss])
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    assert losses[2] == losses[1]


def test_batches_of_what_is_kept_hold_no_waveform_and_the_same_targets(
    podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    rows = [np.array([3, 1, 4]), np.array([5, 9, 2, 6])]
    plain, kept = (
        list(make_trainer(podcast, tmp_path, {**FAST, "cache_gib": gib}).parts.train_feed.serve(rows, 1))
        for gib in (0, "auto")
    )
    for one, other in zip(plain, kept, strict=True):
        assert isinstance(other.inputs, FrozenFrames)
        assert other.inputs.others is None
        assert other.inputs.counts == one.inputs.counts
        assert torch.equal(other.rows, one.rows)
        assert all(torch.equal(*pair) for pair in zip(one.targets.tensors(), other.targets.tensors(), strict=True))
