"""A folder on its way to the hub, as one commit."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils.hub.model_files import CARD, METRICS, PROVENANCE
from utils.hub.repositories import LONGEST_ANSWER, HubError, find_token_problem, hub_errors, patient_api

if TYPE_CHECKING:
    from huggingface_hub import HfApi


PAUSES = (2.0, 8.0)
"""Seconds after which an upload that failed for something that may pass is tried again."""
REPLACED = ["pictures/*", "evaluation/*", CARD, METRICS, PROVENANCE]
"""What an earlier upload has of these, and this one has not, is removed: it says something of other weights."""


@dataclass(frozen=True)
class Uploaded:
    """Where a model lies on the hub.

    Attributes:
        url: Of its repository.
        revision: The commit.
        is_private: Whether only its owner can read it.
    """

    url: str
    revision: str
    is_private: bool

    def __str__(self) -> str:
        who = "private" if self.is_private else "PUBLIC, for everybody to read"
        return f"{self.url}: {who}, revision {self.revision}"


def upload(
    folder: Path,
    repo_id: str,
    token: str | None,
    is_public: bool = False,
    message: str = "Upload a trained model with its card",
) -> Uploaded:
    """Upload a folder as one commit of a repository, which is made where it is not there.

    Args:
        folder: All of it is uploaded.
        repo_id: `<user>/<name>`.
        token: Of the hub, one that may write.
        is_public: Whether a new repository can be read by everybody; one that is there stays as it is.
        message: Of the commit.

    Raises:
        HubError: Where the hub does not take it, also after a while.
    """
    problem = find_token_problem(token)
    if problem is not None:
        raise HubError(problem)
    for pause in (*PAUSES, None):
        try:
            return _upload_once(folder, repo_id, token, is_public, message)
        except HubError as error:
            if pause is None or not error.may_pass:
                raise
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _upload_once(folder: Path, repo_id: str, token: str | None, is_public: bool, message: str) -> Uploaded:
    with hub_errors(f'"{repo_id}" cannot be uploaded'):
        api = patient_api(token)
        if not is_public and _is_private(api, repo_id) is False:
            raise HubError(
                f'everybody can read "{repo_id}"; name another, make it private, or add --public (in Python: '
                "private=False)"
            )
        url = api.create_repo(repo_id, private=not is_public, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=message, delete_patterns=REPLACED
        )
        return Uploaded(str(url), commit.oid, bool(_is_private(api, repo_id)))


def _is_private(api: HfApi, repo_id: str) -> bool | None:
    """Return whether only its owner can read a repository; None where there is none."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.model_info(repo_id, timeout=LONGEST_ANSWER).private
    except RepositoryNotFoundError:
        return None
