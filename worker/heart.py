"""Keeps a claimed job ours, and hears when it is no longer to go on."""

import threading
import time
from enum import StrEnum

import structlog
from sqlalchemy.exc import SQLAlchemyError

from db import jobs
from db.models import JobState
from worker.services import Services

log = structlog.get_logger(__name__)

_LOOK_S = 0.5


class End(StrEnum):
    """Why the work is to stop."""

    CANCELLED = "cancelled"
    LOST = "lost"
    """Another worker has the job, or it is over: whatever was made is stale."""
    SHUTDOWN = "shutdown"
    BROKEN = "broken"
    """Its progress could not be kept: the database or the store is away."""


class Heart:
    """A thread that prolongs the lease every `heartbeat_s` and reads the state twice a second.

    A context manager.
    """

    def __init__(self, services: Services, job_id: str, token: str) -> None:
        self._services = services
        self._job_id = job_id
        self._token = token
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name=f"heart-{job_id}", daemon=True)
        self._beaten_at = time.monotonic()
        self.end: End | None = None

    def __enter__(self) -> "Heart":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def should_stop(self) -> bool:
        if self.end is None and self._services.stopping.is_set():
            self.stop(End.SHUTDOWN)
        return self.end is not None

    def stop(self, end: End) -> None:
        """The first reason counts, except that a lost job stays lost."""
        if self.end is None or end is End.LOST:
            self.end = end

    def _beat_on(self) -> None:
        settings = self._services.settings
        while not self._done.wait(min(_LOOK_S, settings.heartbeat_s)):
            due = time.monotonic() - self._beaten_at >= settings.heartbeat_s
            try:
                state = self._beat() if due else self._look()
            except SQLAlchemyError as error:
                log.warning("heartbeat_failed", job=self._job_id, error=str(error))
                if time.monotonic() - self._beaten_at > settings.lease_s:
                    self.stop(End.LOST)
                continue
            if state is None:
                self.stop(End.LOST)
            elif state is JobState.CANCELLING:
                self.stop(End.CANCELLED)

    def _beat(self) -> JobState | None:
        asked_at = time.monotonic()
        with self._services.database.transaction() as s:
            state = jobs.heartbeat(s, self._job_id, self._token, self._services.settings.lease_s)
        self._beaten_at = asked_at
        return state

    def _look(self) -> JobState | None:
        with self._services.database.read() as s:
            job = jobs.find_job(s, self._job_id)
        return job.state if job is not None and job.token == self._token else None
