"""Model repositories on the hub: all fetched files come from one revision and are checked against its hashes."""

from __future__ import annotations

import logging
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from utils.errors import UserError
from utils.hub.model_files import MANIFEST, MODEL_FILES
from utils.io.secrets import SHORTEST_TOKEN, read_token

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

LONGEST_ANSWER = 15.0
"""Maximum seconds to wait for an answer of the hub."""
SLOWEST_ANSWER = 60.0
"""Maximum seconds to wait for the hub to process an upload."""
NOT_FOUND_OR_FORBIDDEN = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
BEARER = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
"""Valid form of a token: RFC 6750, "The OAuth 2.0 Authorization Framework: Bearer Token Usage", section 2.1."""


class HubError(UserError):
    """A failed download from the hub or upload to it.

    Args:
        text: The failure and the remedy.
        may_pass: Whether the same request may work a moment later.
    """

    def __init__(self, text: str, may_pass: bool = False) -> None:
        super().__init__(text)
        self.may_pass = may_pass


@contextmanager
def hub_errors(what: str, otherwise: str = "") -> Iterator[None]:
    """Turn errors inside the context into a `HubError` that gives the reason in a sentence.

    Args:
        what: Beginning of the sentence, such as `"user/model" cannot be downloaded`.
        otherwise: Alternative for a user without a network.

    Raises:
        HubError: If the hub, the network or the disk fails.
    """
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except (HfHubHTTPError, HFValidationError, httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        cause = error.__cause__ if type(error) is RuntimeError and error.__cause__ else error  # a file of several
        answer = getattr(cause, "response", None)
        passes = isinstance(cause, httpx.TransportError) if answer is None else may_pass(answer.status_code)
        reason = f"the hub answers {answer.status_code}, {_answer(cause)}" if answer is not None else str(cause)
        raise HubError(f"{what}: {' '.join(reason.split()).rstrip('.')}{_remedy(cause, otherwise)}", passes) from error


def _answer(error: Any) -> str:  # noqa: ANN401 - of the hub client or of httpx
    """Return the hub's error message, or the meaning of its status where there is no message."""
    return str(getattr(error, "server_message", None) or error.response.reason_phrase)


def _remedy(error: BaseException, otherwise: str) -> str:
    """Return the remedy, to follow the description of the failure."""
    import httpx
    from huggingface_hub.errors import RevisionNotFoundError

    if isinstance(error, httpx.TransportError):
        return f"; check the network, HTTPS_PROXY and HF_ENDPOINT{otherwise}"
    if isinstance(error, RevisionNotFoundError):
        return "; name a branch, a tag or a commit that is there"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in NOT_FOUND_OR_FORBIDDEN:
        is_set = "" if read_token("HUGGINGFACE_TOKEN") else " (none is set)"
        accepted = "whether its conditions have been accepted on its page"
        return f"; check its name, HUGGINGFACE_TOKEN in .env{is_set}, and {accepted}"
    return ""


def find_token_problem(token: str | None) -> str | None:
    """Return why a token cannot be used for an upload, None if nothing is wrong; the hub is not contacted.

    Args:
        token: Hub token; if None, the one stored by the hub client.
    """
    from huggingface_hub import get_token

    known = token or get_token()
    if known is None:
        return "an upload needs HUGGINGFACE_TOKEN, and none is set; put one with write access into .env"
    if len(known) < SHORTEST_TOKEN or not BEARER.fullmatch(known):
        return (
            "HUGGINGFACE_TOKEN is not a token of the hub, which is long and consists of letters, digits and _ "
            "only; copy it again "
            "from https://huggingface.co/settings/tokens into .env"
        )
    return None


def require_token(token: str | None) -> None:
    """Refuse an upload without a token that can be used, see `find_token_problem`.

    Raises:
        HubError: Says what is wrong with it.
    """
    problem = find_token_problem(token)
    if problem is not None:
        raise HubError(problem)


def patient_api(token: str | None) -> HfApi:
    """Return the hub client with limited waiting times and with progress bars only on a terminal."""
    from huggingface_hub import HfApi, get_session

    _quieten()
    get_session().timeout = SLOWEST_ANSWER
    return HfApi(token=token)


def _quieten() -> None:
    """Silence the hub client, except for progress bars on a terminal."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        disable_progress_bars()


def fetch(
    repo_id: str,
    choose: Callable[[Sequence[str]], Sequence[str]],
    folder: Path,
    token: str | None,
    revision: str | None = None,
) -> str:
    """Download files of a repository into a folder, which contains nothing else afterwards.

    Files that are already complete are not fetched again; a partial one is fetched from the beginning.

    Args:
        repo_id: Repository, such as `microsoft/wavlm-large`.
        choose: Maps the published names to the wanted ones.
        folder: Target folder.
        token: Hub token.
        revision: A branch, a tag or a commit; the main branch if None.

    Returns:
        The commit of all the files.

    Raises:
        HubError: If the download fails, or a file does not match the hub's hash.
    """
    from huggingface_hub import hf_hub_download

    with hub_errors(
        f'"{repo_id}" cannot be downloaded', ", or copy its folder in models/ from a machine that has a network"
    ):
        api = patient_api(token)
        found = api.model_info(repo_id, revision=revision, timeout=LONGEST_ANSWER, files_metadata=True)
        assert found.sha is not None
        wanted = _sizes(found, choose)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # left by a call that was killed
        _remove(folder, _others(folder, wanted) + _damaged(api, found, folder, wanted))
        missing = {name: size for name, size in wanted.items() if not (folder / name).is_file()}
        check_room(folder, sum(missing.values()))
        for name in missing:
            hf_hub_download(repo_id, name, revision=found.sha, local_dir=folder, token=token)
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        damaged = _damaged(api, found, folder, wanted)  # the client compares only sizes
    if damaged:
        _remove(folder, damaged)
        raise HubError(f'"{repo_id}" was damaged in transit: {", ".join(damaged)}; the same command fetches it again')
    return found.sha


def find_commit(repo_id: str, revision: str | None, token: str | None) -> str:
    """Return the current commit of a branch or a tag of a repository.

    Raises:
        HubError: If the hub does not return it.
    """
    with hub_errors(f'"{repo_id}" cannot be looked up'):
        return str(patient_api(token).model_info(repo_id, revision=revision, timeout=LONGEST_ANSWER).sha)


def _sizes(found: ModelInfo, choose: Callable[[Sequence[str]], Sequence[str]]) -> dict[str, int]:
    """Return the wanted files of a repository with their sizes in bytes.

    Raises:
        ValueError: If one of them is missing, or the hub's information on it is impossible.
    """
    published = {file.rfilename: file for file in found.siblings or []}
    sizes = {}
    for name in choose(list(published)):
        if name not in published:
            raise ValueError(f"it has no {name}")
        if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
            raise ValueError(f"it has a file that leads out of its folder, {name}")
        size = published[name].size
        if size is None:
            raise ValueError(f"the hub does not say the size of {name}")
        sizes[name] = size
    return sizes


def may_pass(status: int) -> bool:
    """Return whether a server's status may be different a moment later."""
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS


def check_room(folder: Path, wanted_bytes: int) -> None:
    """Refuse to begin a download that does not fit on the disk.

    Raises:
        OSError: Says how much space is missing.
    """
    free = shutil.disk_usage(folder).free
    if free < wanted_bytes:
        raise OSError(f"{wanted_bytes / 1e9:.2f} GB are needed, and {free / 1e9:.2f} are free on the disk of {folder}")


def _others(folder: Path, wanted: Collection[str]) -> list[str]:
    """Return the files of a folder that are not wanted."""
    there = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() or path.is_symlink()]
    return [name for name in there if name not in wanted]


def _damaged(api: HfApi, found: ModelInfo, folder: Path, wanted: Collection[str]) -> list[str]:
    """Return the files in the folder that differ from those on the hub."""
    compared = api.verify_repo_checksums(found.id, revision=found.sha, local_dir=folder)
    return sorted({mismatch["path"] for mismatch in compared.mismatches} & set(wanted))


def _remove(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).unlink()


def fetch_cached(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return the folder of a trained model in the hub client's cache, after downloading it if it is missing.

    Raises:
        HubError: If the download fails.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    _quieten()
    where: dict[str, Any] = {"revision": revision, "token": token, "cache_dir": cache_dir}
    with hub_errors(f'"{repo_id}" is not a folder, and cannot be fetched from the hub'):
        try:
            hf_hub_download(repo_id, MANIFEST, local_files_only=local_files_only, **where)
        except RemoteEntryNotFoundError as error:
            raise HubError(f'"{repo_id}" has no {MANIFEST}, and is not a trained model of this program') from error
        return Path(
            snapshot_download(repo_id, local_files_only=local_files_only, allow_patterns=list(MODEL_FILES), **where)
        )
