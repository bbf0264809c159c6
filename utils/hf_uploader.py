"""Upload a run's best model to the Hugging Face hub: `python -m utils.hf_uploader RUN_FOLDER USER/NAME`.

What is uploaded: the checkpoint, the model card with its pictures, and the figures of evaluated splits. Recordings,
their names, labels and predictions are not.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils import ConfigurationError, print_error, print_unforeseen, read_token
from utils.config.types import LICENSE_PATTERN, PATTERN_RULES
from utils.hub.model_files import CARD, METRICS, PROVENANCE
from utils.hub.repositories import LONGEST_ANSWER, HubError, find_token_problem, patient_api, told

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PAUSES = (2.0, 8.0)
"""Seconds after which an upload that failed for something that may pass is tried again."""
REPLACED = ["pictures/*", "evaluation/*", CARD, METRICS, PROVENANCE]
"""What an earlier upload has of these, and this one has not, is removed: it says something of other weights."""
ALL_WELL, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


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
    with told(f'"{repo_id}" cannot be uploaded'):
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


def license_id(text: str) -> str:
    """Read a licence."""
    if not re.match(LICENSE_PATTERN, text):
        raise argparse.ArgumentTypeError(f'"{text}" is none; give {PATTERN_RULES[LICENSE_PATTERN]}')
    return text


def main(arguments: list[str] | None = None) -> int:
    """Return 0 where the model was uploaded, 1 where it was not, 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="such as runs/NAME/seed-42")
    parser.add_argument("repo_id", metavar="USER/NAME", help="the repository; it is made where it is not there")
    parser.add_argument("--public", action="store_true", help="let everybody read a new repository; default: its owner")
    parser.add_argument(
        "--license", type=license_id, metavar="ID", help="of the weights, as the hub names it, such as cc-by-nc-4.0"
    )
    options = parser.parse_args(arguments)
    try:
        token = read_token("HUGGINGFACE_TOKEN")
    except ConfigurationError as error:
        print_error(error)
        return WRONG_INPUT
    problem = find_token_problem(token)
    if problem is not None:
        print_error(f"{problem}; the run is as it was, and the same command uploads it then")
        return FAILED
    from experiment_runner.publishing.publish import upload_run
    from experiment_runner.runtime.interruption import stopped_as_by_keyboard
    from experiment_runner.storage.checkpoints import CheckpointError
    from experiment_runner.storage.run_folder import RunError

    try:
        with stopped_as_by_keyboard():
            print(upload_run(options.run, options.repo_id, token, options.public, options.license))
    except (ConfigurationError, RunError, CheckpointError) as error:
        print_error(error)
        return WRONG_INPUT
    except (HubError, OSError) as error:
        print_error(f"{error}; the run is as it was, and the same command uploads it later")
        return FAILED
    except KeyboardInterrupt:
        print_error("interrupted; the same command uploads the rest")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - nobody should have to read a traceback on the screen
        print_unforeseen(error)
        return FAILED
    return ALL_WELL


if __name__ == "__main__":
    sys.exit(main())
