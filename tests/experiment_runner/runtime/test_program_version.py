"""Which code makes a run's numbers and kept frames, and that other code is told."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import tomli_w

from experiment_runner.loading.feature_cache import frame_sources
from experiment_runner.runtime import program_version
from experiment_runner.runtime.program_version import describe_other_programs, find_program_changes, number_sources
from tests.support.program_copy import copy_program
from utils.io.syntax_hash import PROGRAM, hash_sources

TODAY = {"code": "0123", "torch": "2.11.0", "numpy": "2.4.6"}


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_version, "program_version", lambda: TODAY)


def write_run(folder: Path, program: object = None, best: object = None) -> Path:
    folder.mkdir(parents=True)
    resolved = {"seed": 1} if program is None else {"seed": 1, "program": program}
    (folder / "experiment.toml").write_text(tomli_w.dumps({"experiment": {}, "resolved": resolved}))
    if best is not None:
        (folder / "checkpoints" / "best").mkdir(parents=True)
        (folder / "checkpoints" / "best" / "provenance.json").write_text(json.dumps({"program": best}))
    return folder


@pytest.mark.parametrize(
    ("program", "best", "changes"),
    [
        (None, None, []),
        (TODAY, TODAY, []),
        ({**TODAY, "code": "9999"}, None, ["code"]),
        ({**TODAY, "torch": "2.10.0"}, None, ["torch 2.10.0 -> 2.11.0"]),
        ({**TODAY, "code": "9999", "numpy": "2.1.0"}, TODAY, ["code", "numpy 2.1.0 -> 2.4.6"]),
        (TODAY, {**TODAY, "code": "9999"}, ["code"]),
        ({"code": "0123"}, {"torch": "2.11.0", "more": "1"}, []),
        ("text", ["list"], []),
    ],
)
def test_what_has_changed_since_a_run_is_named(
    program: object, best: object, changes: list[str], tmp_path: Path
) -> None:
    assert find_program_changes(write_run(tmp_path / "run", program, best)) == changes


def test_a_run_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"code": "9999"})
    (run / "experiment.toml").write_text("[[[")
    assert find_program_changes(run) == find_program_changes(tmp_path / "nowhere") == []


def test_many_runs_are_one_line(tmp_path: Path) -> None:
    runs = [(f"r seed {n}", write_run(tmp_path / str(n), {**TODAY, "code": "9999"})) for n in range(6)]
    sentence = describe_other_programs([("silent", write_run(tmp_path / "silent")), *runs])
    assert sentence == (
        "made with other code or packages than today's, so metrics may differ from those of a new training: "
        "r seed 0 (code), r seed 1 (code), r seed 2 (code), r seed 3 (code), r seed 4 (code), and 1 more; "
        "they are used as they are, and --retrain trains them again"
    )
    assert describe_other_programs([("silent", tmp_path / "silent")]) is None


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_program(tmp_path_factory.mktemp("program"))


FRAME_SOURCES = [path.relative_to(PROGRAM).as_posix() for path in frame_sources()]


@pytest.mark.parametrize("name", FRAME_SOURCES)
def test_a_constant_in_any_file_that_shapes_a_frame_changes_the_key_and_a_comment_does_not(
    name: str, tmp_path: Path
) -> None:
    texts = {"same": "", "comment": '\n# why\n"""What it is for."""\n', "constant": "\nANOTHER = 1\n"}
    hashes = {}
    for kind, addition in texts.items():
        path = tmp_path / kind / name
        path.parent.mkdir(parents=True)
        path.write_text((PROGRAM / name).read_text(encoding="utf-8") + addition)
        hashes[kind] = hash_sources([path], tmp_path / kind)
    assert hashes["comment"] == hashes["same"] != hashes["constant"]


def test_the_files_that_shape_a_frame_are_those_of_the_imports(copied: Path) -> None:
    assert {"net/wavlm/packed_encoder.py", "net/upstream.py", "utils/data/wav.py", "utils/hub/upstreams.py"} < set(
        FRAME_SOURCES
    )
    assert {"net/kernels/relative_attention.py", "utils/dataset/normalisation.py"} < set(FRAME_SOURCES)
    assert not {"net/loss_modules.py", "net/pooling.py", "utils/metrics.py"} & set(FRAME_SOURCES)
    (copied / "net" / "moved.py").write_text("LIMIT = 1\n")
    upstream = copied / "net" / "upstream.py"
    upstream.write_text(upstream.read_text() + "\nfrom net.moved import LIMIT\n")
    assert copied / "net" / "moved.py" in frame_sources(copied)


def test_what_shapes_a_number_is_hashed_and_what_shows_it_is_not() -> None:
    started = time.process_time()
    names = {path.relative_to(PROGRAM).as_posix() for path in number_sources()}
    assert time.process_time() - started < 1.5, "one of several hundred milliseconds is noticed at every start"
    shaping = ["net/ser.py", "net/loss_modules.py", "net/spec_augment.py", "dataset_module/ser_dataset.py"]
    shaping += ["utils/metrics.py", "utils/loss_manager.py", "utils/dataset/sampling.py", "utils/data/wav.py"]
    shaping += ["utils/data/emodb.py", "experiment_runner/train.py", "experiment_runner/training/optimisation.py"]
    shaping += [
        "experiment_runner/training/training_steps.py",
        "experiment_runner/distributed/torch_process_group.py",
        "net/augmentation.py",
    ]
    shaping += ["experiment_runner/runtime/device.py", "experiment_runner/run.py", "configs/config_cat.json"]
    shaping += ["configs/config_dim.json", "configs/upstream_shapes.json", "utils/data/corpora/csv_columns.py"]
    shaping += [
        "utils/data/recordings/near_files.py",
        "utils/data/splits.py",
        "utils/data/recordings/survey.py",
        "utils/hub/upstreams.py",
    ]
    assert set(shaping) <= names
    showing = [
        "experiment_runner/runtime/console.py",
        "experiment_runner/reporting/report.py",
        "utils/hub/repositories.py",
        "utils/io/files.py",
    ]
    showing += [
        f"experiment_runner/{name}.py"
        for name in ("results/collapse", "data/label_warnings", "data/shared_classes", "reporting/tables")
    ]
    showing += [
        f"utils/data/{name}.py"
        for name in (
            "labels/near_names",
            "corpora/column_names",
            "labels/few_rows",
            "labels/speaker_names",
            "labels/scale_use",
            "recordings/leaks",
        )
    ]
    assert all((PROGRAM / name).is_file() for name in showing)
    assert not set(showing) & names
