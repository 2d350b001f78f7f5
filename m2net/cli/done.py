"""Marks of finished parts, so that a command that was stopped goes on with what is not done."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from m2net.files import written_whole

_JUDGED = b"2"
"""Raised where results of before are no longer what is judged today, so that they are not kept: at 2, averaged weights are judged."""


class Done:
    """A mark in a folder: its results were made from this content, and are as they were left."""

    def __init__(self, folder: Path, known: bytes, result: str) -> None:
        """Look at a folder.

        Args:
            folder: of the part.
            known: everything that the result hangs on.
            result: name of the file that the part is for.
        """
        self.path, self.result = folder / "done.json", folder / result
        self.key = hashlib.sha256(_JUDGED + known).hexdigest()

    def holds(self) -> bool:
        """Whether the part is done; a mark of something else is taken away before it is done anew."""
        from m2net.training import file_hash

        if self.path.exists() and self.result.exists():
            if self._mark() == {"key": self.key, "result": file_hash(self.result)}:
                print(f"{self.result}: done before, kept")
                return True
        self.path.unlink(missing_ok=True)
        return False

    def write(self) -> None:
        """Say that it is done."""
        from m2net.training import file_hash

        with written_whole(self.path) as file:
            json.dump({"key": self.key, "result": file_hash(self.result)}, file)

    def _mark(self) -> Any:
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError:  # cut off, as on a full disk
            return None
