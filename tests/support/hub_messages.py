"""Messages between the local hub (`tests/support/hub_server.py`) and the client."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from tests.support.hub_repositories import HubError, refuse


@dataclass
class Asked:
    """A request: `parts` are those of the path, decoded; `target` is path and query as sent."""

    method: str
    target: str
    parts: list[str]
    query: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 - whatever was sent
        """Return the body as JSON."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise refuse(f"the body is no JSON: {error}") from error

    def flag(self, name: str) -> bool:
        """Return whether a parameter of the query is set."""
        return parse_qs(self.query).get(name, [""])[0].lower() in ("1", "true")


@dataclass
class Answer:
    """What is sent back; of `body` only the first `cut_after` bytes where that is set."""

    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: HTTPStatus = HTTPStatus.OK
    is_download: bool = False
    cut_after: int | None = None

    @classmethod
    def of_json(cls, content: object, status: HTTPStatus = HTTPStatus.OK) -> Answer:
        """Answer with JSON."""
        return cls(json.dumps(content).encode(), {"Content-Type": "application/json; charset=utf-8"}, status)

    @classmethod
    def of_error(cls, error: HubError) -> Answer:
        """Answer with a refusal, which the client knows by its headers."""
        given = cls.of_json({"error": error.message}, error.status)
        told = {"X-Error-Code": error.code, "X-Error-Message": error.message, "X-Repo-Commit": error.revision}
        given.headers |= {name: value for name, value in told.items() if value}
        return given
