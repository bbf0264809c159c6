"""What git and Git LFS say, in sentences that name the remedy."""

from __future__ import annotations

import re

from utils.config_text import printable
from utils.secrets import SHORTEST_TOKEN, Redaction

TOKEN = "GIT_AUTH_TOKEN"
NOISE = re.compile(r"error: failed to fetch some objects|Please make sure you have|and the repository exists|\s*$")
REFUSED = (
    r"could not read (username|password)|authentication (failed|required)|authorization error|error: 40[13]"
    "|credentials for .* not found"
)
REASONS = {
    "operation too slow|i/o timeout|handshake timeout|deadline exceeded": "the server says nothing; try again later",
    "repository .*not found|error: 404": f"nothing is there; check the address, and {TOKEN} where it is private",
    "not resolve|failed to connect|couldn't connect|connection (refused|timed out)|no such host|is unreachable": (
        "the server cannot be reached; check the address, the network and the proxy"
    ),
    "no space left|quota exceeded|file too large|died of signal 25": "the disk is full; make room on it",
    "certificate": "the server's certificate is not trusted; name that of its authority in git's http.sslCAInfo",
    "object does not exist|no such object": "Git LFS has no such file there; who published it has to upload it",
    "expected oid": "a file of Git LFS was damaged on the way; the same command fetches it again",
}
"""By what is said, what a person is told before it."""


class GitError(Exception):
    """A repository does not give what it should.

    Args:
        text: What, and the remedy.
        said: What git said.
    """

    def __init__(self, text: str, said: str = "") -> None:
        super().__init__(text)
        self.said = said


def explain(said: str, url: str, token: str | None) -> GitError:
    """Return the error that a text of git stands for, without any token.

    Args:
        said: The text.
        url: The repository's.
        token: The one that the server was given.
    """
    lines = [line for line in re.split(r"[\r\n]+", said) if not NOISE.match(line)]
    last = printable(re.sub(r"^(fatal|error): ", "", lines[-1]).strip()) if lines else "git does not say why"
    reason = next((reason for pattern, reason in REASONS.items() if re.search(pattern, said, re.IGNORECASE)), None)
    if re.search(REFUSED, said, re.IGNORECASE):
        reason = (
            f"the server refuses the token in {TOKEN}; write one there that may read this repository"
            if token
            else f"it is private or not there; if it is private, write a token that may read it into {TOKEN}"
        )
    text = f'"{url}" cannot be fetched: {f"{reason} ({last})" if reason else last}'
    if token and len(token) >= SHORTEST_TOKEN:
        text, said = text.replace(token, f"<{TOKEN}>"), said.replace(token, f"<{TOKEN}>")
    return GitError(Redaction()(text), said)
