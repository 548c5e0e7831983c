"""Watching one child from outside, from its start to its end."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from worker import failures
from worker.channel import NOT_STARTED
from worker.confinement import Limits
from worker.failures import Failed, Interrupted, Refused, SandboxError, Stopped
from worker.machine import TimingLock, process_family, resident_bytes
from worker.messages import Messages
from worker.outputs import measure
from worker.warm import Child

log = structlog.get_logger(__name__)

_TICK_S = 0.1
_DISK_S = 1.0
_TIMING_S = 180.0
_OUTPUT_TAIL = 16 * 1024
_READ_BYTES = 1 << 16


class Supervision:
    """Watches one child.

    Everything it sends is read at once, so that it never waits for us, and believed as little as can be.
    """

    def __init__(
        self,
        child: Child,
        folder: Path,
        limits: Limits,
        *,
        on_event: Callable[[Mapping[str, Any]], None],
        stop: Callable[[], bool],
        grace_s: float,
        lock: TimingLock,
    ) -> None:
        self._child = child
        self._folder = folder
        self._limits = limits
        self._on_event = on_event
        self._stop = stop
        self._grace_s = grace_s
        self._lock = lock
        self._messages = Messages()
        self._output = bytearray()
        self._output_bytes = 0
        self._began = time.monotonic()
        self._disk_at = self._began
        self._timing_since: float | None = None
        self._wants_timing = False
        self._killed_because: Exception | None = None
        self._kill_at: float | None = None
        self._peak_bytes = 0
        self._answer: Mapping[str, Any] | None = None

    def until_end(self) -> Mapping[str, Any]:
        """The child's result; raises what `Sandbox.run` raises."""
        try:
            while not self._tick():
                pass
        finally:
            self._child.kill(signal.SIGKILL)
        self._child.ended.wait(5)
        return self._judge()

    def _tick(self) -> bool:
        """Reads what is there and looks at the limits; true when the child has ended."""
        watched = [self._child.events, self._child.output, self._child.pidfd]
        if self._wants_timing and not self._lock.held:
            self._grant_timing()
        ready, _, _ = select.select(watched, [], [], _TICK_S)
        if self._child.output in ready:
            self._read_output()
        if self._child.events in ready and self._killed_because is None:
            self._guarded(self._read_events)
        self._watch(time.monotonic())
        if self._child.pidfd not in ready:
            return False
        if self._killed_because is None:
            self._guarded(self._drain)
        return True

    def _guarded(self, act: Callable[[], object]) -> None:
        """A child that breaks the rules is killed for it; an error of ours ends it as well, and is raised."""
        try:
            act()
        except Failed as failure:
            self._kill(failure)

    def _watch(self, now: float) -> None:
        if self._kill_at is not None and now >= self._kill_at:
            self._child.kill(signal.SIGKILL)
        if self._killed_because is not None:
            return
        if self._stop():
            self._ask_to_end(Stopped(), now)
        elif now - self._began > self._limits.wall_s:
            self._ask_to_end(failures.time_limit(self._limits.wall_s), now)
        else:
            self._check_family()
            self._check_disk(now)
        if self._timing_since is not None and now - self._timing_since > _TIMING_S:
            self._end_timing()

    def _ask_to_end(self, reason: Exception, now: float) -> None:
        self._killed_because = reason
        self._kill_at = now + self._grace_s
        self._child.kill(signal.SIGTERM)

    def _kill(self, reason: Exception) -> None:
        self._killed_because = reason
        self._child.kill(signal.SIGKILL)

    def _check_disk(self, now: float) -> None:
        if now - self._disk_at < _DISK_S:
            return
        self._disk_at = now
        used, entries = measure(self._folder, self._limits.entries)
        if used > self._limits.disk_bytes or entries > self._limits.entries:
            self._kill(failures.disk_limit(self._limits.disk_bytes))

    def _check_family(self) -> None:
        """The child and its descendants, in number and memory.

        Number comes first: forked processes share pages that count for each of them, so that too many of
        them seem to have too much memory as well.
        """
        if self._child.pid is None:
            return
        family = process_family(self._child.pid)
        resident = sum(resident_bytes(pid) for pid in family)
        self._peak_bytes = max(self._peak_bytes, resident)
        if len(family) > self._limits.processes:
            self._kill(failures.process_limit(self._limits.processes))
        elif resident > self._limits.memory_bytes:
            self._kill(failures.out_of_memory(self._limits.memory_bytes))

    def _read_output(self) -> None:
        chunk = os.read(self._child.output, _READ_BYTES)
        self._output = (self._output + chunk)[-_OUTPUT_TAIL:]
        self._output_bytes += len(chunk)
        if self._output_bytes > self._limits.output_bytes and self._killed_because is None:
            self._kill(failures.output_flood())

    def _read_events(self) -> bool:
        chunk = os.read(self._child.events, _READ_BYTES)
        for message in self._messages.feed(chunk, time.monotonic() - self._began):
            self._take(message)
        return bool(chunk)

    def _drain(self) -> None:
        """What an ended child had still said; nobody else holds the pipe, so it ends."""
        deadline = time.monotonic() + 5
        while select.select([self._child.events], [], [], 0)[0] and time.monotonic() < deadline:
            if not self._read_events():
                break
        while select.select([self._child.output], [], [], 0)[0] and time.monotonic() < deadline:
            before = self._output_bytes
            self._read_output()
            if self._output_bytes == before:
                break

    def _take(self, message: Mapping[str, Any]) -> None:
        if self._answer is not None:
            raise failures.broken_protocol("more after its last word")
        kind = message["kind"]
        if kind == "event":
            self._on_event(message["event"])
        elif kind == "timing":
            self._wants_timing = message["wanted"]
            if not self._wants_timing:
                self._end_timing()
        else:
            self._answer = message

    def _grant_timing(self) -> None:
        if self._lock.try_acquire():
            self._timing_since = time.monotonic()
            with contextlib.suppress(BrokenPipeError):
                os.write(self._child.replies, b"g")

    def _end_timing(self) -> None:
        self._wants_timing = False
        self._timing_since = None
        self._lock.release()

    def _judge(self) -> Mapping[str, Any]:
        code = None if self._child.status is None else os.waitstatus_to_exitcode(self._child.status)
        if self._killed_because is not None:
            raise self._killed_because
        if self._answer is not None and self._answer["kind"] == "result":
            result: Mapping[str, Any] = self._answer["result"]
            return result
        log.info("child_failed", code=code, said=self._tail(), answer=self._answer)
        if self._answer is not None:
            raise self._error_of(self._answer)
        raise self._death(code)

    def _error_of(self, answer: Mapping[str, Any]) -> SandboxError:
        if answer["code"] == "out_of_memory":
            return failures.out_of_memory(self._limits.memory_bytes)
        if answer["code"] == "internal_error":
            return failures.internal_error(answer["message"])
        return Refused(answer["code"], answer["message"], where=answer.get("where"), hint=answer.get("hint"))

    def _death(self, code: int | None) -> SandboxError:
        """Without a last word.

        Libraries abort when memory runs out, and the kernel kills without telling us.
        """
        if code is None:
            return Interrupted()
        if code == NOT_STARTED:
            return failures.not_started()
        if code == -signal.SIGXCPU:
            return failures.time_limit(self._limits.cpu_s)
        starved = b"bad_alloc" in self._output or b"MemoryError" in self._output
        nearly = self._peak_bytes > 0.8 * self._limits.memory_bytes
        if code == -signal.SIGKILL or starved or (nearly and code < 0):
            return failures.out_of_memory(self._limits.memory_bytes)
        return failures.crashed(code)

    def _tail(self) -> str:
        return self._output.decode("utf-8", "replace")[-4000:]
