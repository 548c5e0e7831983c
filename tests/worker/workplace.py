"""A service without its HTTP face.

Rows, objects and a broker, worker processes that can be killed, and jobs.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from db import assets, jobs
from db.assets import add_asset
from db.blobs import object_key
from db.models import Asset, AssetKind, AssetState, Job
from db.projects import ensure_project
from db.queue import Bell
from db.session import Database
from db.settings import Settings
from db.storage import open_store


class Workplace:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings)
        self.store = open_store(settings)
        self.bell = Bell(settings, self.database)
        self.workers: list[subprocess.Popen[bytes]] = []
        with self.database.transaction() as s:
            self.project_id = ensure_project(s, "default", settings).id

    def start_worker(
        self, queue: str = "cpu", *, program: str = "worker", **changes: object
    ) -> subprocess.Popen[bytes]:
        """A real process; `changes` are settings."""
        environment = {**os.environ, **environment_of(self.settings.model_copy(update=changes))}
        log = (self.settings.data / f"worker-{len(self.workers)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", program, "--queue", queue],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.workers.append(process)
        return process

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.settings.data.glob("worker-*.log")))

    def upload(self, path: Path, kind: AssetKind = AssetKind.MODEL, *, ring: bool = True) -> str:
        with self.store.begin() as incoming:
            incoming.write(path.read_bytes())
            sha256, size_bytes = incoming.sha256, incoming.size_bytes
            incoming.commit(object_key(self.project_id, sha256))
        with self.database.transaction() as s:
            asset, _ = add_asset(
                s,
                self.store,
                project_id=self.project_id,
                kind=kind,
                name=path.stem,
                filename=path.name,
                sha256=sha256,
                size_bytes=size_bytes,
            )
        if ring:
            self.bell.ring_inspection(asset.id)
        return asset.id

    def ready(self, path: Path, kind: AssetKind = AssetKind.MODEL) -> str:
        """Uploaded, with its inspection passed over: for tests of jobs alone."""
        asset_id = self.upload(path, kind, ring=False)
        with self.database.transaction() as s:
            row = s.get_one(Asset, asset_id)
            row.state = AssetState.READY
        return asset_id

    def submit(
        self,
        model_id: str,
        steps: Sequence[Mapping[str, Any]],
        *,
        data: Mapping[str, str] | None = None,
        models: Sequence[str] = (),
        ring: bool = True,
        time_limit_s: float = 300,
        queue: str = "cpu",
        **spec: Any,
    ) -> str:
        with self.database.transaction() as s:
            job = jobs.submit(
                s,
                project_id=self.project_id,
                name="test",
                labels={},
                model_id=model_id,
                data=data or {},
                models=models,
                spec={"steps": list(steps), "evaluation": {"latency": {"runs": 5}}, **spec},
                preflight={},
                queue=queue,
                time_limit_s=time_limit_s,
            )
        if ring:
            self.bell.ring_job(job.id, queue)
        return job.id

    def job(self, job_id: str) -> Job:
        with self.database.read() as s:
            return jobs.get_job(s, self.project_id, job_id)

    def asset(self, asset_id: str) -> Asset:
        with self.database.read() as s:
            found = assets.find_asset(s, asset_id)
        assert found is not None
        return found

    def cancel(self, job_id: str) -> None:
        with self.database.transaction() as s:
            jobs.request_cancel(s, self.project_id, job_id)

    def wait_for(self, job_id: str, reached: Callable[[Job], bool], timeout_s: float = 60) -> Job:
        deadline = time.monotonic() + timeout_s
        while not reached(job := self.job(job_id)):
            assert time.monotonic() < deadline, f"{job.state} {job.step} {job.error}\n{self.logs()}"
            time.sleep(0.02)
        return job

    def finished(self, job_id: str, timeout_s: float = 60) -> Job:
        return self.wait_for(job_id, lambda job: job.state.is_final, timeout_s)

    def inspected(self, asset_id: str, timeout_s: float = 60) -> Asset:
        deadline = time.monotonic() + timeout_s
        while (asset := self.asset(asset_id)).state is AssetState.INSPECTING:
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.02)
        return asset

    def close(self) -> None:
        for process in self.workers:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.workers:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.bell.close()
        self.store.close()
        self.database.close()


def environment_of(settings: Settings) -> dict[str, str]:
    """The variables from which a child process reads the same settings."""
    changed = settings.model_dump(exclude_none=True)
    return {f"MODELPRESS_{name.upper()}": _plain(value) for name, value in changed.items()}


@contextlib.contextmanager
def workplace(settings: Settings) -> Iterator[Workplace]:
    place = Workplace(settings)
    try:
        yield place
    finally:
        place.close()


def _plain(value: Any) -> str:
    return str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)
