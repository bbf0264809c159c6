"""Files from a stranger: nothing in them is run, and nothing outside of their folder is touched."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import download_model
import main as program
from experiment_runner.publishing.ser_model import SERModel
from experiment_runner.runtime.interruption import Interrupted, Interruption
from experiment_runner.storage.checkpoints import CheckpointError, read_checkpoint, read_state
from experiment_runner.tracking import wandb_copy
from tests.conftest import ROOT
from tests.support.checkpoints import resign
from tests.support.experiment_files import BASE, write_files
from tests.support.kill_harness import pack
from tests.support.synthetic_podcast import SyntheticPodcast
from utils.config.corpus import CorpusConfig
from utils.data.loader import load_corpus
from utils.data.packing.shards import INDEX, read_index
from utils.data.recordings.survey import survey
from utils.errors import DataError
from utils.hub.model_files import MANIFEST
from utils.hub.upstreams import UpstreamError, load_encoder, load_upstream
from utils.io.files import MOST_TOML_BYTES, write_json

CPU = torch.device("cpu")
PRODUCT = [ROOT / name for name in ("net", "dataset_module", "utils", "experiment_runner")]
SOURCES = [*ROOT.glob("*.py"), *(path for folder in PRODUCT for path in folder.rglob("*.py"))]


class Payload:
    """What a pickle calls when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.mark}'",)


def payloads(mark: Path) -> list[bytes]:
    """A pickle as it is, and as PyTorch packs it."""
    buffer = io.BytesIO()
    torch.save({"weights": Payload(mark)}, buffer)
    return [pickle.dumps(Payload(mark), protocol=2), buffer.getvalue()]


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What would be there if something were run; it is, where the payload is read as a pickle."""
    mark = tmp_path / "executed"
    for content in payloads(mark):
        with open(tmp_path / "payload", "wb") as file:
            file.write(content)
        torch.load(tmp_path / "payload", weights_only=False) if content[:2] == b"PK" else pickle.loads(content)
        mark.unlink()
    return mark


ONE = '[[experiments]]\nname = "one"\nconfig_update = { epoch = 1, min_epochs = 1, checkpoint_minutes = 0 }\n'


@pytest.fixture(scope="module")
def trained(podcast: SyntheticPodcast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration, a finished run, and one that was interrupted."""
    folder = tmp_path_factory.mktemp("trained")
    arguments = write_files(folder, podcast, ONE)
    assert program.main(arguments) == 0
    shutil.move(folder / "runs", folder / "finished")
    checks = iter(range(4))

    def end_after_some(_: Interruption) -> None:
        if next(checks, None) is None:
            raise Interrupted("SIGTERM")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Interruption, "check", end_after_some)
        assert program.main(arguments) == 75
    shutil.move(folder / "runs", folder / "unfinished")
    return folder


def run_with(trained: Path, kind: str, folder: Path, podcast: SyntheticPodcast) -> tuple[Path, list[str]]:
    """Copy a run, and return its folder and the command that goes on with it."""
    arguments = write_files(folder, podcast, ONE)
    shutil.copytree(trained / kind, folder / "runs", symlinks=True)
    return folder / "runs" / "one" / "seed-42", arguments


FINISHED = ("model.safetensors", "config.json", "manifest.json")
RUN_FILES = ("result.json", "experiment.toml", "metrics.jsonl", "predictions/development.csv")


@pytest.mark.parametrize("form", [0, 1])
@pytest.mark.parametrize("name", [*(f"checkpoints/best/{name}" for name in FINISHED), *RUN_FILES])
def test_a_finished_run_with_a_payload_runs_nothing(
    name: str, form: int, trained: Path, mark: Path, podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    run, arguments = run_with(trained, "finished", tmp_path, podcast)
    path = (run / name).resolve()
    path.write_bytes(payloads(mark)[form])
    if "checkpoints" in name and path.name != MANIFEST:
        resign(path.parent)
    statuses = [program.main([*arguments, "--test"]), program.main(arguments)]
    assert set(statuses) <= {0, 1}
    assert not (run / "traceback.txt").exists()
    assert not mark.exists()


@pytest.mark.parametrize("form", [0, 1])
@pytest.mark.parametrize("name", ["model.safetensors", "state/state.safetensors", "state/state.json", "config.json"])
def test_an_unfinished_run_with_a_payload_runs_nothing(
    name: str, form: int, trained: Path, mark: Path, podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    run, arguments = run_with(trained, "unfinished", tmp_path, podcast)
    path = run / "checkpoints" / "last" / name
    path.write_bytes(payloads(mark)[form])
    resign(path.parent)
    assert program.main(arguments) == 1
    assert not (run / "traceback.txt").exists()
    assert not mark.exists()


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    folder = tmp_path / "upstream"
    load_upstream("wavlm-tiny-random", {}).encoder.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("form", [0, 1])
def test_an_upstream_with_a_payload_runs_nothing(form: int, upstream: Path, mark: Path) -> None:
    content = payloads(mark)[form]
    (upstream / "pytorch_model.bin").write_bytes(content)
    load_upstream(str(upstream), {})
    (upstream / "model.safetensors").unlink()
    with pytest.raises(UpstreamError, match=r"has no model.safetensors, and weights of other kinds can run code"):
        load_upstream(str(upstream), {})
    assert download_model.main([str(upstream)]) == 1
    (upstream / "model.safetensors").write_bytes(content)
    for name in ("config.json", "preprocessor_config.json"):
        with pytest.raises(UpstreamError):
            load_upstream(str(upstream), {})
        (upstream / name).write_bytes(content)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["evil.bin", "../outside.bin", "../outside.safetensors", "/tmp/model.safetensors"])
def test_weights_are_safetensors_of_their_folder(name: str, upstream: Path, mark: Path) -> None:
    (upstream / "pytorch_model.bin").write_bytes(payloads(mark)[1])
    weights = upstream / "model.safetensors"
    weights.rename(upstream / "model-of-another-name.safetensors")
    with pytest.raises(UpstreamError, match="has no model.safetensors"):
        load_upstream(str(upstream), {})
    index = {"metadata": {}, "weight_map": {"encoder.layers.0.attention.q_proj.weight": name}}
    (upstream / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UpstreamError, match="which is not a safetensors file of its folder"):
        load_upstream(str(upstream), {})
    assert not mark.exists()


OTHER_WEIGHTS: dict[str, dict[str, object]] = {
    "safetensors outside": {"transformers_weights": "x.safetensors.index.json"},
    "a pickle": {"transformers_weights": "evil.bin"},
    "by another name": {"attribute_map": {"harmless": "transformers_weights"}, "harmless": "x.safetensors.index.json"},
}


@pytest.mark.parametrize("keys", OTHER_WEIGHTS)
def test_a_config_names_no_other_weights(keys: str, upstream: Path, mark: Path) -> None:
    secret = Path(shutil.copy(upstream / "model.safetensors", upstream.parent / "secret.safetensors"))
    (upstream / "evil.bin").write_bytes(payloads(mark)[1])
    names = load_encoder(upstream, {}).state_dict()
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, f"../{secret.name}")}
    (upstream / "x.safetensors.index.json").write_text(json.dumps(index))
    change_json(upstream / "config.json", OTHER_WEIGHTS[keys])
    with pytest.raises(UpstreamError, match="asks for code or weights from elsewhere"):
        load_upstream(str(upstream), {})
    assert not mark.exists()


CONFIGS: dict[str, object] = {
    "num_attention_heads": 0,
    "hidden_size": "x",
    "conv_dim": [32],
    "conv_stride": [5],
    "layerdrop": "x",
    "dtype": "evil",
    "hidden_act": "evil",
    "num_hidden_layers": -1,
}


@pytest.mark.parametrize("key", CONFIGS)
def test_a_config_that_makes_no_sense_is_a_sentence(
    key: str, upstream: Path, podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_json(upstream / "config.json", {key: CONFIGS[key]})
    listed = ONE.replace("epoch = 1,", f'epoch = 1, normalize = "none", upstream_model = "{upstream}",')
    is_read_before = key == "layerdrop"  # a number of the experiment, unless that has its own
    assert program.main(write_files(tmp_path, podcast, listed)) == (2 if is_read_before else 1)
    told = capsys.readouterr()
    assert ("config.json: layerdrop: found" if is_read_before else "ERROR: one seed 42: ") in told.out + told.err
    assert "raceback" not in told.out + told.err


@pytest.mark.parametrize("key", [*CONFIGS, "upstream"])
def test_a_checkpoint_whose_config_makes_no_sense_is_a_sentence(key: str, trained: Path, tmp_path: Path) -> None:
    checkpoint = trained / "finished" / "one" / "seed-42" / "checkpoints" / "best"
    copy = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))
    upstream = json.loads((copy / "config.json").read_text())["upstream"]
    change_json(copy / "config.json", {"upstream": "x" if key == "upstream" else {**upstream, key: CONFIGS[key]}})
    resign(copy)
    with pytest.raises(CheckpointError, match="does not fit this program: .") as found:
        SERModel.from_pretrained(copy)
    assert len(str(found.value).splitlines()) == 1


STATES: dict[str, dict[str, object]] = {
    "a text for a number": {"taken": "x"},
    "steps that no epoch has": {"taken": 999},
    "an epoch before the first": {"epoch": -3},
    "a step that was not taken": {"step": 10**6},
    "epochs that say nothing": {"records": [{"a": 1}]},
    "no epochs": {"records": None},
}


@pytest.mark.parametrize("change", STATES)
def test_a_state_that_makes_no_sense_is_a_sentence(
    change: str, trained: Path, podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, arguments = run_with(trained, "unfinished", tmp_path, podcast)
    state = (run / "checkpoints" / "last").resolve() / "state"
    change_json(state / "state.json", STATES[change])
    resign(state)
    assert program.main(arguments) == 1
    told = capsys.readouterr().out
    assert "train again with --retrain" in told
    assert not (run / "traceback.txt").exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_of_ones_own_gets_safetensors_and_loses_nothing(upstream: Path) -> None:
    weights = load_encoder(upstream, {}).state_dict()
    torch.save({**weights, "lm_head.weight": torch.zeros(3)}, upstream / "pytorch_model.bin")
    change_json(upstream / "config.json", {"architectures": ["WavLMForCTC"], "note": "my own"})
    (upstream / "model.safetensors").unlink()
    before = contents(upstream)
    for _ in range(2):
        assert download_model.main([str(upstream)]) == 0
        after = contents(upstream)
        assert after.pop("model.safetensors")
        assert after == before
    found = load_upstream(str(upstream), {}).encoder.state_dict()
    assert all(torch.equal(found[name], value) for name, value in weights.items())


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_a_config_that_asks_for_kernels_of_the_hub_is_refused(key: str, upstream: Path, trained: Path) -> None:
    change_json(upstream / "config.json", {key: "evil/kernels"})
    with pytest.raises(UpstreamError, match=f"asks for code or weights from elsewhere .*{key}"):
        load_upstream(str(upstream), {})
    checkpoint = trained / "finished" / "one" / "seed-42" / "checkpoints" / "best"
    copy = Path(shutil.copytree(checkpoint, upstream / "checkpoint"))
    document = json.loads((copy / "config.json").read_text())
    change_json(copy / "config.json", {"upstream": {**document["upstream"], key: "evil/kernels"}})
    resign(copy)
    with pytest.raises(CheckpointError, match=f"asks for code or weights from elsewhere .*{key}"):
        SERModel.from_pretrained(copy)


@pytest.mark.parametrize("model_type", ["wavlm", "evil"])
def test_code_beside_an_upstream_is_never_run(model_type: str, upstream: Path, mark: Path) -> None:
    (upstream / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    change_json(
        upstream / "config.json",
        {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}, "model_type": model_type},
    )
    if model_type == "wavlm":  # transformers knows it itself
        load_upstream(str(upstream), {})
    else:
        with pytest.raises(UpstreamError, match="custom code"):
            load_upstream(str(upstream), {})
    assert not mark.exists()


def change_json(path: Path, keys: dict[str, object]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


@pytest.mark.parametrize("name", ["../../../result.json", "/etc/hostname", "state/../../../../result.json", "link"])
def test_a_manifest_names_files_of_its_folder_alone(name: str, trained: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained / "finished" / "one" / "seed-42", tmp_path / "run", symlinks=True))
    best = (copy / "checkpoints" / "best").resolve()
    (best / "link").symlink_to("/dev/zero")  # whose hash would never end
    document = json.loads((best / MANIFEST).read_text())
    write_json(best / MANIFEST, {**document, name: {"bytes": 0, "sha256": ""}})
    with pytest.raises(CheckpointError, match="which is not a file of its folder"):
        read_checkpoint(best)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_manifest_names_what_is_read(name: str, trained: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained / "finished" / "one" / "seed-42", tmp_path / "run", symlinks=True))
    best = (copy / "checkpoints" / "best").resolve()
    document = json.loads((best / MANIFEST).read_text())
    write_json(best / MANIFEST, {known: document[known] for known in document if known != name})
    with pytest.raises(CheckpointError, match=f"manifest.json does not name {name}"):
        read_checkpoint(best)


def test_a_state_names_a_checkpoint_beside_it_alone(trained: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained / "unfinished" / "one" / "seed-42", tmp_path / "run", symlinks=True))
    last = (copy / "checkpoints" / "last").resolve()
    change_json(last / "state" / "state.json", {"best": "../../../outside"})
    resign(last / "state")
    with pytest.raises(CheckpointError, match="does not name the best checkpoint"):
        read_state(last)


LINKS = {
    "train.log": "file",
    "traceback.txt": "file",
    "metrics.jsonl": "missing",
    "tracking.lock": "file",
    "predictions": "folder",
    "evaluation": "folder",
    "pictures": "folder",
    "wandb": "folder",
    "wandb/offline-run-1": "folder",
    "checkpoints": "folder",
    "checkpoints/best": "folder",
    "checkpoints/last": "..",
    "checkpoints/epoch-9-step-9": "folder",
}
"""Where a stranger's links stand, and what they point at."""


@pytest.mark.parametrize(("name", "kind"), [*((name, "finished") for name in LINKS), ("train.log", "unfinished")])
def test_a_link_in_a_run_is_refused(
    name: str, kind: str, trained: Path, podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, arguments = run_with(trained, kind, tmp_path, podcast)
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "file").write_text("precious")
    link = run / name
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(LINKS[name] if name == "checkpoints/last" else outside / LINKS[name])
    assert program.main([*arguments, "--test"]) == 1
    assert program.main(arguments) == 1
    told = capsys.readouterr().out
    assert told.count(f"ERROR: one seed 42: {link} is a symbolic link") == 2
    assert sorted(path.name for path in outside.rglob("*")) == ["file", "folder"]
    assert (outside / "file").read_text() == "precious"


def test_a_link_in_a_run_that_would_come_back_is_refused(
    trained: Path, podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    run, arguments = run_with(trained, "finished", tmp_path, podcast)
    run.rename(run.with_name("seed-42.replaced"))
    log = run.with_name("seed-42.replaced") / "train.log"
    log.unlink()
    log.symlink_to(tmp_path / "outside")
    assert program.main(arguments) == 1
    assert not (tmp_path / "outside").exists()


def test_a_run_may_lie_behind_a_link_and_has_links_of_its_own(
    trained: Path, podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    run, arguments = run_with(trained, "unfinished", tmp_path, podcast)
    (run / "checkpoints" / "best.link").symlink_to("epoch-1-step-1")  # of a process that died
    (run / "wandb" / "offline-run-1" / "logs").mkdir(parents=True)
    (run / "wandb" / "latest-run").symlink_to("offline-run-1")
    (run / "wandb" / "offline-run-1" / "logs" / "debug-core.log").symlink_to(tmp_path / "cache.log")
    run.rename(tmp_path / "seed")
    run.symlink_to(tmp_path / "seed")
    (tmp_path / "runs").rename(tmp_path / "disk")
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    assert program.main(arguments) == 0
    assert program.main([*arguments, "--test"]) == 0
    assert (tmp_path / "seed" / "evaluation" / "test1.json").is_file()


def test_a_lock_is_no_link(
    trained: Path, podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, arguments = run_with(trained, "finished", tmp_path, podcast)
    precious = tmp_path / "precious"
    precious.write_text("precious")
    lock = tmp_path / "runs" / ".lock"
    lock.unlink()
    lock.symlink_to(precious)
    (run / "tracking.lock").symlink_to(precious)
    assert program.main(arguments) == 1
    assert capsys.readouterr().err == f"{lock} is a symbolic link, which cannot be a lock; remove it\n"
    assert wandb_copy.main([str(run)]) == 1
    assert "tracking.lock is a symbolic link, which cannot be a lock; remove it\n" in capsys.readouterr().err
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("name", ["../outside", "../../outside", "..", ".", "", "run-1/../../outside"])
def test_only_copies_are_removed(name: str, tmp_path: Path) -> None:
    for kept in ("outside", "run/outside", "run/wandb/run-1"):
        (tmp_path / kept).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    wandb_copy.remove_copy(tmp_path / "run" / "wandb", name)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_copy_touches_nothing_outside_of_its_run(trained: Path, podcast: SyntheticPodcast, tmp_path: Path) -> None:
    """The real wandb; its links in the run lead out, and the copy before is said to be somebody's folder."""
    run, _ = run_with(trained, "finished", tmp_path, podcast)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    (run / "tracking.json").write_text(json.dumps({"mode": "offline", "files": str(outside)}))
    (run / "wandb").mkdir()
    for name in ("debug.log", "debug-internal.log"):
        (run / "wandb" / name).symlink_to(outside / "file")
    (run / "wandb" / "latest-run").symlink_to(outside)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-m", "experiment_runner.tracking.wandb_copy", str(run)],
        cwd=ROOT, env={**environment, "HOME": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(run.glob("wandb/offline-run-*/*.wandb"))
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "precious"


def test_a_copy_behind_a_link_is_left_alone(tmp_path: Path) -> None:
    outside = tmp_path / "outside" / "run-1"
    outside.mkdir(parents=True)
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "run-1").symlink_to(outside)
    (tmp_path / "link").symlink_to(outside.parent)
    wandb_copy.remove_copy(tmp_path / "copies", "run-1")
    wandb_copy.remove_copy(tmp_path / "link", "run-1")
    assert outside.is_dir()
    wandb_copy.remove_copy(outside.parent, "run-1")
    assert not outside.is_dir()


Rows = list[dict[str, object]]
INDEXES: dict[str, Callable[[Rows, dict[str, int], Path], None]] = {
    "a shard outside": lambda rows, sizes, outside: (
        rows[0].update(shard=f"../{outside.name}", length=4),
        sizes.update({f"../{outside.name}": outside.stat().st_size}),
    )[0],
    "a shard by its whole path": lambda rows, sizes, outside: sizes.update({str(outside): outside.stat().st_size}),
    "a shard that is not listed": lambda rows, sizes, outside: rows[0].update(shard=f"../{outside.name}"),
    "a place before its shard": lambda rows, sizes, outside: rows[0].update(offset=-600),
    "a place behind its shard": lambda rows, sizes, outside: rows[0].update(offset=1 << 60),
    "a length beyond memory": lambda rows, sizes, outside: rows[0].update(length=1 << 60),
    "a length that wraps": lambda rows, sizes, outside: rows[0].update(offset=1, length=2**63 - 1),
    "no shards at all": lambda rows, sizes, outside: sizes.clear(),
    "no checksum": lambda rows, sizes, outside: rows[0].update(crc32=-1),
    "a checksum of more than 32 bits": lambda rows, sizes, outside: rows[0].update(crc32=1 << 32),
}


@pytest.fixture(scope="module")
def shards(podcast: SyntheticPodcast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(podcast, tmp_path_factory.mktemp("packed"))


@pytest.mark.parametrize("change", INDEXES)
def test_an_index_stays_within_its_shards(change: str, shards: Path, tmp_path: Path) -> None:
    outside = tmp_path / "shard-000009.tar"
    outside.write_bytes(b"what nobody else may read")
    copy = Path(shutil.copytree(shards, tmp_path / "shards"))
    table = pq.read_table(copy / INDEX)
    rows, sizes = table.to_pylist(), json.loads(table.schema.metadata[b"shards"])
    INDEXES[change](rows, sizes, outside)
    schema = table.schema.with_metadata({b"shards": json.dumps(sizes).encode()})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), copy / INDEX)
    with pytest.raises(DataError, match=r"names .* which is not a shard of its folder|places outside of its shards"):
        read_index(copy)


def with_column(table: pa.Table, name: str, values: list[object]) -> pa.Table:
    column = table.column_names.index(name)
    return table.set_column(column, name, pa.array(values)).replace_schema_metadata(table.schema.metadata)


def with_sizes(table: pa.Table, sizes: object) -> pa.Table:
    return table.replace_schema_metadata({b"shards": json.dumps(sizes).encode()})


TABLES: dict[str, Callable[[pa.Table], pa.Table]] = {
    "shards in a list": lambda table: with_sizes(table, ["shard-000000.tar"]),
    "sizes that are no numbers": lambda table: with_sizes(table, {"shard-000000.tar": "x"}),
    "no sizes": lambda table: table.replace_schema_metadata(None),
    "a text for a number": lambda table: with_column(table, "offset", ["x"] * len(table)),
    "a list for a number": lambda table: with_column(table, "offset", [[1]] * len(table)),
    "a list for a text": lambda table: with_column(table, "shard", [["shard-000000.tar"]] * len(table)),
    "half a byte": lambda table: with_column(table, "length", [0.5] * len(table)),
    "no number": lambda table: with_column(table, "crc32", [None, *table["crc32"].to_pylist()[1:]]),
    "no file": lambda table: with_column(table, "file", [None, *table["file"].to_pylist()[1:]]),
    "a file twice": lambda table: with_column(
        table, "file", [table["file"][1].as_py(), *table["file"].to_pylist()[1:]]
    ),
    "a column less": lambda table: table.drop_columns(["crc32"]),
}


@pytest.mark.parametrize("change", TABLES)
def test_an_index_that_makes_no_sense_is_a_sentence(
    change: str, shards: Path, podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(shards, tmp_path / "shards"))
    pq.write_table(TABLES[change](pq.read_table(copy / INDEX)), copy / INDEX)
    config = CorpusConfig(PATH_TO_LABEL=podcast.labels, PATH_TO_AUDIO=podcast.audio, PATH_TO_DATASET=copy)
    with pytest.raises(DataError, match=r"cannot be read as an index of shards \(.+\); copy it|twice; copy it again"):
        load_corpus("P", config)


@pytest.mark.parametrize("form", [0, 1])
def test_shards_with_a_payload_run_nothing(
    form: int, shards: Path, podcast: SyntheticPodcast, mark: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(shards, tmp_path / "shards"))
    config = CorpusConfig(PATH_TO_LABEL=podcast.labels, PATH_TO_AUDIO=podcast.audio, PATH_TO_DATASET=copy)
    for name in ("problems.csv", INDEX):
        (copy / name).write_bytes(payloads(mark)[form])
        with pytest.raises(DataError):
            load_corpus("P", config)
    assert not mark.exists()


@pytest.mark.parametrize(
    "file", ["../secret.wav", "a/../../secret.wav", "/etc/secret.wav", "..\\secret.wav", "C:\\a.wav"]
)
def test_labels_name_recordings_below_their_folder_alone(file: str, tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    pd.DataFrame({"file": [file], "split": "train", "emotion": "sad"}).to_csv(tmp_path / "labels.csv", index=False)
    config = CorpusConfig(FORMAT="csv", PATH_TO_LABEL=tmp_path / "labels.csv", PATH_TO_AUDIO=tmp_path / "audio")
    with pytest.raises(DataError, match=r"leads out of PATH_TO_AUDIO \(1 such rows\); name files below it"):
        load_corpus("C", config)


@pytest.mark.parametrize("form", [0, 1])
def test_labels_and_settings_with_a_payload_run_nothing(
    form: int, podcast: SyntheticPodcast, mark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = write_files(tmp_path, podcast, ONE)
    labels = Path(shutil.copytree(podcast.labels, tmp_path / "labels"))
    (labels / "labels_consensus.csv").write_bytes(payloads(mark)[form])
    (tmp_path / "config.toml").write_text(f"[P]\nPATH_TO_LABEL = '{labels}'\nPATH_TO_AUDIO = '{podcast.audio}'\n")
    assert program.main(arguments) == 2
    (tmp_path / "experiments.toml").write_bytes(payloads(mark)[form])
    assert program.main(arguments) == 2
    assert "raceback" not in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize("form", [0, 1])
def test_what_is_kept_between_runs_runs_nothing(
    form: int, podcast: SyntheticPodcast, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    keys = 'freeze = "upstream", cache_gib = 1, epoch = 2'
    arguments = write_files(tmp_path, podcast, f'[[experiments]]\nname = "one"\nconfig_update = {{ {keys} }}\n')
    assert program.main(arguments) == 0
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert {"recordings", "tables", "frozen"} <= {path.relative_to(tmp_path / "cache").parts[1] for path in kept}
    for path in kept:
        path.write_bytes(payloads(mark)[form])
    assert program.main([*arguments, "--retrain"]) == 0
    assert not mark.exists()


def test_a_recording_with_a_payload_is_no_recording(mark: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.wav" for number in range(2)]
    for path, content in zip(paths, payloads(mark), strict=True):
        path.write_bytes(content)
    table = survey("HOSTILE", [str(path) for path in paths], is_deep=True).table
    assert table["kind"].tolist() == ["unreadable", "unreadable"]
    assert not mark.exists()


def test_toml_is_bounded(podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = write_files(tmp_path, podcast, ONE)
    experiments = tmp_path / "experiments.toml"
    for content, sentence in (
        ("#" * (MOST_TOML_BYTES + 1), "is larger than 1 MiB"),
        (f"{BASE}a = {'[' * 100_000}", "nested too deeply"),
    ):
        experiments.write_text(content)
        assert program.main(arguments) == 2
        told = capsys.readouterr().err
        assert sentence in told
        assert len(told.splitlines()) == 1
    experiments.unlink()
    os.mkfifo(experiments)
    assert program.main(arguments) == 2
    assert "is not a regular file" in capsys.readouterr().err


def test_labels_are_bounded(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    (tmp_path / "audio").mkdir()
    with labels.open("wb") as file:
        file.truncate(3 << 30)  # a hole: it takes no room
    config = CorpusConfig(FORMAT="csv", PATH_TO_LABEL=labels, PATH_TO_AUDIO=tmp_path / "audio")
    with pytest.raises(DataError, match="is larger than 2,048 MiB"):
        load_corpus("C", config)


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/b", "..", ".hidden", "a\\b", "a\nb", "CON:", "a" * 101])
def test_names_of_runs_stay_below_the_output(
    name: str, podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = ONE.replace('"one"', json.dumps(name))
    before = sorted(tmp_path.parent.iterdir())
    assert program.main(write_files(tmp_path, podcast, listed)) == 2
    assert "experiments[0].name" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert sorted(tmp_path.parent.iterdir()) == before


def calls() -> list[tuple[Path, ast.Call]]:
    trees = [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCES]
    return [(path, node) for path, tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_no_code_from_elsewhere_is_trusted() -> None:
    """Everything of transformers that reads a model says that it runs no code beside it, and reads weights alone."""
    readers = ("from_pretrained", "from_config")
    found = 0
    for path, call in calls():
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert keywords.get("trust_remote_code", "False") == "False", path
        assert keywords.get("weights_only", "True") == "True", path
        assert keywords.get("allow_pickle", "False") == "False", path
        if not isinstance(call.func, ast.Attribute) or ast.unparse(call.func.value) in ("LoadedModel", "SERModel"):
            continue  # ours, which reads through what is asked of here
        if call.func.attr in readers:
            found += 1
            assert "trust_remote_code" in keywords, f"{path}: {ast.unparse(call)}"
    assert found >= 3


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('a')",
        "from torch import load",
        "import numpy as np\nnp.load('a')",
        "import pandas as pd\npd.read_pickle('a')",
        "import torchaudio\ntorchaudio.load('a')",
        "import marshal",
        "import joblib",
        "import tarfile\ntarfile.open('a').extractall()",
        "eval('1')",
        "exec('1')",
        "import os\nos.system('a')",
    ],
)
def test_the_linter_refuses_what_can_run_code(line: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--quiet", "--stdin-filename", "net/example.py", "-"]
    done = subprocess.run(command, input=line, cwd=ROOT, capture_output=True, text=True)
    assert any(rule in done.stdout for rule in ("TID251", "S102", "S202", "S307", "S605")), done.stdout + done.stderr


def test_the_linter_is_overruled_nowhere() -> None:
    rules = ("TID251", "S102", "S202", "S307", "S60")
    lines = [line.strip() for path in SOURCES for line in path.read_text(encoding="utf-8").splitlines()]
    overruled = [line for line in lines if "noqa" in line and any(rule in line for rule in rules)]
    assert not overruled


def test_written_settings_hold_no_token(
    podcast: SyntheticPodcast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijkl")
    arguments = write_files(tmp_path, podcast, ONE.replace("epoch = 1,", 'epoch = 1, tags = ["hf_abcdefghijkl"],'))
    assert program.main(arguments) == 0
    for path in (tmp_path / "runs").rglob("*"):
        if path.is_file():
            assert b"hf_abcdefghijkl" not in path.read_bytes(), path
