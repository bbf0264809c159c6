"""Repositories of models on the hub: what is fetched comes from one revision and is compared with its hashes."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LONGEST_ANSWER = 15.0
"""Seconds to wait for the hub."""
SERVER_ERROR = 500
CHECKPOINT_FILES = ("config.json", "model.safetensors", "manifest.json", "metrics.json", "provenance.json")
"""What a trained model's repository holds of its checkpoint."""


class HubError(Exception):
    """The hub does not give or take what it should.

    Args:
        text: What, and the remedy.
        may_pass: Whether the same may work a moment later.
    """

    def __init__(self, text: str, may_pass: bool = False) -> None:
        super().__init__(text)
        self.may_pass = may_pass


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say in a sentence why something could not be done.

    Args:
        what: Such as `"user/model" cannot be downloaded`.

    Raises:
        HubError: Where the hub, the network or the disk fails.
    """
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except (HfHubHTTPError, HFValidationError, httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        cause = error.__cause__ if type(error) is RuntimeError and error.__cause__ else error  # a file of several
        answer = getattr(cause, "response", None)
        may_pass = isinstance(cause, httpx.TransportError) if answer is None else answer.status_code >= SERVER_ERROR
        reason = f"{error}: {cause}" if cause is not error else str(cause)
        raise HubError(f"{what}: {' '.join(reason.split())}", may_pass) from error


def fetch(
    repo_id: str,
    choose: Callable[[Sequence[str]], Sequence[str]],
    folder: Path,
    token: str | None,
    revision: str | None = None,
) -> str:
    """Download files of a repository into a folder, which holds nothing else in the end.

    Those that are whole there are not fetched again.

    Args:
        repo_id: Such as `microsoft/wavlm-large`.
        choose: From the names of what is published to those that are wanted.
        folder: Where to.
        token: Of the hub.
        revision: A branch, a tag or a commit; the main branch where None.

    Returns:
        The commit that all of them are of.

    Raises:
        HubError: Where that cannot be done, or a file is not what the hub says it is.
    """
    from huggingface_hub import HfApi, snapshot_download

    with told(f'"{repo_id}" cannot be downloaded'):
        api = HfApi(token=token)
        found = api.model_info(repo_id, revision=revision, timeout=LONGEST_ANSWER)
        wanted = choose([file.rfilename for file in found.siblings or []])
        patterns = [glob.escape(name) for name in wanted]
        snapshot_download(repo_id, revision=found.sha, local_dir=folder, allow_patterns=patterns, token=token)
        compared = api.verify_repo_checksums(repo_id, revision=found.sha, local_dir=folder)
    damaged = sorted({mismatch["path"] for mismatch in compared.mismatches} & set(wanted))
    for path in [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]:
        name = path.relative_to(folder).as_posix()
        if name in damaged or name not in wanted:
            path.unlink()
    if damaged:
        raise HubError(f'"{repo_id}" was damaged on the way: {", ".join(damaged)}; the same command fetches it again')
    assert found.sha is not None
    return found.sha


def fetch_cached(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return the folder of a trained model in the hub client's cache; it is downloaded where it is not there.

    Raises:
        HubError: Where that cannot be done.
    """
    from huggingface_hub import snapshot_download

    with told(f'"{repo_id}" is in no folder, and cannot be had from the hub'):
        folder = snapshot_download(
            repo_id,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_patterns=list(CHECKPOINT_FILES),
        )
    return Path(folder)
