"""Recordings that a browser has sent: read by the session that sent them alone, and deleted with it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.errors import DataError


@dataclass(frozen=True, eq=False)
class Upload:
    """A recording on this machine, and its name on the other; every asking about it is one of its own."""

    path: Path
    name: str


@dataclass
class Uploads:
    """What lies in one folder, by session.

    Attributes:
        folder: Where gradio puts what it is sent.
    """

    folder: Path
    _held: dict[str, Path] = field(default_factory=dict)
    _asked: dict[str, Upload] = field(default_factory=dict)

    def take(self, session: str, document: Mapping[str, Any] | None) -> None:
        """Note what a session asks about in place of what it asked before, which is deleted if it is another file.

        Args:
            session: Its name.
            document: What gradio says of the file: its `path` and `orig_name`.

        Raises:
            DataError: A sentence for who is before the page, where there is no such file.
        """
        self.withdraw(session)
        if document is None:
            raise DataError("Record or choose a recording first.")
        path = Path(str(document["path"])).resolve()
        if not path.is_relative_to(self.folder.resolve()) or not path.is_file():
            raise DataError("The recording is not there any more; choose it again.")
        if self._held.get(session) != path:
            self.forget(session)
        self._held[session] = path
        self._asked[session] = Upload(path, Path(str(document.get("orig_name") or path.name)).name)

    def asked(self, session: str) -> Upload | None:
        """Return what a session last asked about; None where it did not, or has taken it back."""
        return self._asked.get(session)

    def holds(self, session: str) -> bool:
        """Return whether there is a recording of a session."""
        return session in self._held

    def withdraw(self, session: str) -> None:
        """Take back what a session asked; its recording stays."""
        self._asked.pop(session, None)

    def forget(self, session: str) -> None:
        """Take back what a session asked, and delete what it has sent, unless another one has sent the same."""
        self.withdraw(session)
        path = self._held.pop(session, None)
        if path is not None and path not in self._held.values():
            path.unlink(missing_ok=True)
            with suppress(OSError):  # its folder holds something else
                path.parent.rmdir()
