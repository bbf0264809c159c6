"""The answers of the local hub (`tests/support/hub_server.py`) to the client's requests."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import yaml

from tests.support.hub_cards import check_card, read_metadata
from tests.support.hub_messages import Answer, Asked
from tests.support.hub_repositories import Commit, HubError, Repository, StoredFile, git_blob, refuse

if TYPE_CHECKING:
    from tests.support.hub_server import Hub

DATE = "2026-01-01T00:00:00.000Z"


def answer(hub: Hub, asked: Asked) -> Answer:
    """Answer a request of the client."""
    try:
        user = _find_user(hub, asked)
        for method, pattern, respond in ROUTES:
            found = re.fullmatch(pattern, "/".join(asked.parts))
            if found and asked.method in method.split():
                return respond(Call(hub, asked, user, **found.groupdict()))
        raise HubError(HTTPStatus.NOT_FOUND, f"this hub does not speak {asked.method} {asked.target}")
    except HubError as error:
        return Answer.of_error(error)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return Answer.of_error(refuse(f"the request breaks the protocol: {error!r}"))


def _find_user(hub: Hub, asked: Asked) -> str | None:
    given = asked.headers.get("authorization")
    if given is None:
        return None
    kind, _, token = given.partition(" ")
    if kind != "Bearer" or token not in hub.tokens:
        raise HubError(HTTPStatus.UNAUTHORIZED, "Invalid credentials in Authorization header")
    return hub.tokens[token]


@dataclass
class Call:
    """A request that was understood: who asks, and what its path names."""

    hub: Hub
    asked: Asked
    user: str | None
    id: str = ""
    revision: str | None = None
    path: str | None = None

    def signed_in(self) -> str:
        """Return the user, who is needed."""
        if self.user is None:
            raise HubError(HTTPStatus.UNAUTHORIZED, "Invalid username or password.")
        return self.user

    def readable(self) -> Repository:
        """Return the repository; one that is private does not exist for others."""
        found = self.hub.repositories.get(self.id)
        if found is None or (found.private and found.owner != self.user):
            if self.user is None:
                raise HubError(HTTPStatus.UNAUTHORIZED, "Invalid username or password.", "RepoNotFound")
            raise HubError(HTTPStatus.NOT_FOUND, "Repository not found", "RepoNotFound")
        return found

    def writable(self) -> Repository:
        """Return the repository, which has to be the user's own."""
        found = self.readable()
        self.check_owner(found.owner)
        return found

    def check_owner(self, owner: str) -> None:
        """Refuse who does not own a namespace."""
        if self.signed_in() != owner:
            raise HubError(HTTPStatus.FORBIDDEN, f"You don't have the rights to write under the namespace {owner}")

    def commit(self) -> Commit:
        """Return the revision asked for, main without one."""
        return self.readable().find(self.revision or "main")


def whoami(call: Call) -> Answer:
    """GET whoami-v2."""
    user = call.signed_in()
    access = {"displayName": "token", "role": "write", "createdAt": DATE}
    auth = {"type": "access_token", "accessToken": access}
    return Answer.of_json({"type": "user", "id": user, "name": user, "fullname": user, "orgs": [], "auth": auth})


def create(call: Call) -> Answer:
    """POST repos/create: a private or public model repository, which begins with a .gitattributes."""
    wanted = call.asked.json()
    owner = wanted.get("organization") or call.signed_in()
    call.check_owner(owner)
    if wanted.get("type", "model") != "model":
        raise refuse("this hub holds models alone")
    name = f"{owner}/{wanted['name']}"
    told = {"url": f"{call.hub.endpoint}/{name}", "name": name, "id": name}
    if name in call.hub.repositories:
        error = {"error": "You already created this model repo"}
        return Answer.of_json({**error, **told}, HTTPStatus.CONFLICT)
    call.hub.repositories[name] = Repository(name, private=_wants_private(wanted) or False)
    return Answer.of_json(told)


def _wants_private(wanted: dict[str, Any]) -> bool | None:
    if "visibility" in wanted and wanted["visibility"] not in ("public", "private"):
        raise refuse('the visibility of a model is "public" or "private"')
    return wanted["visibility"] == "private" if "visibility" in wanted else wanted.get("private")


def delete(call: Call) -> Answer:
    """DELETE repos/delete."""
    wanted = call.asked.json()
    call.id = f"{wanted.get('organization') or call.signed_in()}/{wanted['name']}"
    del call.hub.repositories[call.writable().id]
    return Answer.of_json({})


def change_settings(call: Call) -> Answer:
    """PUT settings: visibility, and whether access is on request."""
    repository, wanted = call.writable(), call.asked.json()
    private = _wants_private(wanted)
    repository.private = repository.private if private is None else private
    repository.gated = wanted.get("gated", repository.gated)
    return Answer.of_json({"private": repository.private, "gated": repository.gated})


def preupload(call: Call) -> Answer:
    """POST preupload: how each file has to be uploaded, and what of it is there already."""
    repository, wanted, commit = call.writable(), call.asked.json(), call.commit()
    told = []
    for file in wanted["files"]:
        path, beginning = file["path"], base64.b64decode(file["sample"], validate=True)
        if len(beginning) != min(512, file["size"]):
            raise refuse(f"{path}: the sample is the first 512 bytes")
        mode = repository.upload_mode(path, file["size"], beginning)
        stored = commit.files.get(path)
        ignored = repository.ignores(path, wanted.get("gitIgnore"))
        one = {"path": path, "uploadMode": mode, "shouldIgnore": ignored}
        told.append({**one, "oid": stored.key} if stored else one)
    return Answer.of_json({"files": told, "commitOid": commit.id})


def batch(call: Call) -> Answer:
    """POST of the batch API of Git LFS: where the objects that are not there yet are to be put."""
    repository, wanted = call.writable(), call.asked.json()
    if wanted["operation"] != "upload" or wanted["hash_algo"] != "sha256" or "basic" not in wanted["transfers"]:
        raise refuse("LFS objects are uploaded by the basic transfer, under their SHA-256")
    if call.asked.headers.get("content-type") != "application/vnd.git-lfs+json":
        raise refuse("the batch API of Git LFS wants its own content type")
    return Answer.of_json(
        {"transfer": "basic", "objects": [_order(call, repository, one) for one in wanted["objects"]]}
    )


def _order(call: Call, repository: Repository, wanted: dict[str, Any]) -> dict[str, object]:
    oid, size = wanted["oid"], wanted["size"]
    if not re.fullmatch("[0-9a-f]{64}", oid) or not isinstance(size, int) or size <= 0:
        return {"oid": oid, "size": size, "error": {"code": 422, "message": "an LFS object has a SHA-256 and bytes"}}
    if oid in repository.contents:
        return {"oid": oid, "size": size}
    key = secrets.token_hex(16)
    call.hub.uploads[key] = (repository, oid, size)
    upload = {"href": f"{call.hub.endpoint}/lfs-storage/{key}"}
    verify = {"href": f"{call.hub.endpoint}/{repository.id}.git/info/lfs/objects/verify"}
    return {"oid": oid, "size": size, "authenticated": True, "actions": {"upload": upload, "verify": verify}}


def put_object(call: Call) -> Answer:
    """PUT of an LFS object, which has to be what was announced; the secret address stands for the token."""
    if call.path not in call.hub.uploads or "authorization" in call.asked.headers:
        raise HubError(HTTPStatus.FORBIDDEN, "The address is not one that this hub has signed")
    repository, oid, size = call.hub.uploads[call.path]
    content = call.asked.body
    if len(content) != size or hashlib.sha256(content).hexdigest() != oid:
        raise refuse(f"the content is not the {size} bytes of SHA-256 {oid} that were announced")
    repository.store_lfs(content)
    return Answer(headers={"ETag": f'"{oid}"'})


def verify(call: Call) -> Answer:
    """POST verify: the object has arrived."""
    wanted = call.asked.json()
    call.writable().point_to(wanted["oid"], wanted["size"])
    return Answer.of_json({"success": True})


def commit(call: Call) -> Answer:
    """POST commit: newline-delimited JSON, a header and operations."""
    repository = call.writable()
    if call.asked.headers.get("content-type") != "application/x-ndjson" or call.asked.flag("create_pr"):
        raise refuse("a commit is newline-delimited JSON, and this hub has no pull requests")
    lines = [json.loads(line) for line in call.asked.body.splitlines()]
    revision = repository.commit(lines, call.revision or "main")
    url = f"{call.hub.endpoint}/{repository.id}/commit/{revision}"
    return Answer.of_json({"success": True, "commitOid": revision, "commitUrl": url, "hookOutput": ""})


def validate_yaml(call: Call) -> Answer:
    """POST validate-yaml: the metadata of a card."""
    errors, warnings = check_card(call.asked.json()["content"])
    told = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    return Answer.of_json(told, HTTPStatus.BAD_REQUEST if errors else HTTPStatus.OK)


def describe(call: Call) -> Answer:
    """GET of a model, at main or at a revision."""
    repository, found = call.readable(), call.commit()
    told = {
        "_id": git_blob(repository.id.encode())[:24],
        "id": repository.id,
        "modelId": repository.id,
        "author": repository.owner,
        "sha": found.id,
        "private": repository.private,
        "gated": repository.gated,
        "disabled": False,
        "createdAt": DATE,
        "lastModified": DATE,
        "cardData": _card_data(repository, found),
        "siblings": [_sibling(path, file, call.asked.flag("blobs")) for path, file in sorted(found.files.items())],
    }
    return Answer.of_json(told)


def _card_data(repository: Repository, found: Commit) -> object:
    card = found.files.get("README.md")
    try:
        return read_metadata(repository.contents[card.key].decode()) if card else None
    except yaml.YAMLError:
        return None  # published past the check, or damaged


def _sibling(path: str, file: StoredFile, with_blobs: bool) -> dict[str, object]:
    blobs = {"size": file.size, "blobId": file.blob, **file.describe_lfs("sha256")}
    return {"rfilename": path, **(blobs if with_blobs else {})}


def refs(call: Call) -> Answer:
    """GET refs."""
    main = {"name": "main", "ref": "refs/heads/main", "targetCommit": call.readable().head.id}
    return Answer.of_json({"branches": [main], "converts": [], "tags": [], "pullRequests": []})


def commits(call: Call) -> Answer:
    """GET commits, the newest first."""
    repository, last = call.readable(), call.commit()
    past = repository.commits[: repository.commits.index(last) + 1]
    authors = [{"user": repository.owner}]
    told = [{"id": one.id, "title": one.title, "message": "", "date": DATE, "authors": authors} for one in past]
    return Answer.of_json(told[::-1])


def tree(call: Call) -> Answer:
    """GET tree: the entries of a folder, and of those inside it where that is asked for."""
    found, folder = call.commit(), call.path or ""
    entries = _entries(found)
    if folder and entries.get(folder, {}).get("type") != "directory":
        raise HubError(HTTPStatus.NOT_FOUND, f'{folder} does not exist on "{found.id}"', "EntryNotFound", found.id)
    deep, top = call.asked.flag("recursive"), PurePosixPath(folder)
    paths = (PurePosixPath(path) for path in entries)
    return Answer.of_json(
        [entries[str(path)] for path in paths if path.parent == top or (deep and top in path.parents)]
    )


def paths_info(call: Call) -> Answer:
    """POST paths-info: the entries of these names, without those that do not exist."""
    entries = _entries(call.commit())
    names = parse_qs(call.asked.body.decode()).get("paths", [])
    return Answer.of_json([entries[name] for name in names if name in entries])


def _entries(found: Commit) -> dict[str, dict[str, object]]:
    entries: dict[str, dict[str, object]] = {}
    for path, file in sorted(found.files.items()):
        for above in [str(parent) for parent in PurePosixPath(path).parents][-2::-1]:
            oid = git_blob(f"{found.id}/{above}".encode())
            entries.setdefault(above, {"type": "directory", "oid": oid, "size": 0, "path": above})
        told = {"type": "file", "oid": file.blob, "size": file.size, "path": path}
        entries[path] = {**told, **file.describe_lfs("oid")}
    return entries


def resolve(call: Call) -> Answer:
    """GET or HEAD of a file, or of a range of its bytes."""
    repository = call.readable()
    if repository.gated and repository.owner != call.user:
        status = HTTPStatus.FORBIDDEN if call.user else HTTPStatus.UNAUTHORIZED
        raise HubError(status, f"Access to model {repository.id} is restricted.", "GatedRepo")
    found, file = repository.find_file(call.revision or "main", call.path or "")
    headers = {"X-Repo-Commit": found.id, "ETag": f'"{file.key}"', "Accept-Ranges": "bytes"}
    if file.sha256:
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    headers |= {"Content-Type": "application/octet-stream"}
    return _in_range(repository.contents[file.key], headers, call.asked.headers.get("range"))


def _in_range(content: bytes, headers: dict[str, str], wanted: str | None) -> Answer:
    if wanted is None:
        return Answer(content, headers, is_download=True)
    found, size = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted), len(content)
    if found is None or int(found[1]) >= size:
        headers |= {"Content-Range": f"bytes */{size}"}
        return Answer(b"", headers, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
    first, last = int(found[1]), min(int(found[2] or size - 1), size - 1)
    headers |= {"Content-Range": f"bytes {first}-{last}/{size}"}
    return Answer(content[first : last + 1], headers, HTTPStatus.PARTIAL_CONTENT, is_download=True)


ID = r"(?P<id>[^/]+/[^/]+)"
MODEL = f"api/models/{ID}"
REVISION = r"(?P<revision>[^/]+)"
ROUTES: list[tuple[str, str, Callable[[Call], Answer]]] = [
    ("GET", "api/whoami-v2", whoami),
    ("POST", "api/repos/create", create),
    ("DELETE", "api/repos/delete", delete),
    ("POST", "api/validate-yaml", validate_yaml),
    ("PUT", f"{MODEL}/settings", change_settings),
    ("POST", f"{MODEL}/preupload/{REVISION}", preupload),
    ("POST", f"{MODEL}/commit/{REVISION}", commit),
    ("POST", f"{MODEL}/paths-info/{REVISION}", paths_info),
    ("GET", f"{MODEL}(/revision/{REVISION})?", describe),
    ("GET", f"{MODEL}/refs", refs),
    ("GET", f"{MODEL}/commits/{REVISION}", commits),
    ("GET", f"{MODEL}/tree/{REVISION}(/(?P<path>.+))?", tree),
    ("POST", f"{ID}\\.git/info/lfs/objects/batch", batch),
    ("POST", f"{ID}\\.git/info/lfs/objects/verify", verify),
    ("PUT", "lfs-storage/(?P<path>[0-9a-f]+)", put_object),
    ("GET HEAD", f"{ID}/resolve/{REVISION}/(?P<path>.+)", resolve),
]
