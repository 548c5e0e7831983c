"""Checkpoints in mid-step: what a long step saves on its way, so that a later attempt goes on from there."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

EVERY_S = 45.0
"""Less than a minute, so that with the work between two looks and the writing it is one at least."""
Write = Callable[[Path], None]
"""Writes the file at the path it is given; there is none yet."""


class Checkpoints(Protocol):
    """Where a step keeps how far it is. One file, replaced as a whole each time."""

    def load(self) -> Path | None:
        """The file that an earlier attempt at this very step saved last; None where there is none."""

    def due(self) -> bool:
        """Whether it is time to save again. Cheap: ask it after every batch."""

    def save(self, write: Write) -> None:
        """Keeps what `write` writes in place of what was saved before; when `write` raises, that stays."""


class NoCheckpoints:
    """For runs that nobody will take up again, as in notebooks."""

    def load(self) -> Path | None:
        return None

    def due(self) -> bool:
        return False

    def save(self, write: Write) -> None:
        pass


class FolderCheckpoints:
    """Saves files into a folder and announces each once it is complete.

    The last two stay, so that whoever copies the announced one has an interval's time to do so.
    """

    def __init__(
        self,
        folder: Path,
        announce: Callable[[Path], None] = lambda _: None,
        *,
        saved: Path | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        """`saved` is what an earlier attempt left; `folder` is made with the first file."""
        self._folder = folder
        self._announce = announce
        self._saved = saved
        self._every_s = every_s
        self._written: list[Path] = []
        self._count = 0
        self._saved_at = time.monotonic()

    def load(self) -> Path | None:
        return self._written[-1] if self._written else self._saved

    def due(self) -> bool:
        return time.monotonic() - self._saved_at >= self._every_s

    def save(self, write: Write) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._count}.checkpoint"
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        write(partial)
        partial.replace(path)
        self._count += 1
        self._written.append(path)
        self._announce(path)
        if len(self._written) > 2:
            self._written.pop(0).unlink(missing_ok=True)
        self._saved_at = time.monotonic()
