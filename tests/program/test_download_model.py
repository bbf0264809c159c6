"""Fetching upstreams with the real hub client over real HTTP."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import WavLMConfig, WavLMModel

from tests.conftest import ROOT
from tests.support.encoders import SMALL, write_published_bin
from tests.support.faulty_server import FAULTS, serve_fault
from tests.support.forked import commands
from tests.support.hub_server import Hub, serve_hub
from utils.hub.upstreams import UpstreamError, find_damage, load_upstream, read_source
from utils.io.files import fingerprint

FETCHED = ["config.json", "model.safetensors", "preprocessor_config.json", "source.json"]


def download(
    folder: Path, endpoint: str, *arguments: str, most_bytes: int = resource.RLIM_INFINITY
) -> subprocess.CompletedProcess[str]:
    """Run the program; files that grow beyond `most_bytes` fail as on a full disk."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(folder / "hub"),
        "PYTHONPATH": str(ROOT),
        "HUGGINGFACE_TOKEN": "",
    }
    command = [str(ROOT / "download_model.py"), *arguments]
    if most_bytes == resource.RLIM_INFINITY:
        return commands.run(command, folder, environment)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))

    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, preexec_fn=limit
    )


def publish(folder: Path) -> WavLMModel:
    torch.manual_seed(0)
    model = WavLMModel(WavLMConfig(**SMALL))
    write_published_bin(model, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    (folder / "README.md").write_text("not needed")
    return model


@contextmanager
def serve_published(repository: str, folder: Path) -> Iterator[tuple[Hub, str]]:
    """Serve the files of a folder as a repository whose main branch moves on once it has been asked for.

    Yields:
        The hub, and the revision that is asked for first.
    """
    with serve_hub() as hub:
        revision = hub.publish(repository, folder)
        hub.after(f"GET /api/models/{repository}", lambda: hub.publish(repository, folder))
        yield hub, revision


def test_every_upstream_of_the_list_is_fetched_and_converted_once(tmp_path: Path) -> None:
    model = publish(tmp_path / "published")
    (tmp_path / "config.toml").write_text("[E]\nFORMAT = 'emodb'\nPATH_TO_AUDIO = '.'\n")
    (tmp_path / "experiments_config.toml").write_text(
        "[base_config]\ncorpus = 'E'\nupstream_model = 'wavlm-base-plus'\n[[experiments]]\nname = 'a'\n"
        "[[experiments]]\nname = 'b'\nconfig_update = { upstream_model = 'wavlm-tiny-random' }\n"
    )
    with serve_published("microsoft/wavlm-base-plus", tmp_path / "published") as (hub, revision):
        done = download(tmp_path, hub.endpoint, "--all")
        assert done.returncode == 0, done.stderr
        asked = [request.path for request in hub.requests]
        assert not any("README" in path for path in asked)
        assert {path.split("/")[4] for path in asked if "/resolve/" in path} == {revision}
        hub.requests.clear()
        assert download(tmp_path, hub.endpoint, "--all").returncode == 0
        assert hub.requests == [], "nothing is fetched twice"
    folder = tmp_path / "models" / "microsoft--wavlm-base-plus"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FETCHED)
    source = {"id": "microsoft/wavlm-base-plus", "revision": revision}
    assert read_source(folder) == source
    loaded = load_upstream("wavlm-base-plus", {}, tmp_path / "models")
    assert loaded.do_normalize is False
    for key, tensor in loaded.encoder.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[key]), key


def test_no_network_is_one_sentence(tmp_path: Path) -> None:
    done = download(tmp_path, "http://127.0.0.1:9", "wavlm-base")
    assert done.returncode == 1
    assert done.stderr == (
        'wavlm-base: "microsoft/wavlm-base" cannot be downloaded: [Errno 111] Connection refused; check the network, '
        "HTTPS_PROXY and HF_ENDPOINT, or copy its folder in models/ from a machine that has a network\n"
    )


def test_a_file_that_was_cut_is_asked_for_again_and_those_that_are_whole_are_not(tmp_path: Path) -> None:
    publish(tmp_path / "published")
    size = (tmp_path / "published" / "pytorch_model.bin").stat().st_size
    partial = tmp_path / "models" / "microsoft--wavlm-base.partial"
    with serve_published("microsoft/wavlm-base", tmp_path / "published") as (hub, _):
        assert download(tmp_path, hub.endpoint, "wavlm-base", most_bytes=size // 4).returncode == 1
        assert sorted(path.name for path in partial.iterdir() if path.is_file()) == FETCHED[:1] + FETCHED[2:3]
        left = partial / ".cache" / "huggingface" / "download" / "left-by-a-kill.incomplete"
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_bytes(b"half")
        hub.requests.clear()
        hub.cut(after_bytes=size // 2)
        assert download(tmp_path, hub.endpoint, "wavlm-base").returncode == 0
        asked = [request.path for request in hub.requests if request.method == "GET" and "/resolve/" in request.path]
    assert [path.rpartition("/")[2] for path in asked] == ["pytorch_model.bin"] * 2
    assert sorted(path.name for path in partial.with_suffix("").iterdir()) == sorted(FETCHED)
    load_upstream("wavlm-base", {}, tmp_path / "models")


@pytest.mark.slow
def test_a_beginning_of_another_version_is_not_taken_up(tmp_path: Path) -> None:
    publish(tmp_path / "published")
    with serve_hub() as hub:
        hub.publish("microsoft/wavlm-base", tmp_path / "published")
        assert download(tmp_path, hub.endpoint, "wavlm-base", most_bytes=20_000).returncode == 1
        (tmp_path / "published" / "config.json").write_text(
            (tmp_path / "published" / "config.json").read_text().replace("{", "{ ", 1)
        )
        torch.save(
            {name: 2 * value for name, value in load_weights(tmp_path / "published").items()},
            tmp_path / "published" / "pytorch_model.bin",
        )
        revision = hub.publish("microsoft/wavlm-base", tmp_path / "published")
        done = download(tmp_path, hub.endpoint, "wavlm-base")
    assert done.stdout == f"wavlm-base: models/microsoft--wavlm-base, revision {revision}\n"
    folder = tmp_path / "models" / "microsoft--wavlm-base"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FETCHED)
    found = load_upstream("wavlm-base", {}, tmp_path / "models").encoder.state_dict()
    expected = load_weights(tmp_path / "published")
    assert torch.equal(found["encoder.layer_norm.weight"], expected["encoder.layer_norm.weight"])


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(folder / "pytorch_model.bin", weights_only=True)
    return weights


@pytest.mark.slow
def test_a_revision_replaces_another_and_is_pinned_by_its_name(tmp_path: Path) -> None:
    publish(tmp_path / "published")
    models = tmp_path / "models"
    with serve_hub() as hub:
        older = hub.publish("microsoft/wavlm-base", tmp_path / "published")
        (tmp_path / "published" / "preprocessor_config.json").write_text('{"do_normalize": true}')
        newer = hub.publish("microsoft/wavlm-base", tmp_path / "published")
        there = "models/microsoft--wavlm-base, revision"
        assert download(tmp_path, hub.endpoint, "wavlm-base").stdout == f"wavlm-base: {there} {newer}\n"
        assert load_upstream("wavlm-base", {}, models).do_normalize is True
        replaced = download(tmp_path, hub.endpoint, "wavlm-base", "--revision", older)
        assert replaced.stdout == f"wavlm-base: {there} {older}\n"
        assert load_upstream("wavlm-base", {}, models).do_normalize is False
        again = download(tmp_path, hub.endpoint, f"wavlm-base@{older}")
        assert again.stdout == f"wavlm-base@{older}: {there} {older}, already present\n"
        with pytest.raises(UpstreamError, match=f"contains revision {older}, not main; fetch that with"):
            load_upstream("wavlm-base@main", {}, models)
        moved = download(tmp_path, hub.endpoint, "wavlm-base@main")
        assert moved.stdout == f"wavlm-base@main: {there} {newer}\n"
        load_upstream("wavlm-base@main", {}, models)
        load_upstream(f"wavlm-base@{newer}", {}, models)
        nowhere = download(tmp_path, hub.endpoint, "wavlm-base@nowhere")
        assert nowhere.stderr == (
            'wavlm-base@nowhere: "microsoft/wavlm-base" cannot be looked up: the hub answers 404, Invalid rev id: '
            "nowhere; name a branch, a tag or a commit that is there\n"
        )
    assert sorted(path.name for path in models.iterdir()) == [".lock", "microsoft--wavlm-base"]


@pytest.mark.slow
def test_what_was_damaged_since_is_fetched_again(tmp_path: Path) -> None:
    publish(tmp_path / "published")
    folder = tmp_path / "models" / "user--own"
    with serve_hub() as hub:
        revision = hub.publish("user/own", tmp_path / "published")
        assert download(tmp_path, hub.endpoint, "user/own").returncode == 0
        weights = (folder / "model.safetensors").read_bytes()
        flipped = weights[:-1] + bytes([weights[-1] ^ 1])
        for name, content in (("model.safetensors", flipped), ("source.json", b"{bad")):
            (folder / name).write_bytes(content)
            done = download(tmp_path, hub.endpoint, "user/own")
            assert done.stdout == (
                f"user/own: models/user--own, revision {revision} (in place of one with a damaged {name})\n"
            )
            assert (folder / "model.safetensors").read_bytes() == weights
        (folder / "source.json").write_text("{bad")
        listed = download(tmp_path, hub.endpoint, "--list")
        assert listed.returncode == 0, listed.stderr
        assert "models/user--own" in listed.stdout
        assert "damaged: fetch it again" in listed.stdout


def test_what_differs_from_what_was_fetched_is_named(tmp_path: Path) -> None:
    assert find_damage(tmp_path) is None, "nothing was noted"
    (tmp_path / "weights").write_bytes(b"abc")
    noted = {"files": {"weights": fingerprint(tmp_path / "weights")}}
    (tmp_path / "source.json").write_text(json.dumps(noted))
    assert find_damage(tmp_path) is None
    for content in (b"ab", b"abd"):
        (tmp_path / "weights").write_bytes(content)
        assert find_damage(tmp_path) == "weights"
    (tmp_path / "weights").unlink()
    assert find_damage(tmp_path) == "weights"
    for content in (b"{bad", b"[]", b'{"files": ["weights"]}'):
        (tmp_path / "source.json").write_bytes(content)
        assert find_damage(tmp_path) == "source.json"


def test_what_is_there_by_its_name_needs_no_network(tmp_path: Path) -> None:
    publish(tmp_path / "published")
    with serve_hub() as hub:
        hub.publish("user/own", tmp_path / "published")
        assert download(tmp_path, hub.endpoint, "user/own@main").returncode == 0
    there = download(tmp_path, "http://127.0.0.1:9", "user/own@main")
    assert there.returncode == 0
    assert ", already present (not compared with the hub: " in there.stdout
    assert download(tmp_path, "http://127.0.0.1:9", "user/own@v2").returncode == 1
    assert download(tmp_path, "http://127.0.0.1:9", "user/own", "--revision", "main").returncode == 1


def test_a_short_name_that_was_meant_is_named(tmp_path: Path) -> None:
    with serve_hub() as hub:
        done = download(tmp_path, hub.endpoint, "wavlm-base-plsu")
    assert done.returncode == 1
    assert done.stderr.endswith('(did you mean "wavlm-base-plus"?)\n')


def test_the_list_says_what_there_is_and_what_is_needed(tmp_path: Path) -> None:
    publish(tmp_path / "published")
    (tmp_path / "config.toml").write_text("[E]\nFORMAT = 'emodb'\nPATH_TO_AUDIO = '.'\n")
    (tmp_path / "experiments_config.toml").write_text(
        "[base_config]\ncorpus = 'E'\nupstream_model = 'user/own'\n[[experiments]]\nname = 'a'\n"
    )
    with serve_hub() as hub:
        revision = hub.publish("microsoft/wavlm-base", tmp_path / "published")
        assert download(tmp_path, hub.endpoint, "wavlm-base").returncode == 0
        hub.requests.clear()
        listed = download(tmp_path, hub.endpoint, "--list")
        assert hub.requests == []
    assert listed.returncode == 0, listed.stderr
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in listed.stdout.splitlines() if "│" in line]
    size = sum(path.stat().st_size for path in (tmp_path / "models" / "microsoft--wavlm-base").iterdir()) / 1e6
    assert ["wavlm-base", "microsoft/wavlm-base", "", "yes", revision[:12], f"{size:.0f}"] in rows
    assert ["wavlm-large", "microsoft/wavlm-large", "", "", "", ""] in rows
    assert ["user/own", "user/own", "yes", "", "", ""] in rows


def test_without_arguments_what_the_list_names_is_fetched(tmp_path: Path) -> None:
    nothing = download(tmp_path, "http://127.0.0.1:9")
    assert (nothing.returncode, len(nothing.stderr.splitlines())) == (2, 2), "there is no list"
    assert "experiments_config.toml: no such file; name another with --experiments FILE" in nothing.stderr
    (tmp_path / "config.toml").write_text("[E]\nFORMAT = 'emodb'\nPATH_TO_AUDIO = '.'\n")
    (tmp_path / "experiments_config.toml").write_text(
        '[base_config]\ncorpus = "E"\nupstream_model = "user/a"\n[[experiments]]\nname = "a"\n'
        '[[experiments]]\nname = "b"\nconfig_update = { upstream_model = "wavlm-tiny-random" }\n'
    )
    for arguments in ((), ("--all",)):
        done = download(tmp_path, "http://127.0.0.1:9", *arguments)
        assert (done.returncode, done.stderr.count("cannot be downloaded")) == (1, 1)
        assert done.stderr.startswith('user/a: "user/a" cannot be downloaded')


def test_what_excludes_each_other_is_told(tmp_path: Path) -> None:
    both = download(tmp_path, "http://127.0.0.1:9", "a/b", "--all")
    assert both.returncode == 2
    assert "models, --all (what the experiment list needs) and --list exclude each other" in both.stderr
    two = download(tmp_path, "http://127.0.0.1:9", "a/b", "c/d", "--revision", "v1")
    assert (two.returncode, "--revision goes with one named model" in two.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_hub_that_fails_is_one_sentence(fault: str, tmp_path: Path) -> None:
    with serve_fault(fault) as (endpoint, asked):
        done = download(tmp_path, endpoint, "wavlm-base")
    assert asked
    assert done.returncode == 1
    assert '"microsoft/wavlm-base" cannot be downloaded' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_disk_that_is_full_is_one_sentence_and_nothing_is_taken_for_whole(tmp_path: Path) -> None:
    publish(tmp_path / "published")
    with serve_published("microsoft/wavlm-base", tmp_path / "published") as (hub, _):
        full = download(tmp_path, hub.endpoint, "wavlm-base", most_bytes=20_000)
        assert full.returncode == 1
        assert '"microsoft/wavlm-base" cannot be downloaded' in full.stderr
        assert "Traceback" not in full.stderr
        assert not (tmp_path / "models" / "microsoft--wavlm-base").exists()
        assert download(tmp_path, hub.endpoint, "wavlm-base").returncode == 0
    load_upstream("wavlm-base", {}, tmp_path / "models")


@pytest.mark.slow
def test_a_conversion_that_fails_leaves_a_folder_of_ones_own_as_it_was(tmp_path: Path) -> None:
    own = tmp_path / "own"
    publish(own)
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    full = download(tmp_path, "http://127.0.0.1:9", str(own), most_bytes=20_000)
    assert full.returncode == 1
    assert "pytorch_model.bin cannot be written as model.safetensors" in full.stderr
    assert "Traceback" not in full.stderr
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before
    assert download(tmp_path, "http://127.0.0.1:9", str(own)).returncode == 0
    assert (own / "pytorch_model.bin").read_bytes() == before["pytorch_model.bin"]
    load_upstream(str(own), {})


def test_what_an_ended_download_left_is_replaced(tmp_path: Path) -> None:
    publish(tmp_path / "published")
    partial = tmp_path / "models" / "microsoft--wavlm-base.partial"
    (partial / "conversion-1").mkdir(parents=True)
    (partial / "model.safetensors").write_bytes(b"half")
    with serve_published("microsoft/wavlm-base", tmp_path / "published") as (hub, _):
        done = download(tmp_path, hub.endpoint, "wavlm-base")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "models" / "microsoft--wavlm-base"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FETCHED)
    load_upstream("wavlm-base", {}, tmp_path / "models")


def test_what_cannot_be_had_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()
    with serve_published("microsoft/wavlm-large", tmp_path / "published") as (hub, _):
        done = download(tmp_path, hub.endpoint, "wavlm-large", "nobody/nothing")
    assert done.returncode == 1
    no_model, nobody = done.stderr.splitlines()
    assert no_model == (
        "wavlm-large: it has no config.json, or neither model.safetensors nor pytorch_model.bin; name another"
    )
    assert nobody == (
        'nobody/nothing: "nobody/nothing" cannot be downloaded: the hub answers 401, Invalid username or password; '
        "check its name, HUGGINGFACE_TOKEN in .env (none is set), and whether its conditions have been accepted on its "
        "page"
    )
    assert not (tmp_path / "models" / "microsoft--wavlm-large").exists()
