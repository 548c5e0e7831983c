"""The Celery application. Its messages are only wake-ups with an id in them.

Losing or doubling one does no harm. They are acknowledged when they are taken, because the row and its
lease, not the broker, know what is running.
"""

import warnings
from typing import Any

from celery import Celery, bootsteps
from celery.platforms import SecurityWarning
from celery.signals import setup_logging, worker_shutting_down

from db.settings import Settings
from worker.services import Services
from worker.tasks import register

_BROKER_TIMEOUT_S = 10.0
_LOOK_S = 0.05


def make_app(settings: Settings) -> Celery:
    app = Celery("modelpress", broker=settings.broker_url, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_acks_late=False,
        task_create_missing_queues=True,
        task_serializer="json",
        accept_content=["json"],
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_connect_timeout": _BROKER_TIMEOUT_S,
            "socket_timeout": _BROKER_TIMEOUT_S,
            "health_check_interval": 10,
        },
    )
    return app


def serve(app: Celery, services: Services, queue: str, concurrency: int) -> None:
    """Takes messages of one queue until the process is told to end; then gives running jobs back."""
    register(app, services)
    warnings.filterwarnings("ignore", category=SecurityWarning)  # Root is common in containers.
    setup_logging.connect(_leave_logging_alone)
    worker_shutting_down.connect(_stop_jobs(services), weak=False)
    app.steps["worker"].add(_Attention)
    app.Worker(
        pool="threads",
        concurrency=concurrency,
        queues=[queue],
        hostname=f"{queue}@{services.worker_id}",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="WARNING",
        quiet=True,
    ).start()


class _Attention(bootsteps.StartStopStep):  # type: ignore[misc]
    """Turns the event loop often.

    Without prefetching it looks for the next message only when it turns, and the end of a task does not turn it:
    left alone, each message would wait up to a second behind the one before it.
    """

    requires = ("celery.worker.components:Timer",)

    def start(self, parent: Any) -> None:
        parent.timer.call_repeatedly(_LOOK_S, _nothing)


def _nothing() -> None:
    pass


def _stop_jobs(services: Services) -> Any:
    def stop(**_: Any) -> None:
        services.stopping.set()

    return stop


def _leave_logging_alone(**_: Any) -> None:
    """Connected, it keeps Celery from setting up logging of its own."""
