"""The child's side of the pipe: what an entry may say to its supervisor, and how an entry is run."""

import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from compression.errors import CompressionError

REQUEST = "request.json"
SCRATCH = "tmp"
NOT_STARTED = 70
"""Exit code of a child that could not be confined, or was asked for what is no entry."""
_NO_MEMORY = re.compile(
    r"bad_alloc|bad allocation|failed to allocate memory|cannot allocate memory|out of memory", re.I
)


class Channel:
    """Sends JSON lines to the supervisor and waits for its leave to time something."""

    def __init__(self, events: int, replies: int) -> None:
        self._events = events
        self._replies = replies

    def send(self, message: Mapping[str, Any]) -> None:
        rest = memoryview(json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n")
        while rest:
            rest = rest[os.write(self._events, rest) :]

    def event(self, event: Mapping[str, Any]) -> None:
        self.send({"kind": "event", "event": event})

    @contextlib.contextmanager
    def timing(self) -> Iterator[None]:
        """While inside, no other job on this machine is timing."""
        self.send({"kind": "timing", "wanted": True})
        os.read(self._replies, 1)
        try:
            yield
        finally:
            self.send({"kind": "timing", "wanted": False})


Entry = Callable[[Path, Mapping[str, Any], Channel], Mapping[str, Any]]


def serve_entry(entry: Entry, folder: Path, events: int, replies: int) -> int:
    """Runs the entry on the folder's request.

    Its return value or its error is the last message. Returns the exit code.
    """
    channel = Channel(events, replies)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _use_scratch(folder / SCRATCH)
    try:
        result = entry(folder, json.loads((folder / REQUEST).read_bytes()), channel)
        channel.send({"kind": "result", "result": result})
    except CompressionError as error:
        channel.send({"kind": "error", **_document(error)})
    except MemoryError:
        channel.send({"kind": "error", "code": "out_of_memory", "message": "", "where": None, "hint": None})
    except Exception as error:  # noqa: BLE001
        return _report_defect(channel, error)
    return 0


def _stop(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def _document(error: CompressionError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "where": error.where, "hint": error.hint}


def _report_defect(channel: Channel, error: Exception) -> int:
    """The traceback goes to the worker's log; the user hears what kind of error it was."""
    traceback.print_exc()
    code = "out_of_memory" if _NO_MEMORY.search(str(error)) else "internal_error"
    message = f"{type(error).__name__}: {error}"[:2000]
    channel.send({"kind": "error", "code": code, "message": message, "where": None, "hint": None})
    return 0


def _use_scratch(scratch: Path) -> None:
    scratch.mkdir(exist_ok=True)
    threads = len(os.sched_getaffinity(0))
    os.environ.update(HOME=str(scratch), TMPDIR=str(scratch))
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(threads)
    tempfile.tempdir = None
    if "numpy" in sys.modules:
        from threadpoolctl import threadpool_limits

        threadpool_limits(limits=threads)
