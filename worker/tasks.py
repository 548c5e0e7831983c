"""The two tasks of a worker, each an id and nothing else."""

from celery import Celery

from db.queue import INSPECT, RUN_JOB
from worker.inspector import inspect_asset
from worker.runner import run_job
from worker.services import Services


def register(app: Celery, services: Services) -> None:
    """Under the names that `db.queue` sends."""

    @app.task(name=RUN_JOB)  # type: ignore[untyped-decorator]
    def run(job_id: str) -> None:
        run_job(services, job_id)

    @app.task(name=INSPECT)  # type: ignore[untyped-decorator]
    def inspect(asset_id: str) -> None:
        inspect_asset(services, asset_id)
