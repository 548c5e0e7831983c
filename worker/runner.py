"""Runs a job: claims it, computes in the sandbox, keeps the result in one fenced transaction.

| how it ends | what happens |
|---|---|
| result | outputs stored, then artifacts, measurements and state in one transaction |
| refused by the library, crashed, over a limit | `failed` with code and hint; finished steps are kept |
| the sandbox went away | started again from the last finished step or checkpoint, twice at most, then `failed` |
| cancel was asked | `cancelled` |
| this worker shuts down | `release`: queued again, the attempt not counted |
| the lease was lost | everything is dropped |
| the database or the store is away | left to the lease: the sweeper queues it again, the attempt counted |
"""

import re
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from compression.job import Result
from db import jobs
from db.artifacts import NewArtifact
from db.errors import StorageError
from db.models import Job
from db.settings import GIB
from worker import failures
from worker.child import RUN_PIPELINE
from worker.confinement import Limits
from worker.failures import Interrupted, SandboxError, Stopped
from worker.heart import End, Heart
from worker.inputs import Inputs, fetch, read_inputs, restore_checkpoint, restore_steps
from worker.outputs import StoredFile, store_file
from worker.recorder import Recorder
from worker.sandbox import usable_cores
from worker.services import Services

log = structlog.get_logger(__name__)

_RESTARTS = 2
_STEP_MODEL = "model.onnx"
_OUTPUTS = 32
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_MEDIA_TYPE = re.compile(r"[a-z]+/[a-z0-9.+-]{1,80}(; charset=utf-8)?")


def run_job(services: Services, job_id: str) -> None:
    """Does nothing if the job cannot be claimed: the message was late, or a second one."""
    settings = services.settings
    with services.database.transaction() as s:
        claimed = jobs.claim(
            s,
            job_id,
            worker=services.worker_id,
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
        )
    if not isinstance(claimed, Job):
        log.info("job_not_claimed", job=job_id, reason=str(claimed))
        return
    structlog.contextvars.bind_contextvars(job=job_id, attempt=claimed.attempt)
    try:
        log.info("job_started", queue=claimed.queue)
        _Attempt(services, claimed).run()
    finally:
        structlog.contextvars.unbind_contextvars("job", "attempt")
    ring_next(services, claimed.project_id)


def ring_next(services: Services, project_id: str) -> None:
    """A job that waited for its project to have fewer running is woken by the end of one."""
    try:
        with services.database.read() as s:
            waiting = jobs.next_waiting(s, project_id)
        for job in waiting:
            services.bell.ring_job(job.job_id, job.queue)
    except SQLAlchemyError as error:
        log.warning("next_job_not_rung", error=str(error))


class _Attempt:
    def __init__(self, services: Services, job: Job) -> None:
        self._services = services
        self._job = job
        self._token = job.token or ""
        self._kept: dict[int, tuple[StoredFile, ...]] = {}
        self._heart = Heart(services, job.id, self._token)

    def run(self) -> None:
        """Whatever is raised here is dealt with here: nothing but the row tells the outcome."""
        try:
            with self._heart:
                self._work()
        except Stopped:
            self._end_early()
        except SandboxError as error:
            self._fail(error)
        except (SQLAlchemyError, StorageError) as error:
            log.warning("job_left_to_its_lease", error=str(error))
        except Exception as error:
            log.exception("job_runner_failed")
            self._fail(failures.internal_error(type(error).__name__))

    def _work(self) -> None:
        inputs = read_inputs(self._services, self._job)
        for restart in range(_RESTARTS + 1):
            try:
                return self._work_once(inputs)
            except Interrupted:
                if restart == _RESTARTS:
                    raise
                log.warning("job_restarted", restart=restart + 1)
        return None

    def _work_once(self, inputs: Inputs) -> None:
        with self._services.sandbox.folder(self._job.id) as folder:
            request = self._prepare(inputs, folder)
            limits = self._limits(inputs)
            result = self._compute(inputs, folder, request, limits)
            self._apply(folder, result, limits)

    def _prepare(self, inputs: Inputs, folder: Path) -> dict[str, Any]:
        data = {str(role): self._fetch(asset, folder, str(role)) for role, asset in inputs.data.items()}
        models = {id: self._fetch(asset, folder, id) for id, asset in inputs.models.items()}
        job = self._job
        finished = restore_steps(self._services, job, inputs, folder)
        return {
            "spec": job.spec,
            "model": self._fetch(inputs.model, folder, "model"),
            "data": data,
            "models": models,
            "device": inputs.device,
            "threads": self._services.threads,
            "finished": finished,
            "checkpoint": restore_checkpoint(self._services, job, inputs, folder, len(finished)),
            "checkpoint_every_s": self._services.settings.checkpoint_s,
            "request": {"model_id": job.model_id, "data": job.data, "name": job.name, "labels": job.labels},
        }

    def _fetch(self, asset: Any, folder: Path, name: str) -> str:
        if self._heart.should_stop():
            raise Stopped
        return fetch(self._services, asset, folder, name)

    def _limits(self, inputs: Inputs) -> Limits:
        """Room on disk for the inputs unpacked, every step's model, and the outputs."""
        wall_s = jobs.time_left_s(self._job)
        if wall_s <= 0:
            raise failures.time_limit(self._job.time_limit_s)
        return Limits(
            memory_bytes=self._services.settings.job_memory_bytes,
            wall_s=wall_s,
            cpu_s=wall_s * usable_cores() + 60,
            disk_bytes=8 * GIB + (2 * len(inputs.keys) + 8) * inputs.size_bytes,
        )

    def _compute(self, inputs: Inputs, folder: Path, request: dict[str, Any], limits: Limits) -> Result:
        recorder = Recorder(
            self._services,
            self._job,
            self._heart,
            folder=folder,
            keys=inputs.keys,
            max_bytes=limits.disk_bytes,
        )
        try:
            with recorder:
                document = self._services.sandbox.run(
                    RUN_PIPELINE,
                    folder,
                    request,
                    limits=limits,
                    on_event=recorder.hear,
                    stop=self._heart.should_stop,
                    grace_s=self._services.settings.cancel_grace_s,
                )
        finally:
            self._kept |= recorder.kept
        if recorder.failure is not None:
            raise recorder.failure
        try:
            return Result.model_validate(document)
        except ValidationError as error:
            raise failures.broken_protocol("a result that is none") from error

    def _apply(self, folder: Path, result: Result, limits: Limits) -> None:
        artifacts = self._store_outputs(folder, result, limits)
        if self._heart.should_stop() and self._heart.end is not End.SHUTDOWN:
            raise Stopped
        services = self._services
        with services.database.transaction() as s:
            kept = jobs.succeed(
                s,
                services.store,
                self._job.id,
                self._token,
                measurements=result.measurements.model_dump(mode="json"),
                artifacts=artifacts,
            )
        log.info("job_succeeded" if kept else "result_stale")

    def _store_outputs(self, folder: Path, result: Result, limits: Limits) -> list[NewArtifact]:
        names = [output.name for output in result.outputs]
        if len(set(names)) < len(names) or len(names) > _OUTPUTS:
            raise failures.broken_protocol("outputs with one name, or too many")
        artifacts = []
        for output in result.outputs:
            if not _NAME.fullmatch(output.name) or not _MEDIA_TYPE.fullmatch(output.media_type):
                raise failures.bad_output(output.name[:100], "its name or type is none")
            stored = store_file(
                self._services.store,
                self._job.project_id,
                folder,
                output.path,
                max_bytes=limits.disk_bytes,
            )
            artifacts.append(_artifact(output.name, output.media_type, stored))
        return artifacts

    def _end_early(self) -> None:
        end = self._heart.end
        log.info("job_stopped", reason=str(end))
        try:
            with self._services.database.transaction() as s:
                if end is End.CANCELLED:
                    jobs.cancelled(s, self._job.id, self._token)
                elif end is End.SHUTDOWN:
                    jobs.release(s, self._job.id, self._token)
        except SQLAlchemyError as error:
            log.warning("job_left_to_its_lease", error=str(error))

    def _fail(self, error: SandboxError) -> None:
        log.info("job_failed", code=error.code, message=error.message)
        try:
            with self._services.database.transaction() as s:
                kept = self._kept_artifacts()
                if kept:
                    jobs.keep_artifacts(s, self._services.store, self._job.id, self._token, kept)
                jobs.fail(s, self._job.id, self._token, error.document())
        except (SQLAlchemyError, StorageError) as trouble:
            log.warning("job_left_to_its_lease", error=str(trouble))

    def _kept_artifacts(self) -> list[NewArtifact]:
        """The last finished step's model, where one file holds all of it."""
        if not self._kept:
            return []
        index = max(self._kept)
        files = [file for file in self._kept[index] if file.name.startswith(_STEP_MODEL)]
        if len(files) != 1:
            return []
        return [_artifact(f"after_step_{index + 1}.onnx", "application/octet-stream", files[0])]


def _artifact(name: str, media_type: str, stored: StoredFile) -> NewArtifact:
    return NewArtifact(name=name, media_type=media_type, sha256=stored.sha256, size_bytes=stored.size_bytes)
