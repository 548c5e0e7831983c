"""The supervisor's handle on the warm parent.

Starts it, asks it for children, starts it again when it dies.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from worker import isolation
from worker.failures import Interrupted
from worker.isolation import Isolation, View

log = structlog.get_logger(__name__)

_READY_S = 60.0
_SPAWN_S = 20.0
_MESSAGE_BYTES = 1 << 16
_PIPE_BYTES = 1 << 20
_PACKAGES = ("worker", "compression")


@dataclass(kw_only=True)
class Child:
    """A running child: its end of the pipes, and its end. Close it."""

    id: int
    events: int
    output: int
    replies: int
    pidfd: int = -1
    pid: int | None = None
    """As this process names it; None where the kernel does not tell."""
    status: int | None = None
    """What waitpid said; stays None when the warm parent died before the child."""
    started: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def kill(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        for descriptor in (self.events, self.output, self.replies, self.pidfd):
            if descriptor >= 0:
                os.close(descriptor)


class WarmParent:
    """A process that forks children on request, and is started again when it dies. Thread-safe.

    The process is started by a thread of its own, for the kernel would end it with that thread.
    """

    def __init__(
        self, view: View, level: Isolation, entries: tuple[str, ...], packages: tuple[str, ...]
    ) -> None:
        self._view = view
        self._level = level
        self._entries = entries
        self._packages = (*_PACKAGES, *packages)
        self._changed = threading.Condition()
        self._socket: socket.socket | None = None
        self._children: dict[int, Child] = {}
        self._next_id = 0
        self._closed = False
        self.process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_running, name="warm-parent", daemon=True)
        self._thread.start()

    def wait_until_ready(self) -> None:
        """Raises `Interrupted` if it does not come up."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._socket is not None or self._closed, _READY_S):
                raise Interrupted

    def spawn(self, entry: str, folder: Path, limits: Mapping[str, Any]) -> Child:
        """A child that runs `entry` in `folder`. Raises `Interrupted`."""
        self.wait_until_ready()
        events, output, replies = os.pipe(), os.pipe(), os.pipe()
        fcntl.fcntl(events[0], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        child_ends = [events[1], output[1], replies[0]]
        with self._changed:
            self._next_id += 1
            child = Child(id=self._next_id, events=events[0], output=output[0], replies=replies[1])
            self._children[child.id] = child
        request = {"id": child.id, "entry": entry, "folder": str(folder), "limits": dict(limits)}
        try:
            self._ask(request, child_ends)
        finally:
            for descriptor in child_ends:
                os.close(descriptor)
        if not child.started.wait(_SPAWN_S) or child.pidfd < 0:
            self.forget(child)
            child.close()
            raise Interrupted
        return child

    def forget(self, child: Child) -> None:
        with self._changed:
            self._children.pop(child.id, None)

    def close(self) -> None:
        """Ends the process and with it every child."""
        with self._changed:
            self._closed = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
            process = self.process
            self._changed.notify_all()
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
            process.kill()
        self._thread.join(10)

    def _ask(self, request: Mapping[str, Any], descriptors: list[int]) -> None:
        with self._changed:
            control = self._socket
            if control is None:
                raise Interrupted
            try:
                socket.send_fds(control, [json.dumps(request).encode()], descriptors)
            except OSError as error:
                raise Interrupted from error

    def _keep_running(self) -> None:
        pause_s = 0.0
        while not self._closed:
            time.sleep(pause_s)
            began = time.monotonic()
            try:
                self._run_once()
            except OSError:
                log.exception("sandbox_parent_failed")
            if not self._closed:
                log.warning("sandbox_parent_ended", code=self.process.returncode if self.process else None)
            pause_s = 0.0 if time.monotonic() - began > 5 else min(5.0, pause_s * 2 + 0.1)

    def _run_once(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                process = self._start(theirs.fileno())
            self.process = process
            try:
                self._listen(ours)
            finally:
                self._lose(process)

    def _start(self, control: int) -> subprocess.Popen[bytes]:
        plan = {
            "control": control,
            "level": self._level,
            "view": self._view.document(),
            "entries": self._entries,
        }
        program = [sys.executable, "-s", "-m", "worker.zygote", json.dumps(plan)]
        environment = isolation.environment(self._packages)
        command = isolation.command(self._level, self._view, program)
        command[0] = _absolute(command[0])
        return subprocess.Popen(
            command,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            pass_fds=[control],
            start_new_session=True,
        )

    def _listen(self, control: socket.socket) -> None:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 1)
            except ConnectionError:
                return
            if not data:
                return
            message = json.loads(data)
            if "ready" in message:
                with self._changed:
                    self._socket = control
                    self._changed.notify_all()
            elif "started" in message:
                self._note_start(message["started"], descriptors)
            else:
                self._note_end(message["ended"], message["status"])

    def _note_start(self, id: int, descriptors: list[int]) -> None:
        child = self._children.get(id)
        if child is None or not descriptors:
            for descriptor in descriptors:
                os.close(descriptor)
            return
        child.pidfd = descriptors[0]
        child.pid = _pid_of(child.pidfd)
        child.started.set()

    def _note_end(self, id: int, status: int) -> None:
        child = self._children.get(id)
        if child is not None:
            child.status = status
            child.ended.set()

    def _lose(self, process: subprocess.Popen[bytes]) -> None:
        with self._changed:
            self._socket = None
            lost = list(self._children.values())
            self._children.clear()
        process.kill()
        process.wait()
        for child in lost:
            child.started.set()
            child.ended.set()


def _absolute(program: str) -> str:
    """Found by this process's PATH: the clean environment has another one."""
    import shutil

    return shutil.which(program) or program


def _pid_of(pidfd: int) -> int | None:
    """The child's id in this process's namespace, which the child and its parent cannot know."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
            if line.startswith("Pid:"):
                return max(0, int(line.split()[1])) or None
    return None
