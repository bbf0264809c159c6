"""Upload of a folder to the hub as one commit."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils.hub.model_files import CARD, METRICS, PROVENANCE
from utils.hub.repositories import LONGEST_ANSWER, HubError, hub_errors, patient_api, require_token

if TYPE_CHECKING:
    from huggingface_hub import HfApi


PAUSES = (2.0, 8.0)
"""Seconds between attempts of an upload that failed for a temporary reason."""
REPLACED = ["pictures/*", "evaluation/*", "code/*", CARD, METRICS, PROVENANCE]
"""Files of an earlier upload that are removed unless this upload has them too: they describe other weights."""


@dataclass(frozen=True)
class Uploaded:
    """A model's place on the hub.

    Attributes:
        url: Address of its repository.
        revision: Commit of the upload.
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
    """Upload a folder as one commit of a repository, which is created if it does not exist.

    Args:
        folder: Folder to upload completely.
        repo_id: Repository, `<user>/<name>`.
        token: Hub token with permission to write.
        is_public: Whether a new repository is public; an existing one keeps its visibility.
        message: Commit message.

    Raises:
        HubError: If the hub does not accept it, even after retries.
    """
    require_token(token)
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
    """Return whether only its owner can read a repository; None if it does not exist."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.model_info(repo_id, timeout=LONGEST_ANSWER).private
    except RepositoryNotFoundError:
        return None
