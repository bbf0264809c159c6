"""Whatever stands in the two TOML files: it is run, or refused in sentences; nobody reads a traceback."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, Phase, given, settings

import main as program
from tests.support.generated_configurations import Table, corpus_lists, experiment_lists, trainable
from tests.support.synthetic_podcast import SyntheticPodcast, write_podcast

EXAMPLES = int(os.environ.get("GENERATED_CONFIGURATIONS", "200"))
TRAININGS = int(os.environ.get("GENERATED_TRAININGS", "10"))
BASE: Table = {"corpus": "P", "upstream_model": "wavlm-tiny-random", "epoch": 1, "tracking": "none", "num_workers": 0}
QUIET: dict[str, Any] = {
    "database": None,
    "deadline": None,
    "derandomize": True,
    "phases": (Phase.explicit, Phase.generate, Phase.shrink),
    "suppress_health_check": list(HealthCheck),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SyntheticPodcast:
    return write_podcast(tmp_path_factory.mktemp("small"), per_class=2)


def run(folder: Path, corpora: Table, experiments: Table, *options: str) -> int:
    (folder / "config.toml").write_text(tomli_w.dumps(corpora), encoding="utf-8")
    (folder / "experiments.toml").write_text(tomli_w.dumps(experiments), encoding="utf-8")
    files = ["--config", str(folder / "config.toml"), "--experiments", str(folder / "experiments.toml")]
    return program.main([*files, "--output", str(folder / "runs"), "--device", "cpu", *options])


def podcast_table(podcast: SyntheticPodcast) -> Table:
    return {"PATH_TO_LABEL": str(podcast.labels), "PATH_TO_AUDIO": str(podcast.audio)}


def test_any_configuration_is_checked_or_refused_in_sentences(
    small: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    statuses = []

    @settings(max_examples=EXAMPLES, **QUIET)
    @given(corpora=corpus_lists(podcast_table(small)), experiments=experiment_lists(BASE))
    def check(corpora: Table, experiments: Table) -> None:
        status = run(tmp_path, corpora, experiments, "--check")
        told = capsys.readouterr()
        statuses.append(status)
        assert status in (0, 2), told.err
        assert "raceback" not in told.out + told.err
        assert bool(told.err) == (status == 2)
        for line in told.err.splitlines():
            assert re.search(r"config\.toml|experiments\.toml|^P: |recordings of", line), line

    check()
    assert {*statuses} == {0, 2}
    assert statuses.count(0) > len(statuses) / 20


@pytest.mark.slow
def test_keys_that_fit_by_themselves_train_or_are_refused_in_sentences(
    small: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends: list[Any] = []

    @settings(max_examples=TRAININGS, **{**QUIET, "phases": (Phase.explicit, Phase.generate)})  # shrinking takes hours
    @given(keys=trainable(BASE))
    def train(keys: Table) -> None:
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        experiments = {"base_config": keys, "experiments": [{"name": "one"}]}
        status = run(tmp_path, {"P": podcast_table(small)}, experiments)
        told = capsys.readouterr()
        ends.append(status)
        assert status in (0, 1, 2), told.err
        assert "raceback" not in told.out + told.err, told.out + told.err
        if status == 1:
            assert "ERROR: one seed " in told.out

    train()
    assert 0 in ends
