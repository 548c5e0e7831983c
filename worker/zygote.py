"""The warm parent: has the heavy libraries imported, opens no model, and forks a child for each request.

It is started by exec with a clean environment, stays single-threaded, and speaks JSON over one socket:

- in: `{"id", "entry", "folder", "limits"}` with three descriptors: events, output, replies
- out: `{"ready"}` once, `{"started": id}` with the child's pidfd, `{"ended": id, "status"}`
"""

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from worker import enclosure
from worker.channel import NOT_STARTED, serve_entry
from worker.confinement import Limits, confine

_PRELOADED = (
    "numpy",
    "onnx_ir",
    "onnxruntime",
    "onnxscript.optimizer",
    "onnxscript.version_converter",
    "threadpoolctl",
    "compression.data",
    "compression.graph",
    "compression.pipeline",
    "compression.runtime",
)
"""None of them starts a thread, which forking would break; pyarrow and torch do."""
_MESSAGE_BYTES = 1 << 16
_REAP_S = 2.0


class Zygote:
    def __init__(self, plan: dict[str, Any], control: socket.socket) -> None:
        self._plan = plan
        self._control = control
        self._children: dict[int, tuple[int, int]] = {}
        """Request id and pidfd by process id."""
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def serve(self) -> None:
        """Until the supervisor closes its end. Children die with this process."""
        self._control.send(json.dumps({"ready": os.getpid()}).encode())
        while True:
            ready = [key.fileobj for key, _ in self._selector.select(_REAP_S)]
            if self._control in ready and not self._receive():
                return
            self._bury_the_dead()

    def _receive(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES, 3)
        if not message:
            return False
        request = json.loads(message)
        child = os.fork()
        if child == 0:
            self._become_child(request, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        pidfd = os.pidfd_open(child)
        self._selector.register(pidfd, selectors.EVENT_READ)
        self._children[child] = (request["id"], pidfd)
        socket.send_fds(self._control, [json.dumps({"started": request["id"]}).encode()], [pidfd])
        return True

    def _bury_the_dead(self) -> None:
        """Children, and orphans that fell to us where this is the first process of its namespace."""
        while (dead := _next_dead()) is not None:
            request_id, pidfd = self._children.pop(dead, (None, -1))
            if request_id is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(
                        dead, signal.SIGKILL
                    )  # What it left behind. Unburied, its number is nobody else's.
            _, status = os.waitpid(dead, 0)
            if request_id is not None:
                self._selector.unregister(pidfd)
                os.close(pidfd)
                self._control.send(json.dumps({"ended": request_id, "status": status}).encode())

    def _become_child(self, request: dict[str, Any], events: int, output: int, replies: int) -> NoReturn:
        """Never returns into the loop above, whatever happens."""
        code = NOT_STARTED
        try:
            kept = _rearrange(events, output, replies)
            folder = Path(request["folder"])
            entry = _resolve(request["entry"], self._plan["entries"])
            limits = Limits(**request["limits"])
            confine(folder, self._plan["view"], limits, nested=self._plan["level"] != "rlimits")
            code = serve_entry(entry, folder, *kept)
        except BaseException as error:  # noqa: BLE001
            os.write(2, f"{type(error).__name__}: {error}\n".encode()[:2000])
        finally:
            os._exit(code)


def _next_dead() -> int | None:
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def _rearrange(events: int, output: int, replies: int) -> tuple[int, int]:
    """Nothing inherited stays open but these three, and stdin is empty."""
    moved = [os.dup(descriptor) for descriptor in (events, output, replies)]
    high = [os.dup2(descriptor, 200 + index) for index, descriptor in enumerate(moved)]
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (high[1], 1), (high[1], 2), (high[0], 3), (high[2], 4)):
        os.dup2(source, target)
    os.closerange(5, 65536)
    return 3, 4


def _resolve(entry: str, allowed: list[str]) -> Any:
    if entry not in allowed:
        raise PermissionError(f"{entry} is no entry of the sandbox")
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)


def _preload(entries: list[str]) -> None:
    for name in (*_PRELOADED, *(entry.partition(":")[0] for entry in entries)):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # Collections in the children then leave these pages shared.


def main() -> None:
    plan = json.loads(sys.argv[1])
    control = socket.socket(fileno=plan["control"])
    control.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if plan["level"] == "namespaces":
        enclosure.enter(plan["view"])
    _preload(plan["entries"])
    Zygote(plan, control).serve()


if __name__ == "__main__":
    main()
