"""Does what nobody else will: lost messages, dead workers, old step results, orphaned objects and folders.

Every worker process has one, and several do no harm: each change is conditional or under a lock.
"""

import fcntl
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from db import assets, idempotency, jobs, workers
from db.clock import utcnow
from db.queue import INSPECTIONS
from db.step_results import projects_with_step_results, prune_step_results
from db.sweep import sweep_orphans
from worker.services import Services

log = structlog.get_logger(__name__)

OWNER_LOCK = "owner.lock"
_TIDY_S = 60.0
_ORPHANS_S = 3600.0


class Sweeper:
    """A thread that sweeps every `sweep_s` until it is stopped."""

    def __init__(self, services: Services, report: Callable[[], None]) -> None:
        """`report` says that the worker is alive."""
        self._services = services
        self._chores = (
            _Chore("report", 0.0, report),
            _Chore("ring", 0.0, lambda: ring_unheard(services)),
            _Chore("tidy", _TIDY_S, lambda: tidy(services)),
            _Chore("orphans", _ORPHANS_S, lambda: _drop_orphans(services)),
        )
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sweep_on, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _sweep_on(self) -> None:
        while True:
            for chore in self._chores:
                chore.do_if_due()
            if self._stopped.wait(self._services.settings.sweep_s):
                return


class _Chore:
    """Done at most every so many seconds. An error is logged, and the chore comes again at its next time."""

    def __init__(self, name: str, every_s: float, act: Callable[[], None]) -> None:
        self._name = name
        self._every_s = every_s
        self._act = act
        self._done_at = time.monotonic() - (every_s if every_s < _ORPHANS_S else 0)

    def do_if_due(self) -> None:
        if time.monotonic() - self._done_at < self._every_s:
            return
        self._done_at = time.monotonic()
        try:
            self._act()
        except Exception:
            log.exception("chore_failed", chore=self._name)


def ring_unheard(services: Services) -> None:
    """Takes back the jobs of dead workers, and rings for every job and inspection that nobody heard of."""
    now, settings, backlogged = utcnow(), services.settings, services.bell.backlogged()
    with services.database.transaction() as s:
        waiting = jobs.lost(s, now, settings, backlogged=backlogged)
    for job in waiting:
        services.bell.ring_job(job.job_id, job.queue)
    patience_s = settings.patience_s if INSPECTIONS in backlogged else None
    with services.database.read() as s:
        inspections = assets.lost_inspections(s, now, settings.ring_again_s, patience_s=patience_s)
    for asset_id in inspections:
        services.bell.ring_inspection(asset_id)


def tidy(services: Services) -> None:
    """Keeps the step cache within its bounds and forgets what is over."""
    settings = services.settings
    _drop_past_checkpoints(services)
    with services.database.read() as s:
        project_ids = projects_with_step_results(s)
    for project_id in project_ids:
        with services.database.transaction() as s:
            prune_step_results(
                s,
                services.store,
                project_id,
                max_bytes=settings.step_cache_max_bytes,
                max_entries=settings.step_cache_max_entries,
            )
    with services.database.transaction() as s:
        idempotency.remove_old(s)
        workers.remove_silent(s)
    drop_stale_folders(settings.work_folder)


def _drop_past_checkpoints(services: Services) -> None:
    with services.database.read() as s:
        job_ids = jobs.past_checkpoints(s, utcnow())
    for job_id in job_ids:
        with services.database.transaction() as s:
            jobs.drop_checkpoint(s, services.store, job_id)


def claim_folder(folder: Path) -> int:
    """Makes a worker's folder, and marks it as in use for as long as the returned descriptor is open."""
    folder.mkdir(parents=True, mode=0o700)
    lock = (folder / OWNER_LOCK).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return _kept_open(lock.fileno())


def drop_stale_folders(work_folder: Path) -> None:
    """Removes the folders of workers that are gone: their locks went with them."""
    for lock_path in work_folder.glob(f"*/{OWNER_LOCK}"):
        with lock_path.open("r") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(lock_path.parent, ignore_errors=True)
            log.info("stale_folder_removed", folder=str(lock_path.parent))


def _kept_open(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 0)


def _drop_orphans(services: Services) -> None:
    removed = sweep_orphans(services.database, services.store)
    if removed:
        log.info("orphans_removed", objects=removed)
