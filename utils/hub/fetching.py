"""Fetching models into models/ from the hub or git: upstreams as safetensors, trained models unchanged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from utils.hub.git_source import fetch_git, is_git_url
from utils.hub.model_files import CONFIG, MANIFEST, MODEL_FILES
from utils.hub.repositories import HubError, fetch, find_commit
from utils.hub.upstreams import (
    CONVERSION,
    MODELS_FOLDER,
    NEEDED_FILES,
    PICKLE,
    SAFETENSORS,
    SOURCE,
    UPSTREAMS,
    WEIGHTS,
    UpstreamError,
    convert_to_safetensors,
    find_damage,
    hub_id,
    models_folder,
    read_source,
    split_revision,
)
from utils.io.files import atomic_write, fingerprints
from utils.io.folder_lock import locked
from utils.io.secrets import read_token
from utils.text import did_you_mean

INDEX = f"{SAFETENSORS}.index.json"
PARTIAL, REPLACED = ".partial", ".replaced"


class Fetched(NamedTuple):
    """A model that can be used.

    Attributes:
        folder: The model's folder.
        revision: The model's commit; None for a folder into which nothing was fetched.
        is_new: Whether anything was fetched or converted.
        note: Further remark for the user.
    """

    folder: Path
    revision: str | None
    is_new: bool
    note: str = ""


def fetch_model(name: str, models: Path = MODELS_FOLDER, revision: str | None = None) -> Fetched:
    """Download an upstream or a trained model into `models/`, unless it is already there undamaged.

    An upstream without safetensors has its `pytorch_model.bin` converted; so does a local folder, in place.

    Args:
        name: A short name, a hub id, `git+https://host/path` or a local folder; a revision may follow after an `@`.
        models: Target folder.
        revision: A branch, a tag or a commit; another revision that is already there is replaced.

    Raises:
        HubError, GitError: If it cannot be downloaded.
        UpstreamError: If not all weights of an upstream load, or the name cannot be fetched.
        ConfigurationError: If `.env` cannot be read.
        FolderInUseError: If another command fetches into `models/`, or nothing can be written there.
    """
    if (Path(name) / CONFIG).is_file():
        return Fetched(Path(name), None, is_new=convert_to_safetensors(Path(name)))
    plain, pinned = split_revision(name)
    if plain in UPSTREAMS["built_in"]:
        raise UpstreamError(f'"{plain}" is built in and has random weights; there is nothing to fetch')
    if None not in (pinned, revision) and pinned != revision:
        raise UpstreamError(f"--revision {revision} and @{pinned} differ; remove one of them")
    wanted = revision or pinned
    target = models_folder(plain, models)
    is_there = (target / CONFIG).is_file()
    damaged = find_damage(target) if is_there else None
    if is_there and damaged is None:
        source = read_source(target)
        if wanted is None or wanted == source.get("revision"):
            return Fetched(target, source.get("revision"), is_new=False)
        is_here, note = _look_up(plain, revision, pinned, source)
        if is_here:
            return Fetched(target, source.get("revision"), is_new=False, note=note)
    with locked(models, "start it in another folder"):
        commit = _replace(plain, wanted, target)
    return Fetched(target, commit, is_new=True, note=f"in place of one with a damaged {damaged}" if damaged else "")


def _look_up(name: str, given: str | None, pinned: str | None, source: Mapping[str, str]) -> tuple[bool, str]:
    """Return whether the model in `models/` is that of a branch or tag, and a remark on it.

    The hub decides; with git, or if the hub cannot be reached, the name decides, unless it is given anew.
    """
    has_name = given is None and pinned == source.get("asked")
    if is_git_url(name):
        return has_name, ""
    try:
        commit = find_commit(hub_id(name), given or pinned, read_token("HUGGINGFACE_TOKEN"))
    except HubError as error:
        if has_name:
            return True, f"not compared with the hub: {error}"
        raise
    return commit == source.get("revision"), ""


def _replace(name: str, pinned: str | None, target: Path) -> str:
    """Fetch into a folder beside the target, and move it there once it is complete; return the commit."""
    partial = target.with_name(target.name + PARTIAL)
    if is_git_url(name):
        commit = fetch_git(name, _choose, partial, read_token("GIT_AUTH_TOKEN"), pinned)
    else:
        with _hinted(name):
            commit = fetch(hub_id(name), _choose, partial, read_token("HUGGINGFACE_TOKEN"), pinned)
    if not (partial / MANIFEST).is_file():
        _finish_upstream(partial)
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    files = fingerprints(partial)
    source = {"id": hub_id(name), "revision": commit, **({"asked": pinned} if pinned else {}), "files": files}
    atomic_write(partial / SOURCE, json.dumps(source))
    replaced = target.with_name(target.name + REPLACED)
    shutil.rmtree(replaced, ignore_errors=True)
    if target.is_dir():
        target.rename(replaced)
    partial.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)
    return commit


@contextmanager
def _hinted(name: str) -> Iterator[None]:
    """Suggest a short name where an unknown name is not on the hub either."""
    try:
        yield
    except HubError as error:
        if "/" in hub_id(name) or error.may_pass:
            raise
        raise HubError(f"{error} ({did_you_mean(name, list(UPSTREAMS['short_names']))})") from error


def _choose(published: Sequence[str]) -> list[str]:
    """Return the files of a model that are needed; a trained model is recognised by its manifest.

    Raises:
        UpstreamError: If it is neither an upstream nor a trained model.
    """
    if MANIFEST in published:
        return [name for name in MODEL_FILES if name in published]
    if SAFETENSORS in published:
        weights = [SAFETENSORS]
    elif INDEX in published:
        weights = [INDEX, *filter(WEIGHTS.fullmatch, published)]
    else:
        weights = [name for name in published if name == PICKLE]
    if not weights or CONFIG not in published:
        raise UpstreamError(f"it has no {CONFIG}, or neither {SAFETENSORS} nor {PICKLE}; name another")
    return [*(name for name in NEEDED_FILES if name in published), *weights]


def _finish_upstream(partial: Path) -> None:
    """Rewrite weights of another format as safetensors, and load them once as a check."""
    convert_to_safetensors(partial)
    (partial / PICKLE).unlink(missing_ok=True)
    for leftover in partial.glob(f"{CONVERSION}*"):
        shutil.rmtree(leftover, ignore_errors=True)


class KnownModel(NamedTuple):
    """A model by name, and its state in `models/`.

    Attributes:
        name: Name used by experiments.
        source: Hub id or address of its origin; empty where unknown.
        revision: Commit in `models/`; empty where there is none or it is unknown.
        size: Size on disk in bytes; None where it is not there.
        is_readable: Whether the note of its origin can be read.
    """

    name: str
    source: str
    revision: str
    size: int | None
    is_readable: bool = True


def known_models(needed: Sequence[str], models: Path = MODELS_FOLDER) -> list[KnownModel]:
    """Return the models with short names, those that are needed, and all others in `models/`."""
    found = {models_folder(name, models): name for name in (*UPSTREAMS["short_names"], *needed)}
    for folder in sorted(models.glob(f"*/{CONFIG}")) if models.is_dir() else ():
        found.setdefault(folder.parent, "")
    return [_describe(folder, name) for folder, name in found.items() if folder.suffix not in (PARTIAL, REPLACED)]


def _describe(folder: Path, name: str) -> KnownModel:
    is_readable = True
    try:
        source = read_source(folder)
    except UpstreamError:
        source, is_readable = {}, False
    is_there = (folder / CONFIG).is_file()
    size = sum(path.stat().st_size for path in folder.iterdir()) if is_there else None
    origin = source.get("id") or (hub_id(split_revision(name)[0]) if name else "")
    return KnownModel(name or origin or str(folder), origin, source.get("revision", ""), size, is_readable)
