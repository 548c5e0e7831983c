"""The sandbox.

Runs one entry in a confined child, watches it, and turns every end it can come to into a typed one.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worker import isolation
from worker.channel import REQUEST
from worker.child import ENTRIES
from worker.confinement import Limits
from worker.isolation import Isolation
from worker.machine import LOCK, TimingLock
from worker.supervision import Supervision
from worker.warm import WarmParent

OnEvent = Callable[[Mapping[str, Any]], None]
Stop = Callable[[], bool]


class Sandbox:
    """A warm parent and the folders of its children. Thread-safe: several entries may run at once.

    `folder` belongs to this sandbox alone. `entries` names the functions that a child may run, as
    `module:name`, and `packages` the top-level packages they need beside our own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        level: Isolation | None = None,
        entries: tuple[str, ...] = ENTRIES,
        packages: tuple[str, ...] = (),
        lock: Path = LOCK,
    ) -> None:
        self._view = isolation.make_view(folder.resolve(), ("worker", "compression", *packages))
        self.level = level or isolation.best(self._view)
        self._lock = lock
        self._parent = WarmParent(self._view, self.level, entries, packages)

    @property
    def parent_pid(self) -> int | None:
        """Of the warm parent's outermost process, as this process names it."""
        process = self._parent.process
        return None if process is None else process.pid

    def wait_until_ready(self) -> None:
        self._parent.wait_until_ready()

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """An empty folder for one run, removed afterwards."""
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._view.jobs))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def run(
        self,
        entry: str,
        folder: Path,
        request: Mapping[str, Any],
        *,
        limits: Limits,
        on_event: OnEvent = lambda _: None,
        stop: Stop = lambda: False,
        grace_s: float = 2.0,
    ) -> Mapping[str, Any]:
        """What `entry` returns for `request`; `folder` is one that `folder()` made.

        `on_event` hears the child's events in this thread, parsed but not validated, and must not take long.
        `stop` is asked several times a second; once it is true the child has `grace_s` seconds to end.

        Raises:
            Refused, Failed, Interrupted: how it ended (`worker.failures`).
            Stopped: because of `stop`.
        """
        (folder / REQUEST).write_text(json.dumps(request))
        child = self._parent.spawn(entry, folder, limits.document())
        lock = TimingLock(self._lock)
        try:
            return Supervision(
                child, folder, limits, on_event=on_event, stop=stop, grace_s=grace_s, lock=lock
            ).until_end()
        finally:
            lock.release()
            self._parent.forget(child)
            child.close()

    def close(self) -> None:
        """Ends every child and the warm parent, and removes all folders."""
        self._parent.close()
        shutil.rmtree(self._view.jobs, ignore_errors=True)
        shutil.rmtree(self._view.mountpoint, ignore_errors=True)


def usable_cores() -> int:
    return len(os.sched_getaffinity(0))
