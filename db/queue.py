"""The bell tells workers that there is work. The row is the truth: a message that is lost costs only time."""

import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import structlog

from db import assets, jobs
from db.session import Database
from db.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

log = structlog.get_logger(__name__)

RUN_JOB = "modelpress.run_job"
INSPECT = "modelpress.inspect"
INSPECTIONS = "inspections"
QUEUES = ("cpu", "cuda", INSPECTIONS)

BROKER_TIMEOUT_S = 1.0
SILENCE_S = 2.0
"""After a failed ring none is tried for so long, or callers would queue up behind its timeouts."""

# A broker that was restarted since the last ring has closed the pooled connection.
_ONE_RECONNECT: dict[str, Any] = {
    "retry": True,
    "retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0},
}


class Bell:
    """Sends Celery messages by task name, with an id and nothing else.

    Thread-safe; connects at the first ring.
    Ring after the commit (`after_commit`). A broker that is down or slow costs a second or two and a logged
    warning: the call returns False, `rung_at` stays as it was, and the sweeper rings again.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._silent_until = 0.0

    def ring_job(self, job_id: str, queue: str) -> bool:
        """Wakes a worker of `queue` (cpu or cuda) for the job."""
        if not self._send(RUN_JOB, job_id, queue):
            return False
        with self._database.transaction() as s:
            jobs.mark_rung(s, job_id)
        return True

    def ring_inspection(self, asset_id: str) -> bool:
        """Wakes a worker to inspect an uploaded model or dataset."""
        if not self._send(INSPECT, asset_id, INSPECTIONS):
            return False
        with self._database.transaction() as s:
            assets.mark_rung(s, asset_id)
        return True

    def check(self) -> bool:
        """Whether the broker answers now."""
        if self._asked(lambda client: client.ping()) is None:
            return False
        self._silent_until = 0.0
        return True

    def backlogged(self) -> frozenset[str]:
        """The queues of which the broker still holds messages; all of them where it does not tell."""
        if time.monotonic() < self._silent_until:
            return frozenset(QUEUES)
        lengths = self._asked(lambda client: [client.llen(queue) for queue in QUEUES])
        if lengths is None:
            return frozenset(QUEUES)
        return frozenset(queue for queue, length in zip(QUEUES, lengths, strict=True) if length)

    def close(self) -> None:
        """Closes the pooled connections."""
        if "_celery" in self.__dict__:
            self._celery.close()

    def _asked(self, question: Callable[[Any], Any]) -> Any:
        """The answer of the broker's Redis client, on a connection of its own; None where it does not answer."""
        from kombu.exceptions import KombuError
        from redis import RedisError

        try:
            with self._celery.connection_for_write() as connection:
                connection.ensure_connection(max_retries=0, timeout=BROKER_TIMEOUT_S)
                return question(connection.default_channel.client)
        except (KombuError, RedisError, OSError) as error:
            log.warning("broker_unreachable", error=str(error))
            return None

    def _send(self, task: str, id: str, queue: str) -> bool:
        from kombu.exceptions import KombuError

        if time.monotonic() < self._silent_until:
            return False
        try:
            self._celery.send_task(task, args=[id], queue=queue, ignore_result=True, **_ONE_RECONNECT)
        except (KombuError, OSError) as error:
            self._silent_until = time.monotonic() + SILENCE_S
            log.warning("bell_not_heard", task=task, id=id, queue=queue, error=str(error))
            return False
        return True

    @cached_property
    def _celery(self) -> "Celery":
        from celery import Celery

        app = Celery("modelpress", broker=self._settings.broker_url, set_as_current=False)
        app.conf.update(
            task_ignore_result=True,
            broker_connection_retry=False,
            broker_connection_timeout=BROKER_TIMEOUT_S,
            broker_pool_limit=4,
            broker_transport_options={
                "socket_connect_timeout": BROKER_TIMEOUT_S,
                "socket_timeout": BROKER_TIMEOUT_S,
                "retry_on_timeout": False,
                "max_retries": 0,
            },
        )
        return app
