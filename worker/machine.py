"""What belongs to the machine: the right to time inferences, and what its processes use."""

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path

LOCK = Path(tempfile.gettempdir()) / "modelpress-timing.lock"


class TimingLock:
    """At most one holder on this machine, whatever its process.

    Released at the latest when the process ends.
    """

    def __init__(self, path: Path = LOCK) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def try_acquire(self) -> bool:
        """Never waits."""
        if self._descriptor is not None:
            return True
        descriptor = _open(self._path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _open(path: Path) -> int:
    """Read-only and readable by all, so that workers of several users can share it."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags)
    descriptor = os.open(path, flags | os.O_CREAT, 0o444)
    with contextlib.suppress(PermissionError):
        os.fchmod(descriptor, 0o444)
    return descriptor


def process_family(pid: int, limit: int = 1000) -> list[int]:
    """A process and its descendants, as far as the kernel tells."""
    family = [pid]
    for member in family:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{member}/task").iterdir():
                family += map(int, (task / "children").read_text().split())
        if len(family) > limit:
            break
    return family


def resident_bytes(pid: int) -> int:
    """Anonymous and shared memory: pages of mapped files can be dropped and count for nobody."""
    resident = 0
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                resident += int(line.split()[1]) * 1024
    return resident
