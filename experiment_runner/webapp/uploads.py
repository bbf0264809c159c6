"""Recordings that a browser has sent: only the session that sent them can read them, and they are deleted with it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.errors import DataError


@dataclass(frozen=True, eq=False)
class Upload:
    """An uploaded recording, with its name on the user's machine; every request for it is a separate object."""

    path: Path
    name: str


@dataclass
class Uploads:
    """The uploads in one folder, by session.

    Attributes:
        folder: Folder in which gradio stores uploads.
    """

    folder: Path
    _held: dict[str, Path] = field(default_factory=dict)
    _requested: dict[str, Upload] = field(default_factory=dict)

    def take(self, session: str, document: Mapping[str, Any] | None) -> None:
        """Set the recording that a session requests; its previous one is deleted if it is a different file.

        Args:
            session: Name of the session.
            document: Gradio's description of the file: its `path` and `orig_name`.

        Raises:
            DataError: If there is no such file; the message is for the user of the page.
        """
        self.withdraw(session)
        if document is None:
            raise DataError("Record or choose a recording first.")
        path = Path(str(document["path"])).resolve()
        if not path.is_relative_to(self.folder.resolve()) or not path.is_file():
            raise DataError("The recording is no longer there; choose it again.")
        if self._held.get(session) != path:
            self.forget(session)
        self._held[session] = path
        self._requested[session] = Upload(path, Path(str(document.get("orig_name") or path.name)).name)

    def requested(self, session: str) -> Upload | None:
        """Return the recording that a session last requested; None if it requested none, or withdrew it."""
        return self._requested.get(session)

    def holds(self, session: str) -> bool:
        """Return whether a session has a recording here."""
        return session in self._held

    def withdraw(self, session: str) -> None:
        """Withdraw a session's request; its recording stays."""
        self._requested.pop(session, None)

    def forget(self, session: str) -> None:
        """Withdraw a session's request and delete its recordings, unless another session has sent the same ones."""
        self.withdraw(session)
        path = self._held.pop(session, None)
        if path is not None and path not in self._held.values():
            path.unlink(missing_ok=True)
            with suppress(OSError):  # its folder may hold something else
                path.parent.rmdir()
