"""`python -m worker --queue cpu --concurrency 1`: one worker process."""

import argparse
import os
import shutil
import socket
import sys
from collections.abc import Sequence

import structlog

from db import workers
from db.ids import new_id
from db.queue import QUEUES, Bell
from db.session import Database
from db.settings import Settings
from db.storage import open_store
from worker import linux
from worker.child import DESCRIBE_DEVICES
from worker.confinement import Limits
from worker.failures import SandboxError
from worker.logs import set_up_logs
from worker.sandbox import Sandbox, usable_cores
from worker.services import Services
from worker.sweeper import Sweeper, claim_folder

log = structlog.get_logger(__name__)

_LOOK = Limits(memory_bytes=8 * 2**30, wall_s=60, cpu_s=120, disk_bytes=2**20)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    set_up_logs()
    linux.hide_process()  # Its environment holds credentials, and its children read strangers' files.
    settings = Settings()
    worker_id = f"{socket.gethostname()}-{os.getpid()}-{new_id('wrk')[-8:]}"
    folder = settings.work_folder / worker_id
    claim_folder(folder)
    sandbox = Sandbox(folder)
    try:
        return _serve(options, settings, worker_id, sandbox)
    finally:
        sandbox.close()
        shutil.rmtree(folder, ignore_errors=True)


def _serve(options: argparse.Namespace, settings: Settings, worker_id: str, sandbox: Sandbox) -> int:
    from worker.app import make_app, serve

    devices = _devices(sandbox) if options.queue == "cuda" else ["cpu"]
    if options.queue == "cuda" and "cuda" not in devices:
        _say("no CUDA device can be used: onnxruntime-gpu, a driver and a visible device are needed.")
        return 1
    if not settings.broker_url:
        _say("MODELPRESS_BROKER_URL is not set; `python -m api serve` brings its own broker.")
        return 2
    database = Database(settings)
    services = Services(
        settings=settings,
        database=database,
        store=open_store(settings),
        bell=Bell(settings, database),
        sandbox=sandbox,
        worker_id=worker_id,
        threads=max(1, usable_cores() // options.concurrency),
    )
    sweeper = Sweeper(services, lambda: _report(services, options.queue, devices))
    log.info(
        "worker_started", worker=worker_id, queue=options.queue, isolation=sandbox.level, devices=devices
    )
    sweeper.start()
    try:
        serve(make_app(settings), services, options.queue, options.concurrency)
    finally:
        sweeper.stop()
        _sign_off(services)
    return 0


def _devices(sandbox: Sandbox) -> list[str]:
    """As a job will see them."""
    try:
        with sandbox.folder("devices") as folder:
            return list(sandbox.run(DESCRIBE_DEVICES, folder, {}, limits=_LOOK))
    except SandboxError as error:
        log.warning("devices_not_found", error=error.message)
        return []


def _report(services: Services, queue: str, devices: Sequence[str]) -> None:
    with services.database.transaction() as s:
        workers.report_worker(
            s, services.worker_id, queue=queue, isolation=services.sandbox.level, devices=devices
        )


def _sign_off(services: Services) -> None:
    with services.database.transaction() as s:
        workers.remove_worker(s, services.worker_id)
    services.bell.close()
    services.database.close()


def _say(message: str) -> None:
    print(f"worker: {message}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker", description="Runs jobs of one queue.")
    parser.add_argument("--queue", choices=QUEUES, default="cpu", help="what it takes: %(choices)s")
    parser.add_argument("--concurrency", type=_positive, default=1, help="jobs at once (default: 1)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
