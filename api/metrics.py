"""Prometheus metrics: requests as they are answered, and the queues as the rows have them at each scrape."""

from collections.abc import Iterator

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from db.session import Database
from db.statistics import jobs_by_state, live_workers_by_queue, waiting_inspections

log = structlog.get_logger(__name__)

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one application. Routes are counted by their template, so that ids make no new series."""

    def __init__(self, database: Database) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Rows(database))
        self._requests = Counter(
            "modelpress_http_requests",
            "Answers given",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "modelpress_http_request_seconds",
            "From request to the end of the answer; long polls and event streams wait on purpose",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._received = Counter(
            "modelpress_upload_bytes", "Bytes of uploaded files received", registry=self._registry
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def received(self, size_bytes: int) -> None:
        self._received.inc(size_bytes)

    def render(self) -> bytes:
        """Prometheus' text format. Reads the database, so it blocks."""
        return generate_latest(self._registry)


class _Rows(Collector):
    """Gauges that are true whichever process is asked, since they come from the rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[Metric]:
        try:
            with self._database.read() as s:
                jobs, workers, inspections = (
                    jobs_by_state(s),
                    live_workers_by_queue(s),
                    waiting_inspections(s),
                )
        except SQLAlchemyError:
            log.warning("metrics_without_rows", exc_info=True)
            return
        family = GaugeMetricFamily("modelpress_jobs", "Jobs by queue and state", labels=["queue", "state"])
        for (queue, state), count in jobs.items():
            family.add_metric([queue, state], count)
        yield family
        family = GaugeMetricFamily("modelpress_workers", "Workers seen in the last minute", labels=["queue"])
        for queue, count in workers.items():
            family.add_metric([queue], count)
        yield family
        yield GaugeMetricFamily("modelpress_inspections_waiting", "Uploads not yet inspected", inspections)

    def describe(self) -> Iterator[Metric]:
        """Registering must not read the database."""
        return iter(())
