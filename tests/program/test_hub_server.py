"""The local hub answers the real client over real HTTP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file, save_file

from tests.support.hub_cards import check_card
from tests.support.hub_repositories import GITATTRIBUTES
from tests.support.hub_server import Hub, serve_hub

# The client passes httpx a file in a way that httpx calls old.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

ID = "user/model"
CARD = """---
license: apache-2.0
tags: [speech-emotion-recognition]
model-index:
- name: model
  results:
  - task: {type: audio-classification}
    dataset: {type: emodb, name: EMO-DB}
    metrics:
    - {type: recall, value: 0.5}
---
# A model
"""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with serve_hub(tokens={"hf_secret": "user", "hf_other": "other"}) as served:
        yield served


@pytest.fixture
def api(hub: Hub) -> HfApi:
    return HfApi(hub.endpoint, token="hf_secret")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "nested").mkdir(parents=True)
    (made / "README.md").write_text(CARD)
    (made / "config.json").write_text(json.dumps({"labels": ["anger", "joy"]}))
    (made / "nested" / "scale.json").write_text("{}")
    save_file({"weight": torch.arange(5_000.0)}, made / "model.safetensors")
    return made


@pytest.fixture
def uploaded(api: HfApi, folder: Path) -> str:
    """The folder in a private repository; its revision."""
    api.create_repo(ID, private=True)
    return api.upload_folder(repo_id=ID, folder_path=folder).oid


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


def asked(hub: Hub, part: str) -> list[str]:
    return [f"{request.method} {request.path}" for request in hub.requests if part in request.path]


def test_a_folder_is_uploaded_to_a_private_repository(hub: Hub, api: HfApi, folder: Path, uploaded: str) -> None:
    assert api.whoami()["name"] == "user"
    assert hub.is_private(ID)
    assert hub.files(ID) == hub.files(ID, uploaded) == {**contents(folder), ".gitattributes": GITATTRIBUTES}
    info = api.model_info(ID, files_metadata=True)
    assert (info.sha, info.private, info.author) == (uploaded, True, "user")
    assert info.card_data is not None
    assert info.card_data.license == "apache-2.0"
    weights = (folder / "model.safetensors").read_bytes()
    large = {one.rfilename: one.lfs for one in info.siblings or [] if one.lfs}
    assert list(large) == ["model.safetensors"]
    assert large["model.safetensors"].sha256 == hashlib.sha256(weights).hexdigest()
    sizes = {one.rfilename: one.size for one in info.siblings or []}
    assert sizes == {name: len(content) for name, content in hub.files(ID).items()}
    assert [one.title for one in api.list_repo_commits(ID)][1:] == ["initial commit"]
    assert api.list_repo_refs(ID).branches[0].target_commit == uploaded


def test_what_is_listed_is_what_git_calls_it(api: HfApi, folder: Path, uploaded: str) -> None:
    listed = sorted([*contents(folder), ".gitattributes"])
    assert sorted(api.list_repo_files(ID)) == sorted(api.list_repo_files(ID, revision=uploaded)) == listed
    deep = {entry.path for entry in api.list_repo_tree(ID, recursive=True)}
    assert deep == {*listed, "nested"}
    assert deep - {entry.path for entry in api.list_repo_tree(ID)} == {"nested/scale.json"}
    assert [entry.path for entry in api.list_repo_tree(ID, "nested")] == ["nested/scale.json"]
    found = api.get_paths_info(ID, ["nested/scale.json", "nowhere"])
    assert [entry.path for entry in found] == ["nested/scale.json"]
    # of `printf '{}' | git hash-object --stdin`
    assert getattr(found[0], "blob_id", None) == "9e26dfeeb6e641a33dae4961196235bdb965b21b"
    assert api.file_exists(ID, "config.json")
    assert not api.file_exists(ID, "nowhere.json")
    assert not api.revision_exists(ID, "nowhere")


def test_only_what_has_changed_is_sent(hub: Hub, api: HfApi, folder: Path, uploaded: str) -> None:
    hub.requests.clear()
    assert api.upload_folder(repo_id=ID, folder_path=folder).oid == uploaded
    assert asked(hub, "/commit/") == asked(hub, "lfs-storage") == []
    (folder / "config.json").write_text("{}")
    changed = api.upload_folder(repo_id=ID, folder_path=folder).oid
    assert changed != uploaded
    assert asked(hub, "lfs-storage") == [], "the weights are there already"
    assert hub.files(ID)["config.json"] == b"{}"
    assert hub.files(ID, uploaded)["config.json"] != b"{}", "a revision stays as it was"


def test_files_and_folders_are_deleted(hub: Hub, api: HfApi, uploaded: str) -> None:
    api.delete_file("config.json", ID)
    api.delete_folder("nested", ID)
    assert set(hub.files(ID)) == {".gitattributes", "README.md", "model.safetensors"}
    assert "config.json" in hub.files(ID, uploaded)
    with pytest.raises(EntryNotFoundError, match="doesn't exist"):
        api.create_commit(ID, [CommitOperationDelete("config.json")], commit_message="Delete")


def test_a_snapshot_is_downloaded_at_its_revision(
    hub: Hub, api: HfApi, folder: Path, uploaded: str, tmp_path: Path
) -> None:
    before = contents(folder)
    later = hub.publish(ID, folder / "nested")
    assert api.model_info(ID).sha == later != uploaded
    api.snapshot_download(ID, revision=uploaded, local_dir=tmp_path / "got", ignore_patterns=[".gitattributes"])
    assert contents(tmp_path / "got") == before
    got = Path(api.snapshot_download(ID, cache_dir=tmp_path / "cache"))
    assert got.name == later
    assert (got / "scale.json").read_text() == "{}"
    assert {path.split("/")[4] for path in asked(hub, "/resolve/")} == {uploaded, later}


@pytest.mark.parametrize("token", ["hf_wrong", "hf_other", False])
def test_a_private_repository_is_its_owners_alone(hub: Hub, uploaded: str, token: str | bool, tmp_path: Path) -> None:
    stranger = HfApi(hub.endpoint, token=token)
    with pytest.raises(HfHubHTTPError) as refused:
        stranger.model_info(ID)
    assert isinstance(refused.value, RepositoryNotFoundError) == (token != "hf_wrong")
    assert refused.value.response.status_code == (404 if token == "hf_other" else 401)
    with pytest.raises(HfHubHTTPError):
        stranger.snapshot_download(ID, revision="main", local_dir=tmp_path / "got")
    with pytest.raises(HfHubHTTPError):
        stranger.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id=ID)
    assert hub.repositories[ID].head.id == uploaded


def test_what_is_public_is_read_by_all_and_written_by_its_owner(hub: Hub, api: HfApi, uploaded: str) -> None:
    api.update_repo_settings(ID, private=False)
    assert not hub.is_private(ID)
    assert HfApi(hub.endpoint, token=False).model_info(ID).sha == uploaded
    with pytest.raises(HfHubHTTPError, match="rights to write") as refused:
        HfApi(hub.endpoint, token="hf_other").delete_file("config.json", ID)
    assert refused.value.response.status_code == 403
    api.update_repo_settings(ID, gated="auto")
    with pytest.raises(GatedRepoError):
        HfApi(hub.endpoint, token=False).hf_hub_download(ID, "config.json")


def test_what_does_not_exist_is_told_apart(api: HfApi, uploaded: str) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("user/nothing")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(ID, revision="0" * 40)
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(ID, "nothing.json")


def test_a_repository_is_created_once_and_deleted(hub: Hub, api: HfApi, uploaded: str) -> None:
    with pytest.raises(HfHubHTTPError, match="already created") as refused:
        api.create_repo(ID)
    assert refused.value.response.status_code == 409
    assert api.create_repo(ID, private=True, exist_ok=True).repo_id == ID
    assert hub.repositories[ID].head.id == uploaded
    api.delete_repo(ID)
    assert not api.repo_exists(ID)
    with pytest.raises(HfHubHTTPError, match="rights to write"):
        api.create_repo("other/model")


def test_a_commit_waits_for_its_parent(hub: Hub, api: HfApi, folder: Path, uploaded: str) -> None:
    hub.after("preupload", lambda: hub.publish(ID, folder))
    add = CommitOperationAdd("config.json", b"[]")
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        api.create_commit(ID, [add], commit_message="Change", parent_commit=uploaded)
    assert hub.files(ID)["config.json"] != b"[]"


def test_a_damaged_file_is_delivered_as_it_is(
    hub: Hub, api: HfApi, folder: Path, uploaded: str, tmp_path: Path
) -> None:
    hub.flip_byte(ID, "model.safetensors")
    got = Path(api.hf_hub_download(ID, "model.safetensors", revision=uploaded, local_dir=tmp_path / "got"))
    told = {one.rfilename: one.lfs for one in api.model_info(ID, files_metadata=True).siblings or []}
    whole, damaged = (folder / "model.safetensors").read_bytes(), got.read_bytes()
    assert sum(a != b for a, b in zip(whole, damaged, strict=True)) == 1
    lfs = told["model.safetensors"]
    assert lfs is not None
    assert lfs.sha256 == hashlib.sha256(whole).hexdigest()


def test_a_download_that_was_cut_goes_on_where_it_ended(
    hub: Hub, api: HfApi, uploaded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1_000)  # the client keeps whole chunks of a download alone
    hub.cut(after_bytes=7_500)
    got = api.hf_hub_download(ID, "model.safetensors", revision=uploaded, local_dir=tmp_path / "got")
    gets = [request for request in hub.requests if request.method == "GET" and "/resolve/" in request.path]
    assert [request.headers.get("range") for request in gets] == [None, "bytes=7000-"]
    assert torch.equal(load_file(got)["weight"], torch.arange(5_000.0))


def test_a_range_is_answered_by_its_bytes(hub: Hub, folder: Path) -> None:
    revision = hub.publish(ID, folder)
    address = f"{hub.endpoint}/{ID}/resolve/{revision}/config.json"
    whole = (folder / "config.json").read_bytes()
    part = httpx.get(address, headers={"Range": "bytes=3-5"})
    assert (part.status_code, part.content) == (206, whole[3:6])
    assert part.headers["Content-Range"] == f"bytes 3-5/{len(whole)}"
    assert httpx.get(address, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416
    head = httpx.head(address)
    assert (head.headers["Content-Length"], head.headers["X-Repo-Commit"]) == (str(len(whole)), revision)


def test_the_failures_that_were_ordered_come_and_no_more(hub: Hub, api: HfApi, uploaded: str) -> None:
    hub.fail(2, status=503, on=f"GET /api/models/{ID}")
    assert api.whoami()["name"] == "user"
    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match="503"):
            api.model_info(ID)
    assert api.model_info(ID).sha == uploaded


def test_objects_have_to_be_what_was_announced(hub: Hub, api: HfApi, uploaded: str) -> None:
    headers = {"Authorization": "Bearer hf_secret", "Content-Type": "application/vnd.git-lfs+json"}
    wanted = {"oid": hashlib.sha256(b"whole").hexdigest(), "size": 5}
    body = {"operation": "upload", "transfers": ["basic"], "hash_algo": "sha256", "objects": [wanted]}
    address = f"{hub.endpoint}/{ID}.git/info/lfs/objects"
    given = httpx.post(f"{address}/batch", headers=headers, json=body).json()["objects"][0]["actions"]
    assert httpx.put(given["upload"]["href"], content=b"wrong").status_code == 400
    assert httpx.post(given["verify"]["href"], headers=headers, json=wanted).status_code == 400
    assert httpx.put(given["upload"]["href"], content=iter([b"wh", b"ole"])).status_code == 200
    assert httpx.post(given["verify"]["href"], headers=headers, json=wanted).status_code == 200


def commit_by_hand(hub: Hub, *operations: object) -> httpx.Response:
    lines = [{"key": "header", "value": {"summary": "By hand"}}, *operations]
    headers = {"Authorization": "Bearer hf_secret", "Content-Type": "application/x-ndjson"}
    content = "\n".join(json.dumps(line) for line in lines)
    return httpx.post(f"{hub.endpoint}/api/models/{ID}/commit/main", headers=headers, content=content)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"key": "file", "value": {"path": "a.txt", "content": "e30", "encoding": "base64"}}, "padding"),
        ({"key": "file", "value": {"path": "a.txt", "content": "e3!0=", "encoding": "base64"}}, "a.txt: "),
        ({"key": "file", "value": {"path": "../a.txt", "content": "e30=", "encoding": "base64"}}, "invalid path"),
        ({"key": "file", "value": {"path": "a.onnx", "content": "e30=", "encoding": "base64"}}, "by Git LFS"),
        ({"key": "file", "value": {"path": "a.txt", "content": "AAA=", "encoding": "base64"}}, "by Git LFS"),
        ({"key": "lfsFile", "value": {"path": "a.onnx", "algo": "sha256", "oid": "0" * 64, "size": 3}}, "uploaded"),
        ({"key": "file", "value": {"path": "a.txt"}}, "base64"),
        ({"key": "move", "value": {"path": "a.txt"}}, "unknown operation"),
    ],
)
def test_a_commit_that_breaks_the_protocol_is_refused_whole(hub: Hub, uploaded: str, value: object, told: str) -> None:
    good = {"key": "file", "value": {"path": "good.txt", "content": "e30=", "encoding": "base64"}}
    refused = commit_by_hand(hub, good, value)
    assert refused.status_code == 400
    assert told in refused.json()["error"]
    assert hub.repositories[ID].head.id == uploaded
    assert commit_by_hand(hub, good).json()["commitOid"] == hub.repositories[ID].head.id != uploaded


def test_names_of_gitignore_are_not_uploaded(hub: Hub, api: HfApi, folder: Path) -> None:
    api.create_repo(ID)
    (folder / ".gitignore").write_text("*.safetensors\nnested/\n")
    api.upload_folder(repo_id=ID, folder_path=folder)
    assert set(hub.files(ID)) == {".gitattributes", ".gitignore", "README.md", "config.json"}


def test_a_file_is_large_by_name_size_or_content(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    api.create_repo(ID)
    given = {"a.onnx": b"text", "b.txt": b"a" * 10_000_001, "c.dat": b"\0\1", "d.txt": "ü".encode() * 600, "e.bin": b""}
    for name, content in given.items():
        (tmp_path / name).write_bytes(content)
    api.upload_folder(repo_id=ID, folder_path=tmp_path)
    siblings = api.model_info(ID, files_metadata=True).siblings or []
    assert [one.rfilename for one in siblings if one.lfs] == ["a.onnx", "b.txt", "c.dat"]
    assert {name: hub.files(ID)[name] for name in given} == given


@pytest.mark.parametrize(
    ("card", "told"),
    [
        ("---\nlicense: [\n---\n", "YAML metadata error"),
        ("---\n- a\n---\n", "a mapping is expected"),
        (CARD.replace("type: emodb, ", ""), r'"model-index\[0\].results\[0\].dataset.type" is required'),
        (CARD.replace(", value: 0.5", ""), r'"model-index\[0\].results\[0\].metrics\[0\].value" is required'),
        (CARD.replace("apache-2.0", "apache2"), '"license" must be one of'),
    ],
)
def test_a_card_that_the_hub_refuses_is_never_committed(
    hub: Hub, api: HfApi, uploaded: str, card: str, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=ID)
    assert hub.repositories[ID].head.id == uploaded


def test_a_card_without_metadata_is_a_warning(hub: Hub, api: HfApi, uploaded: str) -> None:
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.upload_file(path_or_fileobj=b"# A model", path_in_repo="README.md", repo_id=ID)
    assert hub.files(ID)["README.md"] == b"# A model"
    assert check_card(CARD) == ([], [])
