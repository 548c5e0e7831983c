"""Keeps what a running job tells: progress on its row, finished steps and checkpoints in the object store.

It has a thread of its own, so that neither the child nor the watch over it waits for the database or an
upload.
"""

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from compression.job import (
    CHECKPOINTS_FOLDER,
    EVENT,
    STEPS_FOLDER,
    CheckpointSaved,
    Note,
    Progress,
    StepFinished,
    StepStarted,
)
from db import jobs
from db.errors import StorageError
from db.models import Job
from db.step_results import StepFile, store_step_result
from worker.failures import Failed, OutputGone, broken_protocol
from worker.heart import End, Heart
from worker.outputs import StoredFile, store_file
from worker.services import Services

log = structlog.get_logger(__name__)

_PROGRESS_S = 0.25
_NOTES = 200
_STEP_FILES = 4
_Kept = StepStarted | CheckpointSaved | StepFinished | Note


class Recorder:
    """A context manager around the run.

    Leaving it waits until everything heard is kept; `failure` is then final.
    """

    def __init__(
        self,
        services: Services,
        job: Job,
        heart: Heart,
        *,
        folder: Path,
        keys: Sequence[str],
        max_bytes: int,
    ) -> None:
        self._services = services
        self._job = job
        self._token = job.token or ""
        self._heart = heart
        self._folder = folder
        self._keys = keys
        self._max_bytes = max_bytes
        self._events: queue.Queue[_Kept | None] = queue.Queue()
        self._progress: Progress | None = None
        self._newest: CheckpointSaved | None = None
        self._progress_at = 0.0
        self._notes = 0
        self._thread = threading.Thread(target=self._keep_on, name=f"recorder-{job.id}", daemon=True)
        self.failure: Failed | None = None
        self.kept: dict[int, tuple[StoredFile, ...]] = {}
        """Files of the steps finished in this run, by index."""

    def __enter__(self) -> "Recorder":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._events.put(None)
        self._thread.join()

    def hear(self, document: Mapping[str, Any]) -> None:
        """An event as the child sent it. Raises `Failed` if it is none."""
        try:
            event = EVENT.validate_python(document)
        except ValidationError as error:
            raise broken_protocol("an event that is none") from error
        if isinstance(event, Progress):
            self._progress = event
            return
        if not isinstance(event, Note) and not 0 <= event.index < len(self._keys):
            raise broken_protocol("a step that there is not")
        if isinstance(event, CheckpointSaved):
            self._newest = event
        self._notes += isinstance(event, Note)
        if not isinstance(event, Note) or self._notes <= _NOTES:
            self._events.put(event)

    def _keep_on(self) -> None:
        """Errors end the job's run, not this thread: the events that follow are then heard and dropped."""
        while True:
            try:
                event = self._events.get(timeout=_PROGRESS_S)
            except queue.Empty:
                self._attempt(self._keep_progress)
                continue
            if event is None:
                return
            self._attempt(lambda event=event: self._keep(event))

    def _attempt(self, act: Any) -> None:
        if self._heart.end is End.LOST or self._heart.end is End.BROKEN or self.failure is not None:
            return
        try:
            if not act():
                self._heart.stop(End.LOST)
        except Failed as failure:
            self.failure = failure
            self._heart.stop(End.BROKEN)
        except (SQLAlchemyError, StorageError) as error:
            log.warning("progress_not_kept", job=self._job.id, error=str(error))
            self._heart.stop(End.BROKEN)
        except Exception:
            log.exception("recorder_failed", job=self._job.id)
            self._heart.stop(End.BROKEN)

    def _keep(self, event: _Kept) -> bool:
        if isinstance(event, StepFinished):
            return self._keep_step(event)
        if isinstance(event, CheckpointSaved):
            return event is not self._newest or self._keep_checkpoint(event)
        with self._services.database.transaction() as s:
            if isinstance(event, Note):
                return jobs.note(s, self._job.id, self._token, event.message[:2000])
            return jobs.start_step(s, self._job.id, self._token, event.index)

    def _keep_progress(self) -> bool:
        progress, self._progress = self._progress, None
        if progress is None or time.monotonic() - self._progress_at < _PROGRESS_S:
            return True
        self._progress_at = time.monotonic()
        with self._services.database.transaction() as s:
            return jobs.progress(
                s,
                self._job.id,
                self._token,
                step=min(max(progress.index, 0), len(self._keys)),
                fraction=progress.overall,
                message=progress.message[:500],
                eta_s=progress.eta_s,
            )

    def _keep_checkpoint(self, event: CheckpointSaved) -> bool:
        """One that cannot be kept costs nothing now: the next may be, or the step ends without."""
        services, job = self._services, self._job
        try:
            stored = self._store(CHECKPOINTS_FOLDER, event.index, event.file)
            with services.database.transaction() as s:
                return jobs.save_checkpoint(
                    s,
                    services.store,
                    job.id,
                    self._token,
                    step_key=self._keys[event.index],
                    sha256=stored.sha256,
                    size_bytes=stored.size_bytes,
                )
        except OutputGone:  # The child was faster than we are and has replaced it.
            return True
        except StorageError as error:
            log.warning("checkpoint_not_kept", job=job.id, error=str(error))
            return True

    def _keep_step(self, event: StepFinished) -> bool:
        """Bytes first, then the rows that name them."""
        stored = tuple(
            self._store(STEPS_FOLDER, event.index, path) for path in event.files[: _STEP_FILES + 1]
        )
        if not stored or len(stored) > _STEP_FILES:
            raise broken_protocol("a step with no files or too many")
        outcome = event.outcome.model_dump(mode="json")
        files = [StepFile(name=f.name, sha256=f.sha256, size_bytes=f.size_bytes) for f in stored]
        services, job = self._services, self._job
        with services.database.transaction() as s:
            ours = jobs.finish_step(
                s, job.id, self._token, event.index, seconds=event.seconds, outcome=outcome
            )
            if ours:
                kept = {"record": outcome, "seconds": event.seconds}
                key = self._keys[event.index]
                store_step_result(s, services.store, job.project_id, key, files=files, outcome=kept)
                jobs.drop_checkpoint(s, services.store, job.id)
        self.kept[event.index] = stored
        return ours

    def _store(self, parent: str, index: int, path: str) -> StoredFile:
        folder, slash, name = path.rpartition("/")
        if f"{folder}{slash}" != f"{parent}/{index}/" or not name or len(name) > 100:
            raise broken_protocol("a step's file outside its folder")
        return store_file(
            self._services.store, self._job.project_id, self._folder, path, max_bytes=self._max_bytes
        )
